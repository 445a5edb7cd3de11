"""``append(deliver_at=)``: an event comes when it is due, once, whoever lives."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import pytest

from penstock import OLDEST, BackendRejected, Client, ConfigError, connect
from streams.helping import everything, nothing_comes, numbers, soon

pytestmark = pytest.mark.one_loop


async def test_a_delayed_event_comes_when_it_is_due(client: Client) -> None:
    """Not before; to readers and groups like any other; listed until then."""
    stream = client.stream("orders")
    due = time.time() + 1.0
    assert await stream.append({"n": 1}, key="k", deliver_at=due) is None
    when = datetime.fromtimestamp(due - 0.2, UTC)
    assert await stream.append({"n": 0}, deliver_at=when) is None
    assert await stream.append({"n": 9}, deliver_at=due - 100) is not None
    assert (await stream.info()).delayed == 2
    async with stream.reader(start=OLDEST) as reader, stream.group("g", lease=0.5) as group:
        assert numbers([await reader.receive(5)]) == [9]
        if time.time() < due - 0.3:
            await nothing_comes(reader, 0.05)
        assert numbers([await reader.receive(5), await reader.receive(5)]) == [0, 1]
        assert time.time() >= due
        got = [await group.receive(5) for _ in range(3)]
        assert numbers(got) == [9, 0, 1]
        assert [event.key for event in got if event] == [None, None, "k"]
        group.ack([event for event in got if event])
    assert (await stream.info()).delayed == 0
    assert await stream.length() == 3


async def test_it_is_moved_by_whoever_has_the_stream_open(client: Client, url: str) -> None:
    """Its own client is gone: a writer, a reader or a member elsewhere moves it, once."""
    for opener in ("writer", "reader", "group"):
        name = f"orders-{opener}"
        async with connect(url) as gone:
            await gone.stream(name).append({"n": 1}, deliver_at=time.time() + 0.2)
        stream = client.stream(name)
        opened = stream.group("g", lease=0.5) if opener == "group" else getattr(stream, opener)()
        async with opened:

            async def moved(name: str = name) -> bool:
                return await client.stream(name).length() == 1

            await soon(moved, f"moved for a {opener}")
    assert numbers(await everything(client.stream("orders-reader"))) == [1]


async def test_many_clients_move_each_event_once(client: Client, url: str) -> None:
    """Three clients look at the same time; a hundred events, two shards, in order of their time."""
    stream = client.stream("orders", shards=2)
    due = time.time() + 1.0  # all of them are appended by then
    appends = (
        stream.append({"n": n}, key=f"k{n % 2}", deliver_at=due + n / 1000) for n in range(100)
    )
    await asyncio.gather(*appends)

    async def all_there() -> bool:
        return await stream.length() >= 100

    async with (
        connect(url) as one,
        connect(url) as two,
        one.stream("orders").reader(),
        two.stream("orders").writer(),
    ):
        await soon(all_there, "all events are moved")
    events = await everything(stream)
    assert sorted(numbers(events)) == list(range(100))
    for shard in range(2):
        mine = [event for event in events if event.shard == shard]
        assert numbers(mine) == sorted(numbers(mine))


async def test_a_delayed_event_is_what_was_appended(client: Client, url: str) -> None:
    """Every byte, repeated fields, headers; and its marks are the stream's from the start."""
    stream = client.stream("blobs", type=bytes)
    blob = bytes(range(256)) * 8
    await stream.append(blob, topic="t", headers={"h": "ü"}, id="i", deliver_at=time.time() + 0.2)
    async with connect(url) as other:
        info = await other.stream("blobs").info()
        assert info.marks is not None
        assert info.marks.codec == "raw"
        async with other.stream("blobs", type=bytes).reader(start=OLDEST) as reader:
            event = await reader.receive(10)
    assert event is not None
    assert (event.value, event.topic, event.headers, event.id) == (blob, "t", {"h": "ü"}, "i")


async def test_what_makes_no_sense_is_refused(client: Client) -> None:
    """A naive time, and an expectation of an event that is not there yet."""
    stream = client.stream("orders")
    position = await stream.append({"n": 0})
    with pytest.raises(ConfigError, match="zone"):
        await stream.append({"n": 1}, deliver_at=datetime(2030, 1, 1))  # noqa: DTZ001
    for far in (1e18, datetime.max.replace(tzinfo=UTC).timestamp() + 1):
        with pytest.raises(ConfigError, match="before the year 10000"):
            await stream.append({"n": 1}, deliver_at=far)
        async with stream.writer() as writer:
            with pytest.raises(ConfigError, match="before the year 10000"):
                await writer.send({"n": 1}, deliver_at=far)
    with pytest.raises(ConfigError, match="expect or deliver_at, not both"):
        await stream.append({"n": 1}, deliver_at=time.time() + 9, expect=position)
    assert (await stream.info()).delayed == 0


async def test_it_goes_with_its_stream(client: Client) -> None:
    """And is not there in a new one of that name."""
    stream = client.stream("orders")
    await stream.append({"n": 1}, deliver_at=time.time() + 0.3)
    assert await stream.destroy()
    await stream.append({"n": 2})
    async with stream.reader(start=OLDEST) as reader:
        assert numbers([await reader.receive(5)]) == [2]
        await nothing_comes(reader, 0.8)


async def test_a_writer_sends_what_is_delayed(client: Client) -> None:
    """In order with the rest, once by its id; a receipt has no position before it is there."""
    stream = client.stream("orders")
    due = time.time() + 1.0
    async with stream.writer() as writer:
        waiting = await writer.send({"n": 1}, deliver_at=due, receipt=True)
        await writer.send({"n": 2}, id="a", deliver_at=due + 0.001)
        again = await writer.send({"n": 2}, id="a", deliver_at=due + 0.001, receipt=True)
        there = await writer.send({"n": 0}, receipt=True)
        past = await writer.send({"n": 9}, deliver_at=1.0, receipt=True)
        await writer.flush()
        assert (await waiting, await again) == (None, None)
        assert await there is not None
        assert await past is not None
        assert writer.statistics().stored == 5
        assert (await stream.info()).delayed == 2
        with pytest.raises(ConfigError, match="time zone"):
            await writer.send({"n": 3}, deliver_at=datetime.now())  # noqa: DTZ005

    async def all_there() -> bool:
        return await stream.length() == 4

    await soon(all_there, "what waited is there")
    assert numbers(await everything(stream)) == [0, 9, 1, 2]
    if client.url.scheme != "memory":
        async with stream.writer(idempotent=False) as bare:
            with pytest.raises(ConfigError, match="needs a session"):
                await bare.send({"n": 3}, deliver_at=due)


async def test_of_a_refused_batch_nothing_waits_either(servers: str) -> None:
    """Another program has put something else in the stream's place."""
    async with connect(servers) as client:
        writer = client.stream("orders").writer()
        async with writer:
            await writer.send({"n": 0})
            await writer.flush()
            await client.redis.set("orders", "theirs")
            await writer.send({"n": 1}, deliver_at=time.time() + 60)
            await writer.send({"n": 2})
            with pytest.raises(BackendRejected, match="WRONGTYPE"):
                await writer.flush()
        assert await client.redis.zcard("penstock:{orders}:orders:delayed") == 0
