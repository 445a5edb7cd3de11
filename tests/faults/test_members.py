"""Members, each a process of its own, are killed, stopped, blocked and cut off: nothing is lost."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest

from faults.lab.calibration import slowness
from faults.machinery import (
    STREAM,
    Team,
    add,
    excess,
    in_time,
    pending_of,
    settled,
    soon,
    take,
    through_proxy,
    watched,
)
from faults.scenarios import LEASE, claim_of_one_who_came_back, late_acks, take_up_a_name

pytestmark = pytest.mark.one_loop

LOOK = LEASE / 4
SLACK = 0.6  # seconds; where the machine is slow, `in_time` gives more
TAKEN_OVER = 1.5 * LEASE + LOOK + SLACK
IN_FLIGHT = 50


async def finished(team: Team, url: str, count: int) -> Counter[int]:
    """How often each event was handled, once all of them were, and nothing is left."""
    await soon(lambda: len(team.done()) == count, f"all {count} are handled", 30)
    await settled(url)
    done = team.done()
    assert set(done) == set(range(count))
    return done


@pytest.mark.conformance("PU-039")
async def test_kills_in_the_middle_of_work_lose_nothing(servers: str, team: Team) -> None:
    """Two of three at once, then another; each kill repeats at most what was in flight."""
    workers = {name: team.start(name, servers, lease=LEASE, work=0.002) for name in "abcd"}
    await team.joined(*workers)
    add(servers, range(1500))
    await soon(lambda: all(len(team.done(n)) > 20 for n in "abcd"), "all work")
    at = max(workers["a"].kill(), workers["b"].kill())
    await soon(lambda: pending_of(servers, "a") + pending_of(servers, "b") == 0, "taken over")
    took = time.monotonic() - at
    assert in_time(took, TAKEN_OVER, at), took
    workers["c"].kill()
    done = await finished(team, servers, 1500)
    assert excess(done) <= 3 * IN_FLIGHT, excess(done)
    assert excess(team.started()) <= 3 * IN_FLIGHT


async def test_kills_while_idle_and_between_fetch_and_ack(servers: str, team: Team) -> None:
    idle = team.start("idle", servers, lease=LEASE)
    await team.joined("idle")
    idle.kill()
    add(servers, range(20))
    holder = team.start("holder", servers, lease=LEASE, at=0, sleep=1000)
    await soon(lambda: pending_of(servers, "holder") == 20, "all are in its hands")
    await soon(lambda: 0 in team.started("holder"), "the first is begun")
    team.start("heir", servers, lease=LEASE)
    await team.joined("heir")
    await asyncio.sleep(LEASE)  # the living keeps what it has
    assert not team.started("heir")
    at = holder.kill()
    await soon(lambda: len(team.done("heir")) == 20, "taken over")
    assert in_time(team.log("start")[-1]["t"] - at, TAKEN_OVER, at)
    done = await finished(team, servers, 20)
    assert excess(done) == 0
    assert team.started() == Counter({n: 1 + (n == 0) for n in range(20)})


async def test_a_member_stopped_for_three_leases_begins_anew(servers: str, team: Team) -> None:
    zombie = team.start("zombie", servers, lease=LEASE, work=0.005)
    await team.joined("zombie")
    add(servers, range(200))
    await soon(lambda: len(team.done("zombie")) > 10, "it works")
    zombie.pause()
    team.start("heir", servers, lease=LEASE, work=0.005)
    await team.joined("heir")
    began = time.monotonic()
    took = await soon(lambda: pending_of(servers, "zombie") == 0, "taken over")
    assert in_time(took, TAKEN_OVER, began), took
    await asyncio.sleep(LEASE)
    zombie.resume()
    add(servers, range(200, 600))
    await soon(lambda: team.signals("zombie", "member-lapsed"), "it begins anew")
    await soon(lambda: any(n >= 200 for n in team.done("zombie")), "it works again")
    done = await finished(team, servers, 600)
    assert excess(done) <= IN_FLIGHT


async def test_a_loop_blocked_for_less_than_hold_keeps_its_lease(servers: str, team: Team) -> None:
    add(servers, range(10))
    team.start("blocked", servers, lease=LEASE, hold=60, at=0, block=4 * LEASE)
    await soon(lambda: 0 in team.started("blocked"), "it blocks")
    team.start("other", servers, lease=LEASE)
    done = await finished(team, servers, 10)
    assert done == team.done("blocked"), "taken from a member that lives"
    assert excess(team.started()) == 0
    assert not team.signals("other", "member-taken-over")


async def test_a_loop_blocked_for_longer_than_hold_is_taken_over(servers: str, team: Team) -> None:
    add(servers, range(10))
    slow = slowness()  # long enough for another process to start, and to have it all
    team.start("blocked", servers, lease=LEASE, hold=1.0, at=0, block=4 * LEASE + 1.6 * slow)
    await soon(lambda: 0 in team.started("blocked"), "it blocks")
    began = time.monotonic()
    team.start("other", servers, lease=LEASE)
    await soon(lambda: len(team.done("other")) == 10, "taken over")
    took = time.monotonic() - began
    assert in_time(took, 1.0 + TAKEN_OVER + SLACK, began, starts=1.2), took
    assert 0 not in team.done("blocked")
    await soon(lambda: 0 in team.done("blocked"), "it goes on")
    await finished(team, servers, 10)
    assert team.signals("blocked", "member-lapsed")


@pytest.mark.conformance("PU-036", "SS-052")
async def test_a_handler_of_five_leases_is_delivered_once(servers: str, team: Team) -> None:
    add(servers, range(10))
    team.start("slow", servers, lease=LEASE, at=0, sleep=5 * LEASE)
    await soon(lambda: 0 in team.started("slow"), "it is slow")
    team.start("other", servers, lease=LEASE)
    assert excess(await finished(team, servers, 10)) == 0
    assert excess(team.started()) == 0
    assert 0 in team.done("slow")


async def test_a_black_hole_of_three_leases_strands_nothing(servers: str, team: Team) -> None:
    async with through_proxy(servers) as (proxy, bad_url):
        team.start("cut-off", bad_url, lease=LEASE, work=0.005)
        await team.joined("cut-off")
        add(servers, range(300))
        await soon(lambda: len(team.done("cut-off")) > 10, "it works")
        proxy.pause()
        team.start("heir", servers, lease=LEASE, work=0.005)
        await team.joined("heir")
        began = time.monotonic()
        took = await soon(lambda: pending_of(servers, "cut-off") == 0, "taken over")
        assert in_time(took, TAKEN_OVER, began), took
        await asyncio.sleep(1.5 * LEASE)
        proxy.resume()
        add(servers, range(300, 900))
        await soon(lambda: any(n >= 300 for n in team.done("cut-off")), "it works again")
        done = await finished(team, servers, 900)
    assert excess(done) <= 2 * IN_FLIGHT
    team.close()


async def test_late_acks_of_a_dead_member_do_nothing_to_the_new_owner(servers: str) -> None:
    """Its heart stands still and cannot say so: the member knows by its own clock."""
    left, began_anew = await late_acks(servers)
    assert left == 10, "acked what was not its own"
    assert began_anew


async def test_a_member_that_came_back_before_the_claim_keeps_its_events(servers: str) -> None:
    assert await claim_of_one_who_came_back(servers) == 10


async def test_a_name_that_is_taken_up_again_gets_all_its_pending_events(servers: str) -> None:
    assert await take_up_a_name(servers, 2000) == 2000


@pytest.mark.conformance("CR-034")
async def test_a_member_that_may_be_dead_yields_nothing_of_what_it_had(embedded_url: str) -> None:
    add(embedded_url, range(10))
    async with (
        watched(embedded_url) as (client, _),
        watched(embedded_url) as (other, _),
        client.stream(STREAM).group("g", lease=LEASE) as zombie,
    ):
        await take([zombie], 1)
        client.backend.heart._beat_all = lambda _: time.sleep(0.01)
        async with other.stream(STREAM).group("g", lease=LEASE) as heir:
            await take([heir], 10, ack=True)
            await settled(embedded_url)
            assert await zombie.receive(timeout=0.5) is None


async def test_a_member_that_leaves_hands_back_thousands_at_once(servers: str) -> None:
    add(servers, range(5000))
    async with watched(servers) as (client, _), watched(servers) as (other, _):
        async with client.stream(STREAM).group("g", lease=LEASE) as leaving:
            await soon(lambda: pending_of(servers, leaving.member) == 5000, "it has all of them")
            heir = other.stream(STREAM).group("g", lease=LEASE)
            await heir.__aenter__()
        began = time.monotonic()
        try:
            handled: Counter[int] = Counter()
            async for batch in heir.batches(1000):
                handled.update(int(event.value["n"]) for event in batch)
                heir.ack(batch)
                if len(handled) == 5000:
                    break
            assert in_time(time.monotonic() - began, 2.5, began)
            assert excess(handled) == 0
            await heir.flush()
        finally:
            await heir.aclose()
