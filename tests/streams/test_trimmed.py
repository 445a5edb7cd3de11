"""Events that were trimmed: counted, signalled, and never handed out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from penstock import Client, Group, Signal
from streams.helping import fill, numbers, soon, take

pytestmark = pytest.mark.one_loop

LEASE = 0.8


def told(signals: list[Signal], kind: str) -> list[int | None]:
    return [signal.count for signal in signals if signal.kind == kind]


def held(signals: list[Signal], kind: str, count: int) -> Callable[[], bool]:
    return lambda: sum(number or 0 for number in told(signals, kind)) >= count


async def group_with(client: Client, **options: Any) -> Group[Any]:
    return client.stream("orders").group("g", lease=LEASE, **options)


async def test_what_was_trimmed_before_anybody_read_it_is_counted(
    client: Client, signals: list[Signal]
) -> None:
    stream = client.stream("orders")
    await fill(stream, 100)
    await stream.create_group("g")
    assert await stream.trim(max_events=10, acked_only=False) == 90
    async with await group_with(client) as group:
        events = await take(group, 10)
        assert numbers(events) == list(range(90, 100))
        await soon(held(signals, "trimmed-unread", 90), "it is signalled")
        group.ack(events)
        await group.flush()
    assert sum(number or 0 for number in told(signals, "trimmed-unread")) == 90


async def test_what_was_trimmed_between_two_reads_is_counted_each_time(
    client: Client, signals: list[Signal]
) -> None:
    """The member's hands are full meanwhile; so it reads again at once when they are not."""
    stream = client.stream("orders")
    await fill(stream, 100)
    async with await group_with(client, max_in_flight=10) as group:
        seen: set[int] = set()
        for left in (60, 30):
            seen.update(numbers(await empty(group)))
            await stream.trim(max_events=left, acked_only=False)
        while len(events := await empty(group)):
            seen.update(numbers(events))
        lost = set(range(100)) - seen
        assert len(lost) > 10, "the fault did not bite"
        await soon(held(signals, "trimmed-unread", len(lost)), "all is counted")
    counts = told(signals, "trimmed-unread")
    assert sum(number or 0 for number in counts) == len(lost)


async def empty(group: Group[Any]) -> list[Any]:
    """Everything that the group has in its hands; acked, so that it reads on."""
    events = []
    while (event := await group.receive(0.7)) is not None and len(events) < 10:
        events.append(event)
        if len(events) == 10:
            break
    group.ack(events)
    await group.flush()
    return events


async def test_a_stream_that_was_trimmed_empty_is_counted(
    client: Client, signals: list[Signal]
) -> None:
    stream = client.stream("orders")
    await fill(stream, 20)
    await stream.create_group("g")
    await stream.trim(max_events=0, acked_only=False)
    async with await group_with(client) as group:
        await soon(held(signals, "trimmed-unread", 20), "it is signalled")
        await fill(stream, 3, first=20)
        assert numbers(await take(group, 3)) == [20, 21, 22]
    assert told(signals, "trimmed-unread") == [20]


async def test_of_what_was_removed_one_by_one_no_count_is_told(
    client: Client, signals: list[Signal]
) -> None:
    stream = client.stream("orders")
    positions = await fill(stream, 10)
    await stream.create_group("g")
    async with await group_with(client, max_in_flight=2) as group:
        first = await take(group, 2)
        await stream.remove(positions[5:6])
        await stream.trim(before=positions[4], acked_only=False)
        await soon(lambda: told(signals, "trimmed-unread"), "it is signalled")
        group.ack(first)
        left = [await group.receive(5.0) for _ in range(2)]
        assert all(event is not None for event in left)
    assert set(told(signals, "trimmed-unread")) == {None}


async def test_trimming_what_is_acked_signals_nothing(
    client: Client, signals: list[Signal]
) -> None:
    stream = client.stream("orders")
    async with await group_with(client) as group:
        for at in range(0, 60, 20):
            await fill(stream, 20, first=at)
            group.ack(await take(group, 20))
            await group.flush()
            assert await stream.trim(max_events=0) == 20
        assert await group.receive(0.8) is None
    assert not told(signals, "trimmed-unread")
    assert not told(signals, "trimmed-pending")


async def test_trimming_behind_what_was_removed_ahead_signals_nothing(
    client: Client, signals: list[Signal]
) -> None:
    """What was removed by name makes counts uncertain; what we trim ourselves, nobody needed."""
    stream = client.stream("orders")
    positions = await fill(stream, 10)
    async with await group_with(client, max_in_flight=5) as group:
        first = await take(group, 5)
        await stream.remove(positions[7:8])
        await asyncio.sleep(0.7)  # it looks
        await group.stop()
        group.ack(first)
    signals.clear()  # memory sees what was removed when it is; servers do not
    assert await stream.trim(max_events=0) == 5
    async with await group_with(client, max_in_flight=2) as group:
        again = await take(group, 2)
        assert numbers(again) == [5, 6]
        group.ack(again)
        assert numbers(await take(group, 2)) == [8, 9]
    assert not told(signals, "trimmed-unread")


async def test_what_was_trimmed_in_hand_and_is_handed_back_is_told(
    client: Client, signals: list[Signal]
) -> None:
    stream = client.stream("orders")
    await fill(stream, 5)
    async with await group_with(client) as group:
        events = await take(group, 5)
        await stream.trim(max_events=0, acked_only=False)
        group.nack(events, delay=0.0)
        await soon(held(signals, "trimmed-pending", 5), "it is signalled")
        assert await group.receive(0.6) is None
    assert sum(number or 0 for number in told(signals, "trimmed-pending")) == 5
    assert not await stream_pending(client)


async def test_what_was_trimmed_while_parked_is_told_before_it_is_due(
    client: Client, signals: list[Signal]
) -> None:
    stream = client.stream("orders")
    await fill(stream, 5)
    async with await group_with(client) as group:
        group.nack(await take(group, 5), delay=60.0)
        await group.flush()
        await stream.trim(max_events=0, acked_only=False)
        await soon(held(signals, "trimmed-pending", 5), "it is signalled")
        assert not await stream_pending(client)
    assert told(signals, "trimmed-pending") == [5]


async def stream_pending(client: Client) -> int:
    """Pending or parked in the group."""
    (info,) = await client.stream("orders").groups()
    return info.pending + info.parked
