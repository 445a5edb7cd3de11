"""What the conformance checks are made of: the harness, and verbs that wait with a deadline.

Does        append, read and fetch through ports alone, and fail with what was missing.
Does not    know any backend, or pytest; nor sleep in hope: it waits for conditions.
Invariants  1. every wait ends: `PATIENCE` seconds, unless a promise names less.
            2. a check that fails leaves no member behind that beats on.
Used by     conformance_*.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, NamedTuple, Protocol

from penstock.errors import ConfigError
from penstock.event import OLDEST, Position, Shard, Start
from penstock.ports import (
    AppendOptions,
    Cursor,
    EventGroups,
    EventMember,
    Features,
    Fields,
    Letters,
    Log,
    Marks,
    MemberLapsed,
    MemberOptions,
    Page,
    Rebalanced,
    ShardGroups,
    ShardMember,
)

PATIENCE: Final = 30.0
"""How long, in seconds, a check waits for what must come."""

SLACK: Final = 3.0
"""What a busy machine may take on top of a promised time, in seconds."""

MARKS: Final = Marks("fields", "plain")
"""What the checks store their streams with."""


class Backend(Log, EventGroups, ShardGroups, Letters, Protocol):
    """A client of a backend. Checks of what `Features` denies are not run, so it may lack it."""


class Harness(Protocol):
    """What a backend has to bring to be checked."""

    @property
    def features(self) -> Features:
        """What the backend says that it offers; what it does not offer is not checked."""
        ...

    @property
    def lease(self) -> float:
        """The lease of the members in the checks, in seconds of real time: short, such as 0.4."""
        ...

    def open(self) -> AbstractAsyncContextManager[Backend]:
        """A new client of always the same server; closed on leaving the block."""
        ...

    def fresh_name(self) -> str:
        """The name of a stream that nobody has used."""
        ...


Check = Callable[[Harness], Awaitable[None]]
"""One promise, checked. Its docstring states the promise; AssertionError says it is not kept."""


class Got(NamedTuple):
    """One event as it was handed out."""

    shard: Shard
    id: bytes
    number: int
    deliveries: int
    attempts: int
    company: int
    epoch: int


def numbered(first: int, count: int) -> list[Fields]:
    """*count* entries that hold the numbers from *first* on."""
    return [[b"n", b"%d" % n] for n in range(first, first + count)]


def rows(pages: Iterable[Page]) -> list[Got]:
    """The events of *pages*, which must hold what `numbered` made."""
    return [
        Got(page.shard, entry_id, int(fields[1]), *counts, page.epoch)
        for page in pages
        for (entry_id, fields), counts in zip(
            page.entries, page.counts or [(1, 0, 0)] * len(page.entries), strict=True
        )
    ]


def numbers(events: Iterable[Got]) -> list[int]:
    """The numbers that *events* hold."""
    return [event.number for event in events]


def shards_of(name: str, count: int) -> list[Shard]:
    """All shards of a stream."""
    return [Shard(name, index, count) for index in range(count)]


async def append(
    backend: Log,
    shard: Shard,
    batch: Sequence[Fields],
    marks: Marks | None = None,
    options: AppendOptions = AppendOptions(),  # noqa: B008  # a value, never changed
) -> list[Position]:
    """Append *batch* in a session of its own; the positions."""
    marks = MARKS._replace(shards=shard.of) if marks is None else marks
    appender = await backend.appender(shard, marks, options)
    try:
        async with asyncio.timeout(PATIENCE):
            return [p for p in await appender.submit(batch) if isinstance(p, Position)]
    finally:
        await appender.aclose()


@asynccontextmanager
async def reading(backend: Log, starts: Mapping[Shard, Start]) -> AsyncGenerator[Cursor]:
    """A cursor that is closed in the end."""
    cursor = await backend.cursor(starts)
    try:
        yield cursor
    finally:
        await cursor.aclose()


async def read_numbers(cursor: Cursor, count: int, limit: int = 100) -> list[int]:
    """The next *count* numbers; fails when they do not come."""
    found: list[int] = []
    deadline = time.monotonic() + PATIENCE
    while len(found) < count and time.monotonic() < deadline:
        found += numbers(rows(await cursor.read(limit, 0.2)))
    assert len(found) >= count, f"{count} events must come, got {found}"
    return found


async def join(
    backend: EventGroups,
    harness: Harness,
    shards: Sequence[Shard],
    *,
    name: str | None = None,
    start: Start = OLDEST,
    noack: bool = False,
    group: str = "g",
) -> EventMember:
    """Join the group ``g``, or another one."""
    options = MemberOptions(start, name, harness.lease, noack=noack)
    async with asyncio.timeout(PATIENCE):
        return await backend.join(shards, group, options)


@asynccontextmanager
async def joined(
    backend: EventGroups,
    harness: Harness,
    shards: Sequence[Shard],
    *,
    name: str | None = None,
    start: Start = OLDEST,
    noack: bool = False,
    group: str = "g",
) -> AsyncGenerator[EventMember]:
    """A member that leaves in the end, or vanishes if the check has failed."""
    member = await join(backend, harness, shards, name=name, start=start, noack=noack, group=group)
    try:
        yield member
    except BaseException:
        member.abandon()
        raise
    await member.leave()


async def drain(
    member: EventMember, count: int, *, limit: int = 100, within: float = PATIENCE
) -> list[Got]:
    """The next *count* events; fails when they do not come *within* seconds."""
    found: list[Got] = []
    deadline = time.monotonic() + within
    while len(found) < count and (left := deadline - time.monotonic()) > 0:
        found += await fetched(member, min(limit, count - len(found)), min(left, 0.2))
    assert len(found) >= count, f"{count} events must come in {within} s, got {numbers(found)}"
    return found


async def fetched(member: EventMember, limit: int, wait: float) -> list[Got]:
    """One fetch; a lapse, which a busy machine may cause, is a fetch of nothing."""
    try:
        return rows(await member.fetch(limit, wait))
    except MemberLapsed:
        return []


async def nothing_comes(member: EventMember, seconds: float) -> None:
    """Fail if anything is handed out within *seconds*."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        found = await fetched(member, 100, min(left, 0.1))
        assert not found, f"nothing must come in {seconds} s, got {numbers(found)}"


async def ack(member: EventMember, events: Iterable[Got], *, fenced: bool = False) -> int:
    """Ack *events*, of whatever shards; how many were still pending."""
    by_shard: dict[Shard, list[bytes]] = {}
    for event in events:
        by_shard.setdefault(event.shard, []).append(event.id)
    return sum([await member.ack(at, ids, fenced=fenced) for at, ids in by_shard.items()])


async def refused_name(waiting: Awaitable[object]) -> bool:
    """Whether joining ends in ConfigError."""
    try:
        async with asyncio.timeout(PATIENCE):
            await waiting
    except ConfigError:
        return True
    return False


class Owner:
    """A member that owns shards, with all that it was handed out."""

    def __init__(self, member: ShardMember) -> None:
        self.member = member
        self.events: list[Got] = []
        self.gained: list[Shard] = []
        self.lost: list[Shard] = []

    @property
    def shards(self) -> set[int]:
        """The numbers of the shards that it owns now."""
        return {shard.index for shard in self.member.owned}

    async def step(self, wait: float = 0.05) -> None:
        """Fetch once."""
        try:
            self.events += rows(await self.member.fetch(100, wait))
        except Rebalanced as change:
            self.gained += change.gained
            self.lost += change.lost

    async def commit(self, event: Got, state: bytes | None = None) -> None:
        """Commit up to *event*, in the epoch that it came with."""
        await self.member.commit(event.shard, event.epoch, Position.of(event.id), state)


@asynccontextmanager
async def owning(
    backend: ShardGroups,
    harness: Harness,
    stream: str,
    shards: int,
    *,
    name: str | None = None,
    start: Start = OLDEST,
    lease: float | None = None,
) -> AsyncGenerator[Owner]:
    """A member that leaves in the end, or vanishes if the check has failed."""
    owner = await own(backend, harness, stream, shards, name=name, start=start, lease=lease)
    try:
        yield owner
    except BaseException:
        owner.member.abandon()
        raise
    await owner.member.leave()


async def own(
    backend: ShardGroups,
    harness: Harness,
    stream: str,
    shards: int,
    *,
    name: str | None = None,
    start: Start = OLDEST,
    lease: float | None = None,
) -> Owner:
    """Join the group ``g`` that shares the shards of *stream*."""
    options = MemberOptions(start, name, lease or harness.lease)
    async with asyncio.timeout(PATIENCE):
        return Owner(await backend.own(Shard(stream, 0, shards), "g", options))


async def fill(backend: Log, name: str, shards: int, count: int) -> None:
    """*count* numbers in each shard of a stream."""
    for shard in shards_of(name, shards):
        await append(backend, shard, numbered(0, count))


def sizes(*owners: Owner) -> list[int]:
    """How many shards each owns, the least first."""
    return sorted(len(owner.shards) for owner in owners)


async def settled(
    owners: Sequence[Owner], done: Callable[[], bool], within: float = PATIENCE
) -> None:
    """Fetch with all *owners* until *done*; fails when that takes longer than *within* seconds."""
    deadline = time.monotonic() + within
    while not done():
        state = [(owner.shards, numbers(owner.events)) for owner in owners]
        assert time.monotonic() < deadline, f"not settled after {within} s: {state}"
        await asyncio.gather(*(owner.step() for owner in owners))
