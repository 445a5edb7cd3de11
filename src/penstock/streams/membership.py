"""Membership: the background work of one group member.

Does        fetch while there is room; filter; release what was held too long; leave in order.
Does not    decide: what may be acked is the ledger's, how much to fetch the sizer's business;
            send acks: `settling.py` does.
Invariants  1. in flight (fetched, not yet confirmed as acked) is at most `max_in_flight`, plus one
               fetch; where acks cannot be sent, fetching stops.
            2. closing sends acks first, then hands back, then leaves.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from penstock.clock import Backoff
from penstock.errors import BackendError, BackendUnavailable, ClosedError, PenstockError
from penstock.event import Event, Shard
from penstock.ports import (
    EventMember,
    GroupVanished,
    MemberLapsed,
    MemberOptions,
    Page,
    PendingInfo,
)
from penstock.rules.filters import predicate
from penstock.rules.ledger import Ledger
from penstock.rules.sizing import FetchSizer
from penstock.signals import GroupStatistics, Kind, Signal
from penstock.streams.ending import Ending
from penstock.streams.format import ShardOrigin
from penstock.streams.group_questions import events_of, is_handed_out, lag_of, pending_of
from penstock.streams.inbox import Inbox
from penstock.streams.settling import Settling

if TYPE_CHECKING:
    from penstock.streams.client import Client
    from penstock.streams.group_options import GroupOptions
    from penstock.streams.stream import Stream

T = TypeVar("T")

LEAVING: Final = 10.0
"""Seconds that leaving may take when the server does not answer; then others take over."""


class Membership(Generic[T]):
    """What a `Group` does in the background. Arguments as for `Group`."""

    def __init__(
        self, client: Client, group: str, streams: Sequence[Stream[T]], options: GroupOptions
    ) -> None:
        self._client = client
        self._group = group
        self._streams = streams
        self._options = options
        self._where = predicate(options.where)
        self._clock = client.clock
        self._member: EventMember | None = None
        self._ending: Ending | None = None
        self._origins: dict[Shard, ShardOrigin] = {}
        self._handles: dict[Shard, Stream[T]] = {}
        self._sizer = FetchSizer(options.max_in_flight, options.max_in_flight_bytes)
        self.ledger = Ledger(options.hold)
        self._inbox: Inbox[Event[T]] = Inbox(self._on_taken, self._stale)
        self._room = asyncio.Event()
        self._settling = Settling(
            self.ledger,
            options.ack_interval,
            client.clock,
            missed=self._on_missed,
            settled=self._room.set,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._closing: asyncio.Task[None] | None = None
        self._found_nothing = False
        self._pages: deque[Page] = deque()
        self._fetched = self._yielded = self._nacked = 0
        self._expired = self._filtered = self._missed = 0

    @property
    def name(self) -> str:
        """The member's name; what was given before it has joined."""
        return self._member.name if self._member is not None else self._options.member or ""

    @property
    def shards(self) -> list[Shard]:
        """The shards that this member reads; empty before it has joined."""
        return list(self._handles)

    def opened(self) -> Inbox[Event[T]]:
        """The inbox of an open member.

        Raises:
            ClosedError: not open.
        """
        if self._member is None:
            raise ClosedError("a group must be opened: write 'async with stream.group(...)'")
        return self._inbox

    async def open(self) -> None:
        """Join, and begin to fetch."""
        if self._member is not None or self._closing is not None:
            raise ClosedError("a group cannot be opened twice; make another one")
        for stream in self._streams:
            await stream.format()
            for index in range(stream.shards):
                self._handles[stream.shard(index)] = stream
        backend = self._client.backend
        self._ending = await Ending.anchor(
            backend, self._handles, self._options.until, self._clock, shared=True
        )
        member = MemberOptions(
            start=self._options.start,
            name=self._options.member,
            lease=self._options.lease,
            hold=self._options.hold,
        )
        joined: EventMember = await backend.join(list(self._handles), self._group, member)
        joined.tell_known(self.ledger.known)
        self._member = joined
        settling = self._settling.run(joined, self._inbox.fail)
        for work in (self._fetch(), settling, self._watch()):
            self._tasks.append(asyncio.create_task(work, name=f"penstock-group-{self._group}"))

    def ack(self, events: Iterable[Event[T]]) -> None:
        """See `Group.ack`."""
        self._check_open()
        try:
            self._settling.ack(events)
        finally:
            self._room.set()

    def nack(self, events: Iterable[Event[T]], delay: float | None, reason: str) -> None:
        """See `Group.nack`."""
        self._check_open()
        several = list(events)

        def due(attempts: int) -> float:
            return self._delay(attempts) if delay is None else delay

        count = self._settling.fail(several, due)
        self._nacked += count
        self._room.set()
        if count:
            text = f"{count} events of group {self._group!r} failed: {reason or 'no reason given'}"
            self._signal("nacked", text, several[0].stream, count)

    def give_back(self, events: Iterable[Event[T]]) -> None:
        """Hand events back, uncounted, due at once."""
        self._settling.hand_back(events, 0.0, failed=False)
        self._room.set()

    def fail(self, events: Iterable[Event[T]], error: BaseException) -> None:
        """See `Group.fail`."""
        self.nack(events, None, f"{type(error).__name__}: {error}")

    async def add_stream(self, stream: Stream[T]) -> None:
        """See `Group.add_stream`."""
        raise NotImplementedError

    async def remove_stream(self, stream: Stream[T]) -> None:
        """See `Group.remove_stream`."""
        raise NotImplementedError

    async def pending(self, limit: int) -> list[PendingInfo]:
        """See `Group.pending`."""
        return await pending_of(self._client.backend, self.shards, self._group, limit)

    async def lag(self) -> int | None:
        """See `Group.lag`."""
        self.opened()
        return await lag_of(self._client.backend, self.shards, self._group)

    def extend(self, event: Event[T]) -> None:
        """See `Group.extend`."""
        self._check_open()
        self.ledger.extend(event, self._clock.monotonic())

    async def flush(self) -> None:
        """Send everything that is queued, and wait until it is confirmed."""
        if self._member is not None:
            await self._settling.flush(self._member)

    async def stop(self) -> None:
        """See `GroupReader.stop`."""
        self.opened().end()
        self._tasks[0].cancel()
        await asyncio.wait(self._tasks[:1])
        self.give_back(self._inbox.clear())

    async def close(self, error: BaseException | None, *, quiet: bool) -> None:
        """Leave; an Exception counts a failure for what is in hand.

        Cancelled: leaving goes on in the background, bounded by LEAVING.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._leave(isinstance(error, Exception)))
        try:
            await asyncio.shield(self._closing)
        except PenstockError:
            if not quiet:
                raise

    def statistics(self) -> GroupStatistics:
        """See `Group.statistics`."""
        return GroupStatistics(
            fetched=self._fetched,
            yielded=self._yielded,
            acked=self._settling.acked,
            nacked=self._nacked,
            expired=self._expired,
            filtered=self._filtered,
            missed=self._missed,
            buffered=len(self._inbox),
            in_flight=self.ledger.events + self.ledger.queued,
            in_flight_bytes=self.ledger.bytes,
        )

    def _check_open(self) -> None:
        if self._member is None or self._closing is not None:
            raise ClosedError(f"group {self._group!r} is not open: its events come again elsewhere")

    def _stale(self) -> bool:
        """Whether others may have taken this member for dead: then what is not yielded is dropped.

        After a pause of the whole process the thread that beats may not have noticed yet.
        """
        if self._member is None or self._clock.monotonic() < self._member.good_until:
            return False
        self.ledger.lapse(self._inbox.clear())
        self._member.lapse()
        return True

    def _on_taken(self, events: list[Event[T]]) -> None:
        self._yielded += len(events)
        self.ledger.handed(events, self._clock.monotonic())
        self._room.set()

    async def _fetch(self) -> None:
        """Fetch while there is room; what cannot be mended is raised at the next step."""
        backoff = Backoff()
        assert self._ending is not None
        try:
            while not await self._ended():
                ledger = self.ledger
                limit = self._sizer.next(ledger.events + ledger.queued, ledger.bytes)
                if not limit:
                    self._room.clear()
                    self._ending.busy()
                    self._settling.hurry()
                    await self._room.wait()
                    continue
                try:
                    if not self._pages:
                        await self._fetch_once(limit)
                    while self._pages:  # kept where taking in fails: nobody else has them
                        await self._take_in(self._pages[0])
                        self._pages.popleft()
                    backoff.reset()
                except BackendUnavailable:
                    self._sizer.lost()
                    self._ending.busy()
                    await self._clock.sleep(backoff.next())
        except Exception as error:  # noqa: BLE001 - whatever it is, every further step raises it
            self._inbox.end(error)
        self._inbox.end()

    async def _fetch_once(self, limit: int) -> None:
        assert self._member is not None
        assert self._ending is not None
        try:
            in_flight = self.ledger.events + self.ledger.queued
            ahead = self._sizer.room(in_flight, self.ledger.bytes) - limit
            began = self._clock.monotonic()
            pages = await self._member.fetch(limit, self._ending.wait(), ahead)
        except MemberLapsed:
            self.ledger.lapse(self._inbox.clear())
            return
        except GroupVanished as lost:
            self._lose(lost.stream)
            return
        self._found_nothing = not pages
        if not pages:
            self._ending.nothing_came(began)
        self._pages.extend(pages)

    async def _take_in(self, page: Page) -> None:
        """Make events of a page and put those that are wanted into the inbox."""
        assert self._ending is not None
        origin = await self._origin(page.shard)
        events: list[Event[T]] = events_of(page, origin, self.ledger)
        if not events:
            return
        self._fetched += len(events)
        self.ledger.fetched(origin, events)
        self._sizer.seen(len(events), 0, max(event.size for event in events))
        wanted = self._ending.cut(page.shard, events, new=page.counts is None)
        if len(wanted) < len(events):
            kept = {event.entry_id for event in wanted}
            self._give_beyond([event for event in events if event.entry_id not in kept])
        if self._where is not None:
            unwanted = [event for event in wanted if not self._where(event)]
            self.ledger.ack(unwanted)
            self._filtered += len(unwanted)
            wanted = [event for event in wanted if self.ledger.in_hand(event)]
        self._inbox.put(wanted)

    async def _origin(self, shard: Shard) -> ShardOrigin:
        origin = self._origins.get(shard)
        if origin is None:
            origin = await self._handles[shard].origin(shard.index)
            self._origins[shard] = origin
            self.ledger.open(origin, shard)
        return origin

    async def _ended(self) -> bool:
        """Whether the group has handed out all that this member was to read, and none is due."""
        assert self._ending is not None
        if self._ending.reached():
            return True
        if self._found_nothing:
            for shard, target in list(self._ending.targets.items()):
                assert self._member is not None
                if await is_handed_out(self._client.backend, self._member, shard, target):
                    self._ending.passed(shard)
        return self._ending.reached()

    def _give_beyond(self, events: list[Event[T]]) -> None:
        """Hand back what lies behind the end: other members, or a later one, will have it.

        Not at once: we would be given it again while we still read up to the end.
        """
        assert self._ending is not None
        delay = 0.0 if self._ending.reached() else 1.0
        self._settling.hand_back(events, delay, failed=False)

    async def _watch(self) -> None:
        """Release what was held too long."""
        every = min(1.0, self._options.hold / 4)
        while True:
            await self._clock.sleep(every)
            late = self.ledger.expired(self._clock.monotonic())
            if not late:
                continue
            self._expired += len(late)
            self._settling.fail(late, self._delay)
            self._room.set()
            text = (
                f"{len(late)} events of group {self._group!r} were held for {self._options.hold} s "
                f"without an ack; they count as failed and come again"
            )
            self._signal("hold-expired", text, late[0].stream, len(late))

    def _delay(self, attempts: int) -> float:
        return self._options.retry.delay(attempts + 1, random.random())

    def _lose(self, stream: str) -> None:
        """The group was made anew: nothing that came before can be acked."""
        dropped = [event for event in self._inbox.clear() if event.stream != stream]
        self._settling.lose(stream)
        self._inbox.put(dropped)

    async def _leave(self, failed: bool) -> None:
        async with self._settling.sending:  # an ack that is under way is let through
            for task in self._tasks:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        unseen = set(map(id, self._inbox.clear()))
        self._inbox.end()
        if self._member is None:
            return
        if failed:
            seen = [event for event in self.ledger.held() if id(event) not in unseen]
            self._nacked += self._settling.fail(seen, self._delay)
        try:
            async with asyncio.timeout(LEAVING):
                await self.flush()
                await self._member.leave()
        except (TimeoutError, BackendError) as error:
            self._member.abandon()
            text = f"member {self.name!r} could not leave in order: {error}; others take over"
            self._signal("group-left-behind", text, self.shards[0].stream, self.ledger.queued)
            if self.ledger.queued or isinstance(error, BackendError):
                raise

    def _on_missed(self, stream: str, count: int) -> None:
        self._missed += count
        text = (
            f"{count} acks of group {self._group!r} found nothing to ack: those events were "
            f"acked before, or taken over; they may have been handled twice"
        )
        self._signal("acks-missed", text, stream, count)

    def _signal(self, kind: Kind, text: str, stream: str, count: int) -> None:
        self._client.observers(Signal(kind, text, stream, self._group, self.name, count))
