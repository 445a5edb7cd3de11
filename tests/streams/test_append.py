"""Appends of single events and lists, and what a stream says about itself."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from penstock import (
    Client,
    ConfigError,
    EncodeError,
    NotFound,
    OutcomeUnknown,
    PayloadTooLarge,
    Retention,
    StreamFull,
    connect,
)
from penstock.ports import Marks
from penstock.streams import single_lanes
from streams.helping import PATIENCE, everything, fill, number, numbers


async def test_all_that_is_said_about_an_event_comes_back_with_it(client: Client) -> None:
    """Key, topic, name, headers, id and time, in both layouts."""
    when = datetime(2026, 1, 2, 3, 4, 5, 250_000, tzinfo=UTC)
    for name, options in (("plain", {}), ("typed", {"layout": "value"})):
        stream = client.stream(name, **options)
        position = await stream.append(
            {"n": "7"},
            name="order.paid",
            topic="eu",
            key="customer-3",
            headers={"source": "web", "": "empty", "ü": "€\udcff"},
            id="abc",
            timestamp=when,
        )
        [event] = await everything(stream)

        assert event.position == position
        assert (event.stream, event.shard, event.value) == (name, 0, {"n": "7"})
        assert (event.name, event.topic, event.key) == ("order.paid", "eu", "customer-3")
        assert event.headers == {"source": "web", "": "empty", "ü": "€\udcff"}
        assert (event.id, event.timestamp) == ("abc", when.timestamp())
        assert (event.deliveries, event.attempts) == (1, 0)


@pytest.mark.conformance("PU-015")
async def test_without_metadata_there_is_none_and_the_time_is_that_of_appending(
    client: Client,
) -> None:
    """An empty key is a key, an empty topic is none."""
    before = time.time()
    stream = client.stream("orders")
    await stream.append({"a": ""}, key="")
    await stream.append({"a": "1"}, topic="", name="", headers={})
    empty, bare = await everything(stream)

    assert (empty.key, empty.value) == ("", {"a": ""})
    assert (bare.key, bare.id, bare.name, bare.topic, bare.headers) == (None, None, "", "", {})
    assert bare.fields == ((b"a", b"1"),)
    assert before - 1 < bare.timestamp < time.time() + 1


@pytest.mark.conformance("CR-011")
async def test_plain_values_come_back_as_text(client: Client) -> None:
    """Numbers as they are written, bytes that are no UTF-8 unharmed."""
    stream = client.stream("orders")
    await stream.append({"i": -7, "f": 1.5, "b": b"\xff\x00", "s": "ü", "e": 1e300})
    [event] = await everything(stream)

    assert {k: v for k, v in event.value.items() if k != "e"} == {
        "i": "-7",
        "f": "1.5",
        "s": "ü",
        "b": b"\xff\x00".decode("utf-8", "surrogateescape"),
    }
    assert float(event.value["e"]) == 1e300
    assert dict(event.fields)[b"b"] == b"\xff\x00"


async def test_appends_at_the_same_time_are_stored_in_the_order_of_the_calls(
    client: Client,
) -> None:
    """They share batches; each gets its own position."""
    stream = client.stream("orders")
    positions = await asyncio.gather(
        *(stream.append({"n": n}, timeout=PATIENCE) for n in range(1200))
    )

    assert positions == sorted(positions)
    found = await everything(stream)
    assert numbers(found) == list(range(1200))
    assert [event.position for event in found] == positions


async def test_many_values_are_stored_in_order_with_their_positions(client: Client) -> None:
    """Also more of them than fit in a batch; and none at all."""
    stream = client.stream("orders")
    assert await stream.append_many([]) == []
    positions = await fill(stream, 1501)

    assert [event.position for event in await everything(stream)] == positions
    assert await stream.length() == 1501


async def test_of_many_values_with_a_bad_one_nothing_is_sent(client: Client) -> None:
    """It is found before the first is sent."""
    stream = client.stream("orders")
    with pytest.raises(EncodeError, match="'n'"):
        await stream.append_many([{"n": 1}, {"n": None}, {"n": 3}])

    assert await stream.length() == 0


async def test_of_many_values_those_that_are_stored_are_counted(client: Client) -> None:
    """A cap lets a first part in: who is told "not stored" would append that part again."""
    stream = client.stream("orders", retention=Retention(cap=700))
    with pytest.raises(OutcomeUnknown) as told:
        await fill(stream, 1200)

    found = told.value
    assert isinstance(found.__cause__, StreamFull)
    assert numbers(await everything(stream)) == list(range(found.stored))
    assert found.stored >= 500
    assert (found.unknown, found.unsent) == (0, 1200 - found.stored)
    with pytest.raises(StreamFull):
        await fill(stream, 300)
    assert await stream.length() == found.stored


async def test_one_bad_append_leaves_those_beside_it_alone(client: Client) -> None:
    """Though they would have shared a batch."""
    stream = client.stream("orders")
    done = await asyncio.wait_for(
        asyncio.gather(
            stream.append({"n": 1}),
            stream.append({"n": "\ud800"}),
            stream.append({"n": 10**5000}),
            stream.append({"n": 4}),
            return_exceptions=True,
        ),
        PATIENCE,
    )

    assert [type(outcome).__name__ for outcome in done[1:3]] == ["EncodeError"] * 2
    assert numbers(await everything(stream)) == [1, 4]


@pytest.mark.parametrize("first", [True, False], ids=["new", "known to others"])
async def test_first_appends_at_the_same_time_look_once(
    client: Client, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    """A look for each of them would keep a server busy for seconds."""
    if not first:
        await client.stream("orders").append({"n": -1})
    looks, describe = 0, client.backend.describe

    async def counted(stream: str) -> Any:
        nonlocal looks
        looks += 1
        return await describe(stream)

    monkeypatch.setattr(client.backend, "describe", counted)
    stream = client.stream("orders")
    await asyncio.gather(*(stream.append({"n": n}) for n in range(100)))
    assert looks <= 3
    assert numbers(await everything(stream))[-100:] == list(range(100))


async def test_appends_to_many_streams_keep_few_sessions_open(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is under way is not closed for it, and each stream's order is kept."""
    monkeypatch.setattr(single_lanes, "MOST", 5)
    streams = [client.stream(f"orders-{n}") for n in range(20)]
    for turn in range(2):
        await asyncio.gather(*(stream.append({"n": 2 * turn}) for stream in streams))
        for stream in streams:
            await stream.append({"n": 2 * turn + 1})
    await client.stream("last").append({"n": 0})
    assert len(client._lanes) <= 5
    for stream in streams:
        assert numbers(await everything(stream)) == [0, 1, 2, 3]


@pytest.mark.conformance("PU-008")
async def test_only_if_exists_makes_no_stream(client: Client) -> None:
    """It is NotFound until somebody else has made it."""
    stream = client.stream("orders")
    with pytest.raises(NotFound, match="orders"):
        await stream.append({"n": 1}, only_if_exists=True)
    with pytest.raises(NotFound, match="'orders'"):
        await stream.info()
    assert await client.backend.describe("orders") is None

    await stream.append({"n": 2})
    await stream.append({"n": 3}, only_if_exists=True)
    assert numbers(await everything(stream)) == [2, 3]


async def test_an_event_over_the_limit_is_refused_and_nothing_is_sent(url: str) -> None:
    """With its size and the limit."""
    async with connect(url, max_event_bytes=1000) as client:
        stream = client.stream("orders")
        with pytest.raises(PayloadTooLarge, match="at most 1000 bytes, got 1001") as error:
            await stream.append({"a": "x" * 1000})
        assert (error.value.size, error.value.limit) == (1001, 1000)
        assert await stream.length() == 0

        await stream.append({"a": "x" * 999})
        assert await stream.length() == 1


async def test_the_default_limit_is_one_mebibyte(client: Client) -> None:
    """An event of that size goes through."""
    stream = client.stream("blobs", type=bytes)
    await stream.append(b"x" * ((1 << 20) - 1))
    with pytest.raises(PayloadTooLarge, match="1048576"):
        await stream.append(b"x" * (1 << 20))

    [event] = await everything(stream)
    assert len(event.value) == (1 << 20) - 1


async def test_a_stream_tells_what_it_holds(client: Client) -> None:
    """Length, ends, marks, groups; and by range, forth and back."""
    stream = client.stream("orders")
    assert await stream.length() == 0
    assert await stream.groups() == []
    positions = await fill(stream, 5)
    async with stream.group("billing"):
        [group] = await stream.groups()
    info = await stream.info()

    assert (info.name, info.length, info.added, info.groups) == ("orders", 5, 5, 1)
    assert info.marks == Marks("fields", "fields", 1)
    assert (info.oldest, info.newest) == ((positions[0],), (positions[-1],))
    assert (group.name, group.shard.stream) == ("billing", "orders")
    assert numbers(await stream.read_range()) == [0, 1, 2, 3, 4]
    assert numbers(await stream.read_range(positions[1], positions[3])) == [1, 2, 3]
    assert numbers(await stream.read_range(limit=2, reverse=True)) == [4, 3]


@pytest.mark.conformance("PU-013", "PU-014")
async def test_events_are_removed_and_streams_destroyed(client: Client) -> None:
    """And a stream of the same name may then have another format."""
    stream = client.stream("orders")
    positions = await fill(stream, 4)
    assert await stream.remove([positions[1], positions[1]]) == 1
    assert numbers(await everything(stream)) == [0, 2, 3]

    assert await stream.trim(max_events=1) == 2
    assert numbers(await everything(stream)) == [3]
    assert await stream.trim(before=positions[3]) == 0

    assert await stream.destroy()
    assert not await stream.destroy()
    assert await stream.length() == 0
    again = client.stream("orders", type=bytes)
    await again.append(b"x")
    assert [event.value for event in await everything(again)] == [b"x"]


async def test_trimming_keeps_what_a_group_still_needs(client: Client) -> None:
    """Unless one asks for the contrary."""
    stream = client.stream("orders")
    await fill(stream, 10)
    async with stream.group("billing") as group:
        events = [await group.receive(PATIENCE) for _ in range(4)]
        group.ack([event for event in events[:3] if event])
        await group.flush()
        assert await stream.trim(max_events=1) == 3
        assert number((await stream.read_range(limit=1))[0]) == 3
        assert await stream.trim(max_events=1, acked_only=False) == 6


@pytest.mark.one_loop
async def test_wrong_calls_are_refused(client: Client) -> None:
    """With what must hold."""
    stream = client.stream("orders")
    with pytest.raises(ConfigError, match="limit must be at least 1"):
        await stream.read_range(limit=0)
    with pytest.raises(ConfigError, match="shard of 'orders' must be from 0 to 0, got 1"):
        await stream.read_range(shard=1)
    for options in (
        {},
        {"max_events": 1, "before": (await fill(stream, 1))[0]},
        {"max_events": -1},
    ):
        with pytest.raises(ConfigError, match="either max_events"):
            await stream.trim(**options)
    with pytest.raises(ConfigError, match="naive"):
        await stream.append({"n": 1}, timestamp=datetime(2026, 1, 1))  # noqa: DTZ001


async def test_two_clients_of_one_url_see_the_same_streams(client: Client, url: str) -> None:
    """What one appends, the other reads."""
    await fill(client.stream("orders"), 3)
    async with connect(url) as other:
        assert numbers(await everything(other.stream("orders"))) == [0, 1, 2]
