"""The memory backend where conformance cannot look: closed ends, odd clocks, threads."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime

import pytest

from penstock.backends.memory import MemoryBackend, forget
from penstock.errors import BackendRejected, ClosedError, ConfigError, NotFound
from penstock.event import OLDEST, Position, at
from penstock.ports import (
    AppendOptions,
    Cursor,
    Fields,
    Marks,
    MemberOptions,
    TrimTo,
)
from support.memory_world import MARKS, SHARD, World, ids


@pytest.fixture
def world() -> World:
    """One for each test."""
    return World()


async def test_positions_grow_when_the_clock_steps_back(world: World) -> None:
    """As Redis' ids do: the last millisecond goes on counting."""
    (first,) = await world.append(1)
    world.clock.step(-3600.0)
    second, third = await world.append(2)
    world.clock.step(7200.0)
    (fourth,) = await world.append(1)

    assert first == (1_700_000_000_000, 0)
    assert (second, third) == ((first[0], 1), (first[0], 2))
    assert fourth == (first[0] + 3_600_000, 0)


async def test_at_includes_its_own_millisecond(world: World) -> None:
    """A moment within the millisecond of an event does not lose it."""
    await world.append(2)
    start = at(datetime.fromtimestamp(1_700_000_000.0004, UTC))
    cursor = await world.backend.cursor({SHARD: start})

    assert len(ids(await cursor.read(10, 0))) == 2
    await cursor.aclose()


async def test_one_name_is_one_log() -> None:
    """Until it is forgotten, which is for tests."""
    world = World()
    await world.append(3)
    same, other = MemoryBackend(world.name), MemoryBackend(world.name + "-other")
    assert len(await same.read_range(SHARD, None, None, 10, False)) == 3
    assert await other.describe(SHARD.stream) is None

    forget(world.name)
    assert await MemoryBackend(world.name).describe(SHARD.stream) is None


async def test_a_second_first_append_with_other_marks_is_refused(world: World) -> None:
    """Both appenders were opened before there was a stream: the first append decides."""
    one = await world.backend.appender(SHARD, MARKS, AppendOptions())
    two = await world.backend.appender(SHARD, Marks("value", "json"), AppendOptions())
    await one.submit([[b"n", b"1"]])

    with pytest.raises(ConfigError, match="is stored with"):
        await two.submit([[b"n", b"2"]])


@pytest.mark.parametrize("entry", [[], [b"lonely"]])
async def test_an_entry_without_pairs_is_refused_with_its_whole_batch(
    world: World, entry: Fields
) -> None:
    """All of a batch is stored, or nothing."""
    appender = await world.backend.appender(SHARD, MARKS, AppendOptions())
    future = appender.submit([[b"n", b"1"], entry])
    assert future.done()
    with pytest.raises(BackendRejected, match="in pairs"):
        await future
    assert await world.backend.describe(SHARD.stream) is None


async def test_what_is_closed_says_so(world: World) -> None:
    """Appender, cursor, also one that waits, member and client."""
    appender = await world.backend.appender(SHARD, MARKS, AppendOptions())
    cursor = await world.backend.cursor({SHARD: OLDEST})
    member = await world.backend.join([SHARD], "g", MemberOptions(OLDEST))
    waiting = [
        asyncio.ensure_future(cursor.read(1, 60.0)),
        asyncio.ensure_future(member.fetch(1, 60.0)),
    ]
    await world.clock.settle()
    await appender.aclose()
    await cursor.aclose()
    await member.leave()
    await world.backend.aclose()

    with pytest.raises(ClosedError):
        appender.submit([])
    for task in waiting:
        with pytest.raises(ClosedError):
            await task
    with pytest.raises(ClosedError):
        await world.backend.describe("x")


async def test_a_trim_wants_one_limit(world: World) -> None:
    """Neither none nor both."""
    for limit in (TrimTo(), TrimTo(max_events=1, before=Position((1, 0)))):
        with pytest.raises(ConfigError, match="exactly one"):
            await world.backend.trim(SHARD, limit)


async def test_pending_of_no_group_is_not_found(world: World) -> None:
    """An empty answer would say that all is acked."""
    with pytest.raises(NotFound, match="does not"):
        await world.backend.pending(SHARD, "g", 10)


@pytest.mark.one_loop
async def test_a_thread_with_a_loop_of_its_own_wakes_ours(world: World) -> None:
    """As penstock.blocking appends from a thread."""
    backend = MemoryBackend(world.name)
    cursor = await backend.cursor({SHARD: OLDEST})

    async def append_there() -> None:
        there = await MemoryBackend(world.name).appender(SHARD, MARKS, AppendOptions())
        for _ in range(500):
            await there.submit([[b"n", b"1"]])

    async with asyncio.timeout(20):
        waiting = asyncio.create_task(_read_all(cursor, 2000))
        await asyncio.sleep(0.01)
        threads = [threading.Thread(target=asyncio.run, args=(append_there(),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        found = await waiting
    for thread in threads:
        thread.join()
    await cursor.aclose()
    assert found == sorted(set(found), key=Position.of)
    assert len(found) == 2000


async def _read_all(cursor: Cursor, count: int) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < count:
        found += ids(await cursor.read(100, 10.0))
    return found
