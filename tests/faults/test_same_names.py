"""Two members of one name, one of them taken for dead: what the living one has is not settled."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from faults.machinery import GROUP, STREAM, add, asked, pending_of, watched
from penstock import OLDEST, LeaseLost
from penstock.backends.redis.keys import Keys
from penstock.backends.redis.member import RedisMember
from penstock.event import Shard
from penstock.ports import Death, MemberOptions

pytestmark = pytest.mark.one_loop

SHARD = Shard(STREAM)
LEASE = 0.4
NAMED = MemberOptions(OLDEST, name="w1", lease=LEASE)


@asynccontextmanager
async def replaced(url: str) -> AsyncGenerator[tuple[RedisMember, RedisMember, list[bytes]]]:
    """A member that was frozen, another one of its name, and what that one was given."""
    async with watched(url) as (client, _), watched(url) as (second, _):
        backend: Any = client.backend
        old = await backend.join([SHARD], GROUP, NAMED)
        old.tell_known(lambda _: ())
        (page,) = await old.fetch(10, 1.0)
        backend.heart._beat_all = lambda _: time.sleep(0.01)  # as if its process were frozen
        other: Any = second.backend
        new = await other.join([SHARD], GROUP, NAMED)
        new.tell_known(lambda _: ())
        (again,) = await new.fetch(10, 1.0)
        ids = [entry[0] for entry in again.entries]
        assert ids == [entry[0] for entry in page.entries]
        try:
            yield old, new, ids
        finally:
            old.abandon()
            await new.leave()


async def test_what_the_other_has_is_neither_handed_back_nor_buried_nor_acked(
    servers: str,
) -> None:
    add(servers, range(10))
    async with replaced(servers) as (old, new, ids):
        assert await old.park(SHARD, ids, 0.0, failed=True) == []
        assert await old.bury(SHARD, [Death(ids[0], 5, "Broken", "")]) == []
        assert await old.ack(SHARD, ids, fenced=True) == 0
        assert pending_of(servers, "w1") == 10
        assert not asked(servers, "EXISTS", Keys(STREAM).letters(GROUP))
        assert await new.ack(SHARD, ids, fenced=True) == 10


async def test_nothing_is_taken_under_a_name_that_is_anothers_by_now(servers: str) -> None:
    """Neither what is new, nor what is due: the living one would not hear of it."""
    add(servers, range(10))
    async with replaced(servers) as (old, new, ids):
        await new.park(SHARD, ids[:5], 0.0, failed=False)
        await new.ack(SHARD, ids[5:])
        add(servers, range(10, 20))
        assert await old.fetch(10, 1.0) == []
        assert pending_of(servers, "w1") == 0
        old.lapse()
        with pytest.raises(LeaseLost):
            await old.fetch(10, 1.0)
        assert pending_of(servers, "w1") == 0
