"""Whoever opened a stream before its first event finds its shards, and is in nobody's way."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest

from penstock import NEWEST, OLDEST, App, Client, ConfigError, Signal, Stream, connect
from streams.helping import PATIENCE, everything, fill, number, numbers, soon, take

pytestmark = pytest.mark.one_loop

Share = Literal["events", "shards"]
COUNT = 40


@pytest.fixture
async def other(url: str) -> AsyncIterator[Client]:
    """Another program."""
    async with connect(url) as opened:
        yield opened


async def born(client: Client, count: int = COUNT) -> Stream[Any]:
    """The stream comes to be in three shards."""
    stream = client.stream("orders", shards=3)
    for n in range(count):
        await stream.append({"n": n}, key=f"k{n % 7}")
    return stream


@pytest.mark.parametrize("share", ["events", "shards"])
@pytest.mark.parametrize("running", [True, False], ids=["running", "left"])
async def test_a_member_that_was_first_finds_the_shards(
    client: Client, other: Client, share: Share, running: bool
) -> None:
    """Each event once, whether it runs on meanwhile, or another one comes later."""
    group = client.stream("orders").group("g", share=share, lease=0.5, start=NEWEST)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(group)
        if not running:
            await stack.aclose()
        stream = await born(other)
        if not running:
            group = client.stream("orders").group("g", share=share, lease=0.5, start=NEWEST)
            await stack.enter_async_context(group)
        events = await take(aiter(group), COUNT)
        group.ack(events)
        await group.flush()
        assert await group.lag() == 0
        await stream.append({"n": COUNT}, key="k")
        events += await take(aiter(group), 1)
        group.ack(events[-1:])
        await group.flush()
    assert sorted(numbers(events)) == list(range(COUNT + 1))
    by_key = defaultdict[str | None, list[int]](list)
    for event in events:
        by_key[event.key].append(number(event))
    assert share == "events" or all(mine == sorted(mine) for mine in by_key.values())
    assert [one.lag for one in await stream.groups()] == [0, 0, 0]
    assert await stream.destroy()
    if client.url.scheme != "memory":
        left = [name async for name in client.redis.scan_iter("*")]
        assert [name for name in left if b":w@" not in name] == []


async def test_two_members_that_were_first_share_what_comes(client: Client, other: Client) -> None:
    """Both move over: every event is with one of them, and the shards are spread."""
    options: dict[str, Any] = {"share": "shards", "lease": 0.5}
    seen, there = list[int](), list[str]()

    async def work(stream: Stream[Any]) -> None:
        async with stream.group("g", **options) as group:
            there.append(group.member)
            async for event in group:
                seen.append(number(event))
                group.ack(event)

    async with asyncio.TaskGroup() as tasks:
        workers = [tasks.create_task(work(one.stream("orders"))) for one in (client, other)]
        await soon(lambda: len(there) == 2, "they are there")
        async with client.stream("orders", shards=4).writer() as writer:
            for n in range(200):
                await writer.send({"n": n}, key=f"k{n % 20}")
        await soon(lambda: len(seen) >= 200, "all are seen")
        stream = client.stream("orders")
        await stream.format()
        await soon(lambda: _owners(stream, 2), "the shards are spread")
        for worker in workers:
            worker.cancel()
    assert sorted(set(seen)) == list(range(200))


async def _owners(stream: Stream[Any], count: int) -> bool:
    owners = {member.name for one in await stream.groups() for member in one.members}
    return len(owners) == count


async def test_an_app_that_was_first_handles_what_comes(url: str, other: Client) -> None:
    """Also where its results go to a stream that comes to be in shards later."""
    app, handled = App(url), list[int]()

    @app.on("orders", group="g", lease=0.5, into="results")
    async def handle(order: dict[str, str]) -> dict[str, str]:
        handled.append(int(order["n"]))
        return order

    async with app:
        await born(other)
        results = other.stream("results", shards=2)
        with contextlib.suppress(ConfigError):  # where the first result was quicker
            await results.append({"n": -1})
        await soon(lambda: len(handled) >= COUNT, "all are handled")
    assert sorted(handled) == list(range(COUNT))
    found = numbers(await everything(other.stream("results")))
    assert sorted(set(found) - {-1}) == list(range(COUNT))


@pytest.mark.parametrize("start", [NEWEST, OLDEST], ids=str)
async def test_a_reader_that_was_first_reads_all(client: Client, other: Client, start: Any) -> None:
    """Everything is new to it; its position goes on after that too."""
    async with client.stream("orders").reader(start=start) as reader:
        stream = await born(other)
        events = await take(aiter(reader), COUNT)
        assert sorted(numbers(events)) == list(range(COUNT))
        position = reader.position
    await stream.append({"n": COUNT})
    async with client.stream("orders").reader(start=position) as reader:
        assert numbers(await take(aiter(reader), 1)) == [COUNT]


@pytest.mark.parametrize("idempotent", [True, False])
async def test_a_writer_that_was_first_goes_over(
    client: Client, other: Client, signals: list[Signal], idempotent: bool
) -> None:
    """What it sends lies in the shard of its key, in order; receipts tell where."""
    async with client.stream("orders").writer(idempotent=idempotent) as writer:
        await born(other, 1)
        receipts = [
            await writer.send({"n": n}, key=f"k{n % 7}", receipt=True) for n in range(1, COUNT)
        ]
        await writer.flush()
        positions = {await receipt for receipt in receipts}
        await asyncio.sleep(0.6)  # a look of the client's at its streams
        await writer.send({"n": COUNT}, key="k0")
    statistics = writer.statistics()
    assert (statistics.sent, statistics.stored, statistics.failed) == (COUNT, COUNT, 0)
    assert (statistics.pending, statistics.pending_bytes) == (0, 0)
    events = await everything(other.stream("orders"))
    assert sorted(numbers(events)) == list(range(COUNT + 1))
    assert positions <= {event.position for event in events}
    shards = defaultdict[str | None, set[int]](set)
    for event in events:
        shards[event.key].add(event.shard)
    assert all(len(one) == 1 for one in shards.values())
    assert len(set.union(*shards.values())) > 1
    assert [one.kind for one in signals if one.kind == "shards-not-followed"] == []


async def test_an_idle_writer_that_was_first_goes_over(client: Client, other: Client) -> None:
    """The client's look tells it, with nothing refused."""
    async with client.stream("orders").writer() as writer:
        await born(other, 1)
        await soon(lambda: len(writer._routes.lanes) == 3, "it goes over")
        await writer.send({"n": 1})


async def test_single_appends_find_the_shards(client: Client, other: Client) -> None:
    """By a handle that was there before, in a call whose look was before, too."""
    stream = client.stream("orders")
    stream._format = await stream.format()
    await born(other, 1)
    await stream.append({"n": 1}, key="a")
    assert stream.shards == 3
    assert sorted(numbers(await everything(stream))) == [0, 1]


@pytest.mark.parametrize("count", [10, 10_500], ids=["few", "more than wait at once"])
async def test_many_appends_that_began_before_are_stored_once(
    client: Client, other: Client, count: int
) -> None:
    """The handle looked, and its lane was opened for one log; then the shards came."""
    stream = client.stream("orders")
    await stream._lane(0, False)
    stream._format = await stream.format()
    await born(other, 1)
    positions = await fill(stream, count, 1)
    assert len(positions) == count
    assert sorted(numbers(await everything(other.stream("orders")))) == list(range(count + 1))


async def test_who_asks_for_one_shard_is_refused_and_it_is_signalled(
    client: Client, other: Client, signals: list[Signal]
) -> None:
    """A handle with shards=1 cannot go with it: its reader is named, its writer fails."""
    stream = client.stream("orders", shards=1)
    async with stream.reader(), stream.writer() as writer:
        await born(other, 1)
        await soon(lambda: any(s.kind == "shards-not-followed" for s in signals), "it is told")
        await asyncio.sleep(0.6)  # another look: it is not told again
        await writer.send({"n": 1})
        with pytest.raises(ConfigError, match="has 3 shards, this handle asks for 1"):
            await writer.flush()
    told = [signal for signal in signals if signal.kind == "shards-not-followed"]
    assert len(told) == 2, "one for each"
    assert numbers(await everything(other.stream("orders"))) == [0]


async def test_a_group_made_by_hand_before_is_in_every_shard(client: Client, other: Client) -> None:
    """Where events were in one log already, shards are refused as ever."""
    async with client.stream("orders").group("g", lease=0.5):
        pass
    async with asyncio.timeout(PATIENCE):
        stream = await born(other, 6)
    assert await stream.create_group("h")
    assert {one.name for one in await stream.groups()} >= {"h"}
    await client.stream("plain").append({"n": 1})
    with pytest.raises(ConfigError, match="has 1 shards, this handle asks for 3"):
        await other.stream("plain", shards=3).append({"n": 2})
