"""The ports of consumer groups that share events; those that share shards: `shard_ports`.

Does        name the verbs of groups that share events, and what both kinds have in common.
Does not    hold rules or I/O. `ports` hands all of this on; import it from there.
Invariants  those of `ports`.
Used by     streams (above), backends (below).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Sequence
from typing import Any, NamedTuple, Protocol

from penstock.errors import BackendUnavailable, ConfigError
from penstock.event import Position, Shard, Start
from penstock.info import DeadLetter, Death, GroupInfo, PendingInfo

RawEntry = Sequence[Any]
"""An entry on the way out: ``[id: bytes, flat fields: list[bytes] | None]``; None: trimmed."""


class Page(NamedTuple):
    """Entries of one shard, in order.

    `counts` has (deliveries, failed attempts, company) by entry; None means (1, 0, 0) for all of
    them. *company*: the most events that may be handed out together with it, itself included,
    after a batch failed as a whole; 0: any number.
    `epoch` is the owner's epoch in a ShardGroup, 0 elsewhere.
    """

    shard: Shard
    entries: Sequence[RawEntry]
    counts: Sequence[tuple[int, int, int]] | None = None
    epoch: int = 0


class EventGroups(Protocol):
    """Consumer groups whose members share single events."""

    async def join(self, shards: Sequence[Shard], group: str, member: MemberOptions) -> EventMember:
        """Become a member; a group that does not exist is made, and begins at the given start.

        Raises:
            ConfigError: a living member has the same given name.
            ShardsCame: as one log, and the stream is in shards by now.
        """
        ...

    async def groups(self, shard: Shard) -> Sequence[GroupInfo]:
        """Every group of the shard."""
        ...

    async def pending(self, shard: Shard, group: str, limit: int) -> Sequence[PendingInfo]:
        """The oldest pending events of the group, at most *limit*.

        Raises:
            NotFound: there is no such group.
            ConfigError: it shares shards: there is no such list, but a lag.
        """
        ...

    async def drop(self, shard: Shard, group: str) -> bool:
        """Remove the group with all that is kept for it; False if there was none."""
        ...

    async def create_group(self, shard: Shard, group: str, start: Start) -> bool:
        """Make a group that shares events, and the stream if need be; False if it was there.

        In shards, a group that was there while the stream was one log without events begins at
        the oldest, whatever *start* says: all of it is new. ShardsCame: as for `join`.
        """
        ...

    async def reset_group(
        self, shard: Shard, group: str, start: Start, *, force: bool = False
    ) -> None:
        """Set a group of either kind elsewhere: nothing is pending, no failure or state is kept.

        Dead letters stay. Waits up to one lease to see that who is in it is dead. *force*: its
        living members are told (GroupVanished, Rebalanced), and begin anew.

        Raises:
            ConfigError: a member lives, and it is not forced.
            NotFound: there is no such group.
        """
        ...


class Letters(Protocol):
    """The dead letters of a group, whichever way it shares: what it has given up."""

    async def letters(
        self, shard: Shard, group: str, after: Position | None, limit: int
    ) -> Sequence[DeadLetter]:
        """Up to *limit* letters, oldest first, behind the letter *after*; None: from the first."""
        ...

    async def count_letters(self, shard: Shard, group: str) -> int:
        """How many there are."""
        ...

    async def replay(self, shard: Shard, group: str, ids: Sequence[Position]) -> int:
        """Hand letters back to that group alone, as if they had never failed; how many.

        Each in one step: it is a letter, or the group's to handle. One that is gone is skipped.
        """
        ...

    async def drop_letters(self, shard: Shard, group: str, ids: Sequence[Position]) -> int:
        """Remove letters for good; how many there were."""
        ...


class MemberOptions(NamedTuple):
    """How a member behaves. `name` None: one of its own, never used before. Seconds throughout.

    `hold`: where the event loop has not turned for so long, the member stops beating.
    `noack`: what is new is acked as it is handed out: at most once.
    """

    start: Start
    name: str | None = None
    lease: float = 30.0
    hold: float = 300.0
    foreign_idle: float = 300.0
    noack: bool = False


class EventMember(Protocol):
    """One member of a group that shares events, leased by its heartbeat."""

    @property
    def name(self) -> str:
        """The name that the backend knows the member by."""
        ...

    async def fetch(
        self, limit: int, wait: float, ahead: int = 0, *, new: bool = True
    ) -> Sequence[Page]:
        """Events for this member, at most *limit* and one page more; waits up to *wait* seconds.

        *ahead*: for how many more there is room, so that the next read may be under way already.
        *new* False: nothing that the group has not handed out before.

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
        self,
        shard: Shard,
        ids: Sequence[bytes],
        delay: float,
        *,
        failed: bool,
        company: int = 0,
        most: int = 0,
    ) -> Sequence[bytes]:
        """Hand events back, due for anybody after *delay* seconds; the ids that were still its own.

        *failed* counts an attempt, and keeps *company* with it: see `Page`. *most*: the most
        events that the group may have parked; 0: any number.

        Raises:
            ParkedFull: there are that many; what it names is still this member's.
        """
        ...

    async def bury(self, shard: Shard, deaths: Sequence[Death]) -> Sequence[bytes]:
        """Move events to the dead letters; the ids that were still its own.

        Each in one step with its contents, where the log still has them: kept there, acked, its
        failures forgotten. One that cannot be kept stays pending.
        """
        ...

    async def rest(self) -> None:
        """End the read that is under way; hand back, uncounted, what only that was given.

        The member goes on beating; the next fetch reads again.
        """
        ...

    async def add(self, shards: Sequence[Shard], start: Start | None = None) -> None:
        """Be a member for *shards* too, from the next fetch on.

        *start*: where a group that is new there begins; None: as the member was told.

        Raises:
            ConfigError: a living member has its name there.
        """
        ...

    async def remove(self, shards: Sequence[Shard]) -> None:
        """Leave *shards*, as `leave` does for all of them; at least one stays."""
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


class ParkedFull(Exception):
    """So many events of the group are parked that these were not: they are still the member's."""

    def __init__(self, kept: Sequence[bytes], left: Sequence[bytes]) -> None:
        super().__init__(f"{len(left)} events found no room among the parked")
        self.kept = tuple(kept)
        self.left = tuple(left)


class ShardsCame(BackendUnavailable):
    """The stream was to be one log, and is in shards by now: look at it anew, and join those."""

    def __init__(self, stream: str) -> None:
        super().__init__(f"{stream!r} has come to be in shards", verb="join a group of", key=stream)


class GroupVanished(Exception):
    """The group was lost and made anew: drop queued acks. `start` says from where it goes on."""

    def __init__(self, stream: str, start: str) -> None:
        super().__init__(f"{stream}: made anew from {start}")
        self.stream = stream
        self.start = start


def no_pending_list(shard: Shard, group: str) -> ConfigError:
    """What a backend says of the pending list of a group that has none."""
    return ConfigError(
        f"group {group!r} of {shard.stream!r} shares shards, and so keeps no list of what is "
        f"pending, only a position; see how far it is behind (lag)"
    )
