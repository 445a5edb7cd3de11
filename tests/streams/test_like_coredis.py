"""What coredis' consumers do, and what they should: lines that no other test shows."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

import pytest

from penstock import (
    END,
    OLDEST,
    BackendRejected,
    Client,
    ConfigError,
    NotFound,
    Reader,
    connect,
)
from penstock.event import Shard
from streams.helping import PATIENCE, fill, nothing_comes, number, numbers, soon, take
from streams.test_group import crash
from support.meter import lost

pytestmark = pytest.mark.one_loop


# --- readers ---------------------------------------------------------------------------------


@pytest.mark.conformance("CR-006", "SS-027")
async def test_an_iteration_goes_on_where_the_one_before_was_left(client: Client) -> None:
    """Within one block: nothing comes twice, nothing is left out."""
    stream = client.stream("orders")
    await fill(stream, 9)
    found: list[int] = []
    async with stream.reader(start=OLDEST, until=END) as reader:
        for _ in range(3):
            async for event in reader:
                found.append(number(event))
                if len(found) % 3 == 0:
                    break
        assert [event async for event in reader] == []
    assert found == list(range(9))


@pytest.mark.conformance("CR-008")
async def test_what_is_read_ahead_is_bounded_over_all_streams(client: Client) -> None:
    """Not for each of them."""
    streams = [client.stream(name) for name in "abcd"]
    for stream in streams:
        await fill(stream, 50)
    async with client.reader(streams, start=OLDEST, prefetch=20) as reader:
        await soon(lambda: reader.statistics().buffered >= 20, "it has read ahead")
        await asyncio.sleep(0.05)
        assert reader.statistics().buffered <= 20
        assert len(await take(reader, 200)) == 200


@pytest.mark.conformance("CR-010")
async def test_a_full_stream_does_not_delay_another_ones_new_events(client: Client) -> None:
    """By more than about a page of what is read ahead."""
    a, b = client.stream("a"), client.stream("b")
    await fill(a, 3000)
    async with client.reader([a, b], start=OLDEST, prefetch=100) as reader:
        await take(reader, 500)
        await fill(b, 1)
        await asyncio.sleep(0.05)
        before = 0
        async with asyncio.timeout(PATIENCE):
            while (await anext(reader)).stream != "b":
                before += 1
    assert before <= 250


@pytest.mark.conformance("CR-036")
async def test_idle_streams_delay_nobody(client: Client) -> None:
    """What is there already comes at once, though five streams have nothing."""
    streams = [client.stream(f"idle{n}") for n in range(5)]
    full = client.stream("full")
    async with client.reader([*streams, full]) as reader:
        await asyncio.sleep(0.05)
        begun = time.monotonic()
        await fill(full, 1)
        assert number(await reader.receive(PATIENCE)) == 0
        assert time.monotonic() - begun < 0.8 + lost(begun)  # a read waits for a second


@pytest.mark.conformance("CR-044")
async def test_a_stream_may_be_called_like_an_option(client: Client) -> None:
    """It has its own start all the same."""
    for name in ("group", "timeout", "streams", "start"):
        stream = client.stream(name)
        await fill(stream, 2)
        async with client.reader([stream], start=OLDEST, until=END) as reader:
            assert numbers([event async for event in reader]) == [0, 1]


@pytest.mark.conformance("CR-041")
async def test_a_text_is_no_list_of_streams(client: Client) -> None:
    """Nor is a list of names: nothing is opened."""
    for wrong in ("abc", ["abc"], [client.stream("a"), "b"]):
        with pytest.raises(ConfigError, match="must be a list of streams"):
            client.reader(wrong)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="must be a list of streams"):
            client.group("billing", wrong)  # type: ignore[arg-type]


async def test_a_stream_of_another_client_is_refused(client: Client) -> None:
    """It would be looked for where it is not: on this one's server."""
    async with connect("memory://elsewhere") as other:
        there = other.stream("there")
        with pytest.raises(ConfigError, match=r"of the client that reads them.*'there'"):
            client.reader([there])
        with pytest.raises(ConfigError, match="of the client that reads them"):
            client.group("billing", [there])
        here = client.stream("here")
        async with here.reader() as reader, here.group("billing") as group:
            for add in (reader.add_stream, group.add_stream):
                with pytest.raises(ConfigError, match="of the client that reads them"):
                    await add(there)


@pytest.mark.conformance("CR-039")
@pytest.mark.parametrize("missing", ["xread", "xreadgroup", "xinfo"])
async def test_a_right_that_is_missing_is_told_by_name(servers: str, missing: str) -> None:
    """On entry, or at the first step and every further one; never as silence."""
    async with connect(servers) as admin:
        await fill(admin.stream("orders"), 1)
        rules = ("reset", "on", ">pw", "~*", "+@all", f"-{missing}")
        await admin.redis.execute_command("ACL", "SETUSER", "limited", *rules)
    options: dict[str, Any] = {"user": "limited", "password": "pw", "observer": lambda _: None}
    async with connect(servers, **options) as client:
        stream = client.stream("orders")
        one = stream.group("billing") if missing == "xreadgroup" else stream.reader(start=OLDEST)

        async def use() -> None:
            async with one:
                for _ in range(2):
                    with pytest.raises(BackendRejected, match=f"NOPERM.*{missing}"):
                        await one.receive(PATIENCE)
                raise BackendRejected(f"NOPERM {missing}: it was told")

        with pytest.raises(BackendRejected, match=f"NOPERM.*{missing}"):
            await asyncio.wait_for(use(), PATIENCE)


@pytest.mark.conformance("CR-037")
async def test_waiting_for_longer_than_the_connection_may_take_is_no_error(servers: str) -> None:
    """The timeout of a connection is for connecting: a read waits as long as it is told."""
    async with connect(servers, timeout=0.3) as client:
        stream = client.stream("orders")
        async with stream.reader() as reader, stream.group("billing") as group:
            assert await reader.receive(1.5) is None
            assert await group.receive(0.5) is None
            await fill(stream, 1)
            assert number(await reader.receive(PATIENCE)) == 0
            assert number(await group.receive(PATIENCE)) == 0


@pytest.mark.conformance("CR-045")
async def test_taking_costs_the_same_however_many_are_buffered(client: Client) -> None:
    """Of tens of thousands as quickly as of hundreds."""
    stream = client.stream("orders")
    await fill(stream, 20_000)
    costs: list[float] = []
    for prefetch in (400, 20_000):
        async with stream.reader(start=OLDEST, prefetch=prefetch) as reader:
            enough = prefetch * 3 // 4
            await soon(partial(_is_full, reader, enough), "it has read ahead", 30.0)
            rounds: list[float] = []
            for _ in range(3):
                begun = time.perf_counter()
                for _ in range(60):
                    await anext(reader)
                rounds.append(time.perf_counter() - begun)
            costs.append(min(rounds))
    assert costs[1] < 8 * costs[0]


def _is_full(reader: Reader[Any], enough: int) -> bool:
    return reader.statistics().buffered >= enough


# --- groups ----------------------------------------------------------------------------------


@pytest.mark.conformance("CR-016", "PU-032")
async def test_two_that_make_a_group_at_once_agree(client: Client, url: str) -> None:
    """Both are members of the one group, and the stream is there."""
    async with connect(url) as other:
        groups = [c.stream("orders").group("billing") for c in (client, other)]
        await asyncio.gather(*(group.__aenter__() for group in groups))
        infos = await client.backend.groups(Shard("orders"))
        assert [info.name for info in infos] == ["billing"]
        assert await client.backend.describe("orders") is not None
        for group in groups:
            await group.aclose()
        async with client.stream("orders").group("billing"):
            pass  # once more does no harm


@pytest.mark.conformance("CR-018", "CR-019")
async def test_a_group_that_is_missing_is_named(client: Client) -> None:
    """Not those that are there."""
    stream = client.stream("orders")
    await fill(stream, 1)
    async with stream.group("billing"):
        with pytest.raises(NotFound, match="missing") as caught:
            await client.backend.pending(Shard("orders"), "missing", 10)
    assert "billing" not in str(caught.value)


@pytest.mark.conformance("CR-043", "SS-033")
async def test_members_without_a_name_have_one_that_nobody_else_has(client: Client) -> None:
    """In one program and one group."""
    groups = [client.stream("orders").group("billing") for _ in range(5)]
    for group in groups:
        await group.__aenter__()
    assert len({group.member for group in groups}) == 5
    for group in groups:
        await group.aclose()


@pytest.mark.conformance("CR-035")
async def test_tasks_that_share_a_member_get_each_event_once(client: Client) -> None:
    """And ack it."""
    stream = client.stream("orders")
    await fill(stream, 300)
    found: list[list[int]] = [[], [], []]
    async with stream.group("billing", until=END) as group:

        async def work(mine: list[int]) -> None:
            async for event in group:
                mine.append(number(event))
                group.ack(event)
                await asyncio.sleep(0)

        await asyncio.gather(*map(work, found))
    assert sorted(n for mine in found for n in mine) == list(range(300))
    assert all(found)


@pytest.mark.conformance("CR-029")
async def test_pending_events_of_all_streams_come_again(client: Client, url: str) -> None:
    """Each once, and new ones beside them: of no stream is anything dropped."""
    names = ["a", "b", "c"]
    for name in names:
        await fill(client.stream(name), 40)
    async with connect(url) as other:
        streams: list[Any] = [other.stream(name) for name in names]
        crashed = other.group("billing", streams, member="bob", lease=0.3)
        await crashed.__aenter__()
        await take(crashed, 70)
        await crash(crashed)
    for name in names:
        await fill(client.stream(name), 5, first=40)
    streams = [client.stream(name) for name in names]
    async with client.group("billing", streams, member="bob", lease=0.3) as group:
        events = await take(group, 135)
        await nothing_comes(group, 0.1)
    for name in names:
        assert sorted(numbers(e for e in events if e.stream == name)) == list(range(45))
