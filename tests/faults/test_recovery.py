"""A group goes on where it had acked everything, whatever became of it; nothing is skipped."""

from __future__ import annotations

import time
from typing import Any

import pytest

from faults.machinery import (
    GROUP,
    STREAM,
    add,
    asked,
    mark_of,
    marked,
    pending_of,
    settled,
    soon,
    take,
    watched,
)
from penstock import NEWEST, Group, Position, Retry
from penstock.backends.redis.keys import Keys

pytestmark = pytest.mark.one_loop

LEASE = 0.6
KEYS = Keys(STREAM)


def numbers(events: list[Any]) -> list[int]:
    return sorted(int(event.value["n"]) for event in events)


async def holds(group: Group[Any], count: int) -> list[Any]:
    return await take([group], count)


@pytest.mark.conformance("PU-053")
async def test_the_mark_is_never_ahead_of_an_ack(servers: str) -> None:
    """Of ten events one in the middle stays in hand: the group goes on before it."""
    add(servers, range(10))
    async with (
        watched(servers) as (client, _),
        client.stream(STREAM).group(GROUP, lease=LEASE) as group,
    ):
        events = await holds(group, 10)
        group.ack([event for event in events if event.value["n"] != "3"])
        await group.flush()
        third, fourth = events[2].position, events[3].position

        def moved() -> bool:
            return Position.parse(mark_of(servers) or "0-0") >= third

        await soon(moved, "it moves")
        assert Position.parse(mark_of(servers) or "0-0") < fourth
        asked(servers, "XGROUP", "DESTROY", STREAM, GROUP)
        again = await holds(group, 7)
        assert numbers(again) == [3, 4, 5, 6, 7, 8, 9]


async def test_a_mark_that_is_gone_too_is_remembered_where_the_stream_is_the_same(
    servers: str,
) -> None:
    add(servers, range(10))
    async with (
        watched(servers) as (client, _),
        client.stream(STREAM).group(GROUP, lease=LEASE) as group,
    ):
        group.ack(await holds(group, 10))
        await group.flush()
        await marked(servers)
        await soon(lambda: known(group) == mark_of(servers), "the member has seen it")
        asked(servers, "DEL", KEYS.mark(GROUP))
        asked(servers, "XGROUP", "DESTROY", STREAM, GROUP)
        add(servers, range(10, 12))
        assert numbers(await holds(group, 2)) == [10, 11]


@pytest.mark.conformance("PU-053")
async def test_a_stream_that_was_made_anew_is_read_from_its_oldest(servers: str) -> None:
    """Also one that has more events, and none of those that the member remembers."""
    add(servers, range(3))
    async with (
        watched(servers) as (client, _),
        client.stream(STREAM).group(GROUP, lease=LEASE) as group,
    ):
        group.ack(await holds(group, 3))
        await group.flush()
        await marked(servers)
        asked(servers, "FLUSHALL")
        add(servers, range(10, 20))
        assert numbers(await holds(group, 10)) == list(range(10, 20))


def known(group: Group[Any]) -> str:
    member: Any = group._work._member
    return next(iter(member.marks.values())).position


async def test_a_group_that_another_program_made_anew_skips_nothing(servers: str) -> None:
    """As many clients do when they are told NOGROUP: at the end of the stream."""
    add(servers, range(5))
    async with (
        watched(servers) as (client, signals),
        client.stream(STREAM).group(GROUP, lease=LEASE) as group,
    ):
        group.ack(await holds(group, 5))
        await group.flush()
        await marked(servers)
        with_all = [
            ("XGROUP", "DESTROY", STREAM, GROUP),
            ("XADD", STREAM, "*", "n", 5),
            ("XADD", STREAM, "*", "n", 6),
            ("XGROUP", "CREATE", STREAM, GROUP, "$"),
        ]
        at_once(servers, with_all)
        assert numbers(await holds(group, 2)) == [5, 6]
    assert [signal.kind for signal in signals].count("group-lost") == 1


def at_once(url: str, commands: list[tuple[Any, ...]]) -> None:
    """Run *commands* in one transaction."""
    import redis

    with redis.Redis.from_url(url) as client:
        pipeline = client.pipeline(transaction=True)
        for command in commands:
            pipeline.execute_command(*command)
        pipeline.execute()


async def test_every_member_notices_and_drops_its_acks(servers: str) -> None:
    """One waits in a read, one has its hands full: neither acks into the new group."""
    add(servers, range(6))
    async with watched(servers) as (client, signals), watched(servers) as (other, more):
        options: dict[str, Any] = {"lease": LEASE, "ack_interval": None}
        async with client.stream(STREAM).group(GROUP, **options) as busy:
            events = await holds(busy, 6)
            async with other.stream(STREAM).group(GROUP, **options) as idle:
                busy.ack(events)  # queued, until a flush
                asked(servers, "XGROUP", "DESTROY", STREAM, GROUP)
                found: set[int] = set()
                deadline = time.monotonic() + 20
                while len(found) < 6:
                    for group in (idle, busy):
                        if (event := await group.receive(0.05)) is not None:
                            found.add(int(event.value["n"]))
                    assert time.monotonic() < deadline, f"skipped: only {found} came again"
                for heard in (signals, more):
                    await soon(
                        lambda h=heard: "group-lost" in [signal.kind for signal in h],
                        "every member notices",
                    )


async def test_a_group_that_was_lost_while_nobody_was_in_it_goes_on(servers: str) -> None:
    add(servers, range(5))
    async with watched(servers) as (client, signals):
        stream = client.stream(STREAM)
        async with stream.group(GROUP, lease=LEASE) as group:
            group.ack(await holds(group, 5))
            await group.flush()
            await marked(servers)
        asked(servers, "XGROUP", "DESTROY", STREAM, GROUP)
        add(servers, range(5, 8))
        async with stream.group(GROUP, lease=LEASE, start=NEWEST) as group:
            assert numbers(await holds(group, 3)) == [5, 6, 7]
        assert "group-lost" in [signal.kind for signal in signals]
        await stream.drop_group(GROUP)
        left = asked(servers, "KEYS", f"penstock:*:{GROUP}")
        assert not left, "dropping a group leaves nothing of it"


async def test_a_delay_survives_the_death_of_its_member(servers: str) -> None:
    add(servers, range(3))
    async with watched(servers) as (client, _), watched(servers) as (other, _):
        group = client.stream(STREAM).group(GROUP, lease=LEASE, retry=Retry(first=0.0))
        async with group:
            group.nack(await holds(group, 3), delay=1.0)
            await group.flush()
            began = time.monotonic()
            group._work._member.abandon()
            async with other.stream(STREAM).group(GROUP, lease=LEASE) as heir:
                again = await holds(heir, 3)
                assert time.monotonic() - began > 0.8, "before it was due"
                assert [event.attempts for event in again] == [1, 1, 1]
                heir.ack(again)
                await settled(servers)


async def test_many_dead_members_leave_nothing_behind(servers: str) -> None:
    """Each has a few events, some are parked: all come, and no pending event is dropped."""
    asked(servers, "XGROUP", "CREATE", STREAM, GROUP, "0", "MKSTREAM")
    add(servers, range(60))
    for at in range(20):
        name = f"dead-{at}"
        asked(servers, "XREADGROUP", "GROUP", GROUP, name, "COUNT", 3, "STREAMS", STREAM, ">")
        asked(servers, "HSET", KEYS.beats(GROUP), name, f"0badcafe{at}:600:7")
    async with (
        watched(servers) as (client, _),
        client.stream(STREAM).group(GROUP, lease=LEASE) as group,
    ):
        events = await holds(group, 60)
        assert numbers(events) == list(range(60))
        group.nack(events[:10], delay=0.3)
        group.ack(events[10:])
        group.ack(await holds(group, 10))
        await settled(servers)
        assert pending_of(servers) == 0


async def test_a_member_whose_hands_are_full_notices_too(servers: str) -> None:
    """Its queued acks are dropped, and the mark moves while it does not fetch."""
    add(servers, range(20))
    async with (
        watched(servers) as (client, signals),
        client.stream(STREAM).group(GROUP, lease=LEASE, max_in_flight=5, ack_interval=None) as full,
    ):
        events = await holds(full, 5)
        asked(servers, "XGROUP", "DESTROY", STREAM, GROUP)
        await soon(lambda: "group-lost" in [s.kind for s in signals], "it notices")
        assert asked(servers, "XINFO", "GROUPS", STREAM), "it is made anew"
        full.ack(events)
        await full.flush()
        found: set[int] = set()
        deadline = time.monotonic() + 20
        while len(found) < 20:
            event = await full.receive(0.1)
            if event is not None:
                found.add(int(event.value["n"]))
                full.ack(event)
                await full.flush()
            assert time.monotonic() < deadline, f"skipped: only {sorted(found)}"
