"""Owners of shards are killed, stopped, and lose their group: nothing is lost, keys keep order."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from typing import Any

import pytest

import penstock
from faults.machinery import Team, asked, soon, watched
from faults.scenarios import LEASE
from penstock.backends.redis.keys import Keys
from penstock.event import Shard

pytestmark = pytest.mark.one_loop

SHARDS = 3
KEYS = 12


async def append(stream: penstock.Stream[Any], numbers: range) -> None:
    """Numbers, keyed by themselves."""
    async with stream.writer() as writer:
        for n in numbers:
            await writer.send({"n": n}, key=f"k{n % KEYS}")


def in_order(log: list[dict[str, Any]]) -> None:
    """Of each key, events were first handled in the order of the log."""
    first: dict[str, list[int]] = defaultdict(list)
    seen: set[int] = set()
    for line in log:
        if line["n"] not in seen:
            seen.add(line["n"])
            first[line["key"]].append(line["n"])
    for key, numbers in first.items():
        assert numbers == sorted(numbers), (key, numbers)


async def test_kills_of_owners_lose_nothing_and_keep_the_order_of_keys(
    embedded_url: str, team: Team
) -> None:
    """Under load, one after the other, while newcomers join; what repeats was in flight."""
    async with penstock.connect(embedded_url) as client:
        stream = client.stream("orders", shards=SHARDS)
        await append(stream, range(400))
        about = {"lease": LEASE, "share": "shards", "shards": SHARDS, "work": 0.001}
        workers = {name: team.start(name, embedded_url, **about) for name in "ab"}
        await team.joined(*workers)
        await soon(lambda: all(len(team.done(name)) > 20 for name in "ab"), "both work")
        workers["c"] = team.start("c", embedded_url, **about)
        await append(stream, range(400, 900))
        await soon(lambda: len(team.done("a")) > 100, "a works on")
        workers["a"].kill()
        await team.joined("c")
        await append(stream, range(900, 1200))
        await soon(lambda: len(team.done("c")) > 20, "c works")
        workers["b"].kill()
        await soon(lambda: len(team.done()) == 1200, "all are handled", 30)
    log = team.log("done")
    in_order(log)
    assert len(log) - 1200 <= 2 * 50, len(log)


async def test_a_stopped_owner_changes_nothing(redis7_url: str, team: Team) -> None:
    """SIGSTOP for three leases: its read, its commits, what it had not yielded: nothing counts."""
    async with penstock.connect(redis7_url) as client:
        stream = client.stream("orders")
        await append(stream, range(1400))
        about = {"lease": LEASE, "share": "shards", "work": 0.002, "ack_interval": 0.02}
        old = team.start("old", redis7_url, **about)
        await team.joined("old")
        await soon(lambda: len(team.done("old")) > 20, "the owner works")
        team.start("new", redis7_url, **about)
        await team.joined("new")
        old.pause()
        await soon(lambda: len(team.done("new")) > 40, "the standby works")
        positions = Keys("orders").positions
        before = asked(redis7_url, "HGET", positions, "g")
        known = len(team.log("start"))
        old.resume()
        await append(stream, range(1400, 1500))
        await soon(lambda: len(team.done()) == 1500, "all are handled", 30)
        await soon(lambda: team.signals("old", "member-lapsed"), "the old owner noticed")
        parse = penstock.Position.parse
        assert parse(asked(redis7_url, "HGET", positions, "g")) >= parse(before)
        # It finishes what it had in hand, and begins nothing.
        assert [a for a in team.log("start")[known:] if a["who"] == "old"] == []
        in_order(team.log("done"))


async def test_a_lost_group_goes_on_where_its_owner_knows_it_to_stand(servers: str) -> None:
    """What was kept is gone, the stream is the same: nothing is skipped, nothing comes twice."""
    async with watched(servers) as (client, signals):
        stream = client.stream("orders")
        await append(stream, range(20))
        async with stream.group("g", share="shards", lease=LEASE) as group:
            events = [await anext(group) for _ in range(20)]
            group.ack(events[:15])
            await group.flush()
            keys = Keys("orders")
            asked(servers, "DEL", keys.positions, keys.share("g"), keys.roster("g"))
            found = [await asyncio.wait_for(anext(group), 10.0) for _ in range(5)]
            assert [event.value["n"] for event in found] == ["15", "16", "17", "18", "19"]
            with pytest.raises(penstock.LeaseLost):
                group.ack(events[15:])
            group.ack(found)
            await group.flush()
        assert "group-lost" in [signal.kind for signal in signals]
        async with stream.group("g", share="shards", until=penstock.END) as group:
            assert [event async for event in group] == []


async def test_everything_lost_begins_at_the_oldest(embedded_url: str) -> None:
    """FLUSHALL: what is appended after it is handled, also at ids below the old ones."""
    async with watched(embedded_url) as (client, signals):
        stream = client.stream("orders")
        await append(stream, range(5))
        async with stream.group("g", share="shards", lease=LEASE) as group:
            group.ack([await anext(group) for _ in range(5)])
            await group.flush()
            asked(embedded_url, "FLUSHALL")
            for n in (5, 6):
                asked(embedded_url, "XADD", "orders", f"{n}-1", "n", n)
            found = [await asyncio.wait_for(anext(group), 10.0) for _ in range(2)]
            assert [event.value["n"] for event in found] == ["5", "6"]
            group.ack(found)
            await group.flush()
        assert "group-lost" in [signal.kind for signal in signals]


async def test_another_stream_under_the_name_is_read_from_its_beginning(embedded_url: str) -> None:
    """The stream was deleted and made anew, with ids below what was committed."""
    async with watched(embedded_url) as (client, signals):
        stream = client.stream("orders")
        await append(stream, range(5))
        async with stream.group("g", share="shards", lease=LEASE) as group:
            group.ack([await anext(group) for _ in range(5)])
            await group.flush()
            asked(embedded_url, "DEL", "orders")
            asked(embedded_url, "XADD", "orders", "7-1", "n", 7)
            event = await asyncio.wait_for(anext(group), 15.0)
            assert event.value["n"] == "7"
        assert "group-lost" in [signal.kind for signal in signals]


async def test_what_is_trimmed_unread_is_counted(servers: str) -> None:
    """By the exact number, whether it is behind or has caught up."""
    async with watched(servers) as (client, signals):
        stream = client.stream("orders")
        await append(stream, range(100))
        async with stream.group("g", share="shards", max_in_flight=10, lease=LEASE) as group:
            group.ack([await anext(group)])
            await asyncio.sleep(0.1)
            asked(servers, "XTRIM", "orders", "MAXLEN", "=", 30)
            handled = 1
            while (event := await group.receive(2.0)) is not None:
                handled += 1
                group.ack(event)
            lost = [signal.count or 0 for signal in signals if signal.kind == "trimmed-pending"]
            assert sum(lost) == 100 - handled
            assert handled < 60


async def test_members_come_and_go_under_load(embedded_url: str) -> None:
    """Orderly moves repeat nothing, lose nothing, and keep the order of keys."""
    log: list[dict[str, Any]] = []
    async with penstock.connect(embedded_url) as client:
        stream = client.stream("orders", shards=SHARDS)

        async def member(seconds: float) -> None:
            async with stream.group("g", share="shards", lease=5.0) as group:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        async for event in group:
                            log.append({"n": int(event.value["n"]), "key": event.key})
                            group.ack(event)

        async def producer() -> None:
            for first in range(0, 1000, 20):
                await append(stream, range(first, first + 20))
                await asyncio.sleep(0.04)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(producer())
            for seconds in (1.0, 1.8, 2.6):
                tasks.create_task(member(seconds))
                await asyncio.sleep(0.3)
        async with stream.group("g", share="shards", until=penstock.END) as group:
            async for event in group:
                log.append({"n": int(event.value["n"]), "key": event.key})
                group.ack(event)
    assert sorted(line["n"] for line in log) == list(range(1000))
    in_order(log)


async def test_trimming_never_overtakes_a_group(embedded_url: str) -> None:
    """Guarded trims leave what no owner has committed, in every shard."""
    async with penstock.connect(embedded_url) as client:
        stream = client.stream("orders", shards=2)
        await append(stream, range(40))
        async with stream.group("g", share="shards", lease=LEASE) as group:
            events = [await anext(group) for _ in range(40)]
            group.ack(events[:10])
            await group.flush()
            await stream.trim(max_events=0)
            backend: Any = client.backend
            left = 0
            for index in range(2):
                left += len(
                    await backend.read_range(Shard("orders", index, 2), None, None, 99, False)
                )
            assert left >= 30
            group.ack(events[10:])
