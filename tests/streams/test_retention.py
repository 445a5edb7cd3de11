"""Retention: stored with the stream, kept by whoever has it open, never past what groups need."""

from __future__ import annotations

import asyncio
import time

import pytest

from penstock import (
    OLDEST,
    Client,
    ConfigError,
    NotFound,
    Retention,
    Signal,
    StreamFull,
    connect,
)
from penstock.rules.retention import over
from streams.helping import everything, fill, numbers, soon, take

pytestmark = pytest.mark.one_loop


async def _length(client: Client, name: str, wanted: int) -> None:
    async def held() -> bool:
        return await client.stream(name).length() == wanted

    await soon(held, f"{name} holds {wanted} events")


@pytest.mark.conformance("PU-007")
async def test_the_oldest_go_beyond_max_events(client: Client, url: str) -> None:
    """By any client that has the stream open; the retention is adopted, another is refused."""
    keep = Retention(max_events=10)
    await fill(client.stream("orders", retention=keep), 30)
    assert (await client.stream("orders").info()).retention == keep
    async with connect(url) as other:
        adopted = other.stream("orders")
        async with adopted.writer() as writer:
            await writer.send({"n": 30})
            await writer.flush()
            await _length(client, "orders", 10)
        with pytest.raises(ConfigError, match="this handle asks for"):
            await other.stream("orders", retention=Retention(max_events=5)).append({"n": 1})
    assert numbers(await everything(client.stream("orders"))) == list(range(21, 31))


async def test_what_a_group_has_not_acked_stays(client: Client) -> None:
    """Guarded by default; pending and unread alike; it goes once it is acked. Plain asks not."""
    stream = client.stream("orders", retention=Retention(max_events=5))
    await fill(stream, 20)
    async with stream.group("g", lease=0.5, max_in_flight=10) as group:
        got = await take(aiter(group), 10)
        await asyncio.sleep(1.2)
        assert await stream.length() == 20
        group.ack(got[:7])
        await group.flush()
        await _length(client, "orders", 13)
        group.ack(got[7:])
        group.ack(await take(aiter(group), 10))
        await group.flush()
        await _length(client, "orders", 5)
    plain = client.stream("plain", retention=Retention(max_events=5, guarded=False))
    await fill(plain, 20)
    async with plain.group("g", lease=0.5) as group:
        await _length(client, "plain", 5)


async def test_shards_are_kept_one_by_one(client: Client) -> None:
    """Each keeps so many; every shard has a copy of what is stored."""
    stream = client.stream("orders", shards=3, retention=Retention(max_events=4))
    await fill(stream, 30)
    async with stream.reader():
        await _length(client, "orders", 12)
    assert sorted(numbers(await everything(stream))) == list(range(18, 30))


@pytest.mark.conformance("SS-019")
async def test_what_is_too_old_goes(client: Client) -> None:
    """By the time of appending, on the server's clock."""
    stream = client.stream("orders", retention=Retention(max_age=0.6))
    await fill(stream, 3)
    async with stream.reader(start=OLDEST) as reader:
        assert numbers(await take(aiter(reader), 3)) == [0, 1, 2]
        await _length(client, "orders", 0)
        await fill(stream, 1, 3)
        assert numbers([await reader.receive(5)]) == [3]


async def test_what_takes_too_much_memory_goes(client: Client) -> None:
    """By the server's estimate, so only about; each shard by itself, whatever the others hold."""
    keep = Retention(max_bytes=200_000)
    stream = client.stream("blobs", type=bytes, shards=2, retention=keep)
    await asyncio.gather(*(stream.append(bytes(1000), key="a") for _ in range(600)))

    async def small() -> bool:
        info = await stream.info()
        return info.bytes is not None and info.bytes < 260_000

    async with stream.reader():
        await soon(small, "the stream is small")
    assert 100 < await stream.length() < 400


@pytest.mark.parametrize("url", ["embedded_server", "redis7_server"], indirect=True)
async def test_marks_outlive_what_waits(client: Client) -> None:
    """An event due in a day comes into a stream that is still known to be of this type."""
    stream = client.stream("orders", type=dict, retention=Retention(ttl=60.0, sliding=True))
    await stream.append({"n": 1}, deliver_at=time.time() + 86_400)
    meta = "penstock:{orders}:orders:meta"
    for step in range(3):
        assert await client.redis.pttl(meta) > 86_400_000
        if step == 0:
            await stream.append({"n": 0})
        else:
            await client.redis.persist(meta)
            await stream.set_retention(Retention(ttl=5.0))


async def test_a_cap_refuses(client: Client) -> None:
    """Whatever groups need: `StreamFull`, nothing stored; room again, and it is taken again."""
    stream = client.stream("orders", retention=Retention(cap=10))
    await fill(stream, 10)
    with pytest.raises(StreamFull, match="at most 10 events"):
        await stream.append({"n": 10})
    async with stream.writer() as writer:
        await writer.send({"n": 10})
        with pytest.raises(StreamFull):
            await writer.flush()
        await stream.trim(max_events=9)
        await writer.send({"n": 11})
    assert numbers(await everything(stream)) == [*range(1, 10), 11]


async def test_a_full_stream_keeps_delayed_events_waiting(client: Client) -> None:
    """They are not refused, having been accepted, and come when there is room."""
    stream = client.stream("orders", retention=Retention(cap=2))
    await stream.append({"n": 9}, deliver_at=time.time() + 0.1)
    await fill(stream, 2)
    async with stream.reader():
        await asyncio.sleep(0.8)
        assert (await stream.info()).delayed == 1
        await stream.trim(max_events=1)
        await _length(client, "orders", 2)
    assert numbers(await everything(stream)) == [1, 9]


async def test_a_cap_drops_the_oldest_counted_and_signalled(
    client: Client, signals: list[Signal]
) -> None:
    """Also what a group needs; one signal for many, with their number."""
    keep = Retention(cap=10, at_cap="drop-oldest")
    stream = client.stream("orders", retention=keep)
    async with stream.group("g", lease=0.5, max_in_flight=2):
        await fill(stream, 25)
        assert await stream.length() == 10
        await soon(
            lambda: sum(s.count or 0 for s in signals if s.kind == "cap-dropped") == 15,
            "what was dropped is signalled",
        )
    assert len([s for s in signals if s.kind == "cap-dropped"]) < 5


async def test_a_group_that_nobody_works_for_is_named(
    client: Client, signals: list[Signal]
) -> None:
    """It keeps events from being removed: once, with what waits for it."""
    keep = Retention(max_events=5, absent=0.4)
    stream = client.stream("orders", retention=keep)
    await fill(stream, 20)
    async with stream.group("gone", lease=0.5) as group:
        group.ack(await take(aiter(group), 3))
    async with stream.reader():
        await soon(lambda: [s for s in signals if s.kind == "group-absent"], "the group is named")
    (named, *_) = [s for s in signals if s.kind == "group-absent"]
    assert (named.stream, named.group) == ("orders", "gone")
    assert await stream.length() == 17


@pytest.mark.conformance("PU-009", "PU-064")
async def test_a_stream_has_its_time(client: Client) -> None:
    """Absolute: counted from the first append; then a stream of that name is new."""
    stream = client.stream("orders", retention=Retention(ttl=0.8))
    began = time.monotonic()
    while time.monotonic() - began < 0.4:
        await stream.append({"n": 1})
        await asyncio.sleep(0.05)

    async def gone() -> bool:
        return await client.stream("orders").length() == 0

    await soon(gone, "the stream is gone")
    assert time.monotonic() - began > 0.7
    with pytest.raises(NotFound):
        await client.stream("orders").info()
    await stream.append({"n": 2})
    assert (await stream.info()).retention == Retention(ttl=0.8)
    await soon(gone, "the new one goes too")


@pytest.mark.conformance("PU-010")
async def test_a_sliding_time_is_counted_from_the_last_append(client: Client) -> None:
    """As long as something is appended, it stays."""
    stream = client.stream("orders", retention=Retention(ttl=1.5, sliding=True))
    began = time.monotonic()
    count = 0
    while time.monotonic() - began < 2.2:
        await stream.append({"n": count})
        count += 1
        await asyncio.sleep(0.1)
    assert await stream.length() == count

    async def gone() -> bool:
        return await stream.length() == 0

    await soon(gone, "the stream is gone")


async def test_it_can_be_changed(client: Client, url: str) -> None:
    """For everybody, from now on; and dropped. Streams of others have none."""
    stream = client.stream("orders", shards=2, retention=Retention(max_events=5))
    await fill(stream, 20)
    await stream.set_retention(Retention(max_events=3))
    async with connect(url) as other, other.stream("orders").reader():
        await _length(client, "orders", 6)
    await stream.set_retention(None)
    assert (await stream.info()).retention is None
    async with stream.reader():
        await fill(stream, 20)
        await asyncio.sleep(0.8)
        assert await stream.length() == 26
    with pytest.raises(NotFound):
        await client.stream("nobody").set_retention(Retention(max_events=3))
    with pytest.raises(ConfigError, match="without marks"):
        client.stream("theirs", foreign=True, retention=Retention(max_events=3))


def test_limits_that_cannot_be_kept_are_refused() -> None:
    """And what is stored is read back as it was."""
    for wrong in (
        {"max_events": 0},
        {"max_age": -1.0},
        {"ttl": float("inf")},
        {"cap": 10**18},
        {"max_events": 1.5},
        {"sliding": True},
        {"at_cap": "block"},
        {"cap": 5, "max_events": 6},
    ):
        with pytest.raises(ConfigError):
            Retention(**wrong)  # type: ignore[arg-type]
    keep = Retention(max_events=7, max_age=0.5, cap=9, at_cap="drop-oldest", ttl=3.0, sliding=True)
    assert Retention.read(keep.stored()) == keep
    assert Retention.read("") is None
    with pytest.raises(ConfigError, match="update it"):
        Retention.read('{"max_moons": 3}')


def test_what_is_over() -> None:
    """Longer than so many events in every shard."""
    assert not over(Retention(max_events=10), 20, (None, None), 0.0)
    assert over(Retention(max_events=10), 21, (None, None), 0.0)


@pytest.mark.parametrize("shards", [1, 2])
async def test_a_change_disturbs_no_writer(client: Client, url: str, shards: int) -> None:
    """Changed by another client; the writer that asked for the old one goes on, also anew."""
    keep, other_keep = Retention(max_events=1000), Retention(max_events=2000)
    async with connect(url) as other:
        stream = other.stream("orders", shards=shards, retention=keep)
        async with stream.writer() as writer:
            await writer.send({"n": 0}, key="a")
            await writer.flush()
            adopted = client.stream("orders")
            await adopted.append({"n": 1}, key="a")
            for changed in (other_keep, None):
                await client.stream("orders").set_retention(changed)
                if client.url.scheme != "memory":
                    await client.redis.execute_command("CLIENT", "KILL", "TYPE", "normal")
                await writer.send({"n": 2}, key="a")
                await writer.flush()
                assert (await client.stream("orders").info()).retention == changed
                await adopted.append({"n": 3}, key="a")
                async with adopted.writer() as again:
                    await again.send({"n": 4}, key="a")


async def test_a_group_that_was_set_back_keeps_what_it_will_read(servers: str) -> None:
    """By another program, while events further on are pending."""
    async with connect(servers) as client:
        stream = client.stream("orders")
        positions = await fill(stream, 10)
        redis = client.redis
        await redis.xgroup_create("orders", "g", "0")
        await redis.xreadgroup("g", "c", {"orders": ">"}, count=10)
        await redis.xack("orders", "g", *map(str, positions[:9]))
        await redis.xgroup_setid("orders", "g", str(positions[2]))
        await stream.trim(max_events=1)
        assert numbers(await everything(stream)) == list(range(3, 10))
        await redis.xgroup_setid("orders", "g", str(positions[9]))
        await stream.trim(max_events=1)
        assert numbers(await everything(stream)) == [9]
