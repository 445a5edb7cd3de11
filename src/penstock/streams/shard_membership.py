"""ShardMembership: the background work of a member of a group that shares shards.

Does        hand out events in the order of their shards; take outcomes; judge failures; release
            what was held too long; commit at the interval; leave in order.
Does not    own shards or fetch: `stream_share.py` does, for each stream.
Invariants  1. a key whose event has failed waits, its later events behind it; others flow.
            2. leaving commits what is done, behind the mark too: the next owner does not repeat it.
Used by     `group_reader`, where shards are shared.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, TypeVar

from penstock.clock import Backoff
from penstock.errors import (
    BackendError,
    BackendUnavailable,
    ClosedError,
    ConfigError,
    LeaseLost,
    PenstockError,
    Reject,
    RetryLater,
)
from penstock.event import Event
from penstock.ports import MemberOptions, PendingInfo
from penstock.rules.fates import Failure, fate, is_about, name_of, reason_of
from penstock.streams.group_questions import lag_of
from penstock.streams.inbox import Inbox
from penstock.streams.membership import LEAVING
from penstock.streams.shard_shelf import ShardShelf
from penstock.streams.stream_share import StreamShare

if TYPE_CHECKING:
    from penstock.streams.client import Client
    from penstock.streams.group_options import GroupOptions
    from penstock.streams.stream import Stream

T = TypeVar("T")

_DONE_AT_ONCE: Final = 5_000
"""Acks that are committed without waiting for the interval."""


class ShardMembership(ShardShelf[T]):
    """What a `Group` does in the background where shards are shared. Arguments as for `Group`."""

    def __init__(
        self, client: Client, group: str, streams: Sequence[Stream[T]], options: GroupOptions
    ) -> None:
        super().__init__(client, group, options)
        self._streams = streams
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._opened = False
        self._closing: asyncio.Task[None] | None = None

    def opened(self) -> Inbox[Event[T]]:
        """See `GroupWork.opened`."""
        if not self._opened:
            raise ClosedError("a group must be opened: write 'async with stream.group(...)'")
        return self._inbox

    async def open(self) -> None:
        """See `GroupWork.open`."""
        if self._opened or self._closing is not None:
            raise ClosedError("a group cannot be opened twice; make another one")
        shares: list[StreamShare[T]] = []
        try:
            for stream in self._streams:
                share = self._share(stream)
                shares.append(share)
                await share.open(self._options.until)
        except BaseException:
            for share in shares:
                share.abandon()
            raise
        self._opened = True
        for share in shares:
            self._begin(share)
        for name, work in (("", self._watch()), (" ", self._commits())):
            self._tasks[name] = asyncio.create_task(work, name=f"penstock-group-{self._group}")

    async def stop(self) -> None:
        """See `GroupWork.stop`."""
        self.opened().end()
        for share in self._shares.values():
            share.stopped = True
        self._room.set()

    async def add_stream(self, stream: Stream[T]) -> None:
        """See `GroupWork.add_stream`."""
        self._check_open()
        if stream.name in self._shares:
            return
        share = self._share(stream)
        try:
            await share.open(self._options.until)
        except BaseException:
            share.abandon()
            raise
        self._begin(share)

    async def remove_stream(self, stream: Stream[T]) -> None:
        """See `GroupWork.remove_stream`."""
        self._check_open()
        share = self._shares.get(stream.name)
        if share is None:
            raise ConfigError(f"{stream.name!r} is not among the streams of group {self._group!r}")
        task = self._tasks.pop(stream.name)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for work in share.works.values():
            self.withdraw(work)
        await share.leave()
        self._shares.pop(stream.name, None)

    def ack(self, events: Iterable[Event[T]]) -> None:
        """See `Group.ack`."""
        self._check_open()
        if self.breaker.failing or self.breaker.open:
            self._succeeded()
        refused: list[Event[T]] = []
        for origin, several in groupby(events, _origin):
            work = self._works.get(origin)
            if work is None:
                refused += self.of_past(origin, several)
            else:
                refused += work.ack(several)
                if work.lanes:
                    self._tick.set()
                if work.done - work.confirmed >= _DONE_AT_ONCE:
                    self._send.set()
        if refused:
            raise _lost(refused)

    def nack(self, events: Iterable[Event[T]], delay: float | None, reason: str) -> None:
        """See `Group.nack`."""
        self._check_open()
        self._fail([*events], Failure(1, delay=delay), "", reason)

    def fail(self, events: Iterable[Event[T]], error: BaseException) -> None:
        """See `Group.fail`."""
        self._check_open()
        several = [event for event in events if self.is_ours(event)]
        if isinstance(error, RetryLater):
            self._give_back(several, error.seconds)
            return
        guilty = [event for event in several if is_about(error, event.stream, str(event.position))]
        if guilty:  # it is known which of them it was
            text = f"{len(guilty)} events of group {self._group!r} are not what the codec reads"
            self.signal("undecodable", text, guilty[0].stream, len(guilty))
            self._give_back([event for event in several if event not in guilty], 0.0)
        final = bool(guilty) or isinstance(error, Reject)
        self._fail(guilty or several, Failure(1, final), name_of(error), reason_of(error))

    def give_back(self, events: Iterable[Event[T]]) -> None:
        """See `GroupWork.give_back`."""
        self._give_back([event for event in events if self.is_ours(event)], 0.0)

    def extend(self, event: Event[T]) -> None:
        """See `Group.extend`."""
        self._check_open()
        if not self.is_ours(event):
            raise _lost([event])
        self._hands.extend(event, self._clock.monotonic())

    async def flush(self) -> None:
        """See `GroupWork.flush`."""
        for share in list(self._shares.values()):
            await share.commit()

    async def pending(self, limit: int) -> list[PendingInfo]:
        """Of this member alone: the backend does not know single events."""
        self.opened()
        now = self._clock.monotonic()
        found = [
            info for work in set(self._works.values()) for info in work.pending(self.name, now)
        ]
        return found[:limit]

    async def lag(self) -> int | None:
        """See `GroupWork.lag`: events behind what was committed."""
        self.opened()
        shards = [shard for share in self._shares.values() for shard in share.shards]
        return await lag_of(self._client.backend, shards, self._group)

    async def close(self, error: BaseException | None, *, quiet: bool) -> None:
        """See `GroupWork.close`; bounded by LEAVING."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._leave(isinstance(error, Exception)))
        try:
            await asyncio.shield(self._closing)
        except PenstockError:
            if not quiet:
                raise

    def _share(self, stream: Stream[T]) -> StreamShare[T]:
        options = self._options
        member = MemberOptions(options.start, options.member, options.lease, options.hold)
        backend = self._client.backend
        return StreamShare(
            backend, stream, self._group, member, self, self._clock, lambda: self._room
        )

    def _begin(self, share: StreamShare[T]) -> None:
        name = share.stream.name
        self._shares[name] = share
        work = self._run(share)
        self._tasks[name] = asyncio.create_task(work, name=f"penstock-group-{self._group}")

    async def _run(self, share: StreamShare[T]) -> None:
        try:
            await share.run()
        except Exception as error:  # noqa: BLE001 - whatever it is, every further step raises it
            self._inbox.end(error)

    async def _commits(self) -> None:
        """Commit at the interval, or as soon as there is much."""
        backoff = Backoff()
        interval = self._options.ack_interval
        while interval is not None:
            await _set_within(self._send, interval)
            self._send.clear()
            try:
                await self.flush()
                backoff.reset()
            except PenstockError as error:
                if not isinstance(error, BackendUnavailable):
                    self._inbox.fail(error)
                await self._clock.sleep(backoff.next())

    async def _watch(self) -> None:
        """Hand out what is due; ack what was delayed; release what was held too long."""
        while True:
            await _set_within(self._tick, self._pause())
            self._tick.clear()
            now = self._clock.monotonic()
            for work in set(self._works.values()):
                if work.lanes and not work.yielding:
                    ready = work.lanes.due(now)
                    company = {id(one.event): one.company for one in ready if one.company}
                    self._inbox.put([one.event for one in ready], company)
            if self.breaker.open and self.breaker.may_try(now):
                self._inbox.let_out(1)
            while self._delayed and self._delayed[0][0] <= now:
                _, events = self._delayed.popleft()
                self.ack([event for event in events if self.holds(event)])
            if late := self._hands.late(now):
                self._release(late)

    def _pause(self) -> float:
        """Seconds until something may be due."""
        now = self._clock.monotonic()
        dues = [work.lanes.next_due() for work in self._works.values() if work.lanes]
        dues += [self._delayed[0][0]] if self._delayed else []
        dues += [self.breaker.try_at] if self.breaker.open and not self.breaker.trying else []
        first = min((due for due in dues if due is not None), default=now + 1.0)
        return max(0.001, min(first - now, 1.0, self._options.hold / 4))

    def _release(self, late: list[Event[T]]) -> None:
        self._expired += len(late)
        hold = self._options.hold
        for event in late:
            self._fail([event], Failure(1), "HoldExpired", f"held for {hold} s without an ack")
        text = (
            f"{len(late)} events of group {self._group!r} were held for {hold} s without an ack; "
            f"they count as failed and come again"
        )
        self.signal("hold-expired", text, late[0].stream, len(late))

    def _fail(self, events: list[Event[T]], failure: Failure, error: str, reason: str) -> int:
        """These failed together: each comes again, or is given up, as `rules.fates` says."""
        events = [event for event in events if self.is_ours(event)]
        now = self._clock.monotonic()
        if not events:
            self.breaker.undecided(now)
            return 0
        self._count(events[0], now, rejected=failure.final)
        tried = self.breaker.open and not failure.final
        failure = failure._replace(together=len(events), open=tried)
        given_up = 0
        for event in events:
            work = self._works[event.origin]
            end = fate(
                self._options.retry,
                failure,
                event.attempts,
                work.company(event),
                random.random(),
                letters=self._options.dead_letters,
            )
            if end.given_up:
                given_up += 1
                work.bury(event, event.attempts + 1, error, reason[:1000])
            else:
                due, company = now + end.delay, end.company
                work.park(event, due, failed=company is not None, company=company or 0)
        self._nacked += len(events)
        self.sort_out()
        self._say(events, given_up, error or reason[:200] or "no reason given")
        return len(events)

    def _say(self, events: list[Event[T]], given_up: int, why: str) -> None:
        stream, group = events[0].stream, f"group {self._group!r}"
        if given_up:
            self._send.set()
            text = f"{given_up} events of {group} went to its dead letters: {why}"
            self.signal("dead-lettered", text, stream, given_up)
        if rest := len(events) - given_up:
            self.signal("nacked", f"{rest} events of {group} failed: {why}", stream, rest)

    def _count(self, event: Event[T], now: float, *, rejected: bool) -> None:
        """A failure in a row may open the breaker; a handler that rejects an event works."""
        if rejected:
            self.breaker.undecided(now)
        elif self.breaker.failed((id(event.origin), event.entry_id), now):
            count = self.breaker.failing
            text = (
                f"{count} different events of group {self._group!r} failed in a row, and none "
                f"succeeded: events are tried one by one until one does, and none goes to the "
                f"dead letters meanwhile"
            )
            self.signal("breaker-opened", text, event.stream, count)
        if self.breaker.open:
            self._inbox.let_out(0)

    def _succeeded(self) -> None:
        """An event was handled: the failing, if it was everything's, is over."""
        if self.breaker.succeeded():
            self._inbox.let_out(None)
            text = f"an event of group {self._group!r} was handled: all flow again"
            self.signal("breaker-closed", text, "", 1)

    def _give_back(self, events: list[Event[T]], delay: float) -> None:
        now = self._clock.monotonic()
        for event in events:
            self._works[event.origin].park(event, now + delay, failed=False)
        self.sort_out()

    def _check_open(self) -> None:
        if not self._opened or self._closing is not None:
            raise ClosedError(f"group {self._group!r} is not open: its events come again elsewhere")

    async def _leave(self, failed: bool) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._inbox.clear()
        self._inbox.end()
        if failed:
            reason = "the program failed while it had them in hand"
            self._fail(self._hands.held(), Failure(1), "", reason)
        try:
            async with asyncio.timeout(LEAVING):
                for share in self._shares.values():
                    await share.leave()
        except (TimeoutError, BackendError) as error:
            left = sum(work.done - work.confirmed for work in set(self._works.values()))
            for share in self._shares.values():
                share.abandon()
            text = f"member {self.name!r} could not leave in order: {error}; others take over"
            self.signal("group-left-behind", text, self._streams[0].name, left)
            if left or isinstance(error, BackendError):
                raise


_origin = attrgetter("origin")


def _lost(events: Sequence[Event[Any]]) -> LeaseLost:
    first = events[0]
    more = f" and {len(events) - 1} more" if len(events) > 1 else ""
    return LeaseLost(
        f"an event must be acked while it is in hand; {first.stream!r} {first.position}{more} was "
        f"handed back or held for longer than `hold`, or its shard has another owner; it comes "
        f"again; call group.extend(event) in long work, or raise hold=",
        positions=tuple(str(event.position) for event in events),
    )


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
