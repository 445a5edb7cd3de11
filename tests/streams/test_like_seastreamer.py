"""What SeaStreamer's streams do, and what they should: lines that no other test shows."""

from __future__ import annotations

import asyncio

import pytest

from penstock import NEWEST, OLDEST, Client, Position, connect
from penstock.event import Shard
from penstock.rules.gaps import LAST
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


@pytest.mark.conformance("PU-019", "SS-023")
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


@pytest.mark.conformance("SS-024")
async def test_the_oldest_is_all_history_and_then_what_comes(client: Client) -> None:
    """Also from a stream in shards; without an end, and without a seam."""
    stream, parts = client.stream("orders"), client.stream("parts", shards=3)
    await fill(stream, 700)
    await fill(parts, 30, first=1000)
    async with client.reader([stream, parts], start=OLDEST) as reader:
        events = await take(reader, 400)
        await fill(stream, 50, first=700)
        events += await take(reader, 380)
        await nothing_comes(reader, 0.05)
        await fill(stream, 1, first=750)
        await fill(parts, 1, first=1030)
        events += await take(reader, 2)
    assert numbers(e for e in events if e.stream == "orders") == list(range(751))
    assert sorted(numbers(e for e in events if e.stream == "parts")) == list(range(1000, 1031))


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


@pytest.mark.conformance("SS-064")
async def test_streams_are_listed_and_ranges_are_read_by_time(client: Client) -> None:
    """By patterns on their names; a position of a time bounds a range, both ends included."""
    for name in ("orders-eu", "orders-us", "invoices"):
        await fill(client.stream(name), 1)
    await fill(client.stream("orders-parts", shards=3), 1)
    assert set(await client.streams("orders-*")) == {"orders-eu", "orders-us", "orders-parts"}
    assert set(await client.streams()) >= {"invoices", "orders-parts"}
    stream = client.stream("times")
    first = await fill(stream, 3)
    await asyncio.sleep(0.005)
    second = await fill(stream, 3, first=3)
    last_of_first, of_second = Position((first[-1][0], LAST)), Position((second[0][0], 0))
    assert numbers(await stream.read_range(end=last_of_first)) == [0, 1, 2]
    assert numbers(await stream.read_range(of_second)) == [3, 4, 5]
    assert numbers(await stream.read_range(second[1], second[1])) == [4]
    assert numbers(await stream.read_range(first[1], second[2], limit=2)) == [1, 2]


@pytest.mark.conformance("SS-065")
async def test_the_database_of_the_url_is_the_one_that_is_used(servers: str) -> None:
    """By all that speaks to the server: nothing is left in any other."""
    async with connect(f"{servers}/3") as client, connect(servers, db=3) as same:
        stream = client.stream("orders")
        await fill(stream, 3)
        async with (
            stream.reader(start=OLDEST) as reader,
            same.stream("orders").group("billing", lease=0.4) as group,
        ):
            assert numbers(await take(reader, 3)) == numbers(await take(group, 3)) == [0, 1, 2]
            await nothing_comes(group, 0.5)  # it beats, and looks around
        async with connect(servers) as other:
            assert await other.redis.keys("*") == []
            assert await other.stream("orders").length() == 0
        assert await client.redis.keys("*")


@pytest.mark.conformance("SS-067")
async def test_closing_a_client_stores_what_its_writers_have_sent(url: str) -> None:
    """Though nobody has left their blocks: as leaving them would."""
    client = connect(url)
    await client.__aenter__()
    writer = await client.stream("orders").writer().__aenter__()
    receipts = [await writer.send({"n": n}, receipt=True) for n in range(300)]
    await client.aclose()
    async with asyncio.timeout(PATIENCE):
        positions = [await receipt for receipt in receipts if receipt is not None]
    async with connect(url) as watching:
        held = await watching.stream("orders").read_range(limit=1000)
    assert [event.position for event in held] == positions
    assert numbers(held) == list(range(300))


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
