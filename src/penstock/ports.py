"""The ports: what a backend offers, and what stages, flows and pipelines see of a stream.

Does        name the verbs between the API (`streams`) and the backends, and nothing else. Those of
            groups are in `group_ports.py` and `shard_ports.py`, and handed on from here.
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
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from penstock.event import Position, Shard, Start
from penstock.group_ports import EventGroups as EventGroups
from penstock.group_ports import EventMember as EventMember
from penstock.group_ports import GroupVanished as GroupVanished
from penstock.group_ports import Letters as Letters
from penstock.group_ports import MemberLapsed as MemberLapsed
from penstock.group_ports import MemberOptions as MemberOptions
from penstock.group_ports import Page as Page
from penstock.group_ports import ParkedFull as ParkedFull
from penstock.group_ports import RawEntry as RawEntry
from penstock.group_ports import ShardsCame as ShardsCame
from penstock.info import DeadLetter as DeadLetter
from penstock.info import Death as Death
from penstock.info import Features as Features
from penstock.info import GroupInfo as GroupInfo
from penstock.info import Marks as Marks
from penstock.info import MemberInfo as MemberInfo
from penstock.info import PendingInfo as PendingInfo
from penstock.info import StreamInfo as StreamInfo
from penstock.rules.durability import Confirm as Confirm
from penstock.rules.retention import Retention as Retention
from penstock.rules.terms import Stored as Stored
from penstock.rules.terms import Terms as Terms
from penstock.shard_ports import Along as Along
from penstock.shard_ports import Burial as Burial
from penstock.shard_ports import Ownership as Ownership
from penstock.shard_ports import Rebalanced as Rebalanced
from penstock.shard_ports import ShardGroups as ShardGroups
from penstock.shard_ports import ShardMember as ShardMember

T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)

Fields = Sequence[str | bytes | int | float]
"""The fields of an entry on the way in, flat: name, content, name, content, …"""


class Log(Protocol):
    """Durable, ordered logs, by shard."""

    @property
    def features(self) -> Features:
        """What this backend offers."""
        ...

    async def confirms(self, level: Confirm) -> None:
        """See that appends can be confirmed at *level*; ConfigError where they cannot."""
        ...

    async def describe(self, stream: str) -> StreamInfo | None:
        """The stream as it stands, or None if there is none."""
        ...

    async def streams(self, pattern: str = "*", limit: int | None = None) -> Sequence[str]:
        """The names of streams that match the glob *pattern*, sorted; at most *limit*.

        A sharded stream is one name. What is kept beside streams is not listed.
        """
        ...

    async def appender(self, shard: Shard, marks: Marks, options: AppendOptions) -> Appender:
        """Open a session that appends to *shard*.

        A new stream gets *marks* stored with it, in the same step as its first entries at the
        latest; a stream with other marks raises ConfigError, one without marks is left so.

        Raises:
            ShardsCame: it was to be one log, and is in shards by now; or it has got more of them.
                A session that is open says so of what is submitted: nothing of it is stored.
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

    async def tend(self, stream: str) -> Tended:
        """Move what is due into the stream; say what is to be kept of it.

        Called by and by by every client that has the stream open; cancelled: some was moved.
        """
        ...

    async def retain(self, stream: str, retention: Retention | None) -> bool:
        """Keep so much of the stream from now on; False if there is none, or it has no marks."""
        ...

    async def destroy(self, stream: str) -> bool:
        """Remove the stream with its groups and everything kept for it; False if there was none."""
        ...

    async def aclose(self) -> None:
        """Close all connections. Cursors, appenders and members are closed before."""
        ...


class AppendOptions(NamedTuple):
    """How a session appends.

    `timeout`: seconds that a batch may go without an outcome. `window`: seconds for which the ids
    of terms are compared. `retention`: stored with a new stream, in its stored form.
    `confirm`: what an append waits for; with too few of it in time it fails as NotConfirmed.
    """

    idempotent: bool = True
    timeout: float = 30.0
    foreign: bool = False
    only_if_exists: bool = False
    window: float = 300.0
    retention: str = ""
    confirm: Confirm = "server"


class Tended(NamedTuple):
    """What a look at a stream brought, and found.

    `moved` events came due; the next one does in `wait` seconds (None: none waits). `retention`
    is told to one client at a time, which is to keep it, with the server's time (seconds since
    1970); `dropped` events went at the cap since the last look.
    """

    shards: int = 1
    moved: int = 0
    wait: float | None = None
    retention: Retention | None = None
    time: float = 0.0
    dropped: int = 0


class TrimTo(NamedTuple):
    """What a trim leaves: one of `max_events`, `before`, `max_bytes`.

    `acked_only` keeps what any group still needs; `approximate` leaves some more, at less cost.
    """

    max_events: int | None = None
    before: Position | None = None
    acked_only: bool = True
    approximate: bool = False
    max_bytes: int | None = None


class Appender(Protocol):
    """One ordered session of appends to one shard."""

    def submit(
        self,
        batch: Sequence[Fields],
        timeout: float | None = None,
        terms: Mapping[int, Terms] | None = None,
    ) -> asyncio.Future[Sequence[Stored]]:
        """Hand over *batch*, without waiting; the future has the positions once it is stored.

        *terms*, by index: what single events ask beyond that. One whose terms do not hold is not
        stored, and has a ConflictError in the place of its position; one that waits for its time
        has None there.

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
            PositionLost: events were trimmed away before they were read, or the log was made anew;
                raised once for each shard, and the next read goes on from the oldest event.
        """
        ...

    async def move(self, starts: Mapping[Shard, Start]) -> None:
        """Read these shards from there on, those that are read already as well as new ones.

        NEWEST is anchored before this returns; what was asked for before is not used for them.
        Cancelled, or failed: nothing has moved. The last thing that it does is to move.
        """
        ...

    def leave(self, shards: Collection[Shard]) -> None:
        """Read these shards no more. Where none is left, nobody reads until one comes by `move`."""
        ...

    async def wake(self) -> None:
        """End a read that waits: it returns what there is, at once."""
        ...

    def positions(self) -> Mapping[Shard, Position | None]:
        """Behind what the next read begins, by shard; None: from the beginning."""
        ...

    async def aclose(self) -> None:
        """Close the cursor's connection."""
        ...


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
