"""Group: one member of a consumer group, as a user sees it.

Does        hand out events, one by one or in batches; take acks, nacks and extensions.
Does not    fetch, send acks or watch the time: `membership.py` does, in the background.
Invariants  1. an event is yielded only while this member holds it.
            2. leaving the block sends the acks that are queued, and hands back the rest.
            3. an exception out of the block counts a failure for what was yielded and not settled,
               once; cancellation counts none.
Used by     `client.Client.group`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar, cast

from penstock.errors import ClosedError, ConfigError, LeaseLost
from penstock.event import Event, Position, Start, Until
from penstock.ports import GroupInfo, Outcome, PendingInfo
from penstock.rules.filters import Where, predicate
from penstock.rules.retry import Retry
from penstock.signals import GroupStatistics
from penstock.streams.inbox import Batches
from penstock.streams.membership import Membership

if TYPE_CHECKING:
    from penstock.streams.client import Client
    from penstock.streams.stream import Stream

T = TypeVar("T")


class GroupOptions(NamedTuple):
    """How a member behaves; see `Client.group`."""

    start: Start
    member: str | None
    ack_interval: float | None
    lease: float
    hold: float
    retry: Retry
    max_in_flight: int
    max_in_flight_bytes: int

    def check(self) -> None:
        """Raise ConfigError for what is out of range."""
        if not 0.1 <= self.lease <= 86_400 or not self.hold > 0:
            raise ConfigError(
                f"lease must be from 0.1 to 86400 seconds and hold above 0, "
                f"got lease={self.lease!r} and hold={self.hold!r}"
            )
        if self.max_in_flight < 1 or self.max_in_flight_bytes < 1:
            raise ConfigError(
                f"max_in_flight (events) and max_in_flight_bytes must be at least 1, "
                f"got {self.max_in_flight} and {self.max_in_flight_bytes}"
            )
        if self.ack_interval is not None and not self.ack_interval > 0:
            raise ConfigError(
                f"ack_interval must be above 0 seconds, or None for flush() alone, "
                f"got {self.ack_interval!r}"
            )


class Group(Generic[T]):
    """One member of a group. Made by `Stream.group` or `Client.group`; use ``async with``."""

    def __init__(
        self,
        client: Client,
        name: str,
        streams: Sequence[Stream[T]],
        options: GroupOptions,
        *,
        where: Where | None,
        until: Until | Position | None,
    ) -> None:
        options.check()
        if not streams:
            raise ConfigError("a group needs at least one stream, got none")
        self.name = name
        self._client = client
        self._streams = list(streams)
        self._handled: dict[int, bool] = {}
        self._entered = False
        self._options = options
        self._work: Membership[T] = Membership(
            client, name, self._streams, options, predicate(where), until
        )

    @property
    def member(self) -> str:
        """This member's name."""
        return self._work.name

    @property
    def opened(self) -> bool:
        """Whether it was entered already."""
        return self._entered

    async def __aenter__(self) -> Group[T]:
        """Join; the group is made if there is none, and fetching begins.

        Waits for up to one lease where a member of the same given name may still live.

        Raises:
            ConfigError: a living member has the given name, or a handle asks for another format.
            BackendError: refused, or not reachable.
        """
        await self._work.open()
        self._entered = True
        self._client.opened(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._work.close(failed=isinstance(error, Exception), quiet=error is not None)

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

    def ack(self, events: Event[T] | Iterable[Event[T]]) -> None:
        """The work on these events is done: queue their acks; they are sent within `ack_interval`.

        Acking what is acked already does nothing.

        Raises:
            LeaseLost: some are not in hand any more (held too long, taken over, handed back);
                the acks of all others are queued.
            ConfigError: an event of another group, or of a reader.
            ClosedError: the group was closed.

        Source: Redis XACK.
        """
        self._work.ack(_several(events))

    def nack(
        self,
        events: Event[T] | Iterable[Event[T]],
        delay: float | None = None,
        reason: str = "",
    ) -> None:
        """These events failed: hand them back, counted; they come again, to any member.

        Args:
            events: one or several that are in hand; what is not any more is left alone.
            delay: seconds until they are due; None: by `retry`, from the attempts so far.
            reason: why, for the log.

        Raises:
            ConfigError: a negative delay, or an event of another group.
            ClosedError: the group was closed.
        """
        if delay is not None and not delay >= 0:
            raise ConfigError(f"delay must be 0 seconds or more, got {delay!r}")
        several = list(_several(events))
        for event in several:
            if id(event) in self._handled:
                self._handled[id(event)] = True
        self._work.nack(several, delay, reason)

    @asynccontextmanager
    async def handling(self, event: Event[T]) -> AsyncGenerator[Event[T], None]:
        """``async with group.handling(event):`` ack on leaving; an exception nacks and goes on up.

        Cancellation counts no failure: the event stays in hand, and is handed back on leaving the
        group. An event that was settled inside is left so.

        Raises:
            LeaseLost: the work went well, but the event was not in hand any more at its end.
        """
        self._handled[id(event)] = False
        nacked = False
        try:
            yield event
        except Exception as error:
            self.nack(event, reason=f"{type(error).__name__}: {error}")
            raise
        finally:
            nacked = self._handled.pop(id(event), False)
        if not nacked:
            self.ack(event)

    def extend(self, event: Event[T]) -> None:
        """Count the event's `hold` anew from now: long work is getting on.

        Raises:
            LeaseLost: it is not in hand any more.
        """
        self._work.extend(event)

    async def flush(self) -> None:
        """Wait until all queued acks and nacks are confirmed.

        Raises:
            BackendError: the server refused, or could not be reached in time; they stay queued.
        """
        await self._work.flush()

    async def lag(self) -> int | None:
        """Events that the group has not handed out yet; None where it cannot be known."""
        lags = [info.lag for info in await self._infos()]
        known = [lag for lag in lags if lag is not None]
        return sum(known) if len(known) == len(lags) else None

    async def pending(self, limit: int = 100) -> list[PendingInfo]:
        """The oldest events that are handed out and not acked, over all members, by shard."""
        return [
            info
            for shard in self._work.shards
            for info in await self._client.backend.pending(shard, self.name, limit)
        ]

    async def fetch(self, demand: int) -> Sequence[Event[T]]:
        """At least one and at most *demand* events; empty at the end (the port `Source`)."""
        return await self._work.opened().batch(demand, 0.0)

    def settle(self, outcomes: Sequence[Outcome]) -> None:
        """Take outcomes: done is acked, failed is nacked, returned is handed back uncounted."""
        done = [outcome.event for outcome in outcomes if outcome.kind == "done"]
        with suppress(LeaseLost):  # signalled when it was taken; whoever holds it now gets it
            self._work.ack(done)
        for outcome in outcomes:
            if outcome.kind == "failed":
                self._work.nack([outcome.event], None, repr(outcome.error))
        returned = [outcome.event for outcome in outcomes if outcome.kind == "returned"]
        self._work.give_back(returned)

    def statistics(self) -> GroupStatistics:
        """What this member was given, and what became of it."""
        return self._work.statistics()

    async def aclose(self) -> None:
        """Leave: send queued acks, hand back the rest uncounted. The same as leaving the block."""
        await asyncio.shield(self._work.close(failed=False, quiet=False))

    def __repr__(self) -> str:
        return f"<Group {self.name!r} member {self.member!r} {self._work.ledger.events} in flight>"

    async def _infos(self) -> list[GroupInfo]:
        if not self._work.shards:
            raise ClosedError("a group must be opened: write 'async with stream.group(...)'")
        found = [await self._client.backend.groups(shard) for shard in self._work.shards]
        return [info for groups in found for info in groups if info.name == self.name]


def _several(events: Event[T] | Iterable[Event[T]]) -> Iterable[Event[T]]:
    return cast("Iterable[Event[T]]", (events,) if isinstance(events, Event) else events)
