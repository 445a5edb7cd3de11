"""Conformance of logs: what every backend promises of appending, reading and trimming.

Does        state each promise in a docstring, and check it through `ports.Log` alone.
Does not    know any backend, or measure speed.
Invariants  as in conformance_tools.
Used by     conformance.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from penstock.errors import ConfigError, NotFound
from penstock.event import NEWEST, OLDEST, Position, Shard, after, at
from penstock.ports import AppendOptions, Fields, Marks, TrimTo
from penstock.testing.conformance_tools import (
    MARKS,
    PATIENCE,
    Check,
    Got,
    Harness,
    append,
    numbered,
    numbers,
    read_numbers,
    reading,
    rows,
    shards_of,
)


async def check_appends_are_stored_in_order(harness: Harness) -> None:
    """Batches are stored in the order of the calls, unawaited ones too; positions increase."""
    async with harness.open() as backend:
        for idempotent in (True, False):
            shard = Shard(harness.fresh_name())
            appender = await backend.appender(shard, MARKS, AppendOptions(idempotent=idempotent))
            waiting = [appender.submit(numbered(10 * n, 10)) for n in range(30)]
            stored = [p for future in waiting for p in await future]
            positions = [p for p in stored if isinstance(p, Position)]
            await appender.aclose()

            assert positions == sorted(set(positions)), stored
            async with reading(backend, {shard: OLDEST}) as cursor:
                assert await read_numbers(cursor, 300) == list(range(300))


async def check_positions_are_those_of_the_entries(harness: Harness) -> None:
    """What an append returns is where the event then is, and has an exact string form."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        positions = await append(backend, shard, numbered(0, 5))
        entries = await backend.read_range(shard, None, None, 100, False)

        assert [Position.of(entry[0]) for entry in entries] == positions
        assert [Position.parse(str(p)) for p in positions] == positions


async def check_bytes_are_untouched(harness: Harness) -> None:
    """NUL, invalid UTF-8, empty contents, repeated and empty names: all come back as given."""
    given: list[Fields] = [
        [b"nul", b"\x00a\x00", b"invalid", b"\xff\xfe\xc0", b"crlf", b"\r\n$-1\r\n"],
        [b"same", b"1", b"same", b"2", b"same", b"1"],
        [b"empty", b"", b"", b"no name"],
        [b"big", bytes(range(256)) * 400],
    ]
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        await append(backend, shard, given)
        stored = await backend.read_range(shard, None, None, 100, False)

        assert [list(entry[1]) for entry in stored] == [list(fields) for fields in given]


async def check_fields_of_other_types_are_stored_as_text(harness: Harness) -> None:
    """A str as UTF-8, an int in decimal, a float as its repr."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        await append(backend, shard, [["é", "ü", "int", -7, "float", 0.1, "big", 1e300]])
        (entry,) = await backend.read_range(shard, None, None, 100, False)

        text = ["é".encode(), "ü".encode(), b"int", b"-7", b"float", b"0.1", b"big", b"1e+300"]
        assert list(entry[1]) == text


async def check_text_that_was_no_utf8_goes_back_as_it_came(harness: Harness) -> None:
    """Lone surrogates, which stand for bytes that are no UTF-8, are stored as those bytes."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        await append(backend, shard, [["name", b"a\xff\xc0z".decode("utf-8", "surrogateescape")]])
        (entry,) = await backend.read_range(shard, None, None, 100, False)

        assert list(entry[1]) == [b"name", b"a\xff\xc0z"]


async def check_marks_are_stored_at_the_first_append(harness: Harness) -> None:
    """A new stream keeps its marks; other marks are refused, the same ones are not."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend, harness.open() as other:
        assert await backend.describe(shard.stream) is None
        await append(backend, shard, numbered(0, 1))
        found = await other.describe(shard.stream)
        assert found is not None
        assert found.marks == MARKS

        await append(other, shard, numbered(1, 1))
        for marks in (
            Marks("value", "plain"),
            Marks("fields", "json"),
            Marks("fields", "plain", 2),
        ):
            assert await _refused(other.appender(shard, marks, AppendOptions())), marks


async def check_foreign_streams_get_no_marks(harness: Harness) -> None:
    """What others made stays as they made it: no marks, at the first append or later."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        await append(backend, shard, numbered(0, 1), options=AppendOptions(foreign=True))
        await append(backend, shard, numbered(1, 1))
        found = await backend.describe(shard.stream)

        assert found is not None
        assert (found.marks, found.length) == (None, 2)


async def check_only_if_exists_makes_no_stream(harness: Harness) -> None:
    """It appends to streams that exist, and fails with NotFound for others."""
    shard, options = Shard(harness.fresh_name()), AppendOptions(only_if_exists=True)
    async with harness.open() as backend:
        try:
            await append(backend, shard, numbered(0, 1), options=options)
        except NotFound:
            pass
        else:
            raise AssertionError("an append to no stream must fail with NotFound")
        assert await backend.describe(shard.stream) is None

        await append(backend, shard, numbered(0, 1))
        await append(backend, shard, numbered(1, 1), options=options)
        assert len(await backend.read_range(shard, None, None, 100, False)) == 2


async def check_cursor_from_the_oldest(harness: Harness) -> None:
    """OLDEST begins with the first event, also of a stream that does not exist yet."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend, reading(backend, {shard: OLDEST}) as early:
        assert not await early.read(100, 0)
        await append(backend, shard, numbered(0, 3))
        async with reading(backend, {shard: OLDEST}) as late:
            assert await read_numbers(early, 3) == await read_numbers(late, 3) == [0, 1, 2]


async def check_cursor_from_the_newest(harness: Harness) -> None:
    """NEWEST is anchored when the cursor opens: nothing before, and all that comes after."""
    shard, empty = Shard(harness.fresh_name()), Shard(harness.fresh_name())
    async with harness.open() as backend:
        await append(backend, shard, numbered(0, 3))
        async with reading(backend, {shard: NEWEST, empty: NEWEST}) as cursor:
            anchors = cursor.positions()
            await append(backend, shard, numbered(3, 2))
            await append(backend, empty, numbered(5, 2))

            assert cursor.positions() == anchors
            assert anchors[shard] is not None
            assert sorted(await read_numbers(cursor, 4)) == [3, 4, 5, 6]


async def check_cursor_from_a_position(harness: Harness) -> None:
    """``after`` excludes the position; what `positions` says is where another one goes on."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        positions = await append(backend, shard, numbered(0, 6))
        async with reading(backend, {shard: after(positions[1])}) as cursor:
            assert numbers(rows(await cursor.read(2, PATIENCE))) == [2, 3]
            place = cursor.positions()[shard]
        assert place is not None
        assert place == positions[3]
        async with reading(backend, {shard: after(place)}) as cursor:
            assert await read_numbers(cursor, 2) == [4, 5]


async def check_cursor_from_a_time(harness: Harness) -> None:
    """``at`` includes what was appended at that very time, and skips what was before."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        (first,) = await append(backend, shard, numbered(0, 1))
        await asyncio.sleep(0.03)
        between = datetime.now(UTC) - timedelta(milliseconds=10)
        await append(backend, shard, numbered(1, 2))

        async with reading(backend, {shard: at(between)}) as cursor:
            assert await read_numbers(cursor, 2) == [1, 2]
        async with reading(backend, {shard: at(between - timedelta(days=1))}) as cursor:
            assert await read_numbers(cursor, 3) == [0, 1, 2]
        if len(first) == 2:  # milliseconds and sequence: the time itself is known
            moment = datetime.fromtimestamp(first[0] / 1000, UTC)
            async with reading(backend, {shard: at(moment)}) as cursor:
                assert await read_numbers(cursor, 3) == [0, 1, 2]


async def check_a_waiting_read_wakes_on_an_append(harness: Harness) -> None:
    """It returns when something comes, not when its time is over; and without, at its time."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend, harness.open() as other:
        await append(backend, shard, numbered(0, 1))
        async with reading(backend, {shard: NEWEST}) as cursor:
            assert not await cursor.read(100, 0.02)
            async with asyncio.timeout(PATIENCE):
                waiting = asyncio.create_task(_read_one(cursor.read(100, 60.0)))
                await asyncio.sleep(0.05)  # so that it most likely waits; right either way
                await append(other, shard, numbered(1, 1))
                assert await waiting == [1]


async def check_several_shards_are_read_fairly(harness: Harness) -> None:
    """A cursor over full shards neglects none, and keeps each in order."""
    name = harness.fresh_name()
    shards = shards_of(name, 3) if harness.features.shards else [Shard(name)]
    async with harness.open() as backend:
        for shard in shards:
            await append(backend, shard, numbered(0, 50))
        async with reading(backend, dict.fromkeys(shards, OLDEST)) as cursor:
            found = [row for _ in range(5) for row in rows(await cursor.read(10, PATIENCE))]
            assert {row.shard for row in found} == set(shards)
            found += [row for _ in range(40) for row in rows(await cursor.read(10, 0))]

        for shard in shards:
            assert [row.number for row in found if row.shard == shard] == list(range(50))


async def check_a_read_keeps_its_limit(harness: Harness) -> None:
    """At most *limit* entries in all, over however many logs; none of them waits for ever."""
    shards = [Shard(harness.fresh_name()) for _ in range(9)]
    async with harness.open() as backend:
        for shard in shards:
            await append(backend, shard, numbered(0, 30))
        async with reading(backend, {shards[0]: OLDEST}) as cursor:
            assert numbers(rows(await cursor.read(7, PATIENCE))) == list(range(7))
        async with reading(backend, dict.fromkeys(shards, OLDEST)) as cursor:
            found = list[Got]()
            while len(found) < 9 * 30:
                page = rows(await cursor.read(4, PATIENCE))
                assert 1 <= len(page) <= 4
                found += page
            assert await cursor.read(4, 0.0) == []
        for shard in shards:
            assert [row.number for row in found if row.shard == shard] == list(range(30))


async def check_a_cancelled_read_skips_nothing(harness: Harness) -> None:
    """Whenever it is cancelled, the same entries come again, once and in order."""
    shard, found = Shard(harness.fresh_name()), list[int]()
    async with harness.open() as backend, reading(backend, {shard: OLDEST}) as cursor:
        for number in range(40):
            waiting = asyncio.create_task(_read_one(cursor.read(100, 5.0)))
            await asyncio.sleep(0.0005 * (number % 4))
            await append(backend, shard, numbered(number, 1))
            for _ in range(number % 7):
                await asyncio.sleep(0)
            waiting.cancel()
            for result in await asyncio.gather(waiting, return_exceptions=True):
                found += result if isinstance(result, list) else []
        if len(found) < 40:
            found += await read_numbers(cursor, 40 - len(found))

        assert found == list(range(40))


async def check_read_range(harness: Harness) -> None:
    """Both ends are included, in both directions; the limit counts from where it begins."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        assert list(await backend.read_range(shard, None, None, 10, False)) == []
        p = await append(backend, shard, numbered(0, 6))

        async def found(
            first: Position | None, last: Position | None, limit: int, reverse: bool
        ) -> list[int]:
            entries = await backend.read_range(shard, first, last, limit, reverse)
            return [int(entry[1][1]) for entry in entries]

        assert await found(None, None, 100, False) == [0, 1, 2, 3, 4, 5]
        assert await found(p[1], p[3], 100, False) == [1, 2, 3]
        assert await found(p[1], p[3], 2, False) == [1, 2]
        assert await found(p[1], p[3], 100, True) == [3, 2, 1]
        assert await found(None, p[4], 2, True) == [4, 3]
        assert await found(p[4], None, 100, False) == [4, 5]


async def check_trim(harness: Harness) -> None:
    """The oldest go: down to a number of events, or before a position, which stays."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        assert await backend.trim(shard, TrimTo(max_events=0)) == 0
        positions = await append(backend, shard, numbered(0, 10))

        assert await backend.trim(shard, TrimTo(max_events=20)) == 0
        assert await backend.trim(shard, TrimTo(max_events=7)) == 3
        assert await backend.trim(shard, TrimTo(before=positions[5], acked_only=False)) == 2
        assert await backend.trim(shard, TrimTo(before=positions[5])) == 0
        found = await backend.describe(shard.stream)
        assert found is not None
        assert (found.length, found.oldest) == (5, (positions[5],))


async def check_remove(harness: Harness) -> None:
    """Single entries go, each once; a cursor goes on behind them."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        positions = await append(backend, shard, numbered(0, 5))
        async with reading(backend, {shard: after(positions[0])}) as cursor:
            assert await backend.remove(shard, [positions[1], positions[3]]) == 2
            assert await backend.remove(shard, [positions[1]]) == 0
            assert await read_numbers(cursor, 2) == [2, 4]


async def check_destroy(harness: Harness) -> None:
    """Nothing is left, marks included; a new stream of that name is new."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        assert not await backend.destroy(shard.stream)
        await append(backend, shard, numbered(0, 5))
        assert await backend.destroy(shard.stream)
        assert await backend.describe(shard.stream) is None
        assert list(await backend.read_range(shard, None, None, 10, False)) == []

        await append(backend, shard, numbered(7, 1), marks=Marks("value", "json"))
        async with reading(backend, {shard: OLDEST}) as cursor:
            assert await read_numbers(cursor, 1) == [7]


async def check_describe(harness: Harness) -> None:
    """Length, all that was ever added, and the ends, by shard."""
    name = harness.fresh_name()
    shards = shards_of(name, 2) if harness.features.shards else [Shard(name)]
    async with harness.open() as backend:
        positions = await append(backend, shards[0], numbered(0, 4))
        await backend.trim(shards[0], TrimTo(max_events=3))
        found = await backend.describe(name)

        assert found is not None
        assert (found.name, found.length, found.groups) == (name, 3, 0)
        assert found.added in {4, None}
        nothing = [None] * (len(shards) - 1)
        assert list(found.oldest) == [positions[1], *nothing]
        assert list(found.newest) == [positions[3], *nothing]


async def _refused(opening: object) -> bool:
    try:
        await opening  # type: ignore[misc]  # a coroutine of `Log.appender`
    except ConfigError:
        return True
    return False


async def _read_one(reading_once: object) -> list[int]:
    return numbers(rows(await reading_once))  # type: ignore[misc]  # a coroutine of `Cursor.read`


LOG_CHECKS: Final[Sequence[Check]] = (
    check_appends_are_stored_in_order,
    check_positions_are_those_of_the_entries,
    check_bytes_are_untouched,
    check_fields_of_other_types_are_stored_as_text,
    check_text_that_was_no_utf8_goes_back_as_it_came,
    check_marks_are_stored_at_the_first_append,
    check_foreign_streams_get_no_marks,
    check_only_if_exists_makes_no_stream,
    check_cursor_from_the_oldest,
    check_cursor_from_the_newest,
    check_cursor_from_a_position,
    check_cursor_from_a_time,
    check_a_waiting_read_wakes_on_an_append,
    check_several_shards_are_read_fairly,
    check_a_read_keeps_its_limit,
    check_a_cancelled_read_skips_nothing,
    check_read_range,
    check_trim,
    check_remove,
    check_destroy,
    check_describe,
)
"""What every backend promises."""
