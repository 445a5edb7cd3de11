"""Conformance of cursors: how they move while they run, and what they say of events that are gone.

Does        state each promise in a docstring, and check it through `ports.Log` alone.
Does not    know any backend, or measure speed.
Invariants  as in conformance_tools.
Used by     conformance.
"""

from __future__ import annotations

import asyncio
from typing import Final

from penstock.errors import PositionLost
from penstock.event import NEWEST, OLDEST, Position, Shard, after
from penstock.ports import Cursor, Log, Page, TrimTo
from penstock.testing.conformance_tools import (
    PATIENCE,
    Check,
    Harness,
    append,
    numbered,
    numbers,
    read_numbers,
    reading,
    rows,
)


async def check_a_cursor_moves_while_it_waits(harness: Harness) -> None:
    """`move` re-reads, adds a shard, and `wake` ends the read that waits; `leave` ends a shard."""
    one, two = Shard(harness.fresh_name()), Shard(harness.fresh_name())
    async with harness.open() as backend, reading(backend, {one: NEWEST}) as cursor:
        await append(backend, one, numbered(0, 3))
        await append(backend, two, numbered(10, 2))
        assert await read_numbers(cursor, 3) == [0, 1, 2]
        for starts, wanted in (({one: OLDEST}, {0, 1, 2}), ({two: OLDEST}, {10, 11})):
            async with asyncio.timeout(PATIENCE):
                waiting = asyncio.create_task(_read_once(cursor, 60.0))
                await asyncio.sleep(0.02)
                await cursor.move(starts)
                await cursor.wake()
                found = numbers(rows(await waiting))
            found += await read_numbers(cursor, len(wanted) - len(found))
            assert set(found) == wanted

        cursor.leave([one])
        await append(backend, one, numbered(3, 1))
        await append(backend, two, numbered(12, 1))
        assert await read_numbers(cursor, 1) == [12]
        assert set(cursor.positions()) == {two}


async def check_trimmed_before_read_is_told(harness: Harness) -> None:
    """Once, with how many they were; then reading goes on from the oldest that is left."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        await append(backend, shard, numbered(0, 100))
        async with reading(backend, {shard: OLDEST}) as cursor:
            assert numbers(rows(await cursor.read(10, PATIENCE))) == list(range(10))
            await _trim(backend, shard, 40)
            oldest = (await backend.read_range(shard, None, None, 1, False))[0][0]
            lost = await _loss(cursor)
            assert (lost.lost, lost.oldest, lost.stream) == (50, oldest.decode(), shard.stream)
            assert await read_numbers(cursor, 40) == list(range(60, 100))
            await _trim(backend, shard, 0)  # all of it was read
            await append(backend, shard, numbered(100, 2))
            assert await read_numbers(cursor, 2) == [100, 101]


async def check_trimming_what_was_read_loses_nothing(harness: Harness) -> None:
    """Up to the very event behind which reading stands, and also where that is the newest."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        await append(backend, shard, numbered(0, 50))
        async with reading(backend, {shard: OLDEST}) as cursor:
            for first in range(0, 50, 10):
                assert numbers(rows(await cursor.read(10, PATIENCE))) == [*range(first, first + 10)]
                await _trim(backend, shard, 40 - first)
            await append(backend, shard, numbered(50, 10))
            assert await read_numbers(cursor, 10) == list(range(50, 60))


async def check_a_saved_position_that_was_trimmed_is_told(harness: Harness) -> None:
    """``after`` a position whose successors are gone: lost, though nobody can tell how many."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        positions = await append(backend, shard, numbered(0, 20))
        await _trim(backend, shard, 5)
        async with reading(backend, {shard: after(positions[3])}) as cursor:
            lost = await _loss(cursor)
            assert (lost.wanted, lost.lost) == (str(positions[3]), None)
            assert await read_numbers(cursor, 5) == list(range(15, 20))
        async with reading(backend, {shard: OLDEST}) as cursor:
            assert await read_numbers(cursor, 5) == list(range(15, 20))


async def check_a_stream_made_anew_is_told(harness: Harness) -> None:
    """A position of the old one means nothing in it: all of it is read, and it is told once."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        await append(backend, shard, numbered(0, 5))
        far = Position((1 << 60, 0))
        async with (
            reading(backend, {shard: OLDEST}) as reads,
            reading(backend, {shard: after(far)}) as ahead,
        ):
            assert await read_numbers(reads, 5) == list(range(5))
            assert (await _loss(ahead)).wanted == str(far)
            assert await read_numbers(ahead, 5) == list(range(5))
            await backend.destroy(shard.stream)
            await append(backend, shard, numbered(5, 3))
            told: list[int | None] = []
            found: list[int] = []
            for _ in range(100):  # in either order: nobody looks before each single read
                try:
                    found += numbers(rows(await reads.read(100, 0.1)))
                except PositionLost as lost:
                    told.append(lost.lost)
                if told and len(found) >= 3:
                    break
            assert (told, found) == ([None], [5, 6, 7])


async def check_a_larger_stream_made_anew_is_told(harness: Harness) -> None:
    """To who had not read the old one to its end, though nobody looked while it was gone."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        await append(backend, shard, numbered(0, 10))
        async with reading(backend, {shard: OLDEST}) as cursor:
            assert numbers(rows(await cursor.read(4, PATIENCE))) == [0, 1, 2, 3]
            await backend.destroy(shard.stream)
            await append(backend, shard, numbered(100, 20))
            lost = await _loss(cursor)
            assert (lost.lost, lost.shard) == (None, 0)
            assert await read_numbers(cursor, 20) == list(range(100, 120))


async def check_a_cursor_may_leave_all(harness: Harness) -> None:
    """While it waits, too; by a move it reads again."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend, reading(backend, {shard: OLDEST}) as cursor:
        waiting = asyncio.create_task(_read_once(cursor, 60.0))
        await asyncio.sleep(0.02)
        cursor.leave([shard])
        await append(backend, shard, numbered(0, 2))
        await cursor.wake()
        async with asyncio.timeout(PATIENCE):
            assert await waiting == []
        assert not cursor.positions()
        await cursor.move({shard: OLDEST})
        assert await read_numbers(cursor, 2) == [0, 1]


async def _trim(backend: Log, shard: Shard, left: int) -> None:
    await backend.trim(shard, TrimTo(max_events=left, acked_only=False))


async def _read_once(cursor: Cursor, wait: float) -> list[Page]:
    return list(await cursor.read(100, wait))


async def _loss(cursor: Cursor) -> PositionLost:
    """The loss that reading tells of, before it yields anything."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while asyncio.get_running_loop().time() < deadline:
        try:
            pages = await cursor.read(100, 0.2)
        except PositionLost as lost:
            return lost
        assert not pages, f"a loss must be told before {pages}"
    raise AssertionError("a loss must be told")


CURSOR_CHECKS: Final[tuple[Check, ...]] = (
    check_a_cursor_moves_while_it_waits,
    check_trimmed_before_read_is_told,
    check_trimming_what_was_read_loses_nothing,
    check_a_saved_position_that_was_trimmed_is_told,
    check_a_stream_made_anew_is_told,
    check_a_larger_stream_made_anew_is_told,
    check_a_cursor_may_leave_all,
)
