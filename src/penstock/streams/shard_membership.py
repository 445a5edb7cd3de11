"""ShardMembership: the background work of a member of a group that shares shards.

Does        open and close; take streams up and leave them; take outcomes; commit at the interval;
            leave in order.
Does not    own shards or fetch: `stream_share.py` does, for each stream. Judge failures, or watch
            the time: `shard_watching.py` does.
Invariants  1. a key whose event has failed waits, its later events behind it; others flow.
            2. leaving commits what is done, behind the mark too: the next owner does not repeat it.
Used by     `group_reader`, where shards are shared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from penstock.clock import Backoff, set_within
from penstock.errors import (
    BackendError,
    BackendUnavailable,
    ClosedError,
    ConfigError,
    PenstockError,
    Reject,
    RetryLater,
)
from penstock.event import Event
from penstock.ports import MemberOptions, PendingInfo
from penstock.rules.fates import Failure, is_about, name_of, reason_of
from penstock.signals import counted
from penstock.streams.group_questions import lag_of
from penstock.streams.inbox import Inbox
from penstock.streams.membership import LEAVING
from penstock.streams.shard_watching import ShardWatching, lost
from penstock.streams.stream_share import StreamShare

if TYPE_CHECKING:
    from penstock.streams.client import Client
    from penstock.streams.group_options import GroupOptions
    from penstock.streams.stream import Stream

T = TypeVar("T")


class ShardMembership(ShardWatching[T]):
    """What a `Group` does in the background where shards are shared. Arguments as for `Group`."""

    def __init__(
        self, client: Client, group: str, streams: Sequence[Stream[T]], options: GroupOptions
    ) -> None:
        super().__init__(client, group, options)
        self._streams = streams
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changing = asyncio.Lock()
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
            self._tasks[name] = self._inbox.task(work, f"penstock-group-{self._group}")

    async def stop(self) -> None:
        """See `GroupWork.stop`."""
        self.opened().end()
        for share in self._shares.values():
            share.stopped = True
        self._room.set()

    async def add_stream(self, stream: Stream[T]) -> None:
        """See `GroupWork.add_stream`."""
        self._check_open(ended=False)
        async with self._changing:
            if stream.name in self._shares:
                return
            share = self._share(stream)
            try:
                await share.open(self._options.until)
            except BaseException:
                share.abandon()
                raise
            if self._closing is not None or self._inbox.ended:
                await share.leave()
            self._check_open(ended=False)
            self._begin(share)

    async def remove_stream(self, stream: Stream[T]) -> None:
        """See `GroupWork.remove_stream`."""
        self._check_open()
        async with self._changing:
            share = self._shares.get(stream.name)
            if share is None or len(self._shares) == 1:
                raise ConfigError(
                    f"a stream that is removed must be one of several of the group, got "
                    f"{stream.name!r} of {sorted(self._shares)}"
                )
            await share.commit()
            self._check_open()
            await self._remove(share)

    async def _remove(self, share: StreamShare[T]) -> None:
        task = self._tasks.pop(share.stream.name)
        task.cancel()
        try:
            await asyncio.gather(task, return_exceptions=True)
            for work in share.works.values():
                self.withdraw(work)
            await share.leave()
        except BaseException:  # nobody fetches any more: others take over
            share.abandon()
            raise
        finally:
            self._shares.pop(share.stream.name, None)
            self.ended()  # it may have been the last that was not

    def ack(self, events: Iterable[Event[T]]) -> None:
        """See `Group.ack`."""
        self._check_open()
        if not self._heard:
            self.heard()
        self._ack(events)

    def nack(self, events: Iterable[Event[T]], delay: float | None, reason: str) -> None:
        """See `Group.nack`."""
        self._check_open()
        self.heard()
        self._fail([*events], Failure(1, delay=delay), "", reason)

    def fail(self, events: Iterable[Event[T]], error: BaseException) -> None:
        """See `Group.fail`."""
        self._check_open()
        self.heard()
        several = [event for event in events if self.is_ours(event)]
        if isinstance(error, RetryLater):
            self._give_back(several, error.seconds)
            return
        guilty = [event for event in several if is_about(error, event.stream, str(event.position))]
        if guilty:  # it is known which of them it was
            self._undecodable += len(guilty)
            text = f"the codec cannot read {counted(len(guilty))} of group {self._group!r}"
            self.signal("undecodable", text, guilty[0].stream, len(guilty))
            self._give_back([event for event in several if event not in guilty], 0.0)
        final = bool(guilty) or isinstance(error, Reject)
        self._fail(guilty or several, Failure(1, final), name_of(error), reason_of(error))

    def give_back(self, events: Iterable[Event[T]]) -> None:
        """See `GroupWork.give_back`."""
        self.heard()
        self._give_back([event for event in events if self.is_ours(event)], 0.0)

    def extend(self, event: Event[T]) -> None:
        """See `Group.extend`."""
        self._check_open()
        self.heard()
        if not self.is_ours(event):
            raise lost([event])
        self._hands.extend(event, self._clock.monotonic())

    async def flush(self) -> None:
        """See `GroupWork.flush`."""
        for share in list(self._shares.values()):
            await share.commit()

    async def on_shards(self, stream: str, count: int) -> None:
        """See `GroupWork.on_shards`."""
        if (share := self._shares.get(stream)) is not None:
            await share.came(count)

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
            self._closing = asyncio.create_task(self._leave(error))
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
        self._tasks[name] = self._inbox.task(share.run(), f"penstock-group-{self._group}")

    async def _commits(self) -> None:
        """Commit at the interval, or as soon as there is much."""
        backoff = Backoff()
        interval = self._options.ack_interval
        while interval is not None:
            await set_within(self._send, interval)
            self._send.clear()
            try:
                await self.flush()
                backoff.reset()
            except PenstockError as error:
                if not isinstance(error, BackendUnavailable):
                    self._inbox.fail(error)
                await self._clock.sleep(backoff.next())

    def _check_open(self, *, ended: bool = True) -> None:
        """Raise ClosedError where it is not open; not *ended*: nor where its end was reached."""
        if not self._opened or self._closing is not None:
            raise ClosedError(f"group {self._group!r} is not open: its events come again elsewhere")
        if self._inbox.ended and not ended:
            raise ClosedError(f"group {self._group!r} has read to its end, and takes no stream up")

    async def _leave(self, error: BaseException | None) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._inbox.clear()
        self._inbox.end()
        if error is None:
            self._ack_delayed()
        if isinstance(error, Exception):
            reason = "the program failed while it had them in hand"
            self._fail(self._hands.held(), Failure(1), "", reason)
        try:
            async with asyncio.timeout(LEAVING):
                for share in list(self._shares.values()):
                    await share.leave()
        except (TimeoutError, BackendError) as why:
            left = sum(work.done - work.confirmed for work in set(self._works.values()))
            for share in self._shares.values():
                share.abandon()
            text = f"member {self.name!r} could not leave in order: {why}; others take over"
            self.signal("group-left-behind", text, self._streams[0].name, left)
            if left or isinstance(why, BackendError):
                raise
