"""GroupReader: one member of a consumer group that hands out events and takes no acks.

Does        join and leave; hand out events, one by one or in batches; say what is pending.
Does not    ack: `group.Group` adds that.
Invariants  1. an event is yielded only while this member holds it.
            2. leaving the block sends the acks that are queued, and hands back the rest.
            3. an exception out of the block counts a failure for what was yielded and not settled,
               once; cancellation counts none.
Used by     `group.Group`; `client.Client.group`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from penstock.errors import ConfigError
from penstock.event import Event
from penstock.observers import Tally
from penstock.ports import PendingInfo
from penstock.signals import GroupStatistics
from penstock.streams.group_options import GroupOptions
from penstock.streams.group_work import GroupWork
from penstock.streams.inbox import Batches
from penstock.streams.membership import Membership
from penstock.streams.names import check_streams
from penstock.streams.shard_membership import ShardMembership

if TYPE_CHECKING:
    from penstock.streams.client import Client
    from penstock.streams.stream import Stream

T = TypeVar("T")


class GroupReader(Generic[T]):
    """One member of a group, without a word about acks. Made by `Stream.group`."""

    def __init__(
        self,
        client: Client,
        name: str,
        streams: Sequence[Stream[T]],
        options: GroupOptions,
    ) -> None:
        if not streams:
            raise ConfigError("a group needs at least one stream, got none")
        self.name = name
        self._client = client
        self._streams = list(streams)
        self._names = {stream.name for stream in streams}
        self._entered = self._left = False
        self._options = options
        self._work: GroupWork[T] = _work(client, name, self._streams, options)
        self._tally = Tally(name, lambda: self._work.name)

    @property
    def member(self) -> str:
        """This member's name."""
        return self._work.name

    @property
    def open_streams(self) -> set[str]:
        """The names of the streams that it shares; none once it has left."""
        return set() if self._left else set(self._names)

    @property
    def opened(self) -> bool:
        """Whether it was entered already."""
        return self._entered

    async def __aenter__(self) -> Self:
        """Join; the group is made if there is none, and fetching begins.

        Waits for up to one lease where a member of the same given name may still live.

        Raises:
            ConfigError: a living member has the given name, or a handle asks for another format.
            BackendError: refused, or not reachable.
        """
        self._client.observers.count(self._tally)
        try:
            await self._work.open()
        except BaseException:
            self._client.observers.forget(self._tally)
            raise
        self._entered = True
        self._client.opened(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._left = True
        try:
            await self._work.close(error, quiet=error is not None)
        finally:
            self._client.observers.forget(self._tally)

    def __aiter__(self) -> AsyncIterator[Event[T]]:
        return self

    async def __anext__(self) -> Event[T]:
        """Wait for the next event; it is then in hand. Cancelled: it comes with the next call.

        Raises:
            BackendRejected: an ack was refused for good (raised once), or a read (at every step).
            LeaseLost: another member has taken this one's name.
        """
        event = await self._work.opened().next()
        if event is None:
            raise StopAsyncIteration
        return event

    async def receive(self, timeout: float | None = None) -> Event[T] | None:
        """Wait for the next event, at most *timeout* seconds; None if none came, or at the end.

        Cancelled: the event comes with the next call.

        Raises:
            The same as the iteration.
        """
        return await self._work.opened().receive(timeout)

    def batches(self, size: int = 1000, within: float = 0.05) -> Batches[Event[T]]:
        """Lists of one to *size* events: what comes within *within* seconds of the first.

        Raises:
            ConfigError: a size below 1 or above half of `max_in_flight` (reading ahead needs the
                other half), or a negative time.
        """
        most = max(1, self._options.max_in_flight // 2)
        if not 1 <= size <= most or within < 0:
            raise ConfigError(
                f"batches needs a size from 1 to {most}, half of "
                f"max_in_flight={self._options.max_in_flight} (the other half is read ahead), and "
                f"within >= 0 s; got size={size}, within={within}"
            )
        return Batches(self._work.opened(), size, within)

    async def add_stream(self, stream: Stream[T]) -> None:
        """Share the events of *stream* too, from now on; a second time does nothing.

        `start` goes for it as for the others. Cancelled: it may be shared or not; call again.

        Raises:
            ConfigError: the handle is another client's, or asks for another format than is stored.
            BackendError: refused, or not reachable.
            ClosedError: the group is not open, or has read to its end.
        """
        check_streams([stream], self._client)
        await self._work.add_stream(stream)
        self._names.add(stream.name)

    async def remove_stream(self, stream: Stream[T]) -> None:
        """Share the events of *stream* no more: hand back, uncounted, all that is not acked.

        An ack that is queued is sent first; one that comes later raises LeaseLost.

        Raises:
            ConfigError: it is not among the group's streams, or the only one: close the group.
            BackendError: refused, or not reachable.
            ClosedError: the group is not open.
        """
        await self._work.remove_stream(stream)
        self._names.discard(stream.name)

    async def stop(self) -> None:
        """Take nothing more: the iteration ends, and what was not yielded is handed back at once.

        It comes to other members, uncounted. What is in hand is settled as before, until the
        group is left. Stopping twice does nothing.

        Raises:
            ClosedError: the group is not open.
        """
        await self._work.stop()

    async def flush(self) -> None:
        """Wait until all queued acks and nacks are confirmed.

        Raises:
            BackendError: the server refused, or could not be reached in time; they stay queued.
        """
        await self._work.flush()

    async def lag(self) -> int | None:
        """Events that the group has not handed out yet; None where it cannot be known."""
        return await self._work.lag()

    async def pending(self, limit: int = 100) -> list[PendingInfo]:
        """The oldest events that are handed out and not acked, over all members, by shard."""
        return await self._work.pending(limit)

    async def fetch(self, demand: int) -> Sequence[Event[T]]:
        """At least one and at most *demand* events; empty at the end (the port `Source`)."""
        return await self._work.opened().batch(demand, 0.0)

    def statistics(self) -> GroupStatistics:
        """What this member was given, and what became of it."""
        tally = self._tally
        return self._work.statistics()._replace(
            takeovers=tally.takeovers, claimed=tally.claimed, lost=tally.lost
        )

    async def on_shards(self, stream: str, count: int) -> None:
        """See `opening.Closable.on_shards`."""
        await self._work.on_shards(stream, count)

    async def aclose(self) -> None:
        """Leave: send queued acks, hand back the rest uncounted. The same as leaving the block."""
        self._left = True
        try:
            await asyncio.shield(self._work.close(None, quiet=False))
        finally:
            self._client.observers.forget(self._tally)

    def __repr__(self) -> str:
        in_flight = self.statistics().in_flight
        return f"<Group {self.name!r} member {self.member!r} {in_flight} in flight>"


def _work(
    client: Client, name: str, streams: Sequence[Stream[T]], options: GroupOptions
) -> GroupWork[T]:
    """How the group shares: as it is asked, else as the backend does it."""
    features = client.backend.features
    if options.share == "shards" or (options.share == "any" and not features.event_groups):
        if not features.shard_groups:
            raise ConfigError(f"{features.backend} has no groups that share shards")
        return ShardMembership(client, name, streams, options)
    if not features.event_groups:
        raise ConfigError(
            f"{features.backend} has no groups that share events, got share={options.share!r}; "
            f"leave it out, or share shards"
        )
    return Membership(client, name, streams, options)
