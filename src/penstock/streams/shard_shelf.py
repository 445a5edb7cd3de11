"""ShardShelf: the events of a member of a shard-sharing group, between its shards and its program.

Does        hold the inbox and the hands; say how much room there is; know which events are in hand.
Does not    take outcomes, or send anything: `shard_membership.py` and `stream_share.py` do.
Invariants  1. what is in flight is at most `max_in_flight`, plus one fetch; what waits is bounded
               by `max_parked` for each shard, then the shard waits.
            2. nothing is handed out once others may have taken this member for dead.
            3. without acks, what was read is committed before it is handed out: it is nobody else's
               from then on, so it stays in the inbox whatever becomes of its shard.
Used by     shard_membership; stream_share, as its `Shelf`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from penstock.clock import Backoff
from penstock.errors import BackendUnavailable, ConfigError
from penstock.event import Event, Origin
from penstock.rules.breaker import Breaker
from penstock.rules.filters import predicate
from penstock.rules.hands import Hands
from penstock.rules.sizing import FetchSizer
from penstock.signals import GroupStatistics, Kind, Signal
from penstock.streams.inbox import Inbox
from penstock.streams.shard_work import ShardWork
from penstock.streams.stream_share import StreamShare

if TYPE_CHECKING:
    from penstock.streams.client import Client
    from penstock.streams.group_options import GroupOptions

T = TypeVar("T")

_PAST: Final = 10_000
"""Shards that were ours once and are remembered, to refuse their events' acks by name."""


class ShardShelf(Generic[T]):
    """What a member has of all its shards. Arguments as for `Group`."""

    def __init__(self, client: Client, group: str, options: GroupOptions) -> None:
        self._client = client
        self._group = group
        self._options = options
        self._where = predicate(options.where)
        self._clock = client.clock
        self._shares: dict[str, StreamShare[T]] = {}
        self._works: dict[Origin, ShardWork[T]] = {}
        self._past: dict[Origin, None] = {}
        self._sizer = FetchSizer(options.max_in_flight, options.max_in_flight_bytes)
        self._inbox: Inbox[Event[T]] = Inbox(self._on_taken, self._stale, self.heard)
        self._hands = Hands(options.hold, self.still)
        retry = options.retry
        self.breaker = Breaker(retry.breaker, retry.first, retry.cap)
        self._delayed: deque[tuple[float, list[Event[T]]]] = deque()
        self._room = asyncio.Event()
        self._send = asyncio.Event()
        self._tick = asyncio.Event()
        self._noack = options.acks == "none"
        self._ahead = 0
        self._good = 0.0
        self.full = self.resting = False
        self._heard = True
        self._fetched = self._yielded = self._acked = 0
        self._nacked: int = 0
        self._expired = self._filtered = self._missed = 0
        self._given_up: int = 0
        self._undecodable: int = 0

    @property
    def name(self) -> str:
        """The member's name; what was given before it has joined."""
        for share in self._shares.values():
            return share.member.name
        return self._options.member or ""

    def statistics(self) -> GroupStatistics:
        """See `Group.statistics`."""
        works = set(self._works.values())
        return GroupStatistics(
            fetched=self._fetched,
            yielded=self._yielded,
            acked=self._acked,
            nacked=self._nacked,
            expired=self._expired,
            filtered=self._filtered,
            missed=self._missed,
            buffered=len(self._inbox),
            in_flight=len(self._inbox) if self._noack else sum(work.in_flight for work in works),
            in_flight_bytes=self._ahead or sum(work.bytes for work in works),
            dead_lettered=self._given_up,
            undecodable=self._undecodable,
        )

    def room(self) -> tuple[int, int]:
        """See `stream_share.Shelf`."""
        works = [work for share in self._shares.values() for work in share.works.values()]
        events = len(self._inbox) if self._noack else sum([work.in_flight for work in works])
        size = self._ahead or sum([work.bytes - work.lanes.bytes for work in works])
        limit = self._sizer.next(events, size)
        self.full = not limit
        if not limit:
            self._send.set()
        return limit, self._sizer.room(events, size)

    def crowded(self, work: ShardWork[T]) -> bool:
        """See `stream_share.Shelf`."""
        options, lanes = self._options, work.lanes
        full = lanes.parked >= options.max_parked or lanes.bytes >= options.max_in_flight_bytes
        if full and not work.crowded:
            text = (
                f"{lanes.parked} events of shard {work.shard.index} wait for their keys or their "
                f"time: nothing more of it is fetched until some of them are done"
            )
            self.signal("parked-full", text, work.shard.stream, lanes.parked)
        work.crowded = full
        return full

    def heard(self) -> None:
        """The program asks, or has settled something."""
        self._heard = True

    async def arrived(self, work: ShardWork[T], events: list[Event[T]]) -> None:
        """See `stream_share.Shelf`."""
        self._works[work.origin] = self._works[work.replay_origin] = work
        self._fetched += len(events)
        self._sizer.seen(1, 0, work.largest)
        if self._where is not None:
            unwanted = [event for event in events if not self._where(event)]
            work.ack(unwanted)
            self._filtered += len(unwanted)
            events = [event for event in events if work.holds(event)]
        if self._noack:
            work.ack(events)
            if not await self._let_go(work):
                return
            self._ahead += sum([event.size for event in events])
        if work.lanes:
            self._tick.set()
        self._inbox.put(events)

    async def _let_go(self, work: ShardWork[T]) -> bool:
        """Commit what was read, however long that takes; whether it was still this member's."""
        share, backoff = self._shares[work.shard.stream], Backoff()
        while self._works.get(work.origin) is work:
            try:
                await share.commit_of(work)
                break
            except BackendUnavailable:
                await self._clock.sleep(backoff.next())
        return self._works.get(work.origin) is work

    def withdraw(self, work: ShardWork[T]) -> list[Event[T]]:
        """See `stream_share.Shelf`; without acks it is nobody else's, and stays."""
        if self._noack:
            return []
        origins = (work.origin, work.replay_origin)
        taken: list[Event[T]] = []

        def keep(event: Event[T]) -> bool:
            ours = event.origin in origins
            if ours:
                taken.append(event)
            return not ours

        self._inbox.sift(keep)
        return taken

    def stays(self, work: ShardWork[T]) -> bool:
        """See `stream_share.Shelf`."""
        origins = (work.origin, work.replay_origin)
        return self._noack and self._inbox.has(lambda event: event.origin in origins)

    def again(self, events: list[Event[T]]) -> None:
        """See `stream_share.Shelf`."""
        self._inbox.put(events)

    def gone(self, work: ShardWork[T]) -> None:
        """See `stream_share.Shelf`."""
        for origin in (work.origin, work.replay_origin):
            self._works.pop(origin, None)
            self._past[origin] = None
        while len(self._past) > _PAST:
            del self._past[next(iter(self._past))]
        if self.breaker.open:  # what was tried may have been of it: nobody says what became of that
            self.breaker.undecided(self._clock.monotonic())
            self._tick.set()
        self._room.set()

    def rested(self) -> bool:
        """See `stream_share.Shelf`. Whoever asks for more holds what he holds on purpose."""
        if len(self._inbox) or any(work.lanes or work.dying for work in self._works.values()):
            return False
        return self._inbox.waiting or not any(work.in_hand > 0 for work in self._works.values())

    def ended(self) -> None:
        """See `stream_share.Shelf`."""
        if all(share.ended for share in self._shares.values()):
            self._inbox.end()

    def committed(self, count: int) -> None:
        """See `stream_share.Shelf`."""
        self._acked += count
        self._tick.set()
        self._room.set()

    def missed(self, work: ShardWork[T], count: int) -> None:
        """See `stream_share.Shelf`."""
        self._missed += count
        text = (
            f"{count} events of group {self._group!r} were done when shard {work.shard.index} was "
            f"not this member's any more; its new owner repeats them"
        )
        self.signal("acks-missed", text, work.shard.stream, count)

    def sort_out(self) -> None:
        """Take out of the inbox what has to wait for its key by now."""
        self._tick.set()
        self._room.set()

        def keep(event: Event[T]) -> bool:
            work = self._works.get(event.origin)
            return work is None or not work.lanes or bool(work.lanes.admit([event]))

        self._inbox.sift(keep)

    def _on_taken(self, events: list[Event[T]]) -> None:
        self._yielded += len(events)
        if not self._heard:
            self.heard()
        now = self._clock.monotonic()
        if self._noack:
            self._ahead -= sum([event.size for event in events])
        else:
            self._hands.handed(events, now)
        if self.breaker.open:
            self.breaker.trying = True
            self._inbox.let_out(0)
        if self._options.acks == "delayed":
            if not self._delayed:
                self._tick.set()
            self._delayed.append((now + self._options.ack_delay, events))
        self._room.set()

    def _stale(self) -> bool:
        """Whether others may have taken this member for dead: then what is not yielded is dropped.

        After a pause of the whole process the thread that beats may not have noticed yet.
        """
        now = self._clock.monotonic()
        if now < self._good or self._noack:
            return False
        self._good = min((s.member.good_until for s in self._shares.values()), default=now + 1.0)
        if now < self._good:
            return False
        self._inbox.clear()
        for share in self._shares.values():
            share.member.lapse()
        return True

    def holds(self, event: Event[Any]) -> bool:
        """Whether this very delivery is still open, in a shard that is this member's."""
        work = self._works.get(event.origin)
        return work is not None and work.holds(event)

    def still(self, events: list[Event[Any]]) -> list[Event[Any]]:
        """Those of *events* whose very delivery is still open."""
        held: list[Event[Any]] = []
        for origin, run in groupby(events, _origin):
            work = self._works.get(origin)
            held += work.still(origin, run) if work is not None else ()
        return held

    def is_ours(self, event: Event[T]) -> bool:
        """Whether it is in hand; ConfigError for an event of somebody else."""
        if event.origin not in self._works:
            self.of_past(event.origin, [event])
            return False
        return self.holds(event)

    def of_past(self, origin: Origin, events: Iterable[Event[T]]) -> list[Event[T]]:
        """Events of a shard that was lost; ConfigError where it never was ours."""
        if origin not in self._past:
            raise ConfigError(
                f"an event can only be settled by the group that it came from, got one of "
                f"{origin.stream!r} that another group or a reader handed out"
            )
        return list(events)

    def signal(self, kind: Kind, text: str, stream: str, count: int) -> None:
        """Tell observers."""
        self._client.observers(Signal(kind, text, stream, self._group, self.name, count))


_origin = attrgetter("origin")
