"""What Pulse's streams do, and what they should: lines that no other test shows."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import UTC, datetime

import pytest

from penstock import NEWEST, OLDEST, Client, ConfigError, Retention, after, connect
from penstock.backends.redis import takeovers
from penstock.backends.redis.keys import Keys, hash_tag, stream_key
from penstock.event import Shard
from streams.helping import PATIENCE, everything, fill, nothing_comes, number, numbers, soon, take
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
        every = [
            keys.meta,
            keys.session("s"),
            keys.beats("g"),
            keys.parked("g"),
            keys.attempts("g"),
        ]
        assert {hash_tag(key) for key in every} == {hash_tag(stream_key(shard))}


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
