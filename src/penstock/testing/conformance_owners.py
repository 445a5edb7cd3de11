"""Conformance of owners of shards that die, or are slow: who takes over, and when nobody may.

Does        state each promise in a docstring, and check it through the ports alone.
Does not    know any backend, or measure speed.
Invariants  as in conformance_tools.
Used by     conformance_shards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from penstock.errors import PenstockError
from penstock.testing.conformance_tools import (
    PATIENCE,
    SLACK,
    Check,
    Harness,
    fill,
    numbers,
    own,
    owning,
    settled,
    sizes,
)


async def check_the_dead_are_replaced(harness: Harness) -> None:
    """Within one and a half leases a crashed member's shards go on, from what was committed."""
    name = harness.fresh_name()
    async with harness.open() as backend, harness.open() as other:
        await fill(backend, name, 2, 6)
        crashed = await own(backend, harness, name, 2)
        await settled([crashed], lambda: len(crashed.events) == 12)
        first = [row for row in crashed.events if row.shard.index == 0]
        await crashed.commit(first[3])
        async with owning(other, harness, name, 2) as b:
            await settled([b, crashed], lambda: len(b.shards) == 1)
            crashed.member.abandon()
            await settled([b], lambda: b.shards == {0, 1}, 1.5 * harness.lease + SLACK)
            await settled([b], lambda: len(b.events) >= 8)
            assert numbers(r for r in b.events if r.shard.index == 0) == [4, 5]
            assert numbers(r for r in b.events if r.shard.index == 1) == list(range(6))


async def check_what_the_dead_had_is_free_for_all_at_once(harness: Harness) -> None:
    """Who came after the death need not wait for a lease of its own: others have seen it dead."""
    name = harness.fresh_name()
    async with harness.open() as backend, harness.open() as other:
        await fill(backend, name, 2, 3)
        crashed = await own(backend, harness, name, 2)
        async with owning(other, harness, name, 2) as b:
            await settled([crashed, b], lambda: sizes(crashed, b) == [1, 1])
            (dead,) = crashed.shards
            crashed.member.abandon()
            async with owning(other, harness, name, 2, lease=3 * PATIENCE) as late:
                await settled([b, late], lambda: late.shards == {dead})


async def check_the_dead_commit_nothing(harness: Harness) -> None:
    """Should a member wake that was taken for dead, its commits are refused."""
    name = harness.fresh_name()
    async with harness.open() as backend, harness.open() as other:
        await fill(backend, name, 1, 3)
        dead = await own(backend, harness, name, 1)
        await settled([dead], lambda: len(dead.events) == 3)
        dead.member.abandon()
        async with owning(other, harness, name, 1) as b:
            await settled([b], lambda: len(b.events) == 3)
            try:
                await dead.commit(dead.events[2])
            except PenstockError:
                pass
            else:
                raise AssertionError("a commit of the dead must be refused")
            (ownership,) = b.member.owned.values()
            assert ownership.committed is None
            await b.commit(b.events[2])


async def check_the_living_keep_their_shards(harness: Harness) -> None:
    """A member that beats keeps its shards, however long it does not fetch; others stand by."""
    name = harness.fresh_name()
    async with harness.open() as backend, harness.open() as other:
        await fill(backend, name, 1, 3)
        async with owning(backend, harness, name, 1) as a:
            await settled([a], lambda: len(a.events) == 3)
            async with owning(other, harness, name, 1) as standby:
                loop = asyncio.get_running_loop()
                end = loop.time() + 3 * harness.lease
                while loop.time() < end:
                    await standby.step()
                assert (standby.shards, standby.events) == (set(), [])
                await a.commit(a.events[2])


async def check_no_shard_stays_free(harness: Harness) -> None:
    """Whoever takes one may be due another by that: it is taken too, and nothing else moves."""
    name = harness.fresh_name()
    async with harness.open() as backend, harness.open() as other:
        await fill(backend, name, 4, 1)
        async with (
            owning(backend, harness, name, 4, name="b", lease=60.0) as b,
            owning(other, harness, name, 4, name="c", lease=60.0) as c,
        ):
            while sizes(b, c) != [2, 2]:
                await asyncio.gather(b.step(), c.step())
                for owner in (b, c):
                    for shard in owner.member.yielding:
                        await owner.member.release(shard)
            async with owning(other, harness, name, 4, name="a", lease=60.0) as a:
                for owner in (b, c):
                    await owner.member.release(next(iter(owner.member.owned)))
                await a.step()
                await settled([b, c, a], lambda: a.shards | b.shards | c.shards == {0, 1, 2, 3})


OWNER_CHECKS: Final[Sequence[Check]] = (
    check_the_dead_are_replaced,
    check_what_the_dead_had_is_free_for_all_at_once,
    check_the_dead_commit_nothing,
    check_the_living_keep_their_shards,
    check_no_shard_stays_free,
)
"""Part of what every backend with `Features.shard_groups` promises."""
