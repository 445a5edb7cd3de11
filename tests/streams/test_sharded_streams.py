"""Streams in shards: keys keep their order, everything sees one stream, on every backend."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from penstock import Client, ConfigError, Group, connect, idle
from penstock.rules.partition import shard_of
from streams.helping import everything, fill, numbers, soon, take

pytestmark = pytest.mark.one_loop


@pytest.mark.conformance("SS-012", "SS-018")
async def test_a_key_has_one_shard_and_keeps_its_order(client: Client) -> None:
    """By single appends and by a writer alike; the shard is that of the hash, for ever."""
    stream = client.stream("orders", shards=4)
    async with stream.writer() as writer:
        for n in range(200):
            await writer.send({"n": n}, key=f"k{n % 10}")
    for n in range(200, 240):
        await stream.append({"n": n}, key=f"k{n % 10}")
    events = await everything(stream)
    for key in range(10):
        mine = [event for event in events if event.key == f"k{key}"]
        assert numbers(mine) == list(range(key, 240, 10))
        assert {event.shard for event in mine} == {shard_of(f"k{key}", 4)}


@pytest.mark.conformance("SS-017")
async def test_events_without_a_key_go_round(client: Client) -> None:
    """By writer, append_many and single appends: no shard gets all."""
    stream = client.stream("orders", shards=4)
    async with stream.writer() as writer:
        for n in range(100):
            await writer.send({"n": n})
    await fill(stream, 100, 100)
    for n in range(200, 240):
        await stream.append({"n": n})
    events = await everything(stream)
    assert sorted(numbers(events)) == list(range(240))
    assert Counter(event.shard for event in events) == dict.fromkeys(range(4), 60)


@pytest.mark.conformance("SS-061")
async def test_other_handles_adopt_what_is_stored(client: Client, url: str) -> None:
    """Or are refused: with another number, in one shard, and for a shard's own name."""
    await client.stream("orders", shards=3).append({"n": 1})
    async with connect(url) as other:
        adopted = other.stream("orders")
        info = await adopted.info()
        assert (adopted.shards, info.marks and info.marks.shards) == (1, 3)
        await adopted.append({"n": 2})
        assert adopted.shards == 3
        with pytest.raises(ConfigError, match="has 3 shards, this handle asks for 2"):
            await other.stream("orders", shards=2).append({"n": 3})
        with pytest.raises(ConfigError, match="must not end in ':' and digits"):
            other.stream("orders:0")
        assert await adopted.length() == 2


async def test_a_stream_of_one_log_stays_one(client: Client) -> None:
    """Its key is its name: it is not split by asking for shards."""
    await client.stream("orders").append({"n": 1})
    with pytest.raises(ConfigError, match="has 1 shards, this handle asks for 4"):
        await client.stream("orders", shards=4).append({"n": 2})


async def test_a_member_shares_all_shards(client: Client, url: str) -> None:
    """Two members, four shards: each event once, acks reach every shard, dead names are gone."""
    stream = client.stream("orders", shards=4)
    await fill(stream, 400)
    seen: Counter[int] = Counter()

    async def work(member: Group[Any]) -> None:
        async with member:
            async for event in member:
                seen.update(numbers([event]))
                member.ack(event)

    async with connect(url) as other:
        end = idle(0.3)
        members = [
            handle.group("g", lease=0.5, until=end, max_in_flight=50)
            for handle in (stream, other.stream("orders"))
        ]
        await asyncio.gather(*map(work, members))
    assert seen == dict.fromkeys(range(400), 1)
    groups = await stream.groups()
    assert [(group.shard.index, group.pending, group.lag) for group in groups] == [
        (index, 0, 0) for index in range(4)
    ]


async def test_what_a_dead_member_held_comes_from_every_shard(client: Client, url: str) -> None:
    """Leaving with an error hands back, in each shard; the next member gets them all."""
    stream = client.stream("orders", shards=3)
    await fill(stream, 30)
    async with connect(url) as other:
        async with other.stream("orders").group("g", lease=0.5) as first:
            await take(aiter(first), 30)
        async with stream.group("g", lease=0.5) as second:
            again = await take(aiter(second), 30)
            second.ack(again)
            await second.flush()
    assert sorted(numbers(again)) == list(range(30))


@pytest.mark.conformance("PU-014", "SS-019")
async def test_administration_counts_all_shards(client: Client) -> None:
    """Length, trim (by shard), read_range and remove by shard, destroy of everything."""
    stream = client.stream("{t}orders", shards=2)
    await fill(stream, 20)
    info = await stream.info()
    assert (info.length, info.added, len(info.newest)) == (20, 20, 2)
    assert await stream.trim(max_events=4) == 12
    ranges = [await stream.read_range(shard=index) for index in range(2)]
    assert sorted(number for events in ranges for number in numbers(events)) == list(range(12, 20))
    assert await stream.remove([ranges[1][0].position], shard=1) == 1
    assert await stream.length() == 7
    async with stream.group("g", lease=0.5) as group:
        await take(aiter(group), 1)
    assert await stream.destroy()
    assert not await stream.destroy()
    if client.url.scheme != "memory":
        await soon(lambda: _no_keys(client), "no key is left but sessions")
    await client.stream("{t}orders").append({"n": 1})
    assert await client.stream("{t}orders").length() == 1


@pytest.mark.conformance("SS-061")
async def test_a_stream_of_others_is_not_taken_for_a_shard(redis7_url: str) -> None:
    """Their key is where ours would be: refused, and left as it was."""
    async with connect(redis7_url) as client:
        await client.redis.execute_command("XADD", "orders:1", "*", "theirs", "1")
        with pytest.raises(ConfigError, match="'orders:1' must be free for a shard"):
            async with client.stream("orders", shards=2).writer():
                pass
        theirs = client.stream("orders:1", foreign=True)
        assert await theirs.length() == 1


@pytest.mark.conformance("SS-018")
async def test_one_shard_can_be_read_as_a_foreign_stream(redis7_url: str) -> None:
    """By its own key, as any other program would: it is one log then, not the stream."""
    async with connect(redis7_url) as client:
        await fill(client.stream("orders", shards=2), 10)
        one = client.stream("orders:1", foreign=True)
        assert len(await everything(one)) == 5
        assert one.shards == 1


async def _no_keys(client: Client) -> bool:
    keys = await client.redis.keys("*")
    return not [key for key in keys if b":w@" not in key]
