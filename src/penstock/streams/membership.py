"""Membership: the background work of one member of a group that shares events.

Does        join; put together what works in the background; take acks and failures; leave in order.
Does not    decide: what may be acked is the ledger's, what becomes of a failure `failing`'s;
            fetch (`fetching`), send (`settling`), or watch the time (`watching`).
Invariants  1. closing sends acks first, then hands back, then leaves.
            2. streams come and go one at a time, and not while the member leaves.
Used by     `group_reader.GroupReader`, by the surface of `group_work.GroupWork`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from penstock.errors import (
    BackendError,
    BackendUnavailable,
    ClosedError,
    ConfigError,
    LeaseLost,
    PenstockError,
)
from penstock.event import OLDEST, Event, Shard
from penstock.ports import EventMember, MemberOptions, PendingInfo, ShardsCame
from penstock.rules.ledger import Ledger
from penstock.signals import GroupStatistics, Kind, Signal
from penstock.streams.ending import Ending
from penstock.streams.failing import Failures
from penstock.streams.fetching import Fetching
from penstock.streams.group_questions import lag_of, pending_of
from penstock.streams.inbox import Inbox
from penstock.streams.settling import Settling
from penstock.streams.watching import Watch

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
        self._streams = list(streams)
        self._options = options
        self._clock = client.clock
        self._member: EventMember | None = None
        self._ending: Ending | None = None
        self.ledger = Ledger(options.hold)
        self._inbox: Inbox[Event[T]] = Inbox(self._on_taken, self._stale, self._on_asked)
        interval = options.ack_interval
        self._settling = Settling(
            self.ledger,
            0.1 if interval is None and options.acks != "explicit" else interval,
            client.clock,
            missed=self._on_missed,
            settled=self._on_settled,
            most=options.max_parked,
        )
        self._failures = Failures(
            self.ledger,
            self._settling,
            options,
            client.clock,
            group,
            self._signal,
            self._on_breaker,
        )
        self._fetching: Fetching[T] = Fetching(
            client,
            options,
            self._inbox,
            self.ledger,
            self._settling,
            self._failures,
            self._signal,
        )
        self._watch = Watch(
            options,
            client.clock,
            self.ledger,
            self._inbox,
            self._settling,
            self._failures,
            self._fetching,
            self._signal,
        )
        self._changing = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._closing: asyncio.Task[None] | None = None
        self._yielded = self._missed = 0

    @property
    def name(self) -> str:
        """The member's name; what was given before it has joined."""
        return self._member.name if self._member is not None else self._options.member or ""

    @property
    def shards(self) -> list[Shard]:
        """The shards that this member reads; empty before it has joined."""
        return list(self._fetching.handles)

    def opened(self) -> Inbox[Event[T]]:
        """See `GroupWork.opened`."""
        if self._member is None:
            raise ClosedError("a group must be opened: write 'async with stream.group(...)'")
        return self._inbox

    async def open(self) -> None:
        """See `GroupWork.open`."""
        if self._member is not None or self._closing is not None:
            raise ClosedError("a group cannot be opened twice; make another one")
        handles = self._fetching.handles
        for stream in self._streams:
            handles.update(await shards_of(stream))
        backend, until = self._client.backend, self._options.until
        self._ending = await Ending.anchor(backend, handles, until, self._clock, shared=True)
        member = MemberOptions(
            start=self._options.start,
            name=self._options.member,
            lease=self._options.lease,
            hold=self._options.hold,
            noack=self._options.acks == "none",
        )
        try:
            joined: EventMember = await backend.join(list(handles), self._group, member)
        except ShardsCame:  # between the look and now
            handles.clear()
            for stream in self._streams:
                await stream.look_again()
            await self.open()
            return
        joined.tell_known(self.ledger.known)
        self._member = joined
        fetching = self._fetching.run(joined, self._ending)
        settling = self._settling.run(joined, self._inbox.fail)
        for work in (fetching, settling, self._watch.run()):
            self._tasks.append(self._inbox.task(work, f"penstock-group-{self._group}"))

    def ack(self, events: Iterable[Event[T]]) -> None:
        """See `Group.ack`."""
        self._check_open()
        try:
            self._settling.ack(events)
        except LeaseLost:
            self._failures.breaker.undecided(self._clock.monotonic())
            raise
        finally:
            self._fetching.room.set()
        if self._failures.breaker.failing:
            self._failures.succeeded()

    def nack(self, events: Iterable[Event[T]], delay: float | None, reason: str) -> None:
        """See `Group.nack`."""
        self._check_open()
        self._failures.fail(events, reason=reason, delay=delay)
        self._fetching.room.set()

    def fail(self, events: Iterable[Event[T]], error: BaseException) -> None:
        """See `Group.fail`."""
        self._check_open()
        self._failures.fail(events, error)
        self._fetching.room.set()

    def give_back(self, events: Iterable[Event[T]]) -> None:
        """See `GroupWork.give_back`."""
        self._settling.hand_back(events, 0.0)
        self._failures.breaker.undecided(self._clock.monotonic())
        self._fetching.room.set()

    def extend(self, event: Event[T]) -> None:
        """See `Group.extend`."""
        self._check_open()
        self.ledger.extend(event, self._clock.monotonic())

    def holds(self, event: Event[T]) -> bool:
        """See `Group.holds`."""
        return self.ledger.in_hand(event)

    async def flush(self) -> None:
        """See `GroupReader.flush`."""
        if self._member is not None:
            await self._settling.flush(self._member)

    async def add_stream(self, stream: Stream[T]) -> None:
        """See `GroupReader.add_stream`."""
        self._check_open()
        if self._inbox.ended:
            raise ClosedError(f"group {self._group!r} has read to its end, and takes no stream up")
        async with self._changing:
            if stream.name in {shard.stream for shard in self.shards}:
                return
            await self._add(await shards_of(stream))
            if stream.name not in {known.name for known in self._streams}:
                self._streams.append(stream)

    async def remove_stream(self, stream: Stream[T]) -> None:
        """See `GroupReader.remove_stream`."""
        self._check_open()
        async with self._changing:
            left = [known for known in self._streams if known.name != stream.name]
            if not left or len(left) == len(self._streams):
                raise ConfigError(
                    f"a stream that is removed must be one of several of the group, got "
                    f"{stream.name!r} of {sorted(known.name for known in self._streams)}"
                )
            await self.flush()
            await self._remove([shard for shard in self.shards if shard.stream == stream.name])
            self._streams = left

    async def on_shards(self, stream: str, count: int) -> None:
        """See `GroupWork.on_shards`: what nobody could have read before is new to the group."""
        async with self._changing:
            handle = next((one for one in self._streams if one.name == stream), None)
            before = [shard for shard in self.shards if shard.stream == stream]
            if handle is None or self._member is None or self._closing is not None:
                return
            if count > len(before):
                await handle.look_again()
                found = await shards_of(handle)
                await self._add({s: handle for s in found if s not in before}, came=True)
                gone = [shard for shard in before if shard not in found]
                for shard in gone:  # the stream was not there: nothing ever came of it
                    del self._fetching.handles[shard]
                if gone:
                    await self._member.remove(gone)

    async def pending(self, limit: int) -> list[PendingInfo]:
        """See `GroupReader.pending`."""
        return await pending_of(self._client.backend, self.shards, self._group, limit)

    async def lag(self) -> int | None:
        """See `GroupReader.lag`."""
        self.opened()
        return await lag_of(self._client.backend, self.shards, self._group)

    async def stop(self) -> None:
        """See `GroupReader.stop`."""
        self.opened().end()
        self._tasks[0].cancel()
        await asyncio.wait(self._tasks[:1])
        if self._member is not None:
            with suppress(BackendUnavailable):  # leaving hands back what could not be handed now
                await self._fetching.empty(self._member)

    async def close(self, error: BaseException | None, *, quiet: bool) -> None:
        """See `GroupWork.close`. Cancelled: it goes on in the background, bounded by LEAVING."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._leave(error))
        try:
            await asyncio.shield(self._closing)
        except PenstockError:
            if not quiet:
                raise

    def statistics(self) -> GroupStatistics:
        """See `GroupReader.statistics`."""
        return GroupStatistics(
            fetched=self._fetching.fetched,
            yielded=self._yielded,
            acked=self._settling.acked,
            nacked=self._failures.failed,
            expired=self._watch.expired,
            filtered=self._fetching.filtered,
            missed=self._missed,
            buffered=len(self._inbox),
            in_flight=self.ledger.events + self.ledger.queued,
            in_flight_bytes=self.ledger.bytes,
            dead_lettered=self._settling.buried,
            undecodable=self._failures.undecodable,
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
        if self._fetching.noack:  # nobody else can have what is held by nobody
            return False
        self.ledger.lapse(self._inbox.clear())
        self._member.lapse()
        return True

    def _on_taken(self, events: list[Event[T]]) -> None:
        self._yielded += len(events)
        acks = self._options.acks
        if acks == "none":
            self._settling.ack([event for event in events if event.deliveries > 1])
            self.ledger.forget(events)
        else:
            self.ledger.handed(events, self._clock.monotonic())
        if acks == "delayed":
            self._watch.ack_later(events)
        if self._failures.breaker.open:
            self._failures.breaker.trying = True
            self._inbox.let_out(0)
        self._fetching.room.set()

    def _on_asked(self) -> None:
        self._fetching.asked()

    def _on_settled(self) -> None:
        self._fetching.room.set()

    def _on_breaker(self) -> None:
        self._fetching.breaker_changed()

    async def _add(self, shards: dict[Shard, Stream[T]], *, came: bool = False) -> None:
        """Share *shards*. *came*: they are new, so behind any end; a group gets all of them."""
        assert self._member is not None
        assert self._ending is not None
        if not came:
            self._ending.add(await self._ending.widen(self._client.backend, shards))
        self._fetching.handles.update(shards)
        try:
            await self._member.add(list(shards), OLDEST if came else None)
        except BaseException:
            self._forget(list(shards))
            raise

    async def _remove(self, shards: Sequence[Shard]) -> None:
        """Leave *shards*, which are all of their streams. Broken off, it can be called again."""
        assert self._member is not None
        self._forget(shards)
        await self._member.remove(shards)
        self._fetching.room.set()

    def _forget(self, shards: Sequence[Shard]) -> None:
        """Nothing of *shards* is handed out or settled any more."""
        assert self._ending is not None
        for shard in shards:
            self._fetching.handles.pop(shard, None)
            self._ending.passed(shard)
        for stream in {shard.stream for shard in shards}:
            self._fetching.drop(stream)
            self._inbox.sift(lambda event, name=stream: event.stream != name)
            self._settling.lose(stream)

    async def _leave(self, error: BaseException | None) -> None:
        async with self._settling.sending:  # an ack that is under way is let through
            for task in self._tasks:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._fetching.leave(self._signal)
        self._inbox.end()
        if self._member is None:
            return
        if error is None:
            self._watch.ack_now()
        elif isinstance(error, Exception):
            for events in self.ledger.in_hands():
                self._failures.fail(events, error)
        self._settling.let_all_go()
        try:
            async with asyncio.timeout(LEAVING):
                await self.flush()
                await self._member.leave()
        except (TimeoutError, BackendError) as failure:
            self._member.abandon()
            text = f"member {self.name!r} could not leave in order: {failure}; others take over"
            self._signal("group-left-behind", text, self.shards[0].stream, self.ledger.queued)
            if self.ledger.queued or isinstance(failure, BackendError):
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


async def shards_of(stream: Stream[T]) -> dict[Shard, Stream[T]]:
    """The shards of a stream, as it is or will be."""
    await stream.format()
    return {stream.shard(index): stream for index in range(stream.shards)}
