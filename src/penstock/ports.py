"""The ports: what a backend offers, and what stages, flows and pipelines see of a stream.

Does        name the verbs between the API (`streams`) and the backends, and nothing else.
Does not    hold rules or I/O. A backend that cannot do a thing says so in `Features`; the API
            turns that into a ConfigError before anything is started.
Invariants  1. entries travel as the backend read them: ``[id, [field, bytes, field, bytes, …]]``;
               ids are bytes with an exact `Position` form; nothing is decoded below the API.
            2. every verb may be cancelled; what that leaves is said at the verb.
            3. two shapes of group: EventGroups (each event acked on its own, Redis' way) and
               ShardGroups (a shard owned, a position committed, Kafka's way). `backends/memory.py`
               has both and is the reference for both.
Used by     streams (above), backends (below). Source and Target: stages, flow, pipeline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from penstock.event import Position, Shard, Start
from penstock.info import Features as Features
from penstock.info import GroupInfo as GroupInfo
from penstock.info import Marks as Marks
from penstock.info import MemberInfo as MemberInfo
from penstock.info import PendingInfo as PendingInfo
from penstock.info import StreamInfo as StreamInfo

T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)

Fields = Sequence[str | bytes | int | float]
"""The fields of an entry on the way in, flat: name, content, name, content, …"""

RawEntry = Sequence[Any]
"""An entry on the way out: ``[id: bytes, flat fields: list[bytes] | None]``; None: trimmed."""


class Page(NamedTuple):
    """Entries of one shard, in order.

    `counts` has (deliveries, failed attempts) by entry; None means (1, 0) for all of them.
    `epoch` is the owner's epoch in a ShardGroup, 0 elsewhere.
    """

    shard: Shard
    entries: Sequence[RawEntry]
    counts: Sequence[tuple[int, int]] | None = None
    epoch: int = 0


class Log(Protocol):
    """Durable, ordered logs, by shard."""

    @property
    def features(self) -> Features:
        """What this backend offers."""
        ...

    async def describe(self, stream: str) -> StreamInfo | None:
        """The stream as it stands, or None if there is none."""
        ...

    async def appender(self, shard: Shard, marks: Marks, options: AppendOptions) -> Appender:
        """Open a session that appends to *shard*.

        A new stream gets *marks* stored with it, in the same step as its first entries at the
        latest; a stream with other marks raises ConfigError, one without marks is left so.
        """
        ...

    async def cursor(self, starts: Mapping[Shard, Start]) -> Cursor:
        """Open a cursor over several shards; NEWEST is anchored before this returns."""
        ...

    async def read_range(
        self, shard: Shard, first: Position | None, last: Position | None, limit: int, reverse: bool
    ) -> Sequence[RawEntry]:
        """Up to *limit* entries from *first* to *last*, both included; *reverse*: newest first."""
        ...

    async def trim(self, shard: Shard, limit: TrimTo) -> int:
        """Remove the oldest entries down to *limit*; how many were removed."""
        ...

    async def remove(self, shard: Shard, positions: Sequence[Position]) -> int:
        """Remove single entries; how many there were."""
        ...

    async def destroy(self, stream: str) -> bool:
        """Remove the stream with its groups and everything kept for it; False if there was none."""
        ...

    async def aclose(self) -> None:
        """Close all connections. Cursors, appenders and members are closed before."""
        ...


class AppendOptions(NamedTuple):
    """How a session appends. `timeout`: seconds that a batch may go without an outcome."""

    idempotent: bool = True
    timeout: float = 30.0
    foreign: bool = False
    only_if_exists: bool = False


class TrimTo(NamedTuple):
    """What a trim leaves. One of the first two; `acked_only` keeps what any group still needs."""

    max_events: int | None = None
    before: Position | None = None
    acked_only: bool = True
    approximate: bool = False


class Appender(Protocol):
    """One ordered session of appends to one shard."""

    def submit(
        self, batch: Sequence[Fields], timeout: float | None = None
    ) -> asyncio.Future[Sequence[Position]]:
        """Hand over *batch*, without waiting; the future has the positions once it is stored.

        Batches are stored in the order of the calls, each at most once. The future fails with
        BackendError (nothing of it stored) or OutcomeUnknown; then every batch behind it that was
        not yet stored fails too (unsent), and the session is good again for later ones.
        Cancelling the future does not take the batch back. *timeout*: seconds that it may go
        without an outcome; None: as in the options.
        """
        ...

    async def aclose(self) -> None:
        """End the session; what is still without an outcome fails as OutcomeUnknown."""
        ...


class Cursor(Protocol):
    """A place in several shards that moves forward."""

    async def read(self, limit: int, wait: float) -> Sequence[Page]:
        """The next entries, at most *limit* in all; waits up to *wait* seconds for the first.

        Cancelled: nothing is skipped, the same entries come again.

        Raises:
            BackendUnavailable: no connection, or no answer; may be called again.
        """
        ...

    def positions(self) -> Mapping[Shard, Position | None]:
        """Behind what the next read begins, by shard; None: from the beginning."""
        ...

    async def aclose(self) -> None:
        """Close the cursor's connection."""
        ...


class EventGroups(Protocol):
    """Consumer groups whose members share single events."""

    async def join(self, shards: Sequence[Shard], group: str, member: MemberOptions) -> EventMember:
        """Become a member; a group that does not exist is made, and begins at the given start.

        Raises:
            ConfigError: a living member has the same given name.
        """
        ...

    async def groups(self, shard: Shard) -> Sequence[GroupInfo]:
        """Every group of the shard."""
        ...

    async def pending(self, shard: Shard, group: str, limit: int) -> Sequence[PendingInfo]:
        """The oldest pending events of the group, at most *limit*."""
        ...

    async def drop(self, shard: Shard, group: str) -> bool:
        """Remove the group with all that is kept for it; False if there was none."""
        ...


class MemberOptions(NamedTuple):
    """How a member behaves. `name` None: one of its own, never used before. Seconds throughout.

    `hold`: where the event loop has not turned for so long, the member stops beating.
    """

    start: Start
    name: str | None = None
    lease: float = 30.0
    hold: float = 300.0
    foreign_idle: float = 300.0


class EventMember(Protocol):
    """One member of a group that shares events, leased by its heartbeat."""

    @property
    def name(self) -> str:
        """The name that the backend knows the member by."""
        ...

    async def fetch(self, limit: int, wait: float, ahead: int = 0) -> Sequence[Page]:
        """Events for this member, at most *limit* and one page more; waits up to *wait* seconds.

        *ahead*: for how many more there is room, so that the next read may be under way already.

        In this order: its own pending ones (after joining under a used name, and after a
        connection was lost), parked ones that are due, those of dead members, new ones.
        Cancelled: what the backend already gave comes again with the next call.

        Raises:
            MemberLapsed: taken for dead; a new incarnation has begun.
            GroupVanished: the group was lost and has been made anew.
            BackendUnavailable: may be called again.
        """
        ...

    @property
    def good_until(self) -> float:
        """Until when, by the monotonic clock, no other member can have taken this one for dead."""
        ...

    def lapse(self) -> None:
        """Take this incarnation for over: the next fetch begins a new one."""
        ...

    def tell_known(self, known: Callable[[Shard], Container[bytes]]) -> None:
        """*known* gives the ids that the program holds, or has acked without having heard of it.

        A backend that looks for events whose reply was lost leaves those alone.
        """
        ...

    def ack(self, shard: Shard, ids: Sequence[bytes], *, fenced: bool = False) -> Awaitable[int]:
        """Ack events; how many were still pending. *fenced*: only those that are still its own.

        An event that has failed before must be acked fenced: its count is cleared with it.
        """
        ...

    async def park(
        self, shard: Shard, ids: Sequence[bytes], delay: float, *, failed: bool
    ) -> Sequence[bytes]:
        """Hand events back, due for anybody after *delay* seconds; the ids that were still its own.

        *failed* counts an attempt.
        """
        ...

    async def progress(self, shard: Shard) -> Position | None:
        """Up to where the group has handed out; None: nothing yet."""
        ...

    async def leave(self) -> None:
        """Hand back what is still pending, uncounted, and go. Waits for the backend."""
        ...

    def abandon(self) -> None:
        """Vanish as a crash would: no leave, no hand-back, no more beats. For tests."""
        ...


class MemberLapsed(Exception):
    """The member was taken for dead, or cannot know that it was not: drop what was not yielded."""


class GroupVanished(Exception):
    """The group was lost and made anew: drop queued acks. `start` says from where it goes on."""

    def __init__(self, stream: str, start: str) -> None:
        super().__init__(f"{stream}: made anew from {start}")
        self.stream = stream
        self.start = start


class ShardGroups(Protocol):
    """Consumer groups whose members own whole shards."""

    async def own(self, stream: Shard, group: str, member: MemberOptions) -> ShardMember:
        """Become a member for all shards of the stream; shards are spread over living members."""
        ...


class Ownership(NamedTuple):
    """A shard that is owned: its epoch fences every commit, `state` came with the position."""

    epoch: int
    committed: Position | None
    state: bytes | None


class ShardMember(Protocol):
    """One member of a group that shares shards. Only the owner of an epoch can commit."""

    @property
    def name(self) -> str:
        """The name that the backend knows the member by."""
        ...

    @property
    def owned(self) -> Mapping[Shard, Ownership]:
        """The shards that this member owns now."""
        ...

    async def fetch(self, limit: int, wait: float) -> Sequence[Page]:
        """The next entries of owned shards, each shard in order, its pages with the owner's epoch.

        Raises:
            Rebalanced: shards came or went; `owned` is already the new state.
        """
        ...

    async def commit(
        self, shard: Shard, epoch: int, position: Position, state: bytes | None = None
    ) -> None:
        """Everything up to *position* is done; kept with *state* in one step.

        Raises:
            LeaseLost: another epoch owns the shard; nothing was kept.
        """
        ...

    async def leave(self) -> None:
        """Give up all shards, at what was committed, and go."""
        ...

    def abandon(self) -> None:
        """Vanish as a crash would. For tests."""
        ...


class Rebalanced(Exception):
    """Shards of this member came or went."""

    def __init__(self, gained: Sequence[Shard], lost: Sequence[Shard]) -> None:
        super().__init__(f"gained {list(gained)}, lost {list(lost)}")
        self.gained = tuple(gained)
        self.lost = tuple(lost)


class Outcome(NamedTuple):
    """What became of an event: done; failed (counted); returned (uncounted)."""

    event: Any
    kind: Literal["done", "failed", "returned"]
    error: BaseException | None = None


class Source(Protocol[T_co]):
    """Anything that hands out events on demand and takes their outcomes.

    If it is an asynchronous context manager too, whoever runs it enters it first and leaves it
    last, unless its attribute `opened` says that somebody did. The same goes for a `Target`.
    """

    async def fetch(self, demand: int) -> Sequence[T_co]:
        """At least one and at most *demand* events; an empty sequence means that it is the end."""
        ...

    def settle(self, outcomes: Sequence[Outcome]) -> None:
        """Take the outcomes of events that were handed out, in any order."""
        ...


class Target(Protocol[T_contra]):
    """Anything that takes events."""

    async def write(self, batch: Sequence[T_contra]) -> None:
        """Return when all of *batch* is stored; it waits while there is no room."""
        ...
