"""``append(id=)``: once within the window, across restarts of programs and lost replies (P5)."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

import pytest

from penstock import (
    Client,
    ConflictError,
    OutcomeUnknown,
    Position,
    Retention,
    Signal,
    Stream,
    connect,
)
from penstock.testing.proxy import TcpProxy
from streams.helping import everything, numbers, soon
from support.rights import ROLES

pytestmark = pytest.mark.one_loop


@pytest.mark.conformance("PU-061")
async def test_an_id_is_stored_once(client: Client, url: str) -> None:
    """By this client, by another one later, and by a writer; the position is that of the first."""
    stream = client.stream("orders")
    first = await stream.append({"n": 1}, id="a")
    assert await stream.append({"n": 1}, id="a") == first
    async with connect(url) as other:
        assert await other.stream("orders").append({"n": 1}, id="a") == first
        async with other.stream("orders").writer() as writer:
            receipt = await writer.send({"n": 1}, id="a", receipt=True)
            await writer.send({"n": 2}, id="b")
            await writer.send({"n": 2}, id="b")
            assert receipt is not None
            assert await receipt == first
        assert writer.statistics().stored == 3
    events = await everything(stream)
    assert [(event.id, event.value["n"]) for event in events] == [("a", "1"), ("b", "2")]


@pytest.mark.conformance("PU-061")
async def test_another_content_under_an_id_is_a_conflict(client: Client) -> None:
    """Nothing of it is stored; it says where the first one stands. Metadata is content."""
    stream = client.stream("orders")
    first = await stream.append({"n": 1}, id="a")
    for options in ({}, {"topic": "t"}):
        with pytest.raises(ConflictError, match="'a' and another content") as raised:
            await stream.append({"n": len(options) + 1}, id="a", topic=options.get("topic", "t"))
        assert raised.value.position == first
    assert numbers(await everything(stream)) == [1]


async def test_a_conflict_in_a_writer_is_raised_once_and_stops_nothing(client: Client) -> None:
    """By its receipt if somebody awaits that, else by flush; what is beside it is stored."""
    stream = client.stream("orders")
    await stream.append({"n": 0}, id="a")
    async with stream.writer() as writer:
        await writer.send({"n": 1})
        receipt = await writer.send({"n": 9}, id="a", receipt=True)
        await writer.send({"n": 2})
        assert receipt is not None
        with pytest.raises(ConflictError):
            await receipt
        await writer.flush()
        await writer.send({"n": 9}, id="a")
        await writer.send({"n": 3})
        with pytest.raises(ConflictError):
            await writer.flush()
        await writer.flush()
        assert writer.statistics().failed == 2
    assert numbers(await everything(stream)) == [0, 1, 2, 3]


async def test_without_a_window_ids_are_only_kept(client: Client) -> None:
    """Copies of streams keep what the original had, twice or not."""
    stream = client.stream("orders", dedupe_window=0)
    await stream.append({"n": 1}, id="a")
    await stream.append({"n": 2}, id="a")
    async with stream.writer(idempotent=False) as writer:
        await writer.send({"n": 3}, id="a")
    assert [event.id for event in await everything(stream)] == ["a"] * 3


async def test_an_id_without_a_key_meets_itself_in_a_sharded_stream(client: Client) -> None:
    """It goes where the id belongs, not round."""
    stream = client.stream("orders", shards=4)
    for _ in range(6):
        await stream.append({"n": 1}, id="a")
    async with stream.writer() as writer:
        for _ in range(6):
            await writer.send({"n": 1}, id="a")
    assert await stream.length() == 1


async def test_ten_thousand_events_each_sent_three_times_through_cuts(embedded_url: str) -> None:
    """P5: programs die at will while replies are lost; each event is stored once."""
    ids = [f"event-{n}" for n in range(10_000)]
    _, port = embedded_url.removeprefix("redis://").split(":")
    async with TcpProxy(("127.0.0.1", int(port))) as proxy:
        for attempt in range(3):
            for first in range(0, len(ids), 2500):
                await _send(
                    f"redis://127.0.0.1:{proxy.port}",
                    ids[first : first + 2500],
                    proxy if attempt < 2 else None,
                )
    async with connect(embedded_url) as client:
        events = await everything(client.stream("orders"))
    assert [event.id for event in events] == ids


async def _send(url: str, ids: list[str], proxy: TcpProxy | None) -> None:
    """One program: it sends all, and where it does not hear of the end, does so again.

    With *proxy*, its connection is cut while answers are on their way.
    """
    while True:
        if proxy is not None:
            proxy.cut_after(100_000)
        try:
            async with connect(url) as client, client.stream("orders").writer(timeout=20) as writer:
                for name in ids:
                    await writer.send({"v": name}, id=name)
        except OutcomeUnknown:
            continue
        return


async def test_appends_that_wait_at_the_same_time_share_one_answer(client: Client) -> None:
    """Twenty programs with one id: one event, one position."""
    stream = client.stream("orders")
    found = await asyncio.gather(*(stream.append({"n": 1}, id="a") for _ in range(20)))
    assert len(set(found)) == 1
    assert isinstance(found[0], Position)
    assert await stream.length() == 1


async def test_the_rights_of_a_writer_are_enough(embedded_url: str, redis7_url: str) -> None:
    """The role appender of docs/rights.md: appends, terms, retention, tending what is due."""
    signals: list[Signal] = []
    for url in (embedded_url, redis7_url):
        async with connect(url) as admin:
            await admin.redis.execute_command(
                *("ACL", "SETUSER", "writer", "reset", "on", ">pw"),
                *ROLES["appender"].rules(),
            )
        keep = Retention(cap=100, at_cap="drop-oldest", ttl=600.0, sliding=True)
        async with connect(url, user="writer", password="pw", observer=signals.append) as client:
            stream = client.stream("orders", retention=keep)
            await stream.append({"n": 0}, deliver_at=time.time() + 0.1)
            first = await stream.append({"n": 1}, id="a")
            await stream.append({"n": 2}, expect=first)
            async with stream.writer() as writer:
                await writer.send({"n": 3})
                await soon(partial(_holds, stream, 4), "the delayed event is moved")
    assert not [signal for signal in signals if signal.kind == "not-tended"]


async def _holds(stream: Stream[Any], count: int) -> bool:
    return await stream.length() == count


@pytest.mark.parametrize("url", ["embedded_server", "redis7_server"], indirect=True)
async def test_a_clock_that_goes_back_forgets_no_id(client: Client) -> None:
    """A replica whose clock is behind, right after ids changed sides: none becomes older by it."""
    stream = client.stream("orders")
    first = await stream.append({"n": 1}, id="a")
    ids = "penstock:{orders}:orders:ids"
    side = int(await client.redis.hget(ids, "side"))
    ahead = int((time.time() + 60) * 1000)
    await client.redis.hset(ids, mapping={"at": ahead, "side": 1 - side})
    assert await stream.append({"n": 1}, id="a") == first
    assert await stream.append({"n": 2}, id="b") > first
    assert await stream.append({"n": 1}, id="a") == first
