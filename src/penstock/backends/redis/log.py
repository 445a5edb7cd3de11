"""RedisBackend: the ports on one Redis or Valkey.

Does        append, read, describe, trim, destroy; make group members.
Does not    know events, codecs or layouts.
Invariants  1. one shared connection for everything that does not block; a connection of its own
               for every cursor and member, whose reads do.
            2. nothing is sent twice by itself except what the append session makes harmless.
Used by     streams, through `ports`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from penstock.backends.redis.appender import RedisAppender
from penstock.backends.redis.cursor import RedisCursor
from penstock.backends.redis.edge import ReplyError, mapped, refused
from penstock.backends.redis.keys import Keys, stream_key
from penstock.backends.redis.link import Address
from penstock.backends.redis.plain import PlainAppender
from penstock.backends.redis.replies import by_name, position_or_none, text
from penstock.backends.redis.scripts import PAGE, TRIM, TRIMMED
from penstock.backends.redis.sentinel import MasterWatch
from penstock.backends.redis.shard_groups import RedisShardGroups
from penstock.backends.redis.wire import Arg
from penstock.clock import Clock, SystemClock
from penstock.errors import BackendRejected, NotFound
from penstock.event import Position, Shard, Start
from penstock.observers import Observers
from penstock.ports import (
    Appender,
    AppendOptions,
    Features,
    Marks,
    RawEntry,
    StreamInfo,
    TrimTo,
)

if TYPE_CHECKING:
    import redis.asyncio

_MARKS: Final = ("layout", "codec", "shards", "shard")

FLOOR: Final = (7, 0)
"""The oldest Redis that has what we need (XAUTOCLAIM with deleted ids, ``<ms>-*``)."""


class RedisBackend(RedisShardGroups):
    """One Redis or Valkey server. `open` before anything else.

    Args:
        address: where, and as whom.
        clock: for delays and leases.
        observers: told what nobody waits for.
    """

    features = Features("redis", event_groups=True, shard_groups=True, shards=True, idempotent=True)

    def __init__(
        self, address: Address, *, clock: Clock | None = None, observers: Observers | None = None
    ) -> None:
        super().__init__(address, clock or SystemClock(), observers or Observers())
        self.server: dict[str, str] = {}
        self._watch: MasterWatch | None = None
        self._redis: redis.asyncio.Redis | None = None

    @property
    def redis(self) -> redis.asyncio.Redis:
        """The redis-py client underneath, its retries off; made on first use."""
        if self._redis is None:
            from penstock.backends.redis.control import async_client

            self._redis = async_client(self.address)
        return self._redis

    async def open(self) -> None:
        """Connect, and see that the server is new enough.

        Raises:
            BackendUnavailable: no connection within the address's timeout.
            BackendRejected: wrong credentials, or a server older than Redis 7.0.
        """
        await self.link.wire()
        if self.address.sentinels is not None:
            self._watch = MasterWatch(self.address, self.clock, self._on_moved)
        try:
            reply = await self.link.call("INFO", "server", verb="connect")
        except BackendRejected:
            return  # no right to INFO: commands will say what is missing
        lines = [line.partition(":") for line in reply.decode().splitlines() if ":" in line]
        self.server = {name: value for name, _, value in lines}
        version = self.server.get("redis_version", "0")
        if tuple(map(int, version.split(".")[:2])) < FLOOR and "valkey_version" not in self.server:
            self.link.close()
            raise BackendRejected(
                f"redis at {self.address.place} must be 7.0 or newer (or any Valkey), "
                f"got {version}; update the server, or use embedded://",
                backend="redis",
                verb="connect",
            )

    async def describe(self, stream: str) -> StreamInfo | None:
        """See `ports.Log.describe`."""
        keys = Keys(stream)
        wire = await self.link.wire()
        with mapped(self.address.place, verb="describe", key=stream):
            stored, *about = await wire.call_many(
                [("HMGET", keys.meta, *_MARKS), *_questions(stream)],
                timeout=self.address.timeout,
            )
            marks = _marks(stored)
            if marks is None or marks.shards == 1:
                return _stream_info(stream, marks, [_shard_info(stream, about)])
            shards = [stream_key(Shard(stream, n, marks.shards)) for n in range(marks.shards)]
            asked = [question for key in shards for question in _questions(key)]
            replies = await wire.call_many(asked, timeout=self.address.timeout)
        each = len(about)
        parts = [replies[at : at + each] for at in range(0, len(replies), each)]
        found = [_shard_info(key, part) for key, part in zip(shards, parts, strict=True)]
        return _stream_info(stream, marks, found)

    async def appender(self, shard: Shard, marks: Marks, options: AppendOptions) -> Appender:
        """See `ports.Log.appender`."""
        keys = Keys.of(shard)
        appender: RedisAppender | PlainAppender
        if options.idempotent:
            appender = RedisAppender(self.link, keys, marks, options, self.clock, self.observers)
        else:
            appender = PlainAppender(self.link, keys, marks, options)
        await appender.open()
        return appender

    async def cursor(self, starts: Mapping[Shard, Start]) -> RedisCursor:
        """See `ports.Log.cursor`."""
        cursor = RedisCursor(self.another_link(), self.link, self.clock)
        await cursor.move(starts)
        return cursor

    async def read_range(
        self, shard: Shard, first: Position | None, last: Position | None, limit: int, reverse: bool
    ) -> Sequence[RawEntry]:
        """See `ports.Log.read_range`."""
        low = "-" if first is None else str(first)
        high = "+" if last is None else str(last)
        key = stream_key(shard)
        ends = ("XREVRANGE", key, high, low) if reverse else ("XRANGE", key, low, high)
        return await self.link.call(*ends, "COUNT", limit, verb="read", key=key)

    async def trim(self, shard: Shard, limit: TrimTo) -> int:
        """See `ports.Log.trim`. In pages, so that the server is never busy for long."""
        most = -1 if limit.max_events is None else limit.max_events
        before = "" if limit.before is None else str(limit.before)
        flags = (int(limit.acked_only), TRIMMED, int(limit.approximate))
        positions = Keys.of(shard).positions
        removed, more = 0, 1
        while more:
            count, more = await self.link.run(
                TRIM, [stream_key(shard), positions], most, before, *flags, verb="trim"
            )
            removed += count
        return removed

    async def remove(self, shard: Shard, positions: Sequence[Position]) -> int:
        """See `ports.Log.remove`."""
        key, ids = stream_key(shard), [str(position) for position in positions]
        pages = [ids[at : at + PAGE] for at in range(0, len(ids), PAGE)]
        replies = [
            await self.link.call("XDEL", key, *page, verb="remove from", key=key) for page in pages
        ]
        return sum(replies)

    async def destroy(self, stream: str) -> bool:
        """See `ports.Log.destroy`. The marks go last: broken off, it can be called again."""
        info = await self.describe(stream)
        count = info.marks.shards if info is not None and info.marks is not None else 1
        there = info is not None and count > 1
        rosters = await self.sharing(Keys.of(Shard(stream, 0, count)))
        for index in range(count):
            there |= await self._destroy(Keys.of(Shard(stream, index, count)))
        if count > 1:
            base = Keys(stream)
            rosters = [base.roster(name) for name in rosters]
            await self.link.call("UNLINK", base.meta, *rosters, verb="destroy", key=stream)
        return there

    async def _destroy(self, keys: Keys) -> bool:
        """Remove one key with all that is kept beside it."""
        about = [keys.meta, keys.positions]
        groups: list[Any] = []
        with contextlib.suppress(NotFound):
            groups = await self.link.call("XINFO", "GROUPS", keys.stream, verb="destroy")
        for group in groups:
            about += keys.of_group(text(by_name(group)["name"]))
        for name in await self.sharing(keys):
            about += keys.of_group(name)
        await self.link.call("UNLINK", *about, verb="destroy", key=keys.stream)
        return bool(await self.link.call("UNLINK", keys.stream, verb="destroy", key=keys.stream))

    async def aclose(self) -> None:
        """See `ports.Log.aclose`."""
        await self._stop_beating()
        if self._watch is not None:
            await self._watch.aclose()
        self.link.close()
        if self._redis is not None:
            await self._redis.aclose()


class _ShardInfo(NamedTuple):
    """One key as it stands."""

    length: int
    added: int | None
    oldest: Position | None
    newest: Position | None
    groups: frozenset[str]
    bytes: int | None


_NOTHING: Final = _ShardInfo(0, 0, None, None, frozenset(), 0)
"""A shard that nothing was appended to."""


def _questions(key: str) -> list[tuple[Arg, ...]]:
    return [
        ("XINFO", "STREAM", key),
        ("XINFO", "GROUPS", key),
        ("MEMORY", "USAGE", key),
        ("HKEYS", Keys(key).positions),
    ]


def _shard_info(key: str, replies: Sequence[Any]) -> _ShardInfo | None:
    """What the server says about one key; None if there is none."""
    info, groups, size, sharing = replies
    if isinstance(info, ReplyError):
        error = refused(info, verb="describe", key=key)
        if isinstance(error, NotFound):
            return None
        raise error
    about = by_name(info)
    first, last = about.get("first-entry"), about.get("last-entry")
    names = () if isinstance(groups, ReplyError) else map(by_name, groups)
    sharers = () if isinstance(sharing, ReplyError) else sharing
    return _ShardInfo(
        length=about["length"],
        added=about.get("entries-added"),
        oldest=position_or_none(first[0] if first else None),
        newest=position_or_none(last[0] if last else None),
        groups=frozenset([*(text(name["name"]) for name in names), *map(text, sharers)]),
        bytes=size if isinstance(size, int) else None,
    )


def _marks(stored: Any) -> Marks | None:
    """The marks of a stream; beside one shard lies a copy, and that key alone is one stream."""
    if isinstance(stored, ReplyError) or stored[0] is None:
        return None
    layout, codec, shards, shard = stored
    return Marks(text(layout), text(codec), int(shards) if shard is None else 1)


def _stream_info(
    stream: str, marks: Marks | None, found: Sequence[_ShardInfo | None]
) -> StreamInfo | None:
    if found == [None]:
        return None
    parts = [one or _NOTHING for one in found]
    added = [one.added for one in parts if one.added is not None]
    return StreamInfo(
        name=stream,
        marks=marks,
        length=sum(one.length for one in parts),
        added=sum(added) if len(added) == len(parts) else None,
        oldest=tuple(one.oldest for one in parts),
        newest=tuple(one.newest for one in parts),
        groups=len(frozenset[str]().union(*(one.groups for one in parts))),
        bytes=None
        if any(one.bytes is None for one in parts)
        else sum(one.bytes or 0 for one in parts),
    )
