"""RedisBackend: the ports on one Redis or Valkey.

Does        append, read, describe, trim, destroy; make group members.
Does not    know events, codecs or layouts.
Invariants  1. one shared connection for everything that does not block; a connection of its own
               for every cursor and member, whose reads do.
            2. nothing is sent twice by itself except what the append session makes harmless.
Used by     streams, through `ports`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from penstock.backends.redis.appender import RedisAppender
from penstock.backends.redis.cursor import RedisCursor, start_id
from penstock.backends.redis.edge import ReplyError, mapped, refused
from penstock.backends.redis.groups import RedisGroups
from penstock.backends.redis.keys import Keys
from penstock.backends.redis.link import Address, Link
from penstock.backends.redis.plain import PlainAppender
from penstock.backends.redis.replies import by_name, position_or_none, text
from penstock.backends.redis.scripts import PAGE, TRIM, TRIMMED
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

FLOOR: Final = (7, 0)
"""The oldest Redis that has what we need (XAUTOCLAIM with deleted ids, ``<ms>-*``)."""


class RedisBackend(RedisGroups):
    """One Redis or Valkey server. `open` before anything else.

    Args:
        address: where, and as whom.
        clock: for delays and leases.
        observers: told what nobody waits for.
    """

    features = Features(
        "redis", event_groups=True, shard_groups=False, shards=False, idempotent=True
    )

    def __init__(
        self, address: Address, *, clock: Clock | None = None, observers: Observers | None = None
    ) -> None:
        super().__init__(address, clock or SystemClock(), observers or Observers())
        self.server: dict[str, str] = {}
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
            info, marks, size = await wire.call_many(
                [
                    ("XINFO", "STREAM", stream),
                    ("HMGET", keys.meta, "layout", "codec", "shards"),
                    ("MEMORY", "USAGE", stream),
                ],
                timeout=self.address.timeout,
            )
        if isinstance(info, ReplyError):
            error = refused(info, verb="describe", key=stream)
            if isinstance(error, NotFound):
                return None
            raise error
        return _stream_info(stream, by_name(info), marks, size)

    async def appender(self, shard: Shard, marks: Marks, options: AppendOptions) -> Appender:
        """See `ports.Log.appender`."""
        keys = Keys(shard.stream)
        appender: RedisAppender | PlainAppender
        if options.idempotent:
            appender = RedisAppender(self.link, keys, marks, options, self.clock, self.observers)
        else:
            appender = PlainAppender(self.link, keys, marks, options)
        await appender.open()
        return appender

    async def cursor(self, starts: Mapping[Shard, Start]) -> RedisCursor:
        """See `ports.Log.cursor`."""
        after = {shard: await start_id(self.link, shard, start) for shard, start in starts.items()}
        return RedisCursor(Link(self.address, self.clock, self.observers), after)

    async def read_range(
        self, shard: Shard, first: Position | None, last: Position | None, limit: int, reverse: bool
    ) -> Sequence[RawEntry]:
        """See `ports.Log.read_range`."""
        low = "-" if first is None else str(first)
        high = "+" if last is None else str(last)
        ends = ("XREVRANGE", shard.stream, high, low)
        if not reverse:
            ends = ("XRANGE", shard.stream, low, high)
        return await self.link.call(*ends, "COUNT", limit, verb="read", key=shard.stream)

    async def trim(self, shard: Shard, limit: TrimTo) -> int:
        """See `ports.Log.trim`. In pages, so that the server is never busy for long."""
        most = -1 if limit.max_events is None else limit.max_events
        before = "" if limit.before is None else str(limit.before)
        flags = (int(limit.acked_only), TRIMMED, int(limit.approximate))
        removed, more = 0, 1
        while more:
            count, more = await self.link.run(
                TRIM, [shard.stream], most, before, *flags, verb="trim"
            )
            removed += count
        return removed

    async def remove(self, shard: Shard, positions: Sequence[Position]) -> int:
        """See `ports.Log.remove`."""
        ids = [str(position) for position in positions]
        pages = [ids[at : at + PAGE] for at in range(0, len(ids), PAGE)]
        replies = [
            await self.link.call("XDEL", shard.stream, *page, verb="remove from", key=shard.stream)
            for page in pages
        ]
        return sum(replies)

    async def destroy(self, stream: str) -> bool:
        """See `ports.Log.destroy`."""
        keys = Keys(stream)
        about = [keys.meta]
        info = await self.describe(stream)
        if info is not None and info.groups:
            for name in await self._group_names(stream):
                about += [keys.beats(name), keys.parked(name), keys.attempts(name)]
        await self.link.call("UNLINK", *about, verb="destroy", key=stream)
        return bool(await self.link.call("UNLINK", stream, verb="destroy", key=stream))

    async def aclose(self) -> None:
        """See `ports.Log.aclose`."""
        await self._stop_beating()
        self.link.close()
        if self._redis is not None:
            await self._redis.aclose()


def _stream_info(stream: str, info: dict[str, Any], marks: Any, size: Any) -> StreamInfo:
    first, last = info.get("first-entry"), info.get("last-entry")
    layout, codec, shards = (None, None, 1) if isinstance(marks, ReplyError) else marks
    return StreamInfo(
        name=stream,
        marks=None if layout is None else Marks(text(layout), text(codec), int(shards)),
        length=info["length"],
        added=info.get("entries-added"),
        oldest=(position_or_none(first[0] if first else None),),
        newest=(position_or_none(last[0] if last else None),),
        groups=info["groups"],
        bytes=size if isinstance(size, int) else None,
    )
