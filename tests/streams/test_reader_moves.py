"""Moving a reader while it runs: seek, more streams, fewer streams; and saving where it stands."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from penstock import (
    END,
    NEWEST,
    OLDEST,
    Client,
    ClosedError,
    ConfigError,
    Reader,
    after,
    at,
    idle,
)
from streams.helping import PATIENCE, fill, nothing_comes, number, numbers, soon, take
from support.meter import lost

pytestmark = pytest.mark.one_loop


async def rest(reader: Reader[Any]) -> list[int]:
    """The numbers that come up to the reader's end."""
    async with asyncio.timeout(PATIENCE):
        return [number(event) async for event in reader]


# --- seek ------------------------------------------------------------------------------------


@pytest.mark.conformance("SS-056")
async def test_a_reader_goes_where_it_is_told_and_nothing_old_comes_after_it(
    client: Client,
) -> None:
    """Back to the oldest, behind a position, to the newest: whatever was read ahead."""
    stream = client.stream("orders")
    positions = await fill(stream, 500)
    async with stream.reader(start=OLDEST, prefetch=100) as reader:
        assert numbers(await take(reader, 5)) == list(range(5))
        await reader.seek(OLDEST)
        assert numbers(await take(reader, 150)) == list(range(150))
        await reader.seek(after(positions[399]))
        assert numbers(await take(reader, 3)) == [400, 401, 402]
        await reader.seek(after(str(positions[9])))
        assert numbers(await take(reader, 3)) == [10, 11, 12]
        await reader.seek(NEWEST)
        await nothing_comes(reader, 0.05)
        await fill(stream, 2, first=500)
        assert numbers(await take(reader, 2)) == [500, 501]


@pytest.mark.conformance("SS-057")
async def test_what_was_read_ahead_before_a_seek_never_comes_after_it(client: Client) -> None:
    """However often, and while others wait."""
    stream = client.stream("orders")
    positions = await fill(stream, 300)
    async with stream.reader(start=OLDEST, prefetch=40) as reader:
        for turn in range(60):
            behind = (turn * 37) % 290
            waiting = [asyncio.create_task(reader.receive()) for _ in range(turn % 3)]
            await asyncio.sleep(0.0003 * (turn % 5))
            await reader.seek(after(positions[behind]))
            for one in waiting:
                one.cancel()
            given = await asyncio.gather(*waiting, return_exceptions=True)
            of_it = [number(e) for e in given if not isinstance(e, BaseException)]
            first = number(await reader.receive(PATIENCE))
            assert behind + 1 in {first, *of_it}
            assert first > behind


@pytest.mark.conformance("SS-055")
async def test_a_reader_goes_to_a_time(client: Client) -> None:
    """Which includes the events of its millisecond."""
    stream = client.stream("orders")
    await fill(stream, 3)
    await asyncio.sleep(0.005)
    [later] = await fill(stream, 1, first=3)
    async with stream.reader() as reader:
        await reader.seek(at(datetime.fromtimestamp(later[0] / 1000, UTC)))
        assert number(await reader.receive(PATIENCE)) == 3


@pytest.mark.conformance("CR-040", "PU-019", "SS-058")
async def test_the_newest_is_anchored_when_seek_returns(client: Client) -> None:
    """What comes before anybody asks is read, however long that is."""
    stream = client.stream("orders")
    await fill(stream, 3)
    async with stream.reader(start=OLDEST) as reader:
        await reader.seek(NEWEST)
        await fill(stream, 1, first=3)
        await asyncio.sleep(1.1)  # longer than one read waits
        await fill(stream, 1, first=4)
        assert numbers(await take(reader, 2)) == [3, 4]


async def test_one_stream_is_moved_and_the_other_goes_on(client: Client) -> None:
    """Nothing of the other is lost or doubled."""
    a, b = client.stream("a"), client.stream("b")
    await fill(a, 50)
    await fill(b, 50)
    async with client.reader([a, b], start=OLDEST, until=END, prefetch=30) as reader:
        seen = await take(reader, 20)
        await reader.seek(OLDEST, stream=a)
        events = [*seen, *[event async for event in reader]]
    of_b = numbers(e for e in events if e.stream == "b")
    of_a = numbers(e for e in events[20:] if e.stream == "a")
    assert (of_a, of_b) == (list(range(50)), list(range(50)))


async def test_a_move_while_a_read_is_under_way_ends_nothing(client: Client) -> None:
    """Its reply is not used, and that is not taken for an end."""
    stream = client.stream("orders")
    await fill(stream, 60)
    for turn in range(40):
        async with stream.reader(start=OLDEST, until=END, prefetch=30) as reader:
            await take(reader, turn % 3)
            await asyncio.sleep(0.00005 * turn)
            await reader.seek(OLDEST)
            assert await rest(reader) == list(range(60))


async def test_a_reader_that_has_ended_goes_on_after_a_seek(client: Client) -> None:
    """Up to the same end; what `idle` means begins anew."""
    stream = client.stream("orders")
    positions = await fill(stream, 5)
    for until in (END, idle(0.1), positions[3]):
        async with stream.reader(start=OLDEST, until=until) as reader:
            first = await rest(reader)
            await reader.seek(after(positions[1]))
            assert await rest(reader) == first[2:]
            await reader.seek(after(positions[4]))
            assert await rest(reader) == []


async def test_a_reader_whose_predicate_fails_goes_on_behind_that_event(client: Client) -> None:
    """After a seek; the error is not raised any more."""
    stream = client.stream("orders")
    positions = await fill(stream, 3)

    def where(event: Any) -> bool:
        if number(event) == 1:
            raise ZeroDivisionError
        return True

    async with stream.reader(start=after(positions[0]), where=where) as reader:
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await reader.receive(PATIENCE)
        await reader.seek(after(positions[1]))
        assert number(await reader.receive(PATIENCE)) == 2


async def test_a_seek_that_is_cancelled_did_or_did_not(client: Client) -> None:
    """Wherever it was: the reader reads on, in order, from one of the two places."""
    stream = client.stream("orders")
    positions = await fill(stream, 100)
    async with stream.reader(start=OLDEST, prefetch=20) as reader:
        for turn in range(30):
            await reader.seek(OLDEST)
            assert number(await reader.receive(PATIENCE)) == 0
            seeking = asyncio.create_task(reader.seek(after(positions[49])))
            for _ in range(turn % 10):
                await asyncio.sleep(0)
            seeking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await seeking
            found = numbers(await take(reader, 30))
            assert found in ([*range(1, 31)], [*range(50, 80)])


@pytest.mark.conformance("PU-051", "SS-054")
async def test_a_read_that_waits_is_woken_at_once(client: Client) -> None:
    """By seek, add, remove and close: far sooner than the second that a read waits."""
    a, b = client.stream("a"), client.stream("b")
    await fill(a, 1)
    await fill(b, 1)
    async with a.reader() as reader:
        for move in (
            lambda: reader.seek(OLDEST),
            lambda: reader.add_stream(b, OLDEST),
        ):
            waiting = asyncio.create_task(reader.receive())
            await asyncio.sleep(0.1)
            begun = time.monotonic()
            await move()
            assert number(await asyncio.wait_for(waiting, PATIENCE)) == 0
            assert time.monotonic() - begun < 0.6 + lost(begun)
        await reader.remove_stream(b)
        waiting = asyncio.create_task(reader.receive())
        await asyncio.sleep(0.1)
        begun = time.monotonic()
        await reader.aclose()
        assert await asyncio.wait_for(waiting, PATIENCE) is None
        assert time.monotonic() - begun < 0.6 + lost(begun)


# --- streams that come and go ----------------------------------------------------------------


@pytest.mark.conformance("CR-013", "PU-047")
async def test_a_stream_is_added_where_the_reader_began_or_where_it_is_told(
    client: Client,
) -> None:
    """And what comes later is read as well."""
    a, b, c = client.stream("a"), client.stream("b"), client.stream("c")
    for stream in (a, b, c):
        await fill(stream, 3)
    async with a.reader() as reader:
        assert await reader.add_stream(b) is True
        assert await reader.add_stream(c, OLDEST) is True
        assert numbers(await take(reader, 3)) == [0, 1, 2]
        await fill(b, 2, first=3)
        assert [(e.stream, number(e)) for e in await take(reader, 2)] == [("b", 3), ("b", 4)]
        assert [stream.name for stream in reader.streams] == ["a", "b", "c"]


@pytest.mark.conformance("CR-014", "PU-048")
async def test_adding_a_known_stream_is_a_no_op_and_with_a_start_refused(client: Client) -> None:
    """By name: another handle is the same stream."""
    stream = client.stream("a")
    await fill(stream, 3)
    async with stream.reader(start=OLDEST) as reader:
        assert await reader.add_stream(client.stream("a")) is False
        with pytest.raises(ConfigError, match=r"read already.*seek"):
            await reader.add_stream(client.stream("a"), NEWEST)
        assert numbers(await take(reader, 3)) == [0, 1, 2]
        await nothing_comes(reader, 0.05)


@pytest.mark.conformance("PU-049", "PU-050", "SS-060")
async def test_a_stream_that_is_removed_yields_nothing_more_and_goes_on_when_added_again(
    client: Client,
) -> None:
    """By name; the last one is not removed, and one that is not there was not."""
    a, b = client.stream("a"), client.stream("b")
    positions = await fill(a, 200)
    await fill(b, 200)
    async with client.reader([a, b], start=OLDEST, prefetch=250) as reader:
        await soon(lambda: reader.statistics().buffered > 200, "it has read ahead of both")
        assert await reader.remove_stream("a") is True
        assert await reader.remove_stream("nothing") is False
        assert [(e.stream, number(e)) for e in await take(reader, 200)] == [
            ("b", n) for n in range(200)
        ]
        with pytest.raises(ConfigError, match=r"at least one stream.*'b' is its last"):
            await reader.remove_stream(b)
        await reader.add_stream(a, after(positions[197]))
        assert numbers(await take(reader, 2)) == [198, 199]
        await fill(b, 1, first=200)
        assert number(await reader.receive(PATIENCE)) == 200


async def test_an_ended_reader_reads_a_stream_that_is_added(client: Client) -> None:
    """Up to what is its newest event then."""
    a, b = client.stream("a"), client.stream("b")
    await fill(a, 2)
    await fill(b, 2)
    async with a.reader(start=OLDEST, until=END) as reader:
        assert await rest(reader) == [0, 1]
        await reader.add_stream(b)
        await fill(b, 2, first=2)
        assert await rest(reader) == [0, 1]


@pytest.mark.conformance("CR-020")
async def test_an_add_that_fails_leaves_the_reader_as_it_was(client: Client) -> None:
    """What it cannot read is refused by the call, and not a second time by reading."""
    a, b = client.stream("a"), client.stream("b")
    await fill(a, 1)
    await fill(b, 1)
    async with a.reader(start=OLDEST) as reader:
        with pytest.raises(ConfigError):
            await reader.add_stream(client.stream("b", type=int))
        assert number(await reader.receive(PATIENCE)) == 0
        await fill(a, 1, first=1)
        assert number(await reader.receive(PATIENCE)) == 1
        assert [*reader.position] == [*'{"a":["' + str((await a.info()).newest[0]) + '"]}']
    async with a.reader(start=OLDEST, until=(await a.info()).newest[0]) as reader:
        for _ in range(2):
            with pytest.raises(ConfigError, match="one stream"):
                await reader.add_stream(b)
        assert [*reader.positions()] == [a.shard(0)]
        assert [stream.name for stream in reader.streams] == ["a"]


async def test_moves_are_of_open_readers_and_of_their_streams(client: Client) -> None:
    """Anything else is refused before anything moves."""
    stream = client.stream("a")
    await fill(stream, 1)
    reader = stream.reader(start=OLDEST)
    for move in (reader.seek(OLDEST), reader.add_stream(stream), reader.remove_stream("a")):
        with pytest.raises(ClosedError, match="async with"):
            await move
    async with reader:
        with pytest.raises(ConfigError, match=r"reads a; got 'b'"):
            await reader.seek(OLDEST, stream="b")
        with pytest.raises(ConfigError, match=r"a text that reader\.position gave"):
            await reader.seek("yesterday")
        assert number(await reader.receive(PATIENCE)) == 0


# --- saved positions -------------------------------------------------------------------------


@pytest.mark.conformance("CR-012", "CR-015")
async def test_a_saved_position_goes_on_with_all_streams(client: Client) -> None:
    """With those that were added too: nothing twice, nothing left out."""
    a, b, c = (client.stream(name) for name in "abc")
    for stream in (a, b, c):
        await fill(stream, 40)
    async with client.reader([a, b], start=OLDEST, prefetch=10) as reader:
        await reader.add_stream(c, OLDEST)
        found = await take(reader, 50)
        saved = reader.position
    async with client.reader([a, b, c], start=saved, until=END) as reader:
        found += [event async for event in reader]
    for name in "abc":
        assert numbers(e for e in found if e.stream == name) == list(range(40))


async def test_a_stream_that_a_saved_position_does_not_name_begins_at_its_oldest(
    client: Client,
) -> None:
    """Nothing of it was read; and one that names none of them is refused."""
    a, b = client.stream("a"), client.stream("b")
    await fill(a, 3)
    await fill(b, 3)
    async with a.reader(start=OLDEST) as reader:
        await take(reader, 2)
        saved = reader.position
    async with client.reader([a, b], start=saved, until=END) as reader:
        events = [event async for event in reader]
    assert sorted((e.stream, number(e)) for e in events) == [
        ("a", 2),
        *(("b", n) for n in range(3)),
    ]
    with pytest.raises(ConfigError, match=r"must name a stream of the reader, which reads b.*a"):
        b.reader(start=saved)
    for wrong in ("", "1-0", "[]", '{"b": 1}', '{"b": ["x"]}'):
        with pytest.raises(ConfigError):
            b.reader(start=wrong)


async def test_a_reader_goes_back_to_what_it_saved(client: Client) -> None:
    """Also one that was saved before anything was read."""
    stream = client.stream("orders")
    async with stream.reader() as reader:
        early = reader.position
        await fill(stream, 10)
        await take(reader, 4)
        saved = reader.position
        await take(reader, 4)
        for text, first in ((saved, 4), (early, 0)):
            await reader.seek(text)
            assert number(await reader.receive(PATIENCE)) == first


@pytest.mark.conformance("PU-027")
async def test_what_is_filtered_out_moves_the_position_on(client: Client) -> None:
    """As soon as nothing before it waits to be yielded."""
    stream = client.stream("orders")
    positions = await fill(stream, 10)
    async with stream.reader(start=OLDEST, where=lambda e: number(e) == 2) as reader:
        await soon(lambda: reader.statistics().read == 10, "all is read")
        assert [*reader.positions().values()] == [None]
        await take(reader, 1)
        assert [*reader.positions().values()] == [positions[9]]


@pytest.mark.conformance("SS-063")
async def test_positions_are_by_shard(client: Client) -> None:
    """One for each that is read; a saved one goes on in each."""
    stream = client.stream("parts", shards=3)
    for n in range(60):
        await stream.append({"n": n}, key=str(n))
    async with stream.reader(start=OLDEST, prefetch=7) as reader:
        found = numbers(await take(reader, 25))
        assert [(s.stream, s.index, s.of) for s in reader.positions()] == [
            ("parts", n, 3) for n in range(3)
        ]
        saved = reader.position
    async with client.stream("parts").reader(start=saved, until=END) as reader:
        found += await rest(reader)
    assert sorted(found) == list(range(60))
    other = client.stream("other", shards=2)
    await other.append({"n": 1})
    with pytest.raises(ConfigError, match="has 2 shards, and the saved position has 3"):
        await other.reader(start=saved.replace("parts", "other")).__aenter__()


@pytest.mark.conformance("SS-062")
async def test_shards_of_a_stream_that_comes_to_be_are_all_read(client: Client) -> None:
    """From their first event on, though nobody knew of them on entry."""
    maker = client.stream("late", shards=4)
    for start in (NEWEST, OLDEST):
        async with client.stream("late").reader(start=start) as reader:
            await nothing_comes(reader, 0.05)
            for n in range(40):
                await maker.append({"n": n}, key=str(n))
            assert sorted(numbers(await take(reader, 40))) == list(range(40))
            await nothing_comes(reader, 0.4)
            await maker.append({"n": 40}, key="x")
            assert number(await reader.receive(PATIENCE)) == 40
        await maker.destroy()
        maker = client.stream("late", shards=4)
