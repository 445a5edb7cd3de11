"""Conformance of appends with terms: ids, expected positions, events that wait for their time.

Does        check what the step that stores an event must look at, and what `tend` moves.
Does not    check how the API asks for it.
Used by     conformance.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Final

from penstock.errors import ConflictError
from penstock.event import OLDEST, Position, Shard
from penstock.ports import Appender, AppendOptions, Fields, Log, Stored, Terms
from penstock.rules.terms import digest
from penstock.testing.conformance_tools import (
    MARKS,
    PATIENCE,
    Check,
    Harness,
    append,
    numbered,
    read_numbers,
    reading,
)


async def check_an_id_is_stored_once(harness: Harness) -> None:
    """Within a batch, in later ones, and by other sessions: the position is that of the first."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend, harness.open() as other:
        batch = [*numbered(0, 2), *numbered(0, 1), *numbered(2, 1)]
        terms = {0: _id("a", batch[0]), 2: _id("a", batch[2]), 3: _id("b", batch[3])}
        first = await _stored(backend, shard, batch, terms)
        assert first[2] == first[0]
        assert len(set(first)) == 3
        again = await _stored(other, shard, batch[2:], {0: terms[2], 1: terms[3]})
        assert again == [first[0], first[3]]
        async with reading(backend, {shard: OLDEST}) as cursor:
            assert await read_numbers(cursor, 3) == [0, 1, 2]


async def check_an_id_stands_for_one_content(harness: Harness) -> None:
    """Another content is a conflict of that event alone, and says where the first stands."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        (first,) = await _stored(backend, shard, numbered(0, 1), {0: _id("a", numbered(0, 1)[0])})
        batch = numbered(1, 3)
        stored = await _stored(backend, shard, batch, {1: _id("a", batch[1])})
        assert isinstance(stored[1], ConflictError)
        assert stored[1].position == first
        async with reading(backend, {shard: OLDEST}) as cursor:
            assert await read_numbers(cursor, 3) == [0, 1, 3]


async def check_an_id_is_forgotten_after_its_window(harness: Harness) -> None:
    """The event is stored anew then, and that counts from there."""
    shard = Shard(harness.fresh_name())
    batch, options = numbered(7, 1), AppendOptions(window=0.2)
    terms = {0: _id("a", batch[0])}
    async with harness.open() as backend:
        found: set[Stored] = set()
        deadline = time.monotonic() + PATIENCE
        while len(found) < 2:
            found.update(await _stored(backend, shard, batch, terms, options))
            assert time.monotonic() < deadline, "an id must be forgotten after its window"
            await asyncio.sleep(0.02)
        assert len(await backend.read_range(shard, None, None, 10, False)) == 2


async def check_a_short_window_forgets_for_itself_alone(harness: Harness) -> None:
    """Whoever asks for a longer one is told of the first event all the same."""
    shard = Shard(harness.fresh_name())
    batch, other = numbered(7, 1), numbered(8, 1)
    terms, short = {0: _id("a", batch[0])}, AppendOptions(window=0.05)
    async with harness.open() as backend:
        (first,) = await _stored(backend, shard, batch, terms)
        await _stored(backend, shard, other, {0: _id("b", other[0])}, short)
        await asyncio.sleep(0.3)
        await _stored(backend, shard, other, {0: _id("c", other[0])}, short)
        assert await _stored(backend, shard, batch, terms) == [first]
        (again,) = await _stored(backend, shard, batch, terms, short)
        assert again != first
        assert await _stored(backend, shard, batch, terms) == [again]


async def check_an_expected_position(harness: Harness) -> None:
    """It holds for the newest that was ever appended; else it is a conflict that names that."""
    shard = Shard(harness.fresh_name())
    empty = Terms(expect=Position((0, 0)))
    async with harness.open() as backend:
        (first,) = await _stored(backend, shard, numbered(0, 1), {0: empty})
        assert isinstance(first, Position)
        (refused,) = await _stored(backend, shard, numbered(9, 1), {0: empty})
        assert isinstance(refused, ConflictError)
        assert refused.position == first
        batch = numbered(1, 2)
        expecting = Terms(expect=first)
        second, late = await _stored(backend, shard, batch, {0: expecting, 1: expecting})
        assert isinstance(second, Position)
        assert isinstance(late, ConflictError)
        assert late.position == second
        await backend.remove(shard, [second])
        (gone,) = await _stored(backend, shard, numbered(9, 1), {0: expecting})
        assert isinstance(gone, ConflictError)
        await _stored(backend, shard, numbered(2, 1), {0: Terms(expect=second)})
        assert await _numbers(backend, shard) == [0, 2]


async def check_a_delayed_event_comes_when_it_is_due(harness: Harness) -> None:
    """It is in no log before; whoever tends the stream moves it, once, in order of the times.

    One whose time is past is stored at once.
    """
    shard = Shard(harness.fresh_name())
    now = time.time()
    async with harness.open() as backend, harness.open() as other:
        batch = numbered(0, 4)
        terms = {0: Terms(due=now + 0.4), 1: Terms(due=now + 0.3), 3: Terms(due=now - 5)}
        stored = await _stored(backend, shard, batch, terms)
        assert [position is None for position in stored] == [True, True, False, False]
        found = await backend.describe(shard.stream)
        assert found is not None
        assert (found.length, found.delayed) == (2, 2)
        deadline = time.monotonic() + PATIENCE
        moved = 0
        while moved < 2:
            tended = await asyncio.gather(*(one.tend(shard.stream) for one in (backend, other)))
            moved += sum(one.moved for one in tended)
            assert time.monotonic() < deadline, "what is due must be moved"
            await asyncio.sleep(0.01)
        assert await _numbers(backend, shard) == [2, 3, 1, 0]
        found = await backend.describe(shard.stream)
        assert found is not None
        assert (found.length, found.delayed) == (4, 0)
        assert (await other.tend(shard.stream)).moved == 0


async def check_a_delayed_event_outlives_its_session(harness: Harness) -> None:
    """Its client is gone; the stream never had an event, and has its marks all the same."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        await _stored(backend, shard, numbered(5, 1), {0: Terms(due=time.time() + 0.2)})
    async with harness.open() as other:
        found = await other.describe(shard.stream)
        assert found is not None
        assert (found.marks, found.length, found.delayed) == (MARKS, 0, 1)
        deadline = time.monotonic() + PATIENCE
        while not (await other.tend(shard.stream)).moved:
            assert time.monotonic() < deadline, "what is due must be moved"
            await asyncio.sleep(0.01)
        assert await _numbers(other, shard) == [5]


async def check_delayed_events_go_with_their_stream(harness: Harness) -> None:
    """A stream that is destroyed takes along what waits, and the ids that it knew."""
    shard = Shard(harness.fresh_name())
    batch = numbered(0, 2)
    terms = {0: Terms(due=time.time() + 0.1), 1: _id("a", batch[1])}
    async with harness.open() as backend:
        await _stored(backend, shard, batch, terms)
        assert await backend.destroy(shard.stream)
        assert await backend.describe(shard.stream) is None
        await append(backend, shard, numbered(7, 1))
        await _stored(backend, shard, batch[1:], {0: terms[1]})
        await asyncio.sleep(0.15)
        assert (await backend.tend(shard.stream)).moved == 0
        assert await _numbers(backend, shard) == [7, 1]


async def check_an_id_may_wait(harness: Harness) -> None:
    """A delayed event with an id waits once."""
    shard = Shard(harness.fresh_name())
    (entry,) = numbered(0, 1)
    terms = {0: _id("a", entry)._replace(due=time.time() + 60)}
    async with harness.open() as backend:
        assert await _stored(backend, shard, [entry], terms) == [None]
        assert await _stored(backend, shard, [entry], terms) == [None]
        found = await backend.describe(shard.stream)
        assert found is not None
        assert found.delayed == 1


async def _stored(
    backend: Log,
    shard: Shard,
    batch: Sequence[Fields],
    terms: Mapping[int, Terms],
    options: AppendOptions = AppendOptions(),  # noqa: B008  # a value, never changed
) -> list[Stored]:
    appender: Appender = await backend.appender(shard, MARKS, options)
    try:
        async with asyncio.timeout(PATIENCE):
            return list(await appender.submit(batch, None, terms))
    finally:
        await appender.aclose()


async def _numbers(backend: Log, shard: Shard) -> list[int]:
    entries = await backend.read_range(shard, None, None, 100, False)
    return [int(entry[1][1]) for entry in entries]


def _id(id: str, fields: Fields) -> Terms:
    return Terms(id, digest(fields))


APPEND_CHECKS: Final[Sequence[Check]] = (
    check_an_id_is_stored_once,
    check_an_id_stands_for_one_content,
    check_an_id_is_forgotten_after_its_window,
    check_a_short_window_forgets_for_itself_alone,
    check_an_expected_position,
    check_a_delayed_event_comes_when_it_is_due,
    check_a_delayed_event_outlives_its_session,
    check_delayed_events_go_with_their_stream,
    check_an_id_may_wait,
)
"""What every backend promises."""
