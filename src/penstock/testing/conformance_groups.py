"""Conformance of groups that share events: who gets what, and that nothing is lost on the way.

Does        state each promise in a docstring, and check it through the ports alone.
Does not    know any backend, or measure speed.
Invariants  as in conformance_tools.
Used by     conformance.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from penstock.event import NEWEST, Shard, after
from penstock.ports import EventMember, GroupVanished, TrimTo
from penstock.testing.conformance_failures import FAILURE_CHECKS
from penstock.testing.conformance_leases import LEASE_CHECKS
from penstock.testing.conformance_placing import PLACING_CHECKS
from penstock.testing.conformance_tools import (
    PATIENCE,
    SLACK,
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
    rows,
    shards_of,
)


async def check_each_event_goes_to_one_member(harness: Harness) -> None:
    """Members share the events: none twice, none missed; acked, nothing is left."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend, harness.open() as other:
        await append(backend, shard, numbered(0, 300))
        async with joined(backend, harness, [shard]) as a, joined(other, harness, [shard]) as b:
            found: list[Got] = []

            async def work(member: EventMember) -> None:
                while len(found) < 300:
                    got = await fetched(member, 7, 0.1)
                    found.extend(got)
                    assert await ack(member, got) == len(got)

            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(work(a), work(b))
            assert sorted(numbers(found)) == list(range(300))
        (info,) = await backend.groups(shard)
        assert (info.name, info.pending, info.parked, info.lag or 0) == ("g", 0, 0, 0)
        assert not await backend.pending(shard, "g", 10)


async def check_a_new_group_begins_where_it_is_told(harness: Harness) -> None:
    """NEWEST is anchored when joining; ``after`` excludes; an existing group is not moved."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        positions = await append(backend, shard, numbered(0, 3))
        async with joined(backend, harness, [shard], start=NEWEST) as member:
            await append(backend, shard, numbered(3, 2))
            assert numbers(await drain(member, 2)) == [3, 4]
        assert await backend.drop(shard, "g")
        assert not await backend.drop(shard, "g")
        start = after(positions[0])
        async with joined(backend, harness, [shard], start=start) as member:
            got = await drain(member, 2)
            assert numbers(got) == [1, 2]
            await ack(member, got)
        async with joined(backend, harness, [shard], start=NEWEST) as member:
            assert numbers(await drain(member, 2)) == [3, 4]


async def check_a_group_outlives_its_members(harness: Harness) -> None:
    """What was acked does not come again, what was not does."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        await append(backend, shard, numbered(0, 5))
        async with joined(backend, harness, [shard]) as member:
            got = await drain(member, 4)
            assert await ack(member, got[:3]) == 3
        async with joined(backend, harness, [shard]) as member:
            assert sorted(numbers(await drain(member, 2))) == [3, 4]
            await nothing_comes(member, 0.1)


async def check_acks_are_counted(harness: Harness) -> None:
    """Each event is acked once; any member may ack plainly, only its owner fenced."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        await append(backend, shard, numbered(0, 4))
        async with joined(backend, harness, [shard]) as a, joined(backend, harness, [shard]) as b:
            got = await drain(a, 4)
            assert await ack(a, got[:1]) == 1
            assert await ack(a, got[:1]) == 0
            assert await ack(b, got[1:2], fenced=True) == 0
            assert await ack(b, got[1:2]) == 1
            assert await ack(a, got, fenced=True) == 2
            assert await ack(a, []) == 0


async def check_parked_events_come_when_due(harness: Harness) -> None:
    """Not before their delay is over, and to any member; only failures are counted."""
    shard, delay = Shard(harness.fresh_name()), 0.4
    async with harness.open() as backend, harness.open() as other:
        await append(backend, shard, numbered(0, 1))
        async with joined(backend, harness, [shard]) as a, joined(other, harness, [shard]) as b:
            (got,) = await drain(a, 1)
            for taker, failed, attempts in [(b, True, 1), (a, True, 2), (b, False, 2)]:
                giver = a if taker is b else b
                begun = time.monotonic()
                parked = await giver.park(shard, [got.id], delay, failed=failed)
                assert list(parked) == [got.id]
                (info,) = await backend.groups(shard)
                assert (info.pending, info.parked) == (0, 1)
                (got,) = await drain(taker, 1)
                took = time.monotonic() - begun
                assert delay - 0.05 < took < delay + SLACK, f"due in {delay} s, came after {took}"
                assert got.attempts == attempts
            assert await ack(b, [got], fenced=True) == 1


async def check_a_waiting_fetch_wakes(harness: Harness) -> None:
    """By an append, and by another member that parks without delay; not by polling."""
    shard = Shard(harness.fresh_name())
    async with (
        harness.open() as backend,
        harness.open() as other,
        joined(backend, harness, [shard]) as a,
        joined(other, harness, [shard]) as b,
    ):
        waiting = asyncio.create_task(drain(a, 1))
        await asyncio.sleep(0.05)  # so that it most likely waits; right either way
        await append(other, shard, numbered(0, 1))
        (got,) = await waiting
        waiting = asyncio.create_task(drain(b, 1))
        await asyncio.sleep(0.05)
        await a.park(shard, [got.id], 0.0, failed=False)
        assert numbers(await asyncio.wait_for(waiting, 1.0 + SLACK)) == [0]


async def check_a_lost_group_is_made_anew(harness: Harness) -> None:
    """Dropped behind its back, a group is made anew where all was acked: nothing is skipped."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend, harness.open() as other:
        await append(backend, shard, numbered(0, 5))
        async with joined(backend, harness, [shard], start=NEWEST) as member:
            await append(backend, shard, numbered(5, 1))
            got = await drain(member, 1)
            assert await other.drop(shard, "g")
            await append(backend, shard, numbered(6, 1))
            await _vanishes(member)
            assert await ack(member, got) == 0
            assert numbers(await drain(member, 2)) == [5, 6]
            await nothing_comes(member, 0.1)


async def check_a_destroyed_stream_is_survived(harness: Harness) -> None:
    """A member that waits while its stream is destroyed is told, and gets what comes after."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend, harness.open() as other:
        await append(backend, shard, numbered(0, 2))
        async with joined(backend, harness, [shard]) as member:
            await drain(member, 2)
            waiting = asyncio.create_task(_vanishes(member))
            await asyncio.sleep(0.05)
            assert await other.destroy(shard.stream)
            await waiting
            await append(other, shard, numbered(2, 3))
            assert numbers(await drain(member, 3)) == [2, 3, 4]


async def check_trimmed_pending_events_are_never_handed_out(harness: Harness) -> None:
    """What was pending and is gone from the log is dropped, not handed out without contents."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend, harness.open() as other:
        positions = await append(backend, shard, numbered(0, 8))
        crashed = await join(backend, harness, [shard])
        await drain(crashed, 6)
        assert await backend.remove(shard, [positions[2]]) == 1
        assert await backend.trim(shard, TrimTo(max_events=6, acked_only=False)) == 1
        crashed.abandon()
        async with joined(other, harness, [shard]) as member:
            got = await drain(member, 6)
            assert sorted(numbers(got)) == [1, 3, 4, 5, 6, 7]
            await nothing_comes(member, harness.lease / 2)
            assert len(await backend.pending(shard, "g", 100)) == 6


async def check_trimming_keeps_what_is_not_acked(harness: Harness) -> None:
    """acked_only leaves whatever a group has not read, has pending, or has parked."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        await append(backend, shard, numbered(0, 10))
        async with joined(backend, harness, [shard]) as member:
            assert await backend.trim(shard, TrimTo(max_events=0)) == 0
            got = await drain(member, 6)
            await ack(member, [*got[:2], got[3]])
            assert await backend.trim(shard, TrimTo(max_events=0)) == 2
            await member.park(shard, [got[2].id], 60.0, failed=True)
            assert await backend.trim(shard, TrimTo(max_events=0)) == 0
            assert await backend.trim(shard, TrimTo(max_events=9)) == 0
            assert await backend.trim(shard, TrimTo(max_events=0, acked_only=False)) == 8


async def check_a_fetch_keeps_its_limit(harness: Harness) -> None:
    """At most the limit and one page more, which is no larger than the limit."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        await append(backend, shard, numbered(0, 500))
        async with joined(backend, harness, [shard]) as member:
            for limit in (1, 10, 100):
                got = rows(await member.fetch(limit, PATIENCE))
                assert 0 < len(got) <= 2 * limit


async def check_several_shards_and_streams(harness: Harness) -> None:
    """One member may join many; each event tells where it is from."""
    name = harness.fresh_name()
    shards = shards_of(name, 2) if harness.features.shards else [Shard(name)]
    shards.append(Shard(harness.fresh_name()))
    async with harness.open() as backend, joined(backend, harness, shards) as member:
        for index, shard in enumerate(shards):
            await append(backend, shard, numbered(10 * index, 10))
        got = await drain(member, 10 * len(shards), limit=7)
        for index, shard in enumerate(shards):
            own = [row.number for row in got if row.shard == shard]
            assert own == list(range(10 * index, 10 * index + 10))
        assert await ack(member, got) == len(got)


async def check_progress(harness: Harness) -> None:
    """It says up to where the group has handed out; nothing of a group that has not begun."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        positions = await append(backend, shard, numbered(0, 3))
        async with joined(backend, harness, [shard]) as member:
            assert await member.progress(shard) is None
            await drain(member, 2)
            assert await member.progress(shard) == positions[1]


async def check_groups_and_pending_are_told(harness: Harness) -> None:
    """Who is in the group, who holds what, since when, and how often it was handed out."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        positions = await append(backend, shard, numbered(0, 5))
        assert list(await backend.groups(shard)) == []
        async with joined(backend, harness, [shard], name="one") as member:
            await drain(member, 3)
            (info,) = await backend.groups(shard)
            assert (info.name, info.shard, info.pending, info.parked) == ("g", shard, 3, 0)
            assert info.lag in {2, None}
            assert info.last == positions[2]
            assert [(m.name, m.pending) for m in info.members] == [("one", 3)]
            assert info.members[0].beating in {True, None}
            pending = await backend.pending(shard, "g", 2)
            assert [(p.position, p.member) for p in pending] == [(p, "one") for p in positions[:2]]
            assert all((p.deliveries, p.attempts) == (1, 0) for p in pending)
            assert all(0 <= p.idle < PATIENCE for p in pending)
            described = await backend.describe(shard.stream)
            assert described is not None
            assert described.groups == 1


async def check_a_cancelled_fetch_loses_nothing(harness: Harness) -> None:
    """Whenever it is cancelled, what it had taken comes again."""
    shard, found = Shard(harness.fresh_name()), list[Got]()
    async with harness.open() as backend, joined(backend, harness, [shard]) as member:
        member.tell_known(lambda _: {one.id for one in found})
        for number in range(40):
            waiting = asyncio.create_task(fetched(member, 100, 5.0))
            await asyncio.sleep(0.0005 * (number % 4))
            await append(backend, shard, numbered(number, 1))
            for _ in range(number % 7):
                await asyncio.sleep(0)
            waiting.cancel()
            for result in await asyncio.gather(waiting, return_exceptions=True):
                found += result if isinstance(result, list) else []
        if len(found) < 40:
            found += await drain(member, 40 - len(found))
        assert sorted(numbers(found)) == list(range(40))
        assert await ack(member, found) == 40


async def _vanishes(member: EventMember) -> None:
    """Fetch until the loss of the group is told; what is fetched before is of the old one."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            await fetched(member, 100, PATIENCE)
        except GroupVanished:
            return
    raise AssertionError("a fetch must raise GroupVanished when its group is lost")


EVENT_GROUP_CHECKS: Final[Sequence[Check]] = (
    check_each_event_goes_to_one_member,
    check_a_new_group_begins_where_it_is_told,
    check_a_group_outlives_its_members,
    check_acks_are_counted,
    check_parked_events_come_when_due,
    check_a_waiting_fetch_wakes,
    check_a_lost_group_is_made_anew,
    check_a_destroyed_stream_is_survived,
    check_trimmed_pending_events_are_never_handed_out,
    check_trimming_keeps_what_is_not_acked,
    check_a_fetch_keeps_its_limit,
    check_several_shards_and_streams,
    check_progress,
    check_groups_and_pending_are_told,
    check_a_cancelled_fetch_loses_nothing,
    *LEASE_CHECKS,
    *PLACING_CHECKS,
    *FAILURE_CHECKS,
)
"""What every backend with `Features.event_groups` promises."""
