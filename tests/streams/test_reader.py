"""The reader: every event, once, in order, from where it is told to where it is told."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from penstock import (
    END,
    NEWEST,
    OLDEST,
    Client,
    ClosedError,
    ConfigError,
    Event,
    Reader,
    after,
    at,
    connect,
    idle,
)
from penstock.testing import TcpProxy
from streams.helping import PATIENCE, fill, nothing_comes, number, numbers, put, soon, take
from support.meter import lost


async def read(reader: Reader[Any]) -> list[int]:
    """The numbers that a reader reads to its end."""
    async with asyncio.timeout(PATIENCE), reader:
        return [number(event) async for event in reader]


# --- start and until -------------------------------------------------------------------------


@pytest.mark.conformance("CR-003", "PU-017", "PU-018")
async def test_a_reader_starts_where_it_is_told(client: Client) -> None:
    """`after` excludes, `at` includes."""
    stream = client.stream("orders")
    positions = await fill(stream, 3)
    await asyncio.sleep(0.005)
    cut = datetime.now(UTC)
    await asyncio.sleep(0.005)
    positions += await fill(stream, 3, first=3)

    assert await read(stream.reader(start=OLDEST, until=END)) == [0, 1, 2, 3, 4, 5]
    assert await read(stream.reader(start=after(positions[1]), until=END)) == [2, 3, 4, 5]
    assert await read(stream.reader(start=after(str(positions[4])), until=END)) == [5]
    assert await read(stream.reader(start=at(cut), until=END)) == [3, 4, 5]
    first_ms = datetime.fromtimestamp(positions[3][0] / 1000, UTC)
    assert (await read(stream.reader(start=at(first_ms), until=END)))[-3:] == [3, 4, 5]


@pytest.mark.conformance("CR-001", "CR-040", "PU-016", "SS-022")
async def test_newest_is_anchored_before_the_block_is_entered(client: Client) -> None:
    """What is appended then is read, though nothing was asked for yet; what was before is not."""
    stream = client.stream("orders")
    await fill(stream, 3)
    async with stream.reader() as reader, stream.reader(start=NEWEST) as other:
        await fill(stream, 2, first=3)
        assert numbers(await take(reader, 2)) == [3, 4]
        assert numbers(await take(other, 2)) == [3, 4]


@pytest.mark.conformance("CR-002", "SS-024")
async def test_a_reader_may_wait_for_a_stream_that_is_not_there_yet(client: Client) -> None:
    """From the oldest or the newest: it reads from its first event on."""
    stream = client.stream("orders")
    async with stream.reader() as newest, stream.reader(start=OLDEST) as oldest:
        await nothing_comes(newest, 0.05)
        await fill(stream, 2)
        for reader in (newest, oldest):
            assert numbers(await take(reader, 2)) == [0, 1]


async def test_end_is_the_newest_event_on_entry(client: Client) -> None:
    """What comes later is not read, and an empty stream has ended at once."""
    stream = client.stream("orders")
    assert await read(stream.reader(start=OLDEST, until=END)) == []
    await fill(stream, 5)
    async with stream.reader(start=OLDEST, until=END) as reader:
        await fill(stream, 5, first=5)
        assert [number(event) async for event in reader] == [0, 1, 2, 3, 4]
        assert await reader.receive(0) is None
        assert [event async for event in reader] == []
    begun = time.monotonic()
    assert await read(stream.reader(start=NEWEST, until=END)) == []
    assert time.monotonic() - begun < 0.8 + lost(begun)  # less than a read waits


async def test_end_is_reached_though_the_last_event_was_removed(client: Client) -> None:
    """Or all of them."""
    stream = client.stream("orders")
    positions = await fill(stream, 5)
    async with stream.reader(start=OLDEST, until=END, prefetch=1) as reader:
        await stream.remove(positions[2:])
        assert [number(e) async for e in reader][:2] == [0, 1]


async def test_a_reader_ends_at_a_position_that_is_still_read(client: Client) -> None:
    """Or before the first event behind it."""
    stream = client.stream("orders")
    positions = await fill(stream, 6)
    assert await read(stream.reader(start=OLDEST, until=positions[3])) == [0, 1, 2, 3]
    await stream.remove([positions[3]])
    assert await read(stream.reader(start=OLDEST, until=positions[3])) == [0, 1, 2]
    for end in (positions[1], positions[-1]):  # behind the start, where nothing more may come
        assert await read(stream.reader(start=after(positions[-1]), until=end)) == []
    async with client.reader([stream, client.stream("b")]) as both:
        assert await both.receive(0) is None
    with pytest.raises(ConfigError, match="one stream"):
        await client.reader([stream, client.stream("b")], until=positions[0]).__aenter__()


@pytest.mark.conformance("CR-005")
async def test_idle_ends_when_nothing_has_come_for_so_long(client: Client) -> None:
    """Counted from the last event, or from the entry."""
    stream = client.stream("orders")
    clock = asyncio.get_running_loop().time
    begun = clock()
    assert await read(stream.reader(start=OLDEST, until=idle(0.1))) == []
    assert 0.1 <= clock() - begun < 2

    async with stream.reader(start=OLDEST, until=idle(0.2)) as reader:
        for n in range(3):
            await asyncio.sleep(0.1)
            await stream.append({"n": n})
        last = clock()
        assert [number(event) async for event in reader] == [0, 1, 2]
        assert clock() - last >= 0.15


# --- where -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        ("eu", [0]),
        ("eu.*", [1, 2]),
        (re.compile(r"eu\.(west|east)|us"), [1, 3]),
        (lambda event: number(event) % 2 == 0, [0, 2, 4]),
        ("", [4]),
    ],
    ids=["topic", "glob", "pattern", "predicate", "none"],
)
@pytest.mark.conformance("PU-023", "PU-024", "PU-025")
async def test_where_leaves_out_what_is_not_wanted(
    client: Client, where: Any, wanted: list[int]
) -> None:
    """And counts it."""
    stream = client.stream("orders")
    for n, topic in enumerate(["eu", "eu.west", "eu.north", "us", ""]):
        await stream.append({"n": n}, topic=topic)
    async with stream.reader(start=OLDEST, until=END, where=where) as reader:
        assert [number(event) async for event in reader] == wanted
        statistics = reader.statistics()
    assert (statistics.read, statistics.filtered) == (5, 5 - len(wanted))
    assert (statistics.yielded, statistics.buffered) == (len(wanted), 0)


async def test_an_error_of_the_predicate_is_raised_where_one_reads(client: Client) -> None:
    """At every step: an end that one cannot tell from the true one would be a silent loss."""
    stream = client.stream("orders")
    await fill(stream, 1)
    async with stream.reader(start=OLDEST, where=lambda event: event.value["no"]) as reader:
        for _ in range(2):
            with pytest.raises(KeyError):
                await reader.receive(PATIENCE)


# --- taking ----------------------------------------------------------------------------------


@pytest.mark.conformance("CR-005", "CR-007")
async def test_receive_waits_no_longer_than_it_is_told(client: Client) -> None:
    """And loses nothing that comes later."""
    stream = client.stream("orders")
    async with stream.reader() as reader:
        assert await reader.receive(0) is None
        assert await reader.receive(0.01) is None
        await fill(stream, 1)
        assert number(await reader.receive(PATIENCE)) == 0


@pytest.mark.conformance("SS-027")
async def test_batches_are_full_or_what_came_in_time(client: Client) -> None:
    """In order, to the end."""
    stream = client.stream("orders")
    await fill(stream, 25)
    async with stream.reader(start=OLDEST, until=END) as reader:
        batches = [numbers(batch) async for batch in reader.batches(10, 0.5)]
    assert batches == [[*range(10)], [*range(10, 20)], [*range(20, 25)]]

    async with stream.reader() as reader:
        await fill(stream, 2, first=30)
        async for batch in reader.batches(10, 0.01):
            assert numbers(batch)[0] == 30
            break


@pytest.mark.conformance("CR-038", "SS-026")
async def test_a_cancelled_wait_loses_nothing(client: Client) -> None:
    """However often, and just when something comes."""
    stream = client.stream("orders")
    found: list[int] = []
    async with stream.reader() as reader:
        for n in range(30):
            waiting = asyncio.create_task(reader.receive())
            await asyncio.sleep(0)
            appending = asyncio.create_task(stream.append({"n": n}))
            await asyncio.sleep(0.0002 * n)
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                found.append(number(await waiting))
            await appending
        while len(found) < 30:
            found.append(number(await reader.receive(PATIENCE)))
    assert found == list(range(30))


@pytest.mark.conformance("CR-035", "PU-021")
async def test_tasks_that_share_a_reader_get_each_event_once(client: Client) -> None:
    """Each of them in order."""
    stream = client.stream("orders")
    await fill(stream, 500)
    found: list[list[int]] = [[], [], []]

    async with stream.reader(start=OLDEST, until=END) as reader:

        async def work(mine: list[int]) -> None:
            async for event in reader:
                mine.append(number(event))
                await asyncio.sleep(0)

        await asyncio.gather(*map(work, found))
    assert sorted(n for mine in found for n in mine) == list(range(500))
    assert all(mine == sorted(mine) for mine in found)
    assert all(found)


@pytest.mark.conformance("CR-010", "SS-025")
async def test_several_streams_are_read_by_one_reader(client: Client) -> None:
    """Each in its own order; one that is full does not keep the other waiting."""
    a, b = client.stream("a"), client.stream("b", type=dict)
    await fill(a, 3000)
    await b.append_many([{"n": n} for n in range(5)])
    async with client.reader([a, b], start=OLDEST, until=END) as reader:
        events = [event async for event in reader]

    assert numbers(e for e in events if e.stream == "a") == list(range(3000))
    assert [e.value["n"] for e in events if e.stream == "b"] == list(range(5))
    assert max(i for i, e in enumerate(events) if e.stream == "b") < 2500


# --- bounds ----------------------------------------------------------------------------------


@pytest.mark.conformance("CR-008", "CR-009", "SS-028", "SS-029", "SS-030")
async def test_no_more_is_read_ahead_than_prefetch_allows(client: Client) -> None:
    """Until something is taken."""
    stream = client.stream("orders")
    await fill(stream, 300)
    async with stream.reader(start=OLDEST, prefetch=50) as reader:
        await soon(lambda: reader.statistics().buffered == 50, "50 are read ahead")
        await nothing_more(reader, 50)
        await take(reader, 20)
        await soon(lambda: reader.statistics().buffered == 50, "the room is used")
        await nothing_more(reader, 70)
        size = reader.statistics().buffered_bytes
        assert size == 50 * len(b"nXX") or 100 <= size <= 250
        assert numbers(await take(reader, 280)) == list(range(20, 300))


async def nothing_more(reader: Reader[Any], read_: int) -> None:
    """Give it every chance to read on."""
    for _ in range(20):
        await asyncio.sleep(0.002)
        assert reader.statistics().read == read_


@pytest.mark.conformance("SS-030")
async def test_large_events_bound_what_is_read_ahead_in_bytes(client: Client) -> None:
    """64 of them at first, then as many as fit in 16 MiB."""
    stream = client.stream("blobs", type=bytes)
    for _ in range(3):
        await stream.append_many([bytes(500_000)] * 30)
    async with stream.reader(start=OLDEST, prefetch=1000) as reader:
        await soon(lambda: reader.statistics().read >= 33, "it has read ahead")
        await asyncio.sleep(0.1)
        assert reader.statistics().read <= 64
        assert len(await take(reader, 90)) == 90
        assert reader.statistics().buffered_bytes == 0


# --- life ------------------------------------------------------------------------------------


@pytest.mark.conformance("CR-004", "CR-015")
async def test_a_reader_is_used_within_its_block(client: Client) -> None:
    """And opened once."""
    stream = client.stream("orders")
    await fill(stream, 1)
    reader = stream.reader(start=OLDEST)
    with pytest.raises(ClosedError, match="async with"):
        await reader.receive(0)
    async with reader:
        with pytest.raises(ClosedError, match="twice"):
            await reader.__aenter__()
        await take(reader, 1)
    with pytest.raises(ClosedError, match="twice"):
        await reader.__aenter__()
    assert await reader.receive(PATIENCE) is None


@pytest.mark.conformance("PU-055")
async def test_closing_ends_those_who_wait(client: Client) -> None:
    """They are not left hanging."""
    async with client.stream("orders").reader() as reader:
        waiting = asyncio.create_task(reader.receive())
        looping = asyncio.create_task(anext(reader, None))
        await asyncio.sleep(0.01)
    async with asyncio.timeout(PATIENCE):
        assert await waiting is None
        assert await looping is None


@pytest.mark.one_loop
async def test_wrong_options_are_refused(client: Client) -> None:
    """Before anything is opened."""
    stream = client.stream("orders")
    with pytest.raises(ConfigError, match="at least one stream"):
        client.reader([])
    with pytest.raises(ConfigError, match=r"prefetch of at least 1.*prefetch=0"):
        stream.reader(prefetch=0)
    with pytest.raises(ConfigError, match="where must be"):
        stream.reader(where=7)  # type: ignore[arg-type]
    async with stream.reader() as reader:
        for size, within in ((0, 0.1), (1, -0.1)):
            with pytest.raises(ConfigError, match="size >= 1 and within >= 0"):
                reader.batches(size, within)


@pytest.mark.conformance("PU-057", "SS-007")
async def test_entries_of_others_are_read_beside_ours(client: Client) -> None:
    """Nothing is dropped."""
    stream = client.stream("orders")
    await fill(stream, 1)
    await put(client, "orders", "n", "1", "penstock.unknown", "x", "penstock.time", "noon")
    await fill(stream, 1, first=2)
    async with stream.reader(start=OLDEST, until=END) as reader:
        events: list[Event[Any]] = [event async for event in reader]

    assert numbers(events) == [0, 1, 2]
    assert events[1].value == {"n": "1"}
    assert events[1].timestamp == events[1].position[0] / 1000


@pytest.mark.conformance("CR-038", "SS-066")
async def test_a_reader_goes_on_where_it_stood_after_a_cut(embedded_url: str) -> None:
    """Nothing twice, nothing left out."""
    async with (
        TcpProxy(("127.0.0.1", int(embedded_url.rpartition(":")[2]))) as proxy,
        connect(embedded_url) as direct,
        connect(f"redis://127.0.0.1:{proxy.port}", observer=lambda _: None) as client,
    ):
        stream = direct.stream("orders")
        found: list[int] = []
        async with client.stream("orders").reader(start=OLDEST, prefetch=20) as reader:
            for first in range(0, 500, 50):
                await fill(stream, 50, first=first)
                found += numbers(await take(reader, 30))
                proxy.cut()
            found += numbers(await take(reader, 200))
            await nothing_comes(reader, 0.05)
        assert found == list(range(500))
        assert proxy.resets > 0


async def test_positions_say_how_far_has_been_read(client: Client) -> None:
    """What was yielded, not what was read ahead: another reader goes on there."""
    stream = client.stream("orders")
    positions = await fill(stream, 5)
    async with stream.reader(start=after(positions[0])) as reader:
        assert [*reader.positions().values()] == [positions[0]]
        await take(reader, 2)
        await soon(lambda: reader.statistics().buffered == 2, "it has read ahead")
        [reached] = reader.positions().values()
    assert reached == positions[2]
    assert await read(stream.reader(start=after(str(reached)), until=END)) == [3, 4]
