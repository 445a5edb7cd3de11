"""Administration: what one asks about a stream, and what one removes from it.

Does        describe, read ranges, list groups; trim, remove, destroy.
Does not    append, or read as it comes: `stream.Stream`, which is this plus that, does.
Invariants  1. nothing here holds state of its own: each call asks the backend.
Used by     `stream.Stream`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from penstock.errors import ConfigError, NotFound
from penstock.event import OLDEST, Event, Position, Shard, Start
from penstock.ports import GroupInfo, ShardsCame, StreamInfo, TrimTo
from penstock.streams.dead_letters import DeadLetters
from penstock.streams.format import Format, ShardOrigin
from penstock.streams.names import check_label

if TYPE_CHECKING:
    from penstock.streams.client import Client

T = TypeVar("T")


class Administration(Generic[T]):
    """What `Stream` offers to those who look after it.

    Attributes:
        name: the stream's name.
        client: the client that it came from.
    """

    def __init__(self, client: Client, name: str) -> None:
        self.name = name
        self.client = client
        self._of = 1

    @property
    def shards(self) -> int:
        """How many shards the stream has, as far as this handle knows by now."""
        raise NotImplementedError

    async def format(self) -> Format:
        """How the stream is stored, or will be; ConfigError if this handle asks for another way."""
        raise NotImplementedError

    async def look_again(self) -> int:
        """How many shards the stream has now: it may have come to be since, or have grown."""
        raise NotImplementedError

    def forget(self) -> None:
        """The stream is gone: look at it anew when it is used again."""
        raise NotImplementedError

    async def origin(self, shard: int = 0) -> ShardOrigin:
        """How events of a shard are read."""
        return ShardOrigin(self.name, shard, await self.format())

    def shard(self, index: int) -> Shard:
        """The shard's name for the backend; ConfigError if there is no such shard."""
        if not 0 <= index < self.shards:
            raise ConfigError(
                f"a shard of {self.name!r} must be from 0 to {self.shards - 1}, got {index}"
            )
        return Shard(self.name, index, self._of)

    async def read_range(
        self,
        start: Position | None = None,
        end: Position | None = None,
        *,
        limit: int = 1000,
        reverse: bool = False,
        shard: int = 0,
    ) -> list[Event[T]]:
        """Up to *limit* events of one shard from *start* to *end*, both included.

        Args:
            start: None: the oldest.
            end: None: the newest.
            limit: events at most.
            reverse: newest first.
            shard: which shard.

        Raises:
            ConfigError: a limit below 1, or no such shard.
            BackendError: refused, or not reachable.
        """
        if limit < 1:
            raise ConfigError(f"limit must be at least 1 event, got {limit}")
        origin = await self.origin(shard)
        log = self.client.backend
        entries = await log.read_range(self.shard(shard), start, end, limit, reverse)
        return [
            Event(origin, entry[0], entry[1], 1, 0, len(b"".join(entry[1]))) for entry in entries
        ]

    async def length(self) -> int:
        """How many events the stream holds; 0 if there is no such stream."""
        info = await self.client.backend.describe(self.name)
        return info.length if info else 0

    async def info(self) -> StreamInfo:
        """The stream as it stands.

        Raises:
            NotFound: there is no such stream.
            BackendError: refused, or not reachable.
        """
        info = await self.client.backend.describe(self.name)
        if info is None:
            raise NotFound(f"there is no stream {self.name!r}", verb="describe", key=self.name)
        return info

    async def groups(self) -> list[GroupInfo]:
        """Every group, by shard; none if there is no such stream."""
        await self.format()
        backend = self.client.backend
        try:
            found = [await backend.groups(self.shard(index)) for index in range(self.shards)]
        except NotFound:
            return []
        return [group for groups in found for group in groups]

    async def trim(
        self,
        *,
        max_events: int | None = None,
        before: Position | None = None,
        acked_only: bool = True,
        approximate: bool = False,
    ) -> int:
        """Remove the oldest events; how many were removed.

        Args:
            max_events: leave that many of the newest, by shard.
            before: remove what stands before this position.
            acked_only: keep whatever any group has not yet acked.
            approximate: leave up to a hundred more, at less cost for the server.

        Raises:
            ConfigError: neither or both of the first two.
            BackendError: refused, or not reachable.
        """
        if (max_events is None) == (before is None) or (max_events or 0) < 0:
            raise ConfigError(
                f"trim takes either max_events (0 or more) or before, "
                f"got max_events={max_events!r} and before={before!r}"
            )
        limit = TrimTo(max_events, before, acked_only, approximate)
        shards = [self.shard(index) for index in range(self.shards)]
        return sum([await self.client.backend.trim(shard, limit) for shard in shards])

    async def remove(self, positions: Sequence[Position], *, shard: int = 0) -> int:
        """Remove single events of one shard, acked or not; how many there were."""
        return await self.client.backend.remove(self.shard(shard), positions)

    async def destroy(self) -> bool:
        """Remove the stream with its groups and all that is kept for it; False if there is none."""
        existed = await self.client.backend.destroy(self.name)
        self.forget()
        return existed

    async def create_group(self, name: str, start: Start = OLDEST) -> bool:
        """Make a group that shares events, before anybody joins it; False if it was there.

        Args:
            name: the group's name.
            start: where it begins.

        Raises:
            ConfigError: a name that may not be.
            NotFound: there is no such stream.
            BackendError: refused, or not reachable.

        Source: Redis XGROUP CREATE.
        """
        check_label("group", name)
        await self.info()
        await self.format()
        try:
            return await self._create_group(name, start)
        except ShardsCame:  # between the look and now
            await self.look_again()
            return await self._create_group(name, start)

    async def _create_group(self, name: str, start: Start) -> bool:
        shards = [self.shard(index) for index in range(self.shards)]
        made = [await self.client.backend.create_group(one, name, start) for one in shards]
        return any(made)

    async def reset_group(self, name: str, start: Start, *, force: bool = False) -> None:
        """Set the group *name* elsewhere, with nothing pending; its dead letters stay.

        Waits up to one lease where members have been in it that may have crashed.

        Args:
            name: the group's name, of either kind.
            start: behind which events it goes on, in every shard.
            force: also while members live: they are told, and begin anew.

        Raises:
            ConfigError: a member lives, and it is not forced; nothing was changed.
            NotFound: there is no such group.
            BackendError: refused, or not reachable.

        Source: Redis XGROUP SETID.
        """
        await self.format()
        for index in range(self.shards):
            await self.client.backend.reset_group(self.shard(index), name, start, force=force)

    def dead_letters(self, group: str) -> DeadLetters[T]:
        """The dead letters of *group*: read them with ``async for``, replay or drop them."""
        return DeadLetters(self, check_label("group", group))

    async def drop_group(self, name: str) -> bool:
        """Remove the group *name* with all that is kept for it; False if there is none."""
        await self.format()
        shards = [self.shard(index) for index in range(self.shards)]
        return any([await self.client.backend.drop(shard, name) for shard in shards])
