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
from penstock.backends.redis.control import close_async
from penstock.backends.redis.cursor import RedisCursor
from penstock.backends.redis.describing import describe, destroy
from penstock.backends.redis.keys import Keys, stream_key
from penstock.backends.redis.link import Address
from penstock.backends.redis.listing import stream_names
from penstock.backends.redis.plain import PlainAppender
from penstock.backends.redis.replies import text
from penstock.backends.redis.scripts import PAGE
from penstock.backends.redis.sentinel import MasterWatch
from penstock.backends.redis.shard_groups import RedisShardGroups
from penstock.backends.redis.tending import retain, tend
from penstock.backends.redis.trimming import trim
from penstock.clock import Clock, SystemClock
from penstock.errors import BackendRejected, ConfigError
from penstock.event import Position, Shard, Start
from penstock.observers import Observers
from penstock.ports import (
    Appender,
    AppendOptions,
    Confirm,
    Features,
    Marks,
    RawEntry,
    Retention,
    StreamInfo,
    Tended,
    TrimTo,
)
from penstock.rules.durability import Way, way_of

if TYPE_CHECKING:
    import redis.asyncio

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

    async def confirms(self, level: Confirm) -> None:
        """See `ports.Log.confirms`."""
        await self._way(level)

    async def describe(self, stream: str) -> StreamInfo | None:
        """See `ports.Log.describe`."""
        return await describe(self.link, stream)

    async def streams(self, pattern: str = "*", limit: int | None = None) -> Sequence[str]:
        """See `ports.Log.streams`."""
        return await stream_names(self.link, pattern, limit)

    async def appender(self, shard: Shard, marks: Marks, options: AppendOptions) -> Appender:
        """See `ports.Log.appender`."""
        keys = Keys.of(shard)
        appender: RedisAppender | PlainAppender
        way = await self._way(options.confirm)
        if way.command and not options.idempotent:
            raise ConfigError(f"confirm={options.confirm!r} needs a session, got idempotent=False")
        if options.idempotent:
            appender = RedisAppender(self.link, keys, marks, options, self.clock, self.observers)
            if way.command:  # it waits, so on a connection where nobody else does
                appender.confirm_by(way, self.another_link())
        else:
            appender = PlainAppender(self.link, keys, marks, options)
        try:
            await appender.open()
        except BaseException:
            await appender.aclose()
            raise
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
        """See `ports.Log.trim`."""
        return await trim(self.link, shard, limit)

    async def remove(self, shard: Shard, positions: Sequence[Position]) -> int:
        """See `ports.Log.remove`."""
        key, ids = stream_key(shard), [str(position) for position in positions]
        pages = [ids[at : at + PAGE] for at in range(0, len(ids), PAGE)]
        replies = [
            await self.link.call("XDEL", key, *page, verb="remove from", key=key) for page in pages
        ]
        return sum(replies)

    async def _way(self, level: Confirm) -> Way:
        """How the server confirms at *level*, as it stands now."""
        if level == "server":
            return Way()
        facts = await self.link.call("INFO", verb="confirm appends to")
        lines = [line.partition(":") for line in facts.decode().splitlines() if ":" in line]
        try:
            flat = await self.link.call("CONFIG", "GET", "appendfsync", verb="confirm appends to")
        except BackendRejected:
            flat = list[Any]()  # no right to it: what is not known counts as the weaker
        config = {
            text(name): text(value) for name, value in zip(flat[::2], flat[1::2], strict=True)
        }
        return way_of(level, {name: value for name, _, value in lines}, config)

    async def tend(self, stream: str) -> Tended:
        """See `ports.Log.tend`."""
        return await tend(self.link, stream)

    async def retain(self, stream: str, retention: Retention | None) -> bool:
        """See `ports.Log.retain`."""
        return await retain(self.link, stream, retention)

    async def destroy(self, stream: str) -> bool:
        """See `ports.Log.destroy`."""
        return await destroy(self.link, stream)

    async def aclose(self) -> None:
        """See `ports.Log.aclose`. Cancelled: all connections are closed all the same."""
        try:
            await self._stop_beating()
            if self._watch is not None:
                await self._watch.aclose()
        finally:
            self.close_links()
            if self._redis is not None:
                await close_async(self._redis)
