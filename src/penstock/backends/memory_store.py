"""The state behind ``memory://name``: streams, their logs, and the bells of those who wait.

Does        hold everything under one name for the life of the process; give out positions.
Does not    wait, beat or judge: `memory`, `memory_groups` and `memory_shards` do.
Invariants  1. state is touched only under `Store.lock`, held for short sections that never wait;
               so loops in several threads may share a name.
            2. positions grow strictly, also when the clock steps back.
            3. a change is made first and rung second; a waiter clears its bell first and looks
               second: no change is slept through.
Cost        per event: one bytes id, one list, one tuple. Per append: one look at each bell.
Used by     backends.memory*.
Source      Redis' stream ids, XADD: milliseconds-sequence, never below the last one given out.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from penstock.backends.memory_bell import Bell
from penstock.backends.memory_log import LAST_SEQUENCE, StoredLog
from penstock.clock import Clock
from penstock.errors import BackendRejected, ConfigError, NotFound, StreamFull
from penstock.event import OLDEST, Shard, Start
from penstock.observers import Observers
from penstock.ports import (
    AppendOptions,
    Fields,
    Marks,
    Retention,
    ShardsCame,
    Stored,
    Tended,
    Terms,
    TrimTo,
)

if TYPE_CHECKING:
    from penstock.backends.memory_shard_group import ShardGroup

LONE: Final = -1
"""Where the log of a stream lies that is not in shards: as apart from shard 0 as its key is."""


class Store:
    """Everything that is kept under one name."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.streams: dict[str, StoredStream] = {}
        self.numbers = itertools.count(1)  # incarnations and epochs: never the same one twice
        self._bells: dict[tuple[str, int], set[Bell]] = {}

    def log(self, shard: Shard) -> StoredLog | None:
        """The log of *shard*, or None if there is none."""
        stream = self.streams.get(shard.stream)
        return None if stream is None else stream.logs.get(place_of(shard))

    def made(self, shard: Shard) -> StoredLog:
        """The log of *shard*, made if need be."""
        stream = self.streams.setdefault(shard.stream, StoredStream())
        return stream.logs.setdefault(place_of(shard), StoredLog(shard.stream))

    def append(  # noqa: PLR0917 - what an appender knows
        self,
        shard: Shard,
        marks: Marks,
        options: AppendOptions,
        batch: Sequence[Fields],
        now: float,
        terms: Mapping[int, Terms] | None = None,
        *,
        again: bool = False,
    ) -> Sequence[Stored]:
        """Store *batch*, all of it or nothing but for its terms; ring for whoever waits for it."""
        rows = [as_stored(fields, shard.stream) for fields in batch]
        with self.lock:
            self.expire(shard.stream, now)
            self.admit(shard, marks, options._replace(retention=""))  # it may be changed meanwhile
            log = self.made(shard)
            stream = self.streams[shard.stream]
            if stream.marks is None and not stream.added and not options.foreign:
                stream.marks = marks
            new = not (again and stream.added)  # else none is what somebody chose since
            if options.retention and stream.retention is None and new:
                stream.retention = Retention.read(options.retention)
            stream.make_room(log, len(rows))
            before = log.added
            if terms:
                stored = log.extras.append(log, rows, terms, options.window, now)
            else:
                stored = log.append(rows, int(now * 1000))
            if log.added > before:
                stream.keep_within(log, now)
            self.ring(shard)
        return stored

    def tend(self, stream: str, now: float) -> Tended:
        """Move what is due; see `ports.Log.tend`."""
        self.expire(stream, now)
        stored = self.streams.get(stream)
        if stored is None:
            return Tended(time=now)
        moved = 0
        for index, log in stored.logs.items():
            if came := log.extras.move(log, now, stored.room(log)):
                stored.keep_within(log, now)
                self.ring(Shard(stream, max(index, 0)))
                moved += came
        waits = [log.extras.due_in(now) for log in stored.logs.values()]
        dropped, stored.dropped = stored.dropped, 0
        return Tended(
            shards=stored.marks.shards if stored.marks else 1,
            moved=moved,
            wait=min((wait for wait in waits if wait is not None), default=None),
            retention=stored.retention,
            time=now,
            dropped=dropped,
        )

    def expire(self, stream: str, now: float) -> None:
        """Let a stream go whose time is over; what waits for its time is not in it yet."""
        stored = self.streams.get(stream)
        if stored is not None and stored.ends is not None and now >= stored.ends:
            del self.streams[stream]
            if stored.delayed:
                self.streams[stream] = stored.begun_anew()
            self.ring_all(stream)

    def admit(self, shard: Shard, marks: Marks, options: AppendOptions) -> None:
        """Raise what keeps such an appender from *shard*."""
        stream = self.streams.get(shard.stream)
        if options.only_if_exists and (stream is None or not stream.logs):
            raise NotFound(
                f"only_if_exists appends to streams that exist, and {shard.stream!r} does not; "
                f"append without it to make the stream",
                backend="memory",
                verb="append",
                key=shard.stream,
            )
        if stream is not None and stream.marks is None and marks.shards > 1 and stream.is_one_log:
            raise ConfigError(
                f"stream {shard.stream!r} holds events in one log, got {marks}; leave shards out, "
                f"or append to a new stream"
            )
        if stream is None or stream.marks is None or options.foreign:
            return
        kept = Retention.read(options.retention)
        if kept is not None and stream.retention not in (None, kept):
            raise ConfigError(
                f"stream {shard.stream!r} has the retention {stream.retention}, got {kept}; leave "
                f"it out to adopt that, or change it with stream.set_retention()"
            )
        if stream.marks == marks:
            return
        if stream.marks[:2] == marks[:2] and stream.had(marks.shards):
            raise ShardsCame(shard.stream)
        raise ConfigError(
            f"stream {shard.stream!r} is stored with {stream.marks}, got {marks}; "
            f"open it with what is stored, or append to a new stream"
        )

    def check_join(self, shard: Shard) -> None:
        """See that a group may join there.

        Raises:
            ShardsCame: as one log, and it is in shards.
        """
        stream = self.streams.get(shard.stream)
        marks = None if stream is None else stream.marks
        if shard.of == 1 and marks is not None and marks.shards > 1:
            raise ShardsCame(shard.stream)

    def attach(self, bell: Bell, shards: Iterable[Shard]) -> None:
        """Ring *bell* at every change of *shards*."""
        for shard in shards:
            self._bells.setdefault((shard.stream, shard.index), set()).add(bell)

    def detach(self, bell: Bell) -> None:
        """Ring *bell* no more."""
        for at, bells in list(self._bells.items()):
            bells.discard(bell)
            if not bells:
                del self._bells[at]

    def ring(self, shard: Shard) -> None:
        """Wake everyone who waits for *shard*."""
        for bell in self._bells.get((shard.stream, shard.index), ()):
            bell.ring()

    def ring_all(self, stream: str) -> None:
        """Wake everyone who waits for any shard of *stream*."""
        for (name, _), bells in self._bells.items():
            if name == stream:
                for bell in bells:
                    bell.ring()


class StoredStream:
    """One stream: its marks, its logs by shard, and the groups that share its shards."""

    def __init__(self) -> None:
        self.marks: Marks | None = None
        self.grown: tuple[int, ...] = ()
        self.logs: dict[int, StoredLog] = {}
        self.shard_groups: dict[str, ShardGroup] = {}
        self.lone_groups: dict[str, ShardGroup] = {}
        self.retention: Retention | None = None
        self.ends: float | None = None
        self.dropped = 0

    @property
    def added(self) -> int:
        """How many events were ever appended."""
        return sum(log.added for log in self.logs.values())

    @property
    def delayed(self) -> int:
        """How many events wait for their time."""
        return sum(log.extras.delayed for log in self.logs.values())

    def begun_anew(self) -> StoredStream:
        """The same stream with nothing in it but what waits for its time."""
        anew = StoredStream()
        anew.marks, anew.retention = self.marks, self.retention
        anew.grown = self.grown
        for index, log in self.logs.items():
            anew.logs[index] = StoredLog(log.stream)
            anew.logs[index].extras = log.extras.waiting()
        return anew

    def had(self, count: int) -> bool:
        """Whether it had so many shards before, or might have come to be as one log."""
        return self.marks is not None and self.marks.shards > 1 and count in {1, *self.grown}

    @property
    def is_one_log(self) -> bool:
        """Whether events were appended to it as a stream that is not in shards."""
        log = self.logs.get(LONE)
        return log is not None and (log.added > 0 or log.extras.delayed > 0)

    @property
    def all_logs(self) -> list[StoredLog]:
        """Its logs, by shard; one that nothing was done with is a new one."""
        if self.marks is None:
            count = 1 if LONE in self.logs else max(self.logs, default=0) + 1
        else:
            count = self.marks.shards
        if count == 1 and 0 not in self.logs:
            return [self.logs.get(LONE, StoredLog())]
        return [self.logs.get(index, StoredLog()) for index in range(count)]

    def sharing(self, shard: Shard) -> dict[str, ShardGroup]:
        """The groups that share its shards; those that came while it was one log are apart."""
        return self.shard_groups if shard.of > 1 else self.lone_groups

    def forget_lone(self, group: str) -> None:
        """The group is dropped: it was not there before the stream was in shards."""
        if self.marks is not None and self.marks.shards > 1:
            self.lone_groups.pop(group, None)
            if (log := self.logs.get(LONE)) is not None:
                log.event_groups.pop(group, None)

    def start_of(self, shard: Shard, group: str, start: Start) -> Start:
        """Where a group begins that is new there: all is new to one that was there before it."""
        if shard.of == 1 or shard.replay:
            return start
        lone = self.logs.get(LONE)
        before = group in self.lone_groups or (lone is not None and group in lone.event_groups)
        return OLDEST if before else start

    def keep(self, retention: Retention | None, now: float) -> None:
        """Keep so much from *now* on."""
        self.retention = retention
        ttl = None if retention is None else retention.ttl
        self.ends = None if ttl is None or not self.added else now + ttl

    def room(self, log: StoredLog) -> int:
        """How many events may still come before the cap refuses them."""
        keep = self.retention
        if keep is None or keep.cap is None or keep.at_cap == "drop-oldest":
            return LAST_SEQUENCE
        return max(0, keep.cap - len(log.keys))

    def make_room(self, log: StoredLog, coming: int) -> None:
        """Raise StreamFull if the cap refuses so many events."""
        if coming > self.room(log):
            assert self.retention is not None
            raise StreamFull(
                f"stream {log.stream!r} must hold at most {self.retention.cap} events (its "
                f"retention's cap), and has no room for {coming} more",
                backend="memory",
                verb="append",
                key=log.stream,
            )

    def keep_within(self, log: StoredLog, now: float) -> None:
        """After an append: drop what is over the cap; set the end, or count a sliding one anew."""
        keep = self.retention
        if keep is None:
            return
        if keep.cap is not None and keep.at_cap == "drop-oldest":
            self.dropped += log.trim(TrimTo(keep.cap, acked_only=False), iter(()))
        if keep.ttl is not None and (keep.sliding or self.ends is None):
            self.ends = now + keep.ttl


class Place(NamedTuple):
    """Where a member or a cursor lives: the state, its clock, and who is told of signals."""

    store: Store
    clock: Clock
    observers: Observers


_stores: dict[str, Store] = {}
_stores_lock = threading.Lock()


def store_named(name: str) -> Store:
    """The one store of that name in this process."""
    with _stores_lock:
        return _stores.setdefault(name, Store())


def forget(name: str) -> None:
    """Let go of everything under *name*: for tests. Who holds it open keeps the old state."""
    with _stores_lock:
        _stores.pop(name, None)


def place_of(shard: Shard) -> int:
    """Under which number a shard's log lies."""
    return shard.index if shard.of > 1 else LONE


def as_stored(fields: Fields, stream: str) -> list[bytes]:
    """The flat fields of one entry as bytes, in the form that Redis would store them."""
    if len(fields) == 0 or len(fields) % 2:
        raise BackendRejected(
            f"an entry must have names and contents in pairs, at least one, "
            f"got {len(fields)} parts for stream {stream!r}",
            backend="memory",
            verb="append",
            key=stream,
        )
    return [part if type(part) is bytes else _part_as_bytes(part) for part in fields]


def _part_as_bytes(part: str | bytes | float) -> bytes:
    match part:
        case bytes():
            return bytes(part)
        case str():
            return part.encode("utf-8", "surrogateescape")
        case int():
            return b"%d" % part
        case float():
            return repr(part).encode()
        case _:
            raise ConfigError(
                f"a field must be str, bytes, int or float, got {type(part).__name__}"
            )
