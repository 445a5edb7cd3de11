"""What Pulse's streams do, and what they should: lines that no other test shows."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import pytest
from redis.crc import key_slot

from penstock import (
    NEWEST,
    OLDEST,
    Client,
    ConfigError,
    Retention,
    Retry,
    after,
    connect,
)
from penstock.backends.redis import takeovers
from penstock.backends.redis.keys import Keys, hash_tag, stream_key
from penstock.clock import Backoff
from penstock.event import Shard
from penstock.testing import TcpProxy
from streams.helping import (
    PATIENCE,
    everything,
    fill,
    nothing_comes,
    number,
    numbers,
    put,
    soon,
    take,
)
from streams.test_group import crash
from support.meter import lost

pytestmark = pytest.mark.one_loop


# --- streams ---------------------------------------------------------------------------------


@pytest.mark.conformance("PU-002")
async def test_making_a_handle_asks_nothing_and_makes_nothing(client: Client) -> None:
    """Only its first use does."""
    stream = client.stream("orders", type=dict, shards=2)
    assert not stream.known
    assert await client.backend.describe("orders") is None


@pytest.mark.conformance("PU-003", "PU-015")
async def test_a_position_is_the_id_of_the_entry(servers: str) -> None:
    """As text, and its time is the event's."""
    async with connect(servers) as client:
        position = await client.stream("orders").append({"n": 1})
        [[entry_id, _]] = await client.redis.execute_command("XRANGE", "orders", "-", "+")
        assert str(position).encode() == entry_id
        [event] = await everything(client.stream("orders"))
        assert event.timestamp == position[0] / 1000
        assert abs(datetime.fromtimestamp(event.timestamp, UTC).timestamp() - time.time()) < 60


@pytest.mark.conformance("CR-011", "PU-005")
async def test_any_bytes_come_back_identical(client: Client) -> None:
    """NUL, what is no text, and nothing at all."""
    blobs = client.stream("blobs", type=bytes)
    given = [b"", b"\x00\xff\xfe", bytes(range(256)) * 10, b"\r\n$-1\r\n"]
    await blobs.append_many(given)
    assert [event.value for event in await everything(blobs)] == given


@pytest.mark.conformance("PU-006")
async def test_a_stream_is_not_trimmed_unless_it_is_told_to_be(client: Client) -> None:
    """Nothing goes by itself."""
    stream = client.stream("orders")
    await fill(stream, 3000)
    assert await stream.length() == 3000


@pytest.mark.conformance("PU-009", "PU-011")
async def test_a_time_to_live_is_there_with_the_first_event(servers: str) -> None:
    """In the step that stores it: nobody sees the stream without; an absolute one stays."""
    async with connect(servers) as client:
        orders = client.stream("orders", retention=Retention(ttl=60.0))
        await orders.append({"n": 1})
        first = await client.redis.execute_command("PTTL", "orders")
        assert 0 < first <= 60_000
        await client.redis.execute_command("PEXPIRE", "orders", 30_000)
        await orders.append({"n": 2})
        assert await client.redis.execute_command("PTTL", "orders") <= 30_000


@pytest.mark.conformance("PU-011")
async def test_an_append_and_its_time_to_live_are_one_command(servers: str) -> None:
    """Nothing can come between the two: neither a crash, nor a reply that is lost."""
    async with connect(servers) as client:
        orders = client.stream("orders", retention=Retention(ttl=60.0, sliding=True))
        await orders.append({"n": 1})
        await client.redis.execute_command("CONFIG", "RESETSTAT")
        await orders.append({"n": 2})
        stats = await client.redis.execute_command("INFO", "commandstats")
    calls = {name.removeprefix("cmdstat_"): about["calls"] for name, about in stats.items()}
    assert (calls["evalsha"], calls["xadd"]) == (1, 1)
    assert calls["pexpire"] >= 1


@pytest.mark.conformance("PU-012")
async def test_a_stream_that_a_group_made_lives_from_its_first_event(servers: str) -> None:
    """Its time to live is kept with it, and counted from when there is something in it."""
    async with connect(servers) as client:
        orders = client.stream("orders", retention=Retention(ttl=60.0))
        async with orders.group("billing") as group:
            assert await client.redis.pttl("orders") == -1
            await orders.append({"n": 1})
            assert 0 < await client.redis.pttl("orders") <= 60_000
            assert number(await group.receive(PATIENCE)) == 1


@pytest.mark.conformance("PU-065")
async def test_what_a_stream_keeps_is_agreed_upon(client: Client, url: str) -> None:
    """It is stored with the stream: another client adopts it, and another wish is refused."""
    kept = Retention(max_events=1000)
    await fill(client.stream("orders", retention=kept), 1)
    async with connect(url) as other:
        adopting = other.stream("orders")
        await fill(adopting, 1)
        assert (await adopting.info()).retention == kept
        with pytest.raises(ConfigError, match="retention"):
            await fill(other.stream("orders", retention=Retention(max_events=5)), 1)


@pytest.mark.conformance("PU-012")
async def test_a_group_makes_its_stream(client: Client) -> None:
    """On entry: what is appended later is its first event."""
    stream = client.stream("orders")
    async with stream.group("billing") as group:
        assert await client.backend.describe("orders") is not None
        await fill(client.stream("orders"), 1)
        assert number(await group.receive(PATIENCE)) == 0


@pytest.mark.conformance("PU-062", "SS-064")
async def test_a_stream_is_read_in_one_step_without_effects(client: Client) -> None:
    """Nobody's place moves, and nothing is pending."""
    stream = client.stream("orders")
    positions = await fill(stream, 20)
    async with stream.group("billing") as group:
        await take(group, 5)
        before = await client.backend.groups(Shard("orders"))
        assert numbers(await stream.read_range(limit=100)) == list(range(20))
        some = await stream.read_range(positions[3], positions[9], limit=4, reverse=True)
        assert numbers(some) == [9, 8, 7, 6]
        after_it = await client.backend.groups(Shard("orders"))
        assert [info.last for info in before] == [info.last for info in after_it]


@pytest.mark.conformance("PU-068")
def test_all_keys_of_a_stream_share_its_hash_tag() -> None:
    """So that each script stays in one slot, whatever the stream is called."""
    for shard in (Shard("orders"), Shard("{eu}orders"), Shard("orders", 3, 8)):
        keys = Keys.of(shard)
        every = [*keys.kept, *keys.of_group("g"), keys.session("s")]
        assert len(set(every)) >= 20
        assert {hash_tag(key) for key in every} == {hash_tag(stream_key(shard))}


@pytest.mark.conformance("PU-068")
@pytest.mark.parametrize("share", ["events", "shards"])
async def test_whatever_is_stored_for_a_stream_is_in_its_slot(servers: str, share: Any) -> None:
    """As Cluster reckons it: ids, delays, beats, what is parked, given up, replayed."""
    async with connect(servers) as client:
        stream = client.stream("orders", retention=Retention(max_events=1000))
        await stream.append({"n": 0}, id="a")
        await stream.append({"n": 1}, deliver_at=time.time() + 3600)
        await fill(stream, 3, first=2)
        async with stream.group("billing", share=share, retry=Retry(attempts=1)) as group:
            for event in await take(group, 2):
                group.fail(event, ValueError("no"))
            await group.flush()
            await soon(lambda: stream.dead_letters("billing").count(), "it is given up")
            await stream.dead_letters("billing").replay()
            await take(group, 2)
            keys = await client.redis.keys("*")
    assert len(keys) >= 6
    assert len({key_slot(key) for key in keys}) == 1


# --- readers ---------------------------------------------------------------------------------


@pytest.mark.conformance("PU-020")
async def test_each_reader_gets_every_event_and_a_later_one_goes_on(client: Client) -> None:
    """Whoever else reads."""
    stream = client.stream("orders")
    async with stream.reader() as one, stream.reader() as two:
        positions = await fill(stream, 10)
        assert numbers(await take(one, 10)) == numbers(await take(two, 10)) == list(range(10))
    async with stream.reader(start=after(positions[6])) as three:
        assert numbers(await take(three, 3)) == [7, 8, 9]


@pytest.mark.conformance("PU-021", "PU-060")
async def test_what_comes_before_anybody_asks_is_there(client: Client) -> None:
    """For a reader and for a group: it was fetched for them, and nobody else has it."""
    stream = client.stream("orders")
    async with stream.reader() as reader, stream.group("billing", start=NEWEST) as group:
        await fill(stream, 5)
        await asyncio.sleep(0.3)
        assert numbers(await take(reader, 5)) == list(range(5))
        begun = time.monotonic()
        assert numbers(await take(group, 5)) == list(range(5))
        assert time.monotonic() - begun < 5 + lost(begun)


@pytest.mark.conformance("PU-022")
async def test_a_task_that_stops_asking_ends_nobody_elses_reading(client: Client) -> None:
    """Cancelled or done: the others get the rest."""
    stream = client.stream("orders")
    async with stream.reader() as reader:
        waiting = asyncio.create_task(reader.receive())
        staying = asyncio.create_task(reader.receive())
        await asyncio.sleep(0.02)
        waiting.cancel()
        await fill(stream, 2)
        assert number(await asyncio.wait_for(staying, PATIENCE)) == 0
        assert number(await reader.receive(PATIENCE)) == 1


@pytest.mark.conformance("PU-024")
async def test_a_bad_pattern_raises_where_it_is_made(client: Client) -> None:
    """With its cause; an unanchored search is a pattern that says so."""
    stream = client.stream("orders")
    await stream.append({"n": 1}, topic="eu.west")
    with pytest.raises(re.error):
        stream.reader(where=re.compile("(eu"))
    async with stream.reader(start=OLDEST, where=re.compile(r".*west.*")) as reader:
        assert number(await reader.receive(PATIENCE)) == 1


# --- groups ----------------------------------------------------------------------------------


@pytest.mark.conformance("PU-038")
async def test_a_dead_member_disappears_from_its_group(
    client: Client, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while: what a late read of its brings must still be found by its name."""
    monkeypatch.setattr(takeovers, "_BURY_AFTER", 0.2)
    stream = client.stream("orders")
    await fill(stream, 3)
    async with connect(url, observer=lambda _: None) as other:
        crashed = other.stream("orders").group("billing", member="bob", lease=0.4)
        await crashed.__aenter__()
        await take(crashed, 3)
        async with stream.group("billing", member="alfred", lease=0.4) as group:
            await crash(crashed)
            events = await take(group, 3)
            assert sorted(numbers(events)) == [0, 1, 2]
            group.ack(events)
            await soon(lambda: _members(client, {"alfred"}), "bob is gone", 20.0)


async def _members(client: Client, wanted: set[str]) -> bool:
    [info] = await client.backend.groups(Shard("orders"))
    return {member.name for member in info.members} == wanted


@pytest.mark.conformance("PU-039", "PU-040")
async def test_after_all_were_away_what_was_in_flight_comes_to_the_first_one_back(
    client: Client, url: str
) -> None:
    """No consumer was deleted with what it held."""
    stream = client.stream("orders")
    await fill(stream, 30)
    async with connect(url, observer=lambda _: None) as other:
        for name in ("bob", "carol"):
            crashed = other.stream("orders").group("billing", member=name, lease=0.3)
            await crashed.__aenter__()
            await take(crashed, 1)
            await crash(crashed)
    await asyncio.sleep(1.0)  # several leases without any member
    async with stream.group("billing", member="dave", lease=0.3) as group:
        assert sorted(numbers(await take(group, 30))) == list(range(30))


@pytest.mark.conformance("PU-041")
async def test_of_several_that_see_a_death_one_takes_over(client: Client, url: str) -> None:
    """Each event comes again once, though three look at the same time."""
    stream = client.stream("orders")
    await fill(stream, 60)
    seen: list[int] = []

    async def work(group: Any) -> None:
        async for event in group:
            seen.append(number(event))
            group.ack(event)

    async with connect(url, observer=lambda _: None) as other, AsyncExitStack() as stack:
        crashed = other.stream("orders").group("billing", member="bob", lease=0.4)
        await crashed.__aenter__()
        await take(crashed, 60)
        groups = []
        for name in ("alfred", "carol", "dave"):
            one = await stack.enter_async_context(connect(url, observer=lambda _: None))
            group = one.stream("orders").group("billing", member=name, lease=0.4)
            groups.append(await stack.enter_async_context(group))
        tasks = [asyncio.create_task(work(group)) for group in groups]
        await crash(crashed)
        try:
            await soon(lambda: len(seen) >= 60, "all of it is handled", 20.0)
            await asyncio.sleep(0.6)  # whoever else looks finds nothing
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    assert sorted(seen) == list(range(60))


@pytest.mark.conformance("PU-047")
async def test_a_stream_that_is_added_to_a_group_begins_where_the_group_did(
    client: Client,
) -> None:
    """At the newest: what it had before is nobody's."""
    a, b = client.stream("a"), client.stream("b")
    await fill(a, 2)
    await fill(b, 2)
    async with client.group("billing", [a], start=NEWEST) as group:
        await group.add_stream(b)
        await fill(b, 1, first=2)
        event = await group.receive(PATIENCE)
        assert event is not None
        assert (event.stream, number(event)) == ("b", 2)


@pytest.mark.conformance("PU-053")
async def test_a_stream_that_goes_again_and_again_makes_no_busy_loop(servers: str) -> None:
    """Nor one that stays away: a member asks a few times a second, and is there when it comes."""
    async with connect(servers, observer=lambda _: None) as client, connect(servers) as other:
        stream = client.stream("orders")
        await fill(stream, 1)
        async with stream.group("billing", lease=0.6) as group:
            group.ack(await take(group, 1))
            await group.flush()
            for n in range(1, 4):
                await other.redis.delete("orders")
                await other.redis.execute_command("CONFIG", "RESETSTAT")
                await asyncio.sleep(0.5)
                stats = await other.redis.execute_command("INFO", "commandstats")
                assert sum(about["calls"] for about in stats.values()) < 300
                await put(other, "orders", "n", str(n))
                event = await group.receive(PATIENCE)
                assert number(event) == n
                group.ack([event] if event else [])
                await group.flush()


@pytest.mark.conformance("PU-042")
async def test_groups_of_one_name_on_two_streams_have_nothing_in_common(client: Client) -> None:
    """The same member on both; one is dropped, and the other goes on."""
    a, b = client.stream("a"), client.stream("b")
    await fill(a, 3)
    await fill(b, 3)
    async with a.group("billing", member="bob") as one, b.group("billing", member="bob") as two:
        assert numbers(await take(one, 3)) == numbers(await take(two, 3)) == [0, 1, 2]
        await one.aclose()
        assert await client.backend.drop(Shard("a"), "billing")
        await fill(b, 2, first=3)
        assert numbers(await take(two, 2)) == [3, 4]


# --- life ------------------------------------------------------------------------------------


@pytest.mark.conformance("PU-055")
async def test_closing_is_prompt_and_twice_is_fine(client: Client) -> None:
    """Where somebody waits, and where nobody takes what was read ahead."""
    stream = client.stream("orders")
    await fill(stream, 2000)
    async with client.stream("empty").reader() as waits, stream.reader(start=OLDEST) as full:
        waiting = asyncio.create_task(waits.receive())
        await soon(lambda: full.statistics().buffered, "it has read ahead")
        await asyncio.sleep(0.05)
        begun = time.monotonic()
        for one in (waits, full, waits, full):
            await one.aclose()
        assert await asyncio.wait_for(waiting, PATIENCE) is None
        assert time.monotonic() - begun < 0.8 + lost(begun)  # a read waits for a second
    group = stream.group("billing")
    async with group:
        await take(group, 1)
        begun = time.monotonic()
        await group.aclose()
        await group.aclose()
    assert time.monotonic() - begun < 2 + lost(begun)


@pytest.mark.conformance("PU-058", "SS-066")
def test_the_delays_of_connecting_grow_are_spread_and_are_capped() -> None:
    """They begin anew when something went well."""
    backoff = Backoff(first=0.05, cap=2.0)
    for ceiling in (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0):
        assert ceiling / 2 <= backoff.next() <= ceiling
    assert len({Backoff().next() for _ in range(20)}) > 10
    for _ in range(2000):
        backoff.next()
    backoff.reset()
    assert backoff.next() <= 0.05


@pytest.mark.conformance("PU-055", "PU-058")
async def test_closing_ends_the_waiting_for_a_server_that_is_away(embedded_url: str) -> None:
    """Whatever delay it was in; and what is asked of it meanwhile is told as such."""
    host, _, port = embedded_url.removeprefix("redis://").partition(":")
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(TcpProxy((host, int(port))))
        url = f"redis://127.0.0.1:{proxy.port}"
        async with connect(url, observer=lambda _: None, timeout=0.5) as client:
            stream = client.stream("orders")
            await fill(stream, 1)
            reader = await stream.reader(start=OLDEST).__aenter__()
            await take(reader, 1)
            await stack.aclose()  # from now on, nobody listens there
            waiting = asyncio.create_task(reader.receive())
            await asyncio.sleep(1.0)  # by now it waits for longer between its tries
            begun = time.monotonic()
            await reader.aclose()
            assert await asyncio.wait_for(waiting, PATIENCE) is None
            assert time.monotonic() - begun < 0.8  # it may wait for two seconds


@pytest.mark.conformance("PU-056")
async def test_a_program_that_takes_nothing_keeps_its_lease(client: Client, url: str) -> None:
    """What was fetched for it goes to nobody else; and it can leave at once."""
    stream = client.stream("orders")
    await fill(stream, 5)
    async with connect(url) as other, stream.group("billing", lease=0.4) as idle_one:
        await soon(lambda: idle_one.statistics().fetched == 5, "it was given all")
        async with other.stream("orders").group("billing", lease=0.4) as busy:
            await nothing_comes(busy, 1.2)  # three leases
            await idle_one.aclose()
            events = await take(busy, 5)
            assert sorted(numbers(events)) == list(range(5))
            busy.ack(events)
