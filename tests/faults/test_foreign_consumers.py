"""Consumers that are not of Penstock, in a group of ours: neither steals from the living."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from faults.machinery import GROUP, STREAM, add, asked, settled, soon, take, watched
from penstock import Event
from penstock.event import OLDEST, Shard
from penstock.ports import MemberOptions

pytestmark = pytest.mark.one_loop

LEASE = 0.6


def reads(url: str, name: str, count: int) -> list[Any]:
    """What a foreign consumer is given."""
    command = ("XREADGROUP", "GROUP", GROUP, name, "COUNT", count, "STREAMS", STREAM, ">")
    reply = asked(url, *command)
    return reply[0][1] if reply else []


def numbers(events: list[Event[Any]]) -> list[int]:
    return sorted(int(event.value["n"]) for event in events)


async def test_a_living_member_is_not_stolen_from_by_idle_time(servers: str) -> None:
    """Neither what it works on, nor what is parked."""
    add(servers, range(20))
    async with (
        watched(servers) as (client, signals),
        client.stream(STREAM).group(GROUP, lease=LEASE) as group,
    ):
        events = await take([group], 20)
        group.nack(events[:5], delay=60.0)
        await group.flush()
        asked(servers, "XGROUP", "CREATECONSUMER", STREAM, GROUP, "foreign")
        told = [signal.kind for signal in signals]
        await soon(lambda: "foreign-consumer" in [s.kind for s in signals], f"noticed: {told}")
        deadline = time.monotonic() + 3.5 * LEASE
        while time.monotonic() < deadline:
            claim = ("XAUTOCLAIM", STREAM, GROUP, "foreign", int(LEASE * 900), "0", "COUNT", 100)
            claimed = asked(servers, *claim)[1]
            assert not claimed, f"stolen from a member that lives: {len(claimed)}"
            await soon(lambda: True, "")
            await group.receive(0.05)
        group.ack(events[5:])
        await group.flush()
        assert asked(servers, "XPENDING", STREAM, GROUP)["pending"] == 5
    assert not [s for s in signals if s.kind == "acks-missed"]


async def test_what_a_foreign_consumer_leaves_lying_is_taken_by_its_own_idle_time(
    servers: str,
) -> None:
    """Although that consumer goes on asking for more; and nothing before its time."""
    add(servers, range(6))
    asked(servers, "XGROUP", "CREATE", STREAM, GROUP, "0")
    assert len(reads(servers, "foreign", 4)) == 4
    began = time.monotonic()
    async with watched(servers) as (client, _):
        options = MemberOptions(OLDEST, None, LEASE, foreign_idle=2.0)
        member = await client.backend.join([Shard(STREAM)], GROUP, options)
        found: set[bytes] = set()
        while len(found) < 6:
            for page in await member.fetch(10, 0.1):
                found.update(entry[0] for entry in page.entries)
            reads(servers, "foreign", 1) if len(found) >= 2 else None
            assert time.monotonic() - began < 20, f"only {len(found)} of 6"
        assert time.monotonic() - began > 1.9, "before its time"
        await member.ack(Shard(STREAM), list(found))
        await settled(servers)
        await member.leave()


async def test_a_foreign_consumer_that_works_keeps_what_it_has(servers: str) -> None:
    add(servers, range(4))
    asked(servers, "XGROUP", "CREATE", STREAM, GROUP, "0")
    given = reads(servers, "foreign", 2)
    async with (
        watched(servers) as (client, _),
        client.stream(STREAM).group(GROUP, lease=LEASE) as group,
    ):
        assert numbers(await take([group], 2)) == [2, 3]
        assert await group.receive(2.5 * LEASE) is None, "taken from one that may work on it"
        ids = [entry[0] for entry in given]
        assert asked(servers, "XACK", STREAM, GROUP, *ids) == 2


async def test_a_member_whose_hands_are_full_is_not_stolen_from(servers: str) -> None:
    """It fetches nothing meanwhile, and finds the newcomer all the same."""
    add(servers, range(20))
    async with (
        watched(servers) as (client, signals),
        client.stream(STREAM).group(GROUP, lease=LEASE, max_in_flight=10) as group,
    ):
        events = await take([group], 10)
        asked(servers, "XGROUP", "CREATECONSUMER", STREAM, GROUP, "foreign")
        await soon(lambda: "foreign-consumer" in [s.kind for s in signals], "noticed")
        deadline = time.monotonic() + 3 * LEASE
        while time.monotonic() < deadline:
            claim = ("XAUTOCLAIM", STREAM, GROUP, "foreign", int(LEASE * 900), "0", "COUNT", 100)
            assert not asked(servers, *claim)[1], "stolen from a member that lives"
            await asyncio.sleep(0.05)
        group.ack(events)
        await group.flush()
    assert not [s for s in signals if s.kind == "acks-missed"]
