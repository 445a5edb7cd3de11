"""The memory backend: the reference semantics of the ports, within one process.

Does        keep streams under ``memory://name`` for the life of the process; append, read, trim.
Does not    survive the process. What a stream is, is in `memory_store`; the groups are beside.
Invariants  1. an append is stored, whole, when `submit` returns: its future is already resolved.
            2. a read takes nothing before it returns: cancelled, it has skipped nothing.
            3. every fetch and read lets its loop turn once, so that beats and timers never starve.
Cost        per event: see memory_store. Per read: one pass over the shards.
Used by     streams, and the conformance suite, which this file defines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence

from penstock.backends.memory_cursor import MemoryCursor
from penstock.backends.memory_groups import MemoryEventMember
from penstock.backends.memory_log import Key, StoredLog, padded
from penstock.backends.memory_placing import MemoryPlacing
from penstock.backends.memory_shards import MemoryShardMember
from penstock.backends.memory_store import Place, Store, forget, store_named
from penstock.clock import Clock, SystemClock
from penstock.errors import ClosedError, ConfigError, NotFound, PenstockError
from penstock.event import Position, Shard, Start
from penstock.group_ports import no_pending_list
from penstock.observers import Observers
from penstock.ports import (
    AppendOptions,
    Confirm,
    Features,
    Fields,
    GroupInfo,
    Marks,
    MemberOptions,
    PendingInfo,
    RawEntry,
    Retention,
    Stored,
    StreamInfo,
    Tended,
    Terms,
    TrimTo,
)
from penstock.rules.globs import glob

__all__ = ["MemoryAppender", "MemoryBackend", "MemoryCursor", "forget"]


class MemoryBackend(MemoryPlacing):
    """Logs and groups of both kinds under one name of this process.

    Backends of one name share everything, also across threads and event loops; they should share
    a clock too.

    Args:
        name: the name, as in ``memory://name``.
        clock: where time comes from; the machine's by default.
        observers: who is told of signals; without any they are logged.
    """

    features = Features(
        "memory", event_groups=True, shard_groups=True, shards=True, idempotent=True
    )

    def __init__(
        self, name: str = "", *, clock: Clock | None = None, observers: Observers | None = None
    ) -> None:
        self._name = name
        self._place = Place(store_named(name), clock or SystemClock(), observers or Observers())
        self._closed = False

    async def confirms(self, level: Confirm) -> None:
        """See that appends can be confirmed at *level*.

        Raises:
            ConfigError: any but ``"server"``: there is no disk, and no replica.
        """
        if level != "server":
            raise ConfigError(
                f"memory:// has neither a disk nor replicas to confirm an append, "
                f"got confirm={level!r}"
            )

    async def streams(self, pattern: str = "*", limit: int | None = None) -> Sequence[str]:
        """The names of streams that match the glob *pattern*, sorted; at most *limit*."""
        with self._open_store.lock:
            for name in list(self._place.store.streams):
                self._place.store.expire(name, self._place.clock.time())
            names = sorted(self._place.store.streams)
        wanted = glob(pattern)
        return [name for name in names if wanted.fullmatch(name)][:limit]

    async def describe(self, stream: str) -> StreamInfo | None:
        """The stream as it stands, or None if there is none."""
        with self._open_store.lock:
            self._place.store.expire(stream, self._place.clock.time())
            stored = self._place.store.streams.get(stream)
            if stored is None:
                return None
            logs = stored.all_logs
            sharing = stored.shard_groups if len(logs) > 1 else stored.lone_groups
            groups = {name for log in logs for name in log.event_groups}
            return StreamInfo(
                name=stream,
                marks=stored.marks,
                length=sum(len(log.keys) for log in logs),
                added=sum(log.added for log in logs),
                oldest=tuple(Position(log.keys[0]) if log.keys else None for log in logs),
                newest=tuple(Position(log.keys[-1]) if log.keys else None for log in logs),
                groups=len(groups | sharing.keys()),
                bytes=sum(log.bytes for log in logs),
                delayed=sum(log.extras.delayed for log in logs),
                retention=stored.retention,
            )

    async def appender(self, shard: Shard, marks: Marks, options: AppendOptions) -> MemoryAppender:
        """Open a session that appends to *shard*.

        Raises:
            ConfigError: the stream is stored with other marks.
            NotFound: `only_if_exists`, and the stream does not: raised by the appends, not here.
        """
        await self.confirms(options.confirm)
        with self._open_store.lock:
            self._place.store.admit(shard, marks, options._replace(only_if_exists=False))
        return MemoryAppender(self._place, shard, marks, options)

    async def cursor(self, starts: Mapping[Shard, Start]) -> MemoryCursor:
        """Open a cursor over several shards; NEWEST is anchored before this returns.

        Raises:
            ConfigError: *starts* names no shard.
        """
        if not starts:
            raise ConfigError("a cursor must read at least one shard, got none")
        with self._open_store.lock:
            return MemoryCursor(self._place, starts)

    async def read_range(
        self, shard: Shard, first: Position | None, last: Position | None, limit: int, reverse: bool
    ) -> Sequence[RawEntry]:
        """Up to *limit* entries from *first* to *last*, both included; *reverse*: newest first."""
        with self._open_store.lock:
            self._place.store.expire(shard.stream, self._place.clock.time())
            log = self._place.store.log(shard)
            return log.range(first, last, limit, reverse) if log else []

    async def trim(self, shard: Shard, limit: TrimTo) -> int:
        """Remove the oldest entries down to *limit*; how many were removed.

        Raises:
            ConfigError: not exactly one of `max_events`, `before` and `max_bytes` is given.
        """
        if (limit.max_events, limit.before, limit.max_bytes).count(None) != 2:
            raise ConfigError(
                f"a trim must have exactly one of max_events, before and max_bytes, "
                f"got {limit} for stream {shard.stream!r}"
            )
        with self._open_store.lock:
            log = self._place.store.log(shard)
            return log.trim(limit, self._needed(shard, log)) if log else 0

    async def remove(self, shard: Shard, positions: Sequence[Position]) -> int:
        """Remove single entries; how many there were."""
        with self._open_store.lock:
            log = self._place.store.log(shard)
            return log.remove(padded(position, 0) for position in positions) if log else 0

    async def tend(self, stream: str) -> Tended:
        """Move what is due into the stream; say what is to be kept of it."""
        with self._open_store.lock:
            return self._place.store.tend(stream, self._place.clock.time())

    async def retain(self, stream: str, retention: Retention | None) -> bool:
        """Keep so much of the stream from now on; False if there is none, or it has no marks."""
        with self._open_store.lock:
            stored = self._place.store.streams.get(stream)
            if stored is None or stored.marks is None:
                return False
            stored.keep(retention, self._place.clock.time())
            return True

    async def destroy(self, stream: str) -> bool:
        """Remove the stream with its groups and everything kept for it; False if there was none."""
        with self._open_store.lock:
            there = self._place.store.streams.pop(stream, None) is not None
            self._place.store.ring_all(stream)
        return there

    async def join(
        self, shards: Sequence[Shard], group: str, member: MemberOptions
    ) -> MemoryEventMember:
        """Become a member; a group that does not exist is made, and begins at the given start.

        Waits up to one lease while a living member bears the given name. Cancelled: not a member.

        Raises:
            ConfigError: it still lives after one lease; or *shards* is empty.
        """
        if not shards:
            raise ConfigError(f"group {group!r} must share at least one shard, got none")
        for shard in shards:
            stream = self._open_store.streams.get(shard.stream)
            if stream is not None and group in stream.sharing(shard):
                raise ConfigError(
                    f"a group shares either single events or whole shards, and {group!r} of "
                    f"{shard.stream!r} shares shards; choose another name, or share='shards'"
                )
        joined = MemoryEventMember(self._open_place, shards, group, member)
        await joined.enter()
        return joined

    async def groups(self, shard: Shard) -> Sequence[GroupInfo]:
        """Every group of the shard, of either kind."""
        now = self._place.clock.monotonic()
        with self._open_store.lock:
            log = self._place.store.log(shard)
            found = log.event_groups if log else {}
            time = self._place.clock.time()
            stream = self._place.store.streams.get(shard.stream)
            sharing = stream.sharing(shard) if stream and log else {}
            return [
                *(group.info(name, shard, now, time) for name, group in found.items()),
                *(
                    group.info(name, shard, log, now, time)
                    for name, group in sharing.items()
                    if log
                ),
            ]

    async def pending(self, shard: Shard, group: str, limit: int) -> Sequence[PendingInfo]:
        """The oldest pending events of the group, at most *limit*.

        Raises:
            NotFound: there is no such group.
            ConfigError: it shares shards, and so has no such list.
        """
        now = self._place.clock.monotonic()
        with self._open_store.lock:
            log = self._place.store.log(shard)
            stream = self._place.store.streams.get(shard.stream)
            if stream is not None and group in stream.sharing(shard):
                raise no_pending_list(shard, group)
            if log is None or group not in log.event_groups:
                raise NotFound(
                    f"pending events are of a group that exists, and {group!r} of stream "
                    f"{shard.stream!r} does not",
                    backend="memory",
                    verb="pending",
                    key=shard.stream,
                )
            return log.event_groups[group].pending(shard, limit, now)

    async def own(self, stream: Shard, group: str, member: MemberOptions) -> MemoryShardMember:
        """Become a member for all shards of the stream; shards are spread over living members.

        Waits up to one lease while a living member bears the given name. Cancelled: not a member.

        Raises:
            ConfigError: it still lives after one lease; or the group shares another number of
                shards.
        """
        owner = MemoryShardMember(self._open_place, stream, group, member)
        await owner.enter()
        return owner

    async def aclose(self) -> None:
        """Close this client; what is stored stays. Cursors, appenders, members: closed before."""
        self._closed = True

    @property
    def _open_place(self) -> Place:
        if self._closed:
            raise ClosedError(f"the client of memory://{self._name} was closed")
        return self._place

    @property
    def _open_store(self) -> Store:
        return self._open_place.store

    def _needed(self, shard: Shard, log: StoredLog) -> Iterator[Key]:
        for group in log.event_groups.values():
            yield group.needed()
        for owners in self._place.store.streams[shard.stream].sharing(shard).values():
            yield owners.needed(shard.index)


class MemoryAppender:
    """One ordered session of appends to one shard."""

    def __init__(self, place: Place, shard: Shard, marks: Marks, options: AppendOptions) -> None:
        self._place = place
        self._shard = shard
        self._marks = marks
        self._options = options
        self._closed = False
        self._begun = False

    def submit(
        self,
        batch: Sequence[Fields],
        timeout: float | None = None,
        terms: Mapping[int, Terms] | None = None,
    ) -> asyncio.Future[Sequence[Stored]]:
        """Store *batch*, whole, before this returns; the future is already resolved.

        The future fails with ConfigError (other marks were stored meanwhile, or a field is none),
        NotFound or BackendRejected; nothing of the batch is stored then.

        Raises:
            ClosedError: the session was closed.
        """
        if self._closed:
            raise ClosedError(f"the appender of {self._shard.stream!r} was closed")
        future: asyncio.Future[Sequence[Stored]] = asyncio.get_running_loop().create_future()
        store, now = self._place.store, self._place.clock.time()
        try:
            about = (self._shard, self._marks, self._options)
            future.set_result(store.append(*about, batch, now, terms, again=self._begun))
            self._begun = True
        except PenstockError as error:
            future.set_exception(error)
        return future

    async def aclose(self) -> None:
        """End the session; every batch already has its outcome."""
        self._closed = True
