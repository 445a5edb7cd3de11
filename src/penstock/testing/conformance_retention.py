"""Conformance of retention: what is stored with a stream, and what appending and trimming keep.

Does        check the cap, the time to live, and trims to a size; what waits, and what groups need.
Does not    check who trims when: clients do, over these verbs.
Used by     conformance.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Final

from penstock.errors import ConfigError, StreamFull
from penstock.event import OLDEST, Shard
from penstock.ports import AppendOptions, Log, Retention, StreamInfo, Terms, TrimTo
from penstock.testing.conformance_tools import (
    MARKS,
    PATIENCE,
    Check,
    Harness,
    append,
    numbered,
)


async def check_a_retention_is_stored_with_its_stream(harness: Harness) -> None:
    """Another one is refused until it is changed; without one, everything is kept."""
    shard = Shard(harness.fresh_name())
    keep = Retention(max_events=10)
    async with harness.open() as backend, harness.open() as other:
        assert not await backend.retain(shard.stream, keep)
        await _append(backend, shard, keep, 0, 1)
        assert (await _info(other, shard)).retention == keep
        with _refused(ConfigError):
            await _append(other, shard, Retention(max_events=5), 1, 1)
        assert await other.retain(shard.stream, Retention(max_events=5))
        await _append(backend, shard, Retention(max_events=5), 1, 1)
        assert await other.retain(shard.stream, None)
        assert (await _info(backend, shard)).retention is None
        assert await _numbers(backend, shard) == [0, 1]


async def check_a_cap_refuses_whole_batches(harness: Harness) -> None:
    """What does not fit leaves no trace; what does goes in, and room is made by removing."""
    shard = Shard(harness.fresh_name())
    keep = Retention(cap=3)
    async with harness.open() as backend:
        await _append(backend, shard, keep, 0, 2)
        with _refused(StreamFull):
            await _append(backend, shard, keep, 2, 2)
        await _append(backend, shard, keep, 4, 1)
        with _refused(StreamFull):
            await _append(backend, shard, keep, 5, 1)
        assert await backend.trim(shard, TrimTo(max_events=1)) == 2
        await _append(backend, shard, keep, 6, 2)
        assert await _numbers(backend, shard) == [4, 6, 7]


async def check_a_cap_drops_the_oldest_and_says_how_many(harness: Harness) -> None:
    """Whatever groups need; the count is told once."""
    shard = Shard(harness.fresh_name())
    keep = Retention(cap=3, at_cap="drop-oldest")
    async with harness.open() as backend:
        await _append(backend, shard, keep, 0, 5)
        await _append(backend, shard, keep, 5, 1)
        assert await _numbers(backend, shard) == [3, 4, 5]
        dropped, deadline = 0, time.monotonic() + PATIENCE
        while not dropped:
            dropped = (await backend.tend(shard.stream)).dropped
            assert time.monotonic() < deadline, "what was dropped must be told"
            await asyncio.sleep(0.05)
        assert dropped == 3
        await asyncio.sleep(0.45)
        assert (await backend.tend(shard.stream)).dropped == 0


async def check_what_waits_has_no_room_at_the_cap(harness: Harness) -> None:
    """It goes on waiting, and comes when there is room."""
    shard = Shard(harness.fresh_name())
    keep = Retention(cap=1)
    async with harness.open() as backend:
        await _delay(backend, shard, keep, 1, 0.05)
        await _append(backend, shard, keep, 0, 1)
        await asyncio.sleep(0.1)
        assert (await backend.tend(shard.stream)).moved == 0
        assert (await _info(backend, shard)).delayed == 1
        assert await backend.trim(shard, TrimTo(max_events=0)) == 1
        assert (await backend.tend(shard.stream)).moved == 1
        assert await _numbers(backend, shard) == [1]


async def check_a_stream_lives_from_its_first_append(harness: Harness) -> None:
    """It goes with everything in it, also if it was appended to meanwhile."""
    shard = Shard(harness.fresh_name())
    keep = Retention(ttl=0.3)
    async with harness.open() as backend:
        began = time.monotonic()
        await _append(backend, shard, keep, 0, 1)
        while await _append(backend, shard, keep, 1, 1) > 1:
            assert time.monotonic() - began < PATIENCE, "a stream must end with its time"
            await asyncio.sleep(0.1)
        assert time.monotonic() - began >= 0.3
        assert await _numbers(backend, shard) == [1]


async def check_a_sliding_end_moves_with_appends(harness: Harness) -> None:
    """It lives while it is appended to, and goes so long after the last time."""
    shard = Shard(harness.fresh_name())
    keep = Retention(ttl=0.5, sliding=True)
    async with harness.open() as backend:
        began, stored = time.monotonic(), 0
        while time.monotonic() - began < 0.7:
            before = time.monotonic()
            stored = await _append(backend, shard, keep, 0, 1)
            await asyncio.sleep(0.05)
            if time.monotonic() - before > 0.4:
                return  # a machine that slept cannot tell
        assert stored > 5
        deadline = time.monotonic() + PATIENCE
        while await _numbers(backend, shard):
            assert time.monotonic() < deadline, "a stream must end with its time"
            await asyncio.sleep(0.05)


async def check_what_waits_outlives_its_stream(harness: Harness) -> None:
    """It is not in the stream yet: it comes when it is due, and the time to live counts anew."""
    shard = Shard(harness.fresh_name())
    keep = Retention(ttl=0.25)
    async with harness.open() as backend:
        await _delay(backend, shard, keep, 1, 0.6)
        await _append(backend, shard, keep, 0, 1)
        deadline = time.monotonic() + PATIENCE
        while await _numbers(backend, shard):
            assert time.monotonic() < deadline, "a stream must end with its time"
            await asyncio.sleep(0.02)
        while not (await backend.tend(shard.stream)).moved:
            assert time.monotonic() < deadline, "what is due must be moved"
            await asyncio.sleep(0.02)
        found = await backend.describe(shard.stream)
        if found is not None:  # else its new time is over already
            assert (found.marks, found.retention) == (MARKS, keep)
            assert await _numbers(backend, shard) in ([1], [])
        while await _numbers(backend, shard):
            assert time.monotonic() < deadline, "a stream must end with its time"
            await asyncio.sleep(0.02)


async def check_a_trim_to_a_size_leaves_the_newest(harness: Harness) -> None:
    """The large old ones go, the small new ones stay; a shard is measured alone."""
    name = harness.fresh_name()
    shards = [Shard(name, index, 2) for index in range(2)]
    async with harness.open() as backend:
        marks = MARKS._replace(shards=2) if backend.features.shards else MARKS
        if not backend.features.shards:
            shards = [Shard(name)]
        appender = await backend.appender(shards[0], marks, AppendOptions())
        await appender.submit([["n", n, "x", b"-" * 50_000] for n in range(10)])
        await appender.submit(numbered(10, 200))
        await appender.aclose()
        await backend.trim(shards[0], TrimTo(max_bytes=200_000))
        left = await _numbers(backend, shards[0])
        assert left[-200:] == list(range(10, 210))
        assert 201 <= len(left) <= 204
        assert await backend.trim(shards[0], TrimTo(max_bytes=10_000_000)) == 0


async def check_a_trim_to_a_size_heeds_groups(harness: Harness) -> None:
    """What a group has not had stays, unless it is asked not to heed that."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        await append(backend, shard, [["n", n, "x", b"-" * 1000] for n in range(300)])
        limit = TrimTo(max_bytes=1, acked_only=False)
        if backend.features.event_groups:
            await backend.create_group(shard, "g", OLDEST)
            assert await backend.trim(shard, TrimTo(max_bytes=1)) == 0
        assert await backend.trim(shard, limit) == 300
        assert await _numbers(backend, shard) == []


@contextmanager
def _refused(kind: type[Exception]) -> Generator[None]:
    """Of a block that must raise *kind*."""
    try:
        yield
    except kind:
        return
    raise AssertionError(f"it must raise {kind.__name__}")


async def _append(backend: Log, shard: Shard, keep: Retention, first: int, count: int) -> int:
    """Append numbers in one batch; how many events the stream holds then."""
    appender = await backend.appender(shard, MARKS, AppendOptions(retention=keep.stored()))
    try:
        async with asyncio.timeout(PATIENCE):
            await appender.submit(numbered(first, count))
    finally:
        await appender.aclose()
    return len(await _numbers(backend, shard))


async def _delay(backend: Log, shard: Shard, keep: Retention, number: int, wait: float) -> None:
    appender = await backend.appender(shard, MARKS, AppendOptions(retention=keep.stored()))
    try:
        async with asyncio.timeout(PATIENCE):
            terms = {0: Terms(due=time.time() + wait)}
            assert list(await appender.submit(numbered(number, 1), None, terms)) == [None]
    finally:
        await appender.aclose()


async def _info(backend: Log, shard: Shard) -> StreamInfo:
    found = await backend.describe(shard.stream)
    assert found is not None
    return found


async def _numbers(backend: Log, shard: Shard) -> list[int]:
    entries = await backend.read_range(shard, None, None, 1000, False)
    return [int(entry[1][1]) for entry in entries]


RETENTION_CHECKS: Final[Sequence[Check]] = (
    check_a_retention_is_stored_with_its_stream,
    check_a_cap_refuses_whole_batches,
    check_a_cap_drops_the_oldest_and_says_how_many,
    check_what_waits_has_no_room_at_the_cap,
    check_a_stream_lives_from_its_first_append,
    check_a_sliding_end_moves_with_appends,
    check_what_waits_outlives_its_stream,
    check_a_trim_to_a_size_leaves_the_newest,
    check_a_trim_to_a_size_heeds_groups,
)
"""What every backend promises."""
