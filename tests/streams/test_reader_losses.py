"""What was trimmed before it was read is told once, in its place; and reading goes on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock import END, OLDEST, Client, PositionLost, Reader, Stream, after
from penstock.ports import TrimTo
from streams.helping import PATIENCE, fill, number, numbers, put, soon, take

pytestmark = pytest.mark.one_loop


async def cut(stream: Stream[Any], left: int) -> None:
    """Trim as another program would: whatever anybody still needs."""
    await stream.trim(max_events=left, acked_only=False)


async def full(reader: Reader[Any], count: int) -> None:
    """It has read ahead."""
    await soon(lambda: reader.statistics().buffered >= count, "it has read ahead")


async def until_lost(reader: Reader[Any]) -> tuple[list[int], PositionLost]:
    """What is yielded before the loss is told, and the loss."""
    found: list[int] = []
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                found.append(number(await anext(reader)))
            except PositionLost as lost:
                return found, lost


async def test_a_loss_is_told_behind_what_was_read_before_it(client: Client) -> None:
    """Once, with where it was and how many; then reading goes on from the oldest that is left."""
    stream = client.stream("orders")
    positions = await fill(stream, 100)
    async with stream.reader(start=OLDEST, until=END, prefetch=20) as reader:
        await full(reader, 20)
        await cut(stream, 30)
        found, lost = await until_lost(reader)
        assert found == list(range(20))
        assert (lost.wanted, lost.oldest) == (str(positions[19]), str(positions[70]))
        assert (lost.lost, lost.stream, lost.shard) == (50, "orders", 0)
        assert "50 events" in str(lost)
        assert [number(event) async for event in reader] == list(range(70, 100))
        assert reader.statistics().lost == 50


async def test_a_loss_ends_no_reader_of_several_streams(client: Client) -> None:
    """The other stream's events all come, in order."""
    a, b = client.stream("a"), client.stream("b")
    await fill(a, 100)
    await fill(b, 100)
    async with client.reader([a, b], start=OLDEST, until=END, prefetch=20) as reader:
        await full(reader, 20)
        await cut(a, 10)
        events, losses = [], 0
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    events.append(await anext(reader))
                except PositionLost as lost:
                    losses += lost.lost or 0
                except StopAsyncIteration:
                    break
    of_a = numbers(e for e in events if e.stream == "a")
    assert numbers(e for e in events if e.stream == "b") == list(range(100))
    assert of_a[-10:] == list(range(90, 100))
    assert len(of_a) + losses == 100


async def test_a_shard_says_which_one_it_is(client: Client) -> None:
    """The others lose nothing."""
    stream = client.stream("parts", shards=3)
    for n in range(90):
        await stream.append({"n": n}, key=str(n))
    shard = stream.shard(2)
    held = (await client.backend.read_range(shard, None, None, 1000, False))[5:]
    async with stream.reader(start=OLDEST, prefetch=3) as reader:
        await full(reader, 3)
        await client.backend.trim(shard, TrimTo(max_events=2, acked_only=False))
        found, lost = await until_lost(reader)
        assert (lost.stream, lost.shard) == ("parts", 2)
        assert lost.lost is not None
        found += numbers(await take(reader, 90 - lost.lost - len(found)))
    assert len(set(found)) == 90 - lost.lost
    assert len(held) > 2


@pytest.mark.conformance("PU-063")
async def test_a_saved_position_that_was_trimmed_past_is_told(client: Client) -> None:
    """Nobody can tell how many there were; an own end is kept to."""
    stream = client.stream("orders")
    async with stream.reader(start=OLDEST) as reader:
        positions = await fill(stream, 50)
        await take(reader, 5)
        saved = reader.position
    await cut(stream, 10)
    for start in (saved, after(positions[4])):
        async with stream.reader(start=start, until=END) as reader:
            found, lost = await until_lost(reader)
            assert (found, lost.lost, lost.wanted) == ([], None, str(positions[4]))
            assert [number(event) async for event in reader] == list(range(40, 50))


async def test_what_was_read_may_be_trimmed(client: Client) -> None:
    """As a program does that keeps what it has not read yet; and for whoever starts anew."""
    stream = client.stream("orders")
    positions = await fill(stream, 60)
    async with stream.reader(start=OLDEST, until=END, prefetch=10) as reader:
        for first in range(0, 60, 10):
            assert numbers(await take(reader, 10)) == list(range(first, first + 10))
            await stream.trim(before=positions[first + 9], acked_only=False)
            await stream.remove([positions[first + 9]])
    await fill(stream, 3, first=60)
    async with stream.reader(start=OLDEST, until=END) as reader:
        assert [number(event) async for event in reader] == [60, 61, 62]


async def test_a_seek_makes_a_loss_moot(client: Client) -> None:
    """It is of where one was: it is not raised where one goes."""
    stream = client.stream("orders")
    await fill(stream, 100)
    async with stream.reader(start=OLDEST, prefetch=20) as reader:
        await full(reader, 20)
        await cut(stream, 30)
        await take(reader, 8)
        await soon(lambda: reader.statistics().lost, "the loss is seen")
        await reader.seek(OLDEST)
        assert numbers(await take(reader, 30)) == list(range(70, 100))


@pytest.mark.parametrize("wanted", [3, 30])
@pytest.mark.conformance("PU-054", "PU-066")
async def test_a_stream_made_anew_is_read_and_told_once(client: Client, wanted: int) -> None:
    """Whether it holds fewer events than the old one or more: each of them comes once."""
    stream = client.stream("orders")
    await fill(stream, 10)
    async with stream.reader(start=OLDEST) as reader:
        await take(reader, 10)
        await stream.destroy()
        await asyncio.sleep(1.2)  # a look is due every second: the absence itself is seen
        await fill(stream, wanted)
        found: list[int] = []
        told: list[tuple[int | None, bool]] = []
        async with asyncio.timeout(PATIENCE):
            while len(found) < wanted or not told:
                try:
                    found.append(number(await anext(reader)))
                except PositionLost as lost:
                    told.append((lost.lost, "made anew" in str(lost)))
    assert (found, told) == (list(range(wanted)), [(None, True)])


async def test_a_stream_whose_ids_fell_back_is_read_from_its_oldest(client: Client) -> None:
    """As after a restart without data, with a clock that was set back: its end is below ours."""
    stream = client.stream("orders")
    await put(client, "orders", "n", "0")
    async with stream.reader(start=after("9999999999999-5")) as reader:
        found, lost = await until_lost(reader)
        assert (found, lost.wanted) == ([], "9999999999999-5")
        assert number(await reader.receive(PATIENCE)) == 0
