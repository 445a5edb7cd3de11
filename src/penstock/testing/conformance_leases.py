"""Conformance of leased members of groups that share events: names, deaths, hand-overs, fences.

Does        state each promise in a docstring, and check it through the ports alone.
Does not    know any backend, or measure speed.
Invariants  as in conformance_tools.
Used by     conformance_groups.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Final

from penstock.errors import PenstockError
from penstock.event import Shard
from penstock.testing.conformance_tools import (
    SLACK,
    Check,
    Harness,
    ack,
    append,
    drain,
    join,
    joined,
    nothing_comes,
    numbered,
    numbers,
    refused_name,
)


async def check_own_pending_events_come_first(harness: Harness) -> None:
    """A crashed member's name, taken up again, brings what was pending under it, then new ones."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend, harness.open() as other:
        await append(backend, shard, numbered(0, 6))
        crashed = await join(backend, harness, [shard], name="worker-1")
        assert numbers(await drain(crashed, 3)) == [0, 1, 2]
        crashed.abandon()
        async with joined(other, harness, [shard], name="worker-1") as member:
            assert member.name == "worker-1"
            got = await drain(member, 6, limit=2)
            assert numbers(got) == [0, 1, 2, 3, 4, 5]
            assert [row.deliveries > 1 for row in got] == [True] * 3 + [False] * 3
            assert await ack(member, got, fenced=True) == 6


async def check_a_living_name_is_refused(harness: Harness) -> None:
    """Two living members never bear one name: the second waits for one lease, then fails."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend, harness.open() as other:
        async with joined(backend, harness, [shard], name="one"):
            begun = time.monotonic()
            assert await refused_name(join(other, harness, [shard], name="one"))
            assert time.monotonic() - begun < 1.5 * harness.lease + SLACK
        async with joined(other, harness, [shard], name="one") as member:
            assert member.name == "one"


async def check_a_name_is_free_when_its_bearer_leaves(harness: Harness) -> None:
    """Who waits for a name gets it then."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend, harness.open() as other:
        first = await join(backend, harness, [shard], name="one")
        waiting = asyncio.create_task(join(other, harness, [shard], name="one"))
        await asyncio.sleep(harness.lease / 4)
        await first.leave()
        await (await waiting).leave()


async def check_the_dead_are_taken_over(harness: Harness) -> None:
    """Within one and a half leases all that a crashed member held comes to the others."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend, harness.open() as other:
        await append(backend, shard, numbered(0, 50))
        crashed = await join(backend, harness, [shard])
        await drain(crashed, 50)
        async with joined(other, harness, [shard]) as member:
            crashed.abandon()
            got = await drain(member, 50, limit=10, within=1.5 * harness.lease + SLACK)
            assert sorted(numbers(got)) == list(range(50))
            assert all(row.deliveries > 1 and row.attempts == 0 for row in got)
            assert await ack(member, got, fenced=True) == 50


async def check_the_living_are_never_robbed(harness: Harness) -> None:
    """A member that beats keeps its events, however long it neither fetches nor acks."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend, harness.open() as other:
        await append(backend, shard, numbered(0, 5))
        async with (
            joined(backend, harness, [shard]) as idle,
            joined(other, harness, [shard]) as member,
        ):
            got = await drain(idle, 5)
            await nothing_comes(member, 3 * harness.lease)
            assert await ack(idle, got, fenced=True) == 5


async def check_a_former_owner_is_fenced_off(harness: Harness) -> None:
    """Once an event is another's, a fenced ack or a park of the former owner does nothing."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend, harness.open() as other:
        await append(backend, shard, numbered(0, 2))
        async with joined(backend, harness, [shard]) as a, joined(other, harness, [shard]) as b:
            ids = [row.id for row in await drain(a, 2)]
            assert list(await a.park(shard, ids, 0.0, failed=False)) == ids
            got = await drain(b, 2)
            assert await ack(a, got, fenced=True) == 0
            assert not await a.park(shard, ids, 0.0, failed=True)
            assert [row.attempts for row in got] == [0, 0]
            assert await ack(b, got, fenced=True) == 2


async def check_a_struck_member_is_fenced_off(harness: Harness) -> None:
    """What was taken from the dead is acked by its taker alone, should the dead wake."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend, harness.open() as other:
        await append(backend, shard, numbered(0, 3))
        dead = await join(backend, harness, [shard])
        await drain(dead, 3)
        dead.abandon()
        async with joined(other, harness, [shard]) as member:
            got = await drain(member, 3)
            with contextlib.suppress(PenstockError):  # it may as well be closed for good
                assert await ack(dead, got, fenced=True) == 0
            assert await ack(member, got, fenced=True) == 3


async def check_leaving_hands_back_at_once(harness: Harness) -> None:
    """What a member held when it left comes to another within a second, and is no failure."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend, harness.open() as other:
        await append(backend, shard, numbered(0, 20))
        leaver = await join(backend, harness, [shard])
        await drain(leaver, 20)
        async with joined(other, harness, [shard]) as member:
            await leaver.leave()
            got = await drain(member, 20, within=1.0)
            assert sorted(numbers(got)) == list(range(20))
            assert [row.attempts for row in got] == [0] * 20
            (info,) = await backend.groups(shard)
            assert leaver.name not in [m.name for m in info.members]


LEASE_CHECKS: Final[Sequence[Check]] = (
    check_own_pending_events_come_first,
    check_a_living_name_is_refused,
    check_a_name_is_free_when_its_bearer_leaves,
    check_the_dead_are_taken_over,
    check_the_living_are_never_robbed,
    check_a_former_owner_is_fenced_off,
    check_a_struck_member_is_fenced_off,
    check_leaving_hands_back_at_once,
)
"""What members promise each other: a part of the checks of event groups."""
