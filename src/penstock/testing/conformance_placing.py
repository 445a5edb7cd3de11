"""Conformance of groups that are made and set elsewhere by hand, and of what is told about them.

Does        state each promise in a docstring, and check it through the ports alone.
Does not    know any backend, or measure speed.
Invariants  as in conformance_tools.
Used by     conformance_groups.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from penstock.errors import ConfigError, NotFound
from penstock.event import NEWEST, OLDEST, Shard, after
from penstock.ports import EventMember, GroupVanished, MemberLapsed, TrimTo
from penstock.testing.conformance_tools import (
    PATIENCE,
    Check,
    Got,
    Harness,
    ack,
    append,
    drain,
    fetched,
    join,
    joined,
    nothing_comes,
    numbered,
    numbers,
)


async def check_a_group_is_made_before_anybody_joins(harness: Harness) -> None:
    """At a concrete place; one that is there already is left as it is."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        await append(backend, shard, numbered(0, 3))
        assert await backend.create_group(shard, "g", NEWEST)
        assert not await backend.create_group(shard, "g", OLDEST)
        await append(backend, shard, numbered(3, 2))
        async with joined(backend, harness, [shard]) as member:
            assert numbers(await drain(member, 2)) == [3, 4]


async def check_a_group_is_set_elsewhere(harness: Harness) -> None:
    """With nothing pending or parked, and without failures; refused while a member lives."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend, harness.open() as other:
        positions = await append(backend, shard, numbered(0, 5))
        try:
            await backend.reset_group(shard, "g", OLDEST)
        except NotFound:
            pass
        else:
            raise AssertionError("there is no such group")
        async with joined(backend, harness, [shard]) as member:
            got = await drain(member, 5)
            await ack(member, got[:2])
            await member.park(shard, [got[2].id], 60.0, failed=True)
            try:
                await other.reset_group(shard, "g", OLDEST)
            except ConfigError:
                pass
            else:
                raise AssertionError("a group must not be set elsewhere under a living member")
        await other.reset_group(shard, "g", after(positions[0]))
        (info,) = await backend.groups(shard)
        assert (info.pending, info.parked, info.members) == (0, 0, ())
        async with joined(backend, harness, [shard]) as member:
            again = await drain(member, 4)
            assert numbers(again) == [1, 2, 3, 4]
            assert all(row.attempts == 0 for row in again)


async def check_a_crashed_member_does_not_keep_a_group_in_its_place(harness: Harness) -> None:
    """Setting it elsewhere waits for one lease to see that nobody lives."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        await append(backend, shard, numbered(0, 3))
        crashed = await join(backend, harness, [shard])
        await drain(crashed, 3)
        crashed.abandon()
        async with asyncio.timeout(PATIENCE):
            await backend.reset_group(shard, "g", OLDEST)
        async with joined(backend, harness, [shard]) as member:
            assert numbers(await drain(member, 3)) == [0, 1, 2]
            await nothing_comes(member, harness.lease / 2)


async def check_a_forced_reset_is_told_to_the_living(harness: Harness) -> None:
    """They drop what they had, ack nothing of it, and go on from the new place."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend, harness.open() as other:
        await append(backend, shard, numbered(0, 4))
        async with joined(backend, harness, [shard]) as member:
            await ack(member, await drain(member, 4))
            await other.reset_group(shard, "g", OLDEST, force=True)
            assert sorted(numbers(await told(member, 4))) == [0, 1, 2, 3]


async def check_a_group_that_others_made_anew_is_noticed(harness: Harness) -> None:
    """By every member, also one that does not wait when it happens; nothing is skipped."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend, harness.open() as other:
        await append(backend, shard, numbered(0, 3))
        async with joined(backend, harness, [shard]) as a, joined(other, harness, [shard]) as b:
            got = await drain(a, 3)
            await ack(a, got[:1])
            await backend.drop(shard, "g")
            async with asyncio.timeout(PATIENCE):
                both = await asyncio.gather(told(a, 0), told(b, 0))
            found = [row for rows in both for row in rows]
            deadline = time.monotonic() + PATIENCE
            while not {1, 2} <= set(numbers(found)):
                assert time.monotonic() < deadline, f"skipped: got {numbers(found)}"
                for one in (a, b):
                    found += await patiently(one)


async def check_what_was_trimmed_unread_is_not_waited_for(harness: Harness) -> None:
    """The group goes on with what is left, and says how much it lags behind that."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        await append(backend, shard, numbered(0, 10))
        async with joined(backend, harness, [shard]) as member:
            await ack(member, await drain(member, 3, limit=3))
            assert await backend.trim(shard, TrimTo(max_events=4, acked_only=False)) == 6
            (info,) = await backend.groups(shard)
            assert (info.lag or 0) <= 4  # a read may be under way
            assert numbers(await drain(member, 4)) == [6, 7, 8, 9]
            (info,) = await backend.groups(shard)
            assert (info.lag, info.lag_seconds) == (0, 0.0)


async def check_ages_and_marks_are_told(harness: Harness) -> None:
    """How old the oldest pending event is, how far the group lags, and up to where it has acked."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        positions = await append(backend, shard, numbered(0, 5))
        assert await backend.create_group(shard, "g", OLDEST)
        (info,) = await backend.groups(shard)
        assert (info.pending_age, info.mark, info.dead) == (None, None, 0)
        assert info.lag_seconds is not None
        assert 0 <= info.lag_seconds < PATIENCE
        async with joined(backend, harness, [shard]) as member:
            got = await drain(member, 5)
            await ack(member, [got[0], got[1], got[3]])
            deadline = time.monotonic() + PATIENCE
            while info.mark is None or info.mark < positions[1]:
                assert time.monotonic() < deadline, f"the mark must move, it is {info.mark}"
                await member.fetch(10, 0.1)
                (info,) = await backend.groups(shard)
            assert positions[1] <= info.mark < positions[2]
            assert info.pending_age is not None
            assert 0 <= info.pending_age < PATIENCE
            assert info.deliveries in {5, None}


async def told(member: EventMember, count: int) -> list[Got]:
    """Fetch until the loss of the group is told, and *count* events after it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        assert time.monotonic() < deadline, "a fetch must raise GroupVanished"
        try:
            await fetched(member, 100, 1.0)
        except GroupVanished:
            break
        except MemberLapsed:
            continue
    found: list[Got] = []
    while len(found) < count:
        assert time.monotonic() < deadline, f"{count} events must come, got {numbers(found)}"
        found += await patiently(member)
    return found


async def patiently(member: EventMember) -> list[Got]:
    """What comes within a moment; a new incarnation is no reason to stop."""
    try:
        return await fetched(member, 100, 0.1)
    except (MemberLapsed, GroupVanished):
        return []


PLACING_CHECKS: Final[Sequence[Check]] = (
    check_a_group_is_made_before_anybody_joins,
    check_a_group_is_set_elsewhere,
    check_a_crashed_member_does_not_keep_a_group_in_its_place,
    check_a_forced_reset_is_told_to_the_living,
    check_a_group_that_others_made_anew_is_noticed,
    check_what_was_trimmed_unread_is_not_waited_for,
    check_ages_and_marks_are_told,
)
"""What every backend with `Features.event_groups` promises about the places of groups."""
