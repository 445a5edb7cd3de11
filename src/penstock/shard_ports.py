"""The ports of groups that share shards: a shard is owned, and a position is committed.

Does        name the verbs, and the values that go with them. `ports` hands all of this on; import
            it from there.
Does not    hold rules or I/O.
Invariants  those of `ports`, and
            1. only the owner of an epoch commits; an epoch is never used twice.
            2. all that a commit carries is kept in one step, or nothing of it.
            3. the backend knows no single event: what became of those behind the position, the
               owner writes down in `notes`, which mean nothing to the backend.
Used by     streams (above), backends (below).
Source      Kafka's consumer groups: positions, generations, cooperative rebalance.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple, Protocol

from penstock.event import Position, Shard
from penstock.group_ports import MemberOptions, Page


class ShardGroups(Protocol):
    """Consumer groups whose members own whole shards."""

    async def own(self, stream: Shard, group: str, member: MemberOptions) -> ShardMember:
        """Become a member for all shards of the stream; shards are spread over living members.

        Waits up to one lease while a living member bears the given name. Cancelled: not a member.

        Raises:
            ConfigError: it still lives after one lease; or the group shares single events.
        """
        ...


class Ownership(NamedTuple):
    """A shard that is owned: its epoch fences every commit; the rest came with the position.

    Attributes:
        epoch: names the owner, and no other before or after it.
        start: behind what its first page begins.
        committed: up to where all is done; None: nothing has been committed yet.
        state: what the owner kept with the position.
        notes: what the owner kept about events behind the position; ``b""``: nothing.
        age: how long ago, in seconds, by the backend's clock, that was when the shard was taken.
    """

    epoch: int
    start: Position
    committed: Position | None
    state: bytes | None
    notes: bytes = b""
    age: float = 0.0


class Burial(NamedTuple):
    """An event that becomes a dead letter; `raw` holds its fields, also if it was trimmed.

    `replay`: `id` is its place in the replay log, and the letter names the event's own.
    """

    id: bytes
    attempts: int
    deliveries: int
    error: str
    reason: str
    raw: Sequence[bytes]
    replay: bool = False


class Along(NamedTuple):
    """What is kept in the same step as a position.

    Attributes:
        notes: see `Ownership.notes`; they replace the last ones.
        burials: events that become dead letters of the group.
        replayed: ids of the shard's replay log that are done: they are removed from it.
    """

    notes: bytes = b""
    burials: Sequence[Burial] = ()
    replayed: Sequence[bytes] = ()


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

    @property
    def yielding(self) -> Sequence[Shard]:
        """Owned shards that others are due: stop handing out, commit what is done, `release`.

        Nothing of them is fetched any more. After one lease they go without being released.
        """
        ...

    @property
    def good_until(self) -> float:
        """Until when, by the monotonic clock, no other member can have taken this one for dead."""
        ...

    def lapse(self) -> None:
        """Take this incarnation for over: the next fetch begins a new one, and owns nothing."""
        ...

    def rest(self, resting: bool) -> None:
        """Be due no shard from now on, because the program hangs; or be due its share again.

        While others are awake, all its shards are theirs: `yielding` names them, and they go as
        ever. While all members rest, each keeps what it has. It goes on beating, also under
        another incarnation. Waits for nothing: the others know within a look.
        """
        ...

    async def fetch(
        self, limit: int, wait: float, ahead: int = 0, paused: Container[Shard] = ()
    ) -> Sequence[Page]:
        """The next entries of owned shards, each shard in order, its pages with the owner's epoch.

        Waits up to *wait* seconds; returns early when `yielding` has changed. It must be called
        often, also while there is no room: *limit* 0 fetches nothing, and looks after the shards.
        Pages of a shard's replay log say so in their shard.

        Args:
            limit: how many entries at most, and one page more.
            wait: seconds.
            ahead: for how many more there is room, so that the next read may be under way already.
            paused: shards of which nothing is to be fetched; their replay logs are named apart.

        Raises:
            Rebalanced: shards came or went; `owned` is already the new state.
            BackendUnavailable: may be called again.
        """
        ...

    async def commit(
        self,
        shard: Shard,
        epoch: int,
        position: Position,
        state: bytes | None = None,
        along: Along | None = None,
    ) -> None:
        """Everything up to *position* is done; kept with *state*, and *along*, in one step.

        Called for one shard at a time. When the outcome is not known, calling it again with the
        same arguments has its effects once.

        Raises:
            LeaseLost: another epoch owns the shard; nothing was kept.
            BackendError: nothing was kept, or it is not known.
        """
        ...

    async def release(self, shard: Shard) -> None:
        """Give an owned shard up, at what was committed; the next fetch raises `Rebalanced`."""
        ...

    async def progress(self, shard: Shard) -> Position | None:
        """Up to where the group has committed, whoever owns the shard; None: nothing yet."""
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
