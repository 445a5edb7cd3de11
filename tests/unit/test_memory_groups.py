"""Groups in memory where conformance cannot look: time by hand, signals, chance."""

from __future__ import annotations

import asyncio
import random

import pytest

from penstock.errors import ConfigError
from penstock.event import NEWEST, OLDEST, Position, Shard
from penstock.ports import (
    EventMember,
    GroupVanished,
    MemberLapsed,
    MemberOptions,
    Rebalanced,
)
from support.memory_world import LEASE, SHARD, World, ids


@pytest.fixture
def world() -> World:
    """One for each test."""
    return World()


async def test_the_dead_are_found_within_one_and_a_quarter_lease(world: World) -> None:
    """By a fetch that waits all the while; it is signalled with what they held."""
    await world.append(5)
    async with world.member(name="dead") as dead, world.member() as member:
        await dead.fetch(10, 0)
        waiting = asyncio.ensure_future(member.fetch(10, 1000.0))
        await world.clock.advance(LEASE / 8)  # between two beats
        dead.abandon()
        await world.clock.advance(LEASE * 0.8)
        assert not waiting.done()
        await world.clock.advance(LEASE * 0.45)
        assert waiting.done()
        (page,) = await waiting

    assert page.counts == [(2, 0, 0)] * 5
    assert world.kinds == ["member-taken-over"]
    assert world.signals[0].count == 5


async def test_a_waiting_fetch_wakes_without_any_time(world: World) -> None:
    """By an append, a park without delay, a leave, and the loss of its group: nothing is polled."""
    async with world.member() as giver, world.member(name="taker") as taker:
        waiting = asyncio.ensure_future(giver.fetch(10, 1000.0))
        await world.clock.settle()
        await world.append(2)
        first, second = ids(await waiting)
        for hand_back in (giver.park(SHARD, [first], 0.0, failed=False), giver.leave()):
            waiting = asyncio.ensure_future(taker.fetch(10, 1000.0))
            await world.clock.settle()
            await hand_back
            (page,) = await waiting
            assert page.counts == [(2, 0, 0)]
        assert await taker.ack(SHARD, [first, second], fenced=True) == 2
        waiting = asyncio.ensure_future(taker.fetch(10, 1000.0))
        await world.clock.settle()
        await world.backend.destroy(SHARD.stream)
        with pytest.raises(GroupVanished):
            await waiting
    assert world.clock.monotonic() == 0.0


@pytest.mark.conformance("PU-041")
async def test_a_step_of_the_wall_clock_kills_nobody(world: World) -> None:
    """Leases are counted by the monotonic clock alone."""
    await world.append(5)
    async with world.member() as idle, world.member() as member:
        await idle.fetch(10, 0)
        for step in (86_400.0, -7 * 86_400.0):
            world.clock.step(step)
            waiting = asyncio.ensure_future(member.fetch(10, 3 * LEASE))
            await world.clock.advance(3 * LEASE)
            assert await waiting == []
    assert world.kinds == []


async def test_a_struck_member_is_told_once_and_goes_on(world: World) -> None:
    """What is still pending under its name comes again; what was taken does not."""
    await world.append(10)
    async with world.member(name="slow", stuck=True) as slow, world.member(name="quick") as quick:
        await slow.fetch(10, 0)
        waiting = asyncio.ensure_future(quick.fetch(4, 1000.0))
        await world.clock.advance(1.5 * LEASE)
        taken = ids(await waiting)
        assert len(taken) == 4

        with pytest.raises(MemberLapsed):
            await slow.fetch(10, 0)
        again = await slow.fetch(10, 0)
        assert len(ids(again)) == 6
        assert not set(ids(again)) & set(taken)
        assert await slow.ack(SHARD, taken, fenced=True) == 0
        assert await slow.ack(SHARD, ids(again), fenced=True) == 6
        assert await quick.ack(SHARD, taken, fenced=True) == 4
    assert world.kinds == ["member-taken-over", "member-lapsed"]


async def test_a_member_that_beats_too_late_lapses_by_itself(world: World) -> None:
    """Its loop stood still for longer than a lease: it cannot know that nobody took it for dead."""
    await world.append(3)
    async with world.member(name="blocked") as member:
        first = ids(await member.fetch(10, 0))
        world.clock.jump(1.1 * LEASE)
        await world.clock.advance(LEASE / 4)
        with pytest.raises(MemberLapsed):
            await member.fetch(10, 0)
        assert ids(await member.fetch(10, 0)) == first
    assert world.kinds == ["member-lapsed"]


async def test_two_of_one_name_do_not_strike_each_other_for_ever(world: World) -> None:
    """Whoever wakes to find its name taken up goes on under another."""
    await world.append(4)
    async with world.member(name="one", stuck=True) as old:
        await old.fetch(10, 0)
        joining = asyncio.ensure_future(
            world.backend.join([SHARD], "g", MemberOptions(OLDEST, "one", LEASE))
        )
        await world.clock.advance(LEASE)
        new = await joining
        assert len(ids(await new.fetch(10, 0))) == 4
        with pytest.raises(MemberLapsed):
            await old.fetch(10, 0)
        assert old.name != new.name == "one"
        await world.clock.advance(3 * LEASE)
        assert await new.fetch(10, 0) == await old.fetch(10, 0) == []
        new.abandon()
    assert world.kinds == ["member-lapsed"]


async def test_another_start_is_reported_and_not_applied(world: World) -> None:
    """The group goes on where it stands; the same start again is no news."""
    await world.append(2)
    async with world.member() as first, world.member() as second, world.member(start=NEWEST):
        assert len(ids(await first.fetch(10, 0))) == 2
        assert await second.fetch(10, 0) == []
    assert world.kinds == ["start-ignored"]


async def test_trimmed_pending_events_are_signalled(world: World) -> None:
    """With their number, and not handed out."""
    positions = await world.append(5)
    async with world.member() as giver, world.member() as member:
        parked = ids(await giver.fetch(10, 0))
        await world.backend.remove(SHARD, positions[:3])
        await giver.park(SHARD, parked, 5.0, failed=True)
        waiting = asyncio.ensure_future(member.fetch(10, 60.0))
        await world.clock.advance(4.9)
        assert not waiting.done()
        await world.clock.advance(0.1)
        (page,) = await waiting
    assert (ids([page]), page.counts) == (parked[3:], [(2, 1, 0)] * 2)
    assert [(s.kind, s.count) for s in world.signals] == [("trimmed-pending", 3)]


async def test_every_shard_that_lost_its_group_is_told(world: World) -> None:
    """One at a time, each made anew from the oldest."""
    other = Shard("invoices")
    async with world.member(SHARD, other, start=NEWEST) as member:
        for shard in (SHARD, other):
            await world.append(2, shard)
            await world.backend.drop(shard, "g")
        for shard in (SHARD, other):
            with pytest.raises(GroupVanished) as caught:
                await member.fetch(10, 0)
            assert (caught.value.stream, caught.value.start) == (shard.stream, "the oldest event")
        assert len(ids(await member.fetch(10, 0))) == 4
    assert world.kinds == ["group-lost", "group-lost"]


async def test_a_cancelled_join_leaves_no_member(world: World) -> None:
    """Nor anything that runs on."""
    async with world.member(name="one"):
        joining = asyncio.ensure_future(
            world.backend.join([SHARD], "g", MemberOptions(OLDEST, "one", LEASE))
        )
        await world.clock.settle()
        joining.cancel()
        await world.clock.settle()
        (info,) = await world.backend.groups(SHARD)
        assert [member.name for member in info.members] == ["one"]
    await world.clock.settle()
    assert world.clock.sleepers == 0


async def test_a_shard_owner_that_lost_its_group_begins_anew(world: World) -> None:
    """It is told that all is gone, and gets all from the oldest, in a later epoch."""
    await world.append(3)
    owner = await world.backend.own(SHARD, "g", MemberOptions(NEWEST, lease=LEASE))
    with pytest.raises(Rebalanced) as caught:
        await owner.fetch(10, 0)
    assert caught.value.gained == (SHARD,)
    before = owner.owned[SHARD].epoch
    await world.backend.destroy(SHARD.stream)
    await world.append(2)
    with pytest.raises(Rebalanced) as caught:
        await owner.fetch(10, 0)
    assert (caught.value.lost, dict(owner.owned)) == ((SHARD,), {})
    with pytest.raises(Rebalanced):
        await owner.fetch(10, 0)
    assert len(ids(await owner.fetch(10, 0))) == 2
    assert owner.owned[SHARD].epoch > before
    await owner.leave()
    assert world.kinds == ["group-lost"]


async def test_members_of_shards_agree_on_their_number(world: World) -> None:
    """Else a shard would be nobody's."""
    owner = await world.backend.own(Shard("s", 0, 2), "g", MemberOptions(OLDEST))
    with pytest.raises(ConfigError, match="the group shares 2, got 3"):
        await world.backend.own(Shard("s", 0, 3), "g", MemberOptions(OLDEST))
    await owner.leave()


@pytest.mark.parametrize("seed", range(20))
async def test_nothing_is_lost_or_robbed_whatever_happens(world: World, seed: int) -> None:
    """Members come, crash, leave, park and ack at random: in the end each event was acked once."""
    chance = random.Random(seed)
    appended = await world.append(60)
    acked: list[bytes] = []
    hands: dict[EventMember, list[bytes]] = {}

    async def one_step() -> None:
        if not hands or chance.random() < 0.1:
            hands[await world.backend.join([SHARD], "g", MemberOptions(OLDEST, lease=LEASE))] = []
        member = chance.choice(list(hands))
        match chance.choice(["fetch", "fetch", "ack", "ack", "park", "leave", "crash", "time"]):
            case "fetch":
                got = ids(await member.fetch(chance.randint(1, 10), 0))
                held = [entry_id for ids_ in hands.values() for entry_id in ids_]
                assert not set(got) & set(held), "with one living member at a time"
                assert not set(got) & set(acked), "never again once it is acked"
                hands[member] += got
            case "ack":
                assert await member.ack(SHARD, hands[member], fenced=True) == len(hands[member])
                acked.extend(hands[member])
                hands[member] = []
            case "park":
                kept = await member.park(SHARD, hands[member], chance.random() * 9, failed=True)
                assert list(kept) == hands[member]
                hands[member] = []
            case "leave":
                await member.leave()
                del hands[member]
            case "crash":
                member.abandon()
                del hands[member]
            case _:
                await world.clock.advance(chance.random() * LEASE / 2)

    while len(acked) < len(appended):
        await one_step()
    for member in hands:
        member.abandon()
    assert sorted(acked, key=Position.of) == [position.raw for position in appended]
