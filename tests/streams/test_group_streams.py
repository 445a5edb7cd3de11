"""Streams come to a group's member, and go, while it runs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock import END, Client, ClosedError, ConfigError, Event, LeaseLost, connect
from streams.helping import PATIENCE, fill, number, numbers, take

pytestmark = pytest.mark.one_loop


@pytest.mark.conformance("PU-047", "PU-051")
async def test_a_stream_is_added_at_once(client: Client) -> None:
    """Its events come, those that it had and those that come later; also to one that waits."""
    a, b = client.stream("a"), client.stream("b")
    await fill(a, 2)
    await fill(b, 2, first=10)
    async with client.group("billing", [a]) as group:
        assert numbers(await take(group, 2)) == [0, 1]
        waiting = asyncio.create_task(take(group, 3))
        await asyncio.sleep(0.05)
        await group.add_stream(b)
        await group.add_stream(client.stream("b"))
        await fill(b, 1, first=12)
        events = await waiting
        assert numbers(events) == [10, 11, 12]
        assert {event.stream for event in events} == {"b"}
        group.ack(events)
        await fill(a, 1, first=2)
        assert numbers(await take(group, 1)) == [2]
    assert [info.pending for info in await b.groups()] == [0]


@pytest.mark.conformance("PU-051")
async def test_a_stream_is_removed_at_once(client: Client, url: str) -> None:
    """Queued acks are sent; all else of it goes to the other members, uncounted."""
    a, b = client.stream("a"), client.stream("b")
    await fill(a, 1)
    await fill(b, 30, first=10)
    async with client.group("billing", [a, b], ack_interval=None) as group:
        events = await take(group, 6)
        of_b = [event for event in events if event.stream == "b"]
        group.ack(of_b[:2])
        await group.remove_stream(b)
        async with connect(url) as other, other.stream("b").group("billing") as taker:
            again = await take(taker, 28)
            assert set(numbers(again)) == set(range(10, 40)) - set(numbers(of_b[:2]))
            assert {event.attempts for event in again} == {0}
            taker.ack(again)
            await taker.flush()
        with pytest.raises(LeaseLost):
            group.ack(of_b[2])
        await fill(b, 1, first=50)
        await fill(a, 1, first=1)
        newest = -1
        while newest != 1:
            (event,) = await take(group, 1)
            assert event.stream == "a"
            newest = number(event)
        await group.add_stream(b)
        assert numbers(await take(group, 1)) == [50]


@pytest.mark.conformance("PU-050")
async def test_what_cannot_be_removed_is_said(client: Client) -> None:
    """A stream that is not shared, and the last one."""
    a, b = client.stream("a"), client.stream("b")
    async with client.group("billing", [a]) as group:
        with pytest.raises(ConfigError, match="one of several"):
            await group.remove_stream(b)
        with pytest.raises(ConfigError, match="one of several"):
            await group.remove_stream(a)


async def test_an_added_stream_has_an_end_of_its_own(client: Client) -> None:
    """END is what was the newest when it was added."""
    a, b = client.stream("a"), client.stream("b")
    await fill(a, 1)
    await fill(b, 2, first=10)
    async with asyncio.timeout(PATIENCE), client.group("billing", [a], until=END) as group:
        await group.add_stream(b)
        await fill(b, 1, first=12)
        found: list[Event[Any]] = []
        async for event in group:
            found.append(event)
            group.ack(event)
        with pytest.raises(ClosedError, match="to its end"):
            await group.add_stream(client.stream("c"))
    assert sorted(numbers(found)) == [0, 10, 11]


async def test_a_busy_stream_of_many_is_not_held_up_by_the_quiet_ones(servers: str) -> None:
    """It is read in pages of its own, and the others wait for no more than one of these."""
    async with connect(servers) as client:
        streams = [client.stream(f"s{n}") for n in range(50)]
        for stream in streams:
            await fill(stream, 1)
        await fill(streams[20], 4000, first=1)
        async with client.group("g", streams, max_in_flight=200) as group:
            handled: list[int] = []

            async def handle(count: int) -> None:
                for _ in range(count):
                    event = await anext(group)
                    handled.extend([number(event)] if event.stream == "s20" else [])
                    group.ack(event)

            await handle(500)
            await client.redis.execute_command("CONFIG", "RESETSTAT")
            await handle(2000)
            stats = await client.redis.execute_command("INFO", "commandstats")
            assert stats["cmdstat_xreadgroup"]["calls"] < 200  # four events a read would be 500
            await fill(streams[30], 1, first=77)
            others = 0
            while (event := await anext(group)).stream != "s30":
                group.ack(event)
                others += 1
            assert others <= 600
        assert handled == list(range(len(handled)))
