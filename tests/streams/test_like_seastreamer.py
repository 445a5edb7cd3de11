"""What SeaStreamer's streams do, and what they should: lines that no other test shows."""

from __future__ import annotations

import asyncio

import pytest

from penstock import NEWEST, OLDEST, Client, connect
from penstock.event import Shard
from penstock.streams.group import Group
from penstock.streams.reader import Reader
from streams.helping import PATIENCE, everything, fill, nothing_comes, number, numbers, take
from streams.test_group import crash

pytestmark = pytest.mark.one_loop


# --- writers ---------------------------------------------------------------------------------


@pytest.mark.conformance("SS-011")
async def test_sends_are_pipelined_over_streams_and_shards(servers: str) -> None:
    """Thousands of sends that go round four shards need few commands."""
    async with connect(servers) as client:
        stream = client.stream("parts", shards=4)
        await stream.append({"n": -1})
        await client.redis.execute_command("CONFIG", "RESETSTAT")
        async with stream.writer() as writer:
            for n in range(4000):
                await writer.send({"n": n})
        stats = await client.redis.execute_command("INFO", "commandstats")
        assert stats["cmdstat_evalsha"]["calls"] < 400
        assert await stream.length() == 4001


@pytest.mark.conformance("SS-014")
async def test_a_writer_belongs_to_its_stream(client: Client) -> None:
    """Another stream is another handle's, at the same time."""
    a, b = client.stream("a"), client.stream("b")
    async with a.writer() as one, b.writer() as two:
        for n in range(10):
            await one.send({"n": n})
            await two.send({"n": 100 + n})
    assert numbers(await everything(a)) == list(range(10))
    assert numbers(await everything(b)) == list(range(100, 110))


@pytest.mark.conformance("SS-016")
async def test_explicit_times_come_in_any_order(client: Client) -> None:
    """Each event has the one that it was given; none is refused, positions increase."""
    stream = client.stream("orders")
    times = [1700000000.5, 5.0, 2500000000.25, 1600000000.0]
    positions = [await stream.append({"n": n}, timestamp=t) for n, t in enumerate(times)]
    events = await everything(stream)
    assert [event.timestamp for event in events] == times
    assert positions == sorted(positions) == [event.position for event in events]


# --- readers ---------------------------------------------------------------------------------


@pytest.mark.conformance("SS-023")
async def test_the_newest_is_one_place_in_each_stream_and_shard(client: Client) -> None:
    """In streams that are there, empty or to come: all that is appended after entering is read."""
    full, parts = client.stream("full"), client.stream("parts", shards=3)
    late = client.stream("late")
    await fill(full, 3)
    for n in range(9):
        await parts.append({"n": n}, key=str(n))
    async with client.reader([full, parts, late]) as reader:
        anchors = reader.positions()
        await asyncio.sleep(1.1)  # longer than one read
        assert reader.positions() == anchors
        for n in range(10, 16):
            await full.append({"n": n})
            await parts.append({"n": n + 10}, key=str(n))
            await late.append({"n": n + 20})
        found = numbers(await take(reader, 18))
    assert sorted(found) == [*range(10, 16), *range(20, 26), *range(30, 36)]


@pytest.mark.conformance("SS-047")
async def test_a_reader_keeps_no_books_of_acks(client: Client) -> None:
    """There is no ack, and nothing is left of what was read."""
    stream = client.stream("orders")
    await fill(stream, 3000)
    async with stream.reader(start=OLDEST) as reader:
        events = await take(reader, 3000)
        reader.settle([])
        assert not hasattr(reader, "ack")
        assert (reader.statistics().buffered, reader.statistics().buffered_bytes) == (0, 0)
        assert len(reader.positions()) == 1
        del events
    assert not await client.backend.groups(Shard("orders"))


@pytest.mark.conformance("SS-059")
async def test_seeking_is_a_readers_and_a_group_stays_where_it_is(client: Client) -> None:
    """Its events are read apart, as often as one likes."""
    stream = client.stream("orders")
    await fill(stream, 5)
    assert hasattr(Reader, "seek")
    assert not hasattr(Group, "seek")
    async with stream.group("billing") as group, stream.reader(start=OLDEST) as reader:
        assert numbers(await take(group, 3)) == [0, 1, 2]
        assert numbers(await take(reader, 5)) == list(range(5))
        await reader.seek(OLDEST)
        assert numbers(await take(reader, 5)) == list(range(5))
        assert numbers(await take(group, 2)) == [3, 4]


# --- groups ----------------------------------------------------------------------------------


@pytest.mark.conformance("SS-035")
async def test_a_group_waits_for_a_stream_that_is_missing(client: Client) -> None:
    """And goes on: waiting is no error."""
    async with client.stream("late").group("billing") as group:
        await nothing_comes(group, 0.1)
        await fill(client.stream("late"), 2)
        assert numbers(await take(group, 2)) == [0, 1]


@pytest.mark.conformance("PU-033", "SS-045")
async def test_a_restart_begins_with_what_was_not_acked(client: Client, url: str) -> None:
    """Of five events four were acked: the fifth comes first, then new ones; acked ones never."""
    stream = client.stream("orders")
    await fill(stream, 5)
    async with connect(url) as other:
        crashed = other.stream("orders").group("billing", member="bob", lease=0.3)
        await crashed.__aenter__()
        events = await take(crashed, 5)
        crashed.ack(events[:4])
        await crashed.flush()
        await crash(crashed)
    await fill(stream, 2, first=5)
    async with stream.group("billing", member="bob", lease=0.3) as group:
        again = await take(group, 3)
        assert numbers(again) == [4, 5, 6]
        assert again[0].deliveries == 2
        group.ack(again)
    async with stream.group("billing", member="bob", lease=0.3) as group:
        await nothing_comes(group, 0.1)


@pytest.mark.conformance("SS-041", "SS-042")
async def test_single_events_and_batches_are_acked(client: Client) -> None:
    """In any order, each by itself."""
    stream = client.stream("orders")
    await fill(stream, 6)
    async with stream.group("billing", ack_interval=None) as group:
        events = await take(group, 6)
        group.ack(events[4])
        group.ack(events[1:3])
        await group.flush()
        held = {info.position for info in await group.pending()}
        assert held == {events[n].position for n in (0, 3, 5)}
        group.ack(events[0])
        assert len(await group.pending()) == 3  # nothing is acked before flush
        await group.flush()
        assert len(await group.pending()) == 2


@pytest.mark.conformance("SS-050", "SS-053")
async def test_what_was_taken_over_belongs_to_who_took_it(client: Client, url: str) -> None:
    """The server says so; a member that comes back under its old name gets new work."""
    stream = client.stream("orders")
    await fill(stream, 3)
    async with connect(url, observer=lambda _: None) as other:
        crashed = other.stream("orders").group("billing", member="bob", lease=0.4)
        await crashed.__aenter__()
        await take(crashed, 3)
        async with stream.group("billing", member="alfred", lease=0.4) as group:
            await crash(crashed)
            events = await take(group, 3)
            assert {info.member for info in await group.pending()} == {"alfred"}
            assert {event.deliveries for event in events} == {2}
            group.ack(events)
            await group.flush()
    async with stream.group("billing", member="bob", lease=0.4) as bob:
        await fill(stream, 1, first=3)
        assert number(await bob.receive(PATIENCE)) == 3


@pytest.mark.conformance("SS-067")
async def test_closing_a_client_ends_what_is_open_and_sends_queued_acks(url: str) -> None:
    """Readers and groups; a writer sends what is pending as its block is left."""
    async with connect(url) as client, connect(url) as watching:
        stream = client.stream("orders")
        await fill(stream, 3)
        reader, group, writer = stream.reader(start=NEWEST), stream.group("g"), stream.writer()
        for one in (reader, group, writer):
            await one.__aenter__()
        events = await take(group, 3)
        group.ack(events)
        for n in range(3, 50):
            await writer.send({"n": n})
        await writer.__aexit__(None, None, None)
        waiting = asyncio.create_task(reader.receive())
        await client.aclose()
        await asyncio.wait_for(asyncio.gather(waiting, return_exceptions=True), PATIENCE)
        assert await watching.stream("orders").length() == 50
        [info] = await watching.backend.groups(Shard("orders"))
        assert (info.pending, info.last is not None) == (0, True)
