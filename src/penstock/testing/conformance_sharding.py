"""Conformance of streams in shards: one stream over several logs, which share its marks.

Does        check marks, destruction and existence over all shards of a stream.
Does not    check groups, nor which key goes where: that is decided above the ports.
Used by     conformance.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Final

from penstock.errors import ConfigError, NotFound
from penstock.event import NEWEST, OLDEST, Shard
from penstock.ports import AppendOptions, Log, Marks, MemberOptions, ShardsCame, TrimTo
from penstock.testing.conformance_tools import (
    MARKS,
    PATIENCE,
    Check,
    Harness,
    Owner,
    append,
    drain,
    joined,
    numbered,
    numbers,
    read_numbers,
    reading,
    settled,
    shards_of,
)


async def check_all_shards_have_one_set_of_marks(harness: Harness) -> None:
    """What one shard's first append stores counts for the others, and for the bare name."""
    name = harness.fresh_name()
    shards = shards_of(name, 3)
    async with harness.open() as backend, harness.open() as other:
        await append(backend, shards[2], numbered(0, 1))
        found = await other.describe(name)
        assert found is not None
        assert found.marks == MARKS._replace(shards=3)
        assert (len(found.oldest), len(found.newest)) == (3, 3)

        await append(other, shards[0], numbered(1, 1))
        for shard, marks in (
            (shards[1], MARKS._replace(shards=3, layout="value")),
            (Shard(name, 1, 4), MARKS._replace(shards=4)),
            (Shard(name), MARKS),
        ):
            assert await _refused(backend, shard, marks), (shard, marks)
        found = await other.describe(name)
        assert found is not None
        assert (found.marks, found.length) == (MARKS._replace(shards=3), 2)


async def check_one_log_is_not_split_afterwards(harness: Harness) -> None:
    """A stream of one shard keeps its only log under its name: shards are refused."""
    name = harness.fresh_name()
    async with harness.open() as backend:
        await append(backend, Shard(name), numbered(0, 1))
        assert await _refused(backend, Shard(name, 0, 2), MARKS._replace(shards=2))
        found = await backend.describe(name)
        assert found is not None
        assert (found.marks, found.length) == (MARKS, 1)


async def check_what_came_before_the_shards_is_in_nobodys_way(harness: Harness) -> None:
    """One log that only groups stand at may still become shards; then joining it says so.

    What such a group meets in the shards is new to it, wherever it was to begin.
    """
    name = harness.fresh_name()
    lone, shards = Shard(name), shards_of(name, 2)
    options = MemberOptions(NEWEST, lease=harness.lease)
    async with harness.open() as backend:
        assert await backend.create_group(lone, "made", NEWEST)
        sharer = await backend.own(lone, "sharing", options)
        before = await backend.appender(lone, MARKS, AppendOptions())
        async with joined(backend, harness, [lone], start=NEWEST) as early:
            for shard in shards:
                await append(backend, shard, numbered(shard.index, 1))
            assert await _told(backend.join([lone], "late", options))
            assert await _told(backend.own(lone, "later", options))
            assert await _told(backend.create_group(lone, "latest", NEWEST))
            assert await _told(before.submit(numbered(9, 1)))
            await early.add(shards, NEWEST)
            await early.remove([lone])
            assert sorted(numbers(await drain(early, 2))) == [0, 1]
        await before.aclose()
        await sharer.leave()

        assert await backend.create_group(shards[0], "made", NEWEST)
        async with joined(backend, harness, shards, start=NEWEST, group="made") as late:
            assert sorted(numbers(await drain(late, 2))) == [0, 1]
        owner = Owner(await backend.own(shards[0], "sharing", options))
        await settled([owner], lambda: sorted(numbers(owner.events)) == [0, 1])
        await owner.member.leave()


async def check_a_sharded_stream_is_destroyed_whole(harness: Harness) -> None:
    """No shard and no mark is left; a new stream of that name is new, also in one shard."""
    name = harness.fresh_name()
    shards = shards_of(name, 3)
    async with harness.open() as backend:
        for shard in shards:
            await append(backend, shard, numbered(0, 2))
        assert await backend.destroy(name)
        assert not await backend.destroy(name)
        assert await backend.describe(name) is None
        for shard in shards:
            assert list(await backend.read_range(shard, None, None, 10, False)) == []

        await append(backend, Shard(name), numbered(7, 1))
        async with reading(backend, {Shard(name): OLDEST}) as cursor:
            assert await read_numbers(cursor, 1) == [7]


async def check_an_open_session_sees_that_its_stream_was_destroyed(harness: Harness) -> None:
    """It marks the stream again with its next batch, as if it were the first."""
    shards = shards_of(harness.fresh_name(), 2)
    marks = MARKS._replace(shards=2)
    async with harness.open() as backend, harness.open() as other:
        appender = await backend.appender(shards[1], marks, AppendOptions())
        await appender.submit(numbered(0, 1))
        assert await other.destroy(shards[1].stream)
        await appender.submit(numbered(1, 1))
        found = await other.describe(shards[1].stream)
        assert found is not None
        assert (found.marks, found.length) == (marks, 1)
        await appender.aclose()


async def check_a_shard_without_events_exists_with_its_stream(harness: Harness) -> None:
    """`only_if_exists` looks at the stream, not at the shard; and each log is trimmed alone."""
    shards = shards_of(harness.fresh_name(), 2)
    options = AppendOptions(only_if_exists=True)
    async with harness.open() as backend:
        try:
            await append(backend, shards[1], numbered(0, 1), options=options)
        except NotFound:
            pass
        else:
            raise AssertionError("an append to no stream must fail with NotFound")
        assert await backend.describe(shards[1].stream) is None

        await append(backend, shards[0], numbered(0, 3))
        await append(backend, shards[1], numbered(3, 3), options=options)
        assert await backend.trim(shards[0], TrimTo(max_events=1)) == 2
        found = await backend.describe(shards[0].stream)
        assert found is not None
        assert found.length == 4


async def check_a_pattern_is_about_names(harness: Harness) -> None:
    """A stream in shards is found by its own name, and not by its shards'."""
    name = harness.fresh_name()
    async with harness.open() as backend:
        for shard in shards_of(f"{name}.in-2", 2):
            await append(backend, shard, numbered(0, 1))
        await append(backend, Shard(f"{name}.in-1"), numbered(0, 1))
        for pattern, wanted in (
            ("in-*", ["in-1", "in-2"]),
            ("in-2", ["in-2"]),
            ("in-[^1]", ["in-2"]),
            ("in-[0-1]", ["in-1"]),
            ("in-2:*", []),
            ("in-?:0", []),
            (r"in\-2", ["in-2"]),
            ("in-[", []),
            ("in-\0", []),
        ):
            found = await backend.streams(f"{name}.{pattern}")
            assert list(found) == [f"{name}.{one}" for one in wanted], pattern


async def _refused(backend: Log, shard: Shard, marks: Marks) -> bool:
    try:
        await backend.appender(shard, marks, AppendOptions())
    except (ConfigError, ShardsCame):
        return True
    return False


async def _told(attempt: Awaitable[object]) -> bool:
    """Whether it is said that the stream has come to be in shards."""
    try:
        async with asyncio.timeout(PATIENCE):
            await attempt
    except ShardsCame:
        return True
    return False


SHARDING_CHECKS: Final[Sequence[Check]] = (
    check_all_shards_have_one_set_of_marks,
    check_one_log_is_not_split_afterwards,
    check_what_came_before_the_shards_is_in_nobodys_way,
    check_a_sharded_stream_is_destroyed_whole,
    check_an_open_session_sees_that_its_stream_was_destroyed,
    check_a_shard_without_events_exists_with_its_stream,
    check_a_pattern_is_about_names,
)
"""What every backend promises that offers streams in shards."""
