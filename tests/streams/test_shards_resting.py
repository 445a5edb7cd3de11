"""Groups that share shards: a member whose program hangs, and what is told of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock import END, Client, Group, LeaseLost, Retry, Signal, Stream, connect
from streams.helping import PATIENCE, fill, number, numbers, soon, take

pytestmark = pytest.mark.one_loop

HANGS: Any = {"share": "shards", "hold": 0.3, "retry": Retry(first=0.0, jitter=0.0)}


def kinds(signals: list[Signal]) -> list[str]:
    """What was told, in order."""
    return [signal.kind for signal in signals]


async def keyed(client: Client, count: int, shards: int) -> Stream[Any]:
    """A stream with the numbers from 0 on, over four keys."""
    stream = client.stream("orders", shards=shards)
    for n in range(count):
        await stream.append({"n": n}, key=f"k{n % 4}")
    return stream


@pytest.mark.parametrize("shards", [1, 4])
async def test_a_program_that_hangs_keeps_no_shards(
    client: Client, url: str, signals: list[Signal], shards: int
) -> None:
    """After `hold` its event, counted, and all behind it go to another, in the order of keys."""
    stream = await keyed(client, 20, shards)
    async with (
        stream.group("billing", lease=20.0, **HANGS) as hung,
        connect(url) as second,
    ):
        (stuck,), rest = await take(hung, 1), list[Any]()
        async with second.stream("orders").group("billing", share="shards", lease=20.0) as other:
            while len(rest) < 20:  # much sooner than in a lease
                rest += await take(other, 1)
                other.ack(rest[-1])
            await other.flush()
        first = [event for event in rest if number(event) == number(stuck)]
        assert [event.attempts for event in first] == [1]
        assert sorted(numbers(rest)) == list(range(20)), "each comes once"
        for key in range(4):
            found = [n for n in numbers(rest) if n % 4 == key]
            assert found == sorted(found)
        assert "hold-expired" in kinds(signals)
        with pytest.raises(LeaseLost):
            hung.ack(stuck)


async def test_a_member_that_rests_goes_on_when_its_program_asks(client: Client, url: str) -> None:
    """It has its fair share again, and the other goes on with its own: nothing comes twice."""
    stream = await keyed(client, 4, 4)
    async with (
        stream.group("billing", **HANGS) as hung,
        connect(url) as second,
        second.stream("orders").group("billing", share="shards") as other,
    ):
        await anext(hung)
        for event in await take(other, 4):
            other.ack(event)
        await other.flush()
        seen: list[int] = []
        by: dict[str, int] = {"hung": 0, "other": 0}

        async def consume(name: str, group: Group[Any]) -> None:
            async for event in group:
                seen.append(number(event))
                by[name] += 1
                group.ack(event)

        working = [
            asyncio.create_task(consume(n, g)) for n, g in (("hung", hung), ("other", other))
        ]
        count = 4
        async with asyncio.timeout(PATIENCE):
            while not by["hung"]:
                await stream.append({"n": count}, key=f"k{count % 16}")
                count += 1
                await asyncio.sleep(0.02)
        await soon(lambda: len(seen) >= count - 4, "all come")
        for task in working:
            task.cancel()
    assert sorted(seen) == list(range(4, count))


async def test_a_lone_member_that_hangs_keeps_what_it_has(client: Client) -> None:
    """Nobody else would handle it: it waits for the program, in order, with its failure counted."""
    stream = await keyed(client, 6, 1)
    async with stream.group("billing", **HANGS) as group:
        await anext(group)
        await soon(lambda: group.statistics().expired == 1, "released")
        await asyncio.sleep(0.5)
        fetched = group.statistics().fetched
        found: dict[int, int] = {}
        while len(found) < 6:
            (event,) = await take(group, 1)
            group.ack(event)
            found[number(event)] = event.attempts
        assert found == {0: 1} | dict.fromkeys(range(1, 6), 0)
        assert list(found).index(0) < list(found).index(4), "in the order of its key"
        await group.flush()
        assert group.statistics().fetched == fetched, "its shard did not move"


async def test_a_program_that_never_asks_keeps_no_shards(client: Client, url: str) -> None:
    """Whatever it does instead; what it settled last makes no difference."""
    stream = await keyed(client, 8, 2)
    async with stream.group("billing", **HANGS) as busy:
        busy.ack(await take(busy, 2))
        await soon(lambda: busy.statistics().acked == 2, "committed")
        async with connect(url) as second:
            other = second.stream("orders").group("billing", share="shards")
            async with other:
                assert len(numbers(await take(other, 6))) == 6


async def test_a_slow_program_keeps_its_shards(client: Client, url: str) -> None:
    """Each event takes nearly `hold`, all of them longer: none is given to the other member."""
    stream = await keyed(client, 4, 1)
    async with stream.group("billing", share="shards", hold=1.0) as slow, connect(url) as second:
        (event,) = await take(slow, 1)
        async with second.stream("orders").group("billing", share="shards") as other:
            for _ in range(3):
                await asyncio.sleep(0.4)
                slow.ack(event)
                (event,) = await take(slow, 1)
                assert (event.deliveries, event.attempts) == (1, 0)
            slow.ack(event)
            await slow.flush()
            assert await other.receive(0.1) is None


async def test_a_program_that_waits_for_an_event_does_not_hang(client: Client, url: str) -> None:
    """However long nothing comes: the shard is still its own."""
    stream = await keyed(client, 1, 1)
    async with stream.group("billing", **HANGS) as idle, connect(url) as second:
        idle.ack(await take(idle, 1))
        async with second.stream("orders").group("billing", share="shards"):
            waiting = asyncio.create_task(take(idle, 1))
            await asyncio.sleep(0.9)
            await stream.append({"n": 1})
            assert numbers(await waiting) == [1]


async def test_a_member_that_leaves_while_it_rests_loses_nothing(client: Client) -> None:
    """What it released is the next one's, with its failure counted."""
    stream = await keyed(client, 5, 1)
    async with stream.group("billing", **HANGS) as group:
        await anext(group)
        await soon(lambda: group.statistics().expired == 1, "released")
        await asyncio.sleep(0.5)
    async with stream.group("billing", share="shards", until=END) as group:
        found = {number(event): event.attempts async for event in group}
    assert found == {0: 1} | dict.fromkeys(range(1, 5), 0)


async def test_full_hands_and_no_ack_are_told(client: Client, signals: list[Signal]) -> None:
    """Once, after one lease; and again only when something has moved in between."""
    stream = client.stream("orders")
    await fill(stream, 50)
    async with stream.group("billing", share="shards", max_in_flight=10, lease=0.4) as group:
        events = await take(group, 8)

        def stalls() -> int:
            return kinds(signals).count("stalled")

        await soon(lambda: stalls() == 1, "told")
        await asyncio.sleep(0.6)
        assert stalls() == 1
        group.ack(events)
        await group.flush()
        await soon(lambda: stalls() == 2, "told again")


async def test_a_member_with_room_is_not_stalled(client: Client, signals: list[Signal]) -> None:
    """It may hold an event for longer than a lease, and wait for others."""
    stream = client.stream("orders")
    await fill(stream, 1)
    async with stream.group("billing", share="shards", lease=0.3) as group:
        await anext(group)
        assert await group.receive(0.9) is None
    assert "stalled" not in kinds(signals)
