"""What owners of shards begin is broken off half-way: no shard is left without hands."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

import penstock
from faults.machinery import answers, asked, soon, through_proxy, watched
from faults.scenarios import LEASE
from penstock.backends.redis import shard_member
from penstock.backends.redis.keys import Keys
from penstock.backends.redis.shard_member import RedisShardMember
from penstock.event import Shard
from penstock.ports import MemberOptions, Rebalanced

pytestmark = pytest.mark.one_loop

SHARDS = 3
SHARED: Any = {"share": "shards", "lease": LEASE}


async def append(stream: penstock.Stream[Any], numbers: range) -> None:
    """Numbers, keyed by themselves."""
    async with stream.writer() as writer:
        for n in numbers:
            await writer.send({"n": n}, key=f"k{n}")


async def handle(group: penstock.Group[Any], seen: set[int], count: int) -> None:
    """Handle and ack until *count* different events were seen."""
    async with asyncio.timeout(10.0):
        while len(seen) < count:
            if (event := await group.receive(0.2)) is not None:
                seen.add(int(event.value["n"]))
                group.ack(event)


async def own(backend: Any, count: int = 1, lease: float = LEASE) -> RedisShardMember:
    """A member that owns *count* shards, with nothing above it."""
    options = MemberOptions(penstock.OLDEST, "m", lease, 5.0)
    member = await backend.own(Shard("orders", 0, count), "g", options)
    with pytest.raises(Rebalanced):
        await member.fetch(0, 1.0)
    return member


async def test_a_lost_reply_between_two_takes_forgets_no_shard(servers: str) -> None:
    """The first shard was taken, the reply for the second is lost: both are handed out."""
    async with penstock.connect(servers) as client:
        await append(client.stream("orders", shards=SHARDS), range(60))
    taken = 0

    def second(piece: bytes) -> bool:
        nonlocal taken
        taken += b"taken" in piece
        return b"taken" in piece and taken == 2

    async with through_proxy(servers) as (proxy, bad_url), watched(bad_url) as (client, _):
        proxy.swallow_replies(1, when=second)
        async with client.stream("orders").group("g", **SHARED) as group:
            seen: set[int] = set()
            await handle(group, seen, 60)
        assert taken > 2


async def test_a_member_that_lapsed_while_it_reached_nobody_is_one_again(
    servers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name is taken again at the next try, so that others count it, and it owns as that one."""
    async with watched(servers) as (client, signals):
        await append(client.stream("orders"), range(1))
        member, take_name = await own(client.backend), shard_member.take_name
        tries: list[str] = []

        async def unheard(*args: Any) -> None:
            await take_name(*args)
            tries.append(args[4])
            if len(tries) == 1:
                raise penstock.BackendUnavailable("the reply was lost")

        monkeypatch.setattr(shard_member, "take_name", unheard)
        member.lapse()
        with pytest.raises(Rebalanced) as change:
            await member.fetch(0, 1.0)
        assert change.value.lost
        assert not member.owned
        with pytest.raises(Rebalanced) as change:
            await member.fetch(0, 1.0)
        assert change.value.gained
        assert len(tries) == 2
        assert asked(servers, "HGET", Keys("orders").roster("g"), "m").startswith(tries[1])
        assert [signal.kind for signal in signals].count("member-lapsed") == 1
        await member.leave()


async def test_what_is_read_behind_the_lease_comes_again(
    servers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page is dropped, a beat is confirmed only then: what was in the page is not skipped."""
    async with penstock.connect(servers) as client:
        stream = client.stream("orders")
        await append(stream, range(3))
        member, good = await own(client.backend), RedisShardMember.good_until
        late = iter([0.0])
        monkeypatch.setattr(
            RedisShardMember,
            "good_until",
            property(lambda self: next(late, good.__get__(self))),
        )
        found: list[Any] = []
        async with asyncio.timeout(10.0):
            while not found:
                try:
                    found = list(await member.fetch(2, 0.2))
                except Rebalanced:
                    continue
        assert [parts[1] for _, parts in found[0].entries] == [b"0", b"1"]
        await member.leave()


async def test_a_fetch_that_is_cancelled_while_it_begins_anew_ends(servers: str) -> None:
    """And what was owned is told as lost by the next one."""
    async with through_proxy(servers) as (proxy, bad_url), watched(bad_url) as (client, _):
        await append(client.stream("orders"), range(1))
        member = await own(client.backend)
        member.lapse()
        proxy.pause()
        fetch = asyncio.create_task(member.fetch(1, 1.0))
        await asyncio.sleep(0.05)
        fetch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetch
        assert not member.owned
        proxy.resume()
        with pytest.raises(Rebalanced) as change:
            await member.fetch(0, 5.0)
        assert [shard.index for shard in change.value.lost] == [0]
        await member.leave()


async def test_a_shard_is_not_kept_when_the_reply_to_giving_it_up_is_lost(servers: str) -> None:
    """It may be another's by now: nothing of it is handed out again as if it were ours."""
    async with through_proxy(servers) as (proxy, bad_url), watched(bad_url) as (client, _):
        await append(client.stream("orders"), range(1))
        member = await own(client.backend)
        (shard,) = member.owned
        proxy.swallow_replies(1, when=answers(b":1\r\n"))
        with pytest.raises(penstock.BackendError):
            await member.release(shard)
        assert not member.owned
        proxy.swallow_replies(0)
        await member.leave()


async def test_a_shard_is_given_up_again_when_that_did_not_get_through(servers: str) -> None:
    """What was sent is lost: others need not wait for a lease, which here is an hour."""
    async with through_proxy(servers) as (proxy, bad_url), watched(bad_url) as (client, _):
        await append(client.stream("orders", shards=2), range(4))
        member = await own(client.backend, 2, lease=3600.0)
        async with watched(servers) as (second, _):
            group = second.stream("orders").group("g", share="shards", lease=3600.0)
            async with group:
                async with asyncio.timeout(10.0):
                    while not member.yielding:
                        await member.fetch(0, 0.1)
                proxy.pause("up")
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await member.release(member.yielding[0])
                proxy.cut()
                proxy.resume()
                got = asyncio.ensure_future(anext(group))
                async with asyncio.timeout(10.0):
                    while not got.done():
                        with contextlib.suppress(Rebalanced, penstock.BackendUnavailable):
                            await member.fetch(0, 0.1)
                assert len(member.owned) == 1
        await member.leave()


async def test_positions_that_are_lost_alone_are_made_anew(servers: str) -> None:
    """What says that the group owns the shards is there, where it stands is not."""
    async with watched(servers) as (client, signals):
        stream = client.stream("orders", shards=2)
        await append(stream, range(10))
        async with stream.group("g", **SHARED) as group:
            seen: set[int] = set()
            await handle(group, seen, 10)
            await group.flush()
            for index in range(2):
                asked(servers, "DEL", Keys.of(Shard("orders", index, 2)).positions)
            await soon(lambda: "group-lost" in [one.kind for one in signals], "it is made anew")
            await append(stream, range(10, 20))
            await handle(group, seen, 20)
            await group.flush()
            assert group.statistics().fetched == 20, "it goes on where it stood"
            assert await group.lag() == 0


async def test_shards_of_a_member_that_stops_go_on_though_it_holds_one(servers: str) -> None:
    """It works on an event for long: all its other shards are handled by others meanwhile."""
    async with watched(servers) as (client, _), watched(servers) as (second, _):
        stream = client.stream("orders", shards=6)
        async with stream.group("g", **SHARED) as old:
            other = second.stream("orders").group("g", **SHARED)
            async with other:
                seen: set[int] = set()
                await append(stream, range(60))
                held = await asyncio.wait_for(anext(old), 10.0)
                await old.stop()
                await handle(other, seen, 40)
                old.ack(held)
                await handle(other, seen, 59)


async def test_a_stream_whose_removal_fails_is_left_to_others(servers: str) -> None:
    """Nobody fetches it here any more: so nobody keeps its shards here either."""
    async with through_proxy(servers) as (proxy, bad_url), watched(bad_url) as (client, _):
        more = client.stream("more")
        await append(more, range(5))
        async with client.group("g", [client.stream("orders"), more], **SHARED) as group:
            held = await asyncio.wait_for(anext(group), 10.0)
            await group.flush()
            proxy.pause()
            with pytest.raises((TimeoutError, penstock.BackendError)):
                async with asyncio.timeout(0.3):
                    await group.remove_stream(more)
            proxy.resume()
            async with (
                watched(servers) as (second, _),
                second.stream("more").group("g", **SHARED) as other,
            ):
                await handle(other, set(), 5)
            with pytest.raises(penstock.LeaseLost):
                group.ack(held)
