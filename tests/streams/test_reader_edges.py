"""Readers at their edges: ends, losses and moves that meet; streams made anew; one busy of many."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from penstock import END, OLDEST, Client, ClosedError, ConfigError, PositionLost, Reader, connect
from penstock.errors import BackendRejected
from streams.helping import PATIENCE, fill, nothing_comes, number, numbers, soon, take

pytestmark = pytest.mark.one_loop


async def all_of(reader: Reader[Any]) -> tuple[list[Any], list[PositionLost]]:
    """What comes up to the end, and the losses that are told on the way."""
    events: list[Any] = []
    losses: list[PositionLost] = []
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                events.append(await anext(reader))
            except PositionLost as lost:
                losses.append(lost)
            except StopAsyncIteration:
                return events, losses


async def until(reader: Reader[Any], count: int) -> tuple[list[int], list[PositionLost]]:
    """The numbers of the next *count* events, and the losses that are told on the way."""
    found: list[int] = []
    losses: list[PositionLost] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            try:
                found.append(number(await anext(reader)))
            except PositionLost as lost:
                losses.append(lost)
    return found, losses


@asynccontextmanager
async def kept_busy(url: str, name: str) -> AsyncGenerator[None]:
    """Events come to the stream without a pause."""
    async with connect(url) as client:
        stream = client.stream(name)

        async def append() -> None:
            n = 1000
            while True:
                n = n + 1
                await stream.append({"n": n})
                await asyncio.sleep(0.0005)

        task = asyncio.create_task(append())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


# --- the end ---------------------------------------------------------------------------------


async def test_an_end_that_was_removed_is_not_waited_for_beside_a_busy_stream(
    client: Client, url: str
) -> None:
    """What comes to a stream behind its end is not read, so it keeps nobody from ending."""
    a, b = client.stream("a"), client.stream("b")
    positions = await fill(a, 10)
    await fill(b, 10)
    async with client.reader([a, b], start=OLDEST, until=END, prefetch=5) as reader:
        await a.remove(positions[5:])
        async with kept_busy(url, "b"):
            events, _ = await all_of(reader)
    assert numbers(e for e in events if e.stream == "b") == list(range(10))
    assert numbers(e for e in events if e.stream == "a")[:5] == list(range(5))


async def test_what_goes_behind_an_end_is_no_loss(client: Client) -> None:
    """It would not have been read; a seek reads that stream again, to the same end."""
    a, b = client.stream("a"), client.stream("b")
    await fill(a, 10)
    await fill(b, 100)
    async with client.reader([a, b], start=OLDEST, until=END, prefetch=5) as reader:
        events = await take(reader, 40)
        await fill(a, 300, first=10)
        await a.trim(max_events=303, acked_only=False)
        await a.trim(max_events=250, acked_only=False)
        rest, losses = await all_of(reader)
        assert (len(events + rest), losses) == (110, [])
        await reader.seek(OLDEST, stream="b")
        again, losses = await all_of(reader)
        assert (numbers(again), losses) == (list(range(100)), [])


# --- losses ----------------------------------------------------------------------------------


async def test_each_stream_tells_its_own_loss(client: Client) -> None:
    """Also where several were trimmed at once, and nobody has been told of the first one yet."""
    streams = [client.stream(name) for name in "abc"]
    for stream in streams:
        await fill(stream, 100)
    async with client.reader(streams, start=OLDEST, until=END, prefetch=20) as reader:
        await soon(lambda: reader.statistics().buffered >= 18, "it has read ahead")
        for stream in streams:
            await stream.trim(max_events=10, acked_only=False)
        events, losses = await all_of(reader)
    assert sorted(lost.stream for lost in losses) == ["a", "b", "c"]
    assert len(events) + sum(lost.lost or 0 for lost in losses) == 300


@pytest.mark.conformance("PU-054", "PU-066")
async def test_a_stream_made_anew_behind_a_slow_reader_is_told(client: Client) -> None:
    """Though it holds more than the old one did, and nobody looked while it was gone."""
    stream = client.stream("orders")
    await fill(stream, 100)
    async with stream.reader(start=OLDEST, prefetch=20) as reader:
        await soon(lambda: reader.statistics().buffered == 20, "it has read ahead")
        await stream.destroy()
        await fill(stream, 200, first=1000)
        found, losses = await until(reader, 220)
    assert found == [*range(20), *range(1000, 1200)]
    assert [(lost.lost, "made anew" in str(lost)) for lost in losses] == [(None, True)]


@pytest.mark.parametrize(("before", "then"), [(1, 3), (3, 1), (3, 2)])
async def test_a_stream_made_anew_in_other_shards_is_read(
    client: Client, url: str, before: int, then: int
) -> None:
    """All of it, by a reader that had read the old one to its end."""
    async with connect(url) as other:
        stream = other.stream("parts", shards=before)
        await fill(stream, 9)
        async with client.stream("parts").reader(start=OLDEST) as reader:
            await take(reader, 9)
            await asyncio.sleep(0.6)  # a client looks after its streams twice a second
            await stream.destroy()
            await fill(other.stream("parts", shards=then), 12, first=10)
            found, losses = await until(reader, 12)
            assert sorted(found) == list(range(10, 22))
            await nothing_comes(reader, 0.1)
    told = [lost for lost in losses if "made anew" in str(lost)]
    assert (len(told), len(losses)) == ((1, 1) if then != 2 else (len(losses), len(losses)))


async def test_a_stream_that_is_gone_comes_back_in_the_shards_that_its_handle_asks_for(
    client: Client,
) -> None:
    """A reader that looks for it meanwhile changes no handle."""
    stream = client.stream("parts", shards=3)
    await fill(stream, 9)
    async with stream.reader(start=OLDEST) as reader:
        await take(reader, 9)
        await stream.destroy()
        await asyncio.sleep(1.2)  # it was looked for more than once
        await fill(stream, 9, first=10)
        found, _ = await until(reader, 9)
        assert sorted(found) == list(range(10, 19))
    marks = (await stream.info()).marks
    assert marks is not None
    assert marks.shards == 3


async def test_a_stream_made_anew_in_another_format_is_decoded_by_that(
    client: Client, url: str
) -> None:
    """From where it is told that it was: nobody can know before."""
    async with connect(url) as other:
        await fill(other.stream("orders"), 50)
        async with client.stream("orders").reader(start=OLDEST, prefetch=5) as reader:
            await soon(lambda: reader.statistics().buffered == 5, "it has read ahead")
            await other.stream("orders").destroy()
            again = other.stream("orders", type=dict[str, int])
            await again.append_many([{"n": n} for n in range(7, 17)])
            found, losses = await until(reader, 15)
    assert (found, len(losses)) == ([*range(5), *range(7, 17)], 1)


# --- bounds and turns ------------------------------------------------------------------------


async def test_of_many_streams_no_more_is_read_ahead_than_of_one(client: Client) -> None:
    """Also where there are more streams than events may be read ahead; each gets its turn."""
    streams = [client.stream(f"s{n}") for n in range(30)]
    for stream in streams:
        await fill(stream, 10)
    async with client.reader(streams, start=OLDEST, prefetch=4) as reader:
        await soon(lambda: reader.statistics().buffered == 4, "it has read ahead")
        await asyncio.sleep(0.05)
        assert reader.statistics().buffered == 4
        first = await take(reader, 130)
        assert len({event.stream for event in first}) == 30
        events = first + await take(reader, 170)
        await fill(streams[17], 1, first=10)
        assert number(await reader.receive(PATIENCE)) == 10
    for stream in streams:
        assert numbers(e for e in events if e.stream == stream.name) == list(range(10))


async def test_a_busy_stream_of_many_is_read_in_pages_of_its_own(servers: str) -> None:
    """Idle ones cost it no share of each read, and wait for no more than a page when they wake."""
    async with connect(servers) as client:
        streams = [client.stream(f"s{n}") for n in range(50)]
        for stream in streams:
            await fill(stream, 1)
        await fill(streams[20], 4000, first=1)
        async with client.reader(streams, start=OLDEST, prefetch=200) as reader:
            await take(reader, 500)
            await client.redis.execute_command("CONFIG", "RESETSTAT")
            await take(reader, 2000)
            stats = await client.redis.execute_command("INFO", "commandstats")
            assert stats["cmdstat_xread"]["calls"] < 200  # four events a read would be 500
            await fill(streams[30], 1, first=77)
            others = 0
            while (await anext(reader)).stream != "s30":
                others += 1
            assert others <= 600


# --- predicates ------------------------------------------------------------------------------


async def test_what_stands_before_an_event_that_a_predicate_fails_at_is_read(
    client: Client,
) -> None:
    """Then it is raised, and says at which; behind that it goes on by a seek."""
    stream = client.stream("orders")
    positions = await fill(stream, 10)

    def where(event: Any) -> bool:
        if number(event) == 5:
            raise ZeroDivisionError
        return True

    async with stream.reader(start=OLDEST, where=where) as reader:
        assert numbers(await take(reader, 5)) == [0, 1, 2, 3, 4]
        for _ in range(2):
            with pytest.raises(ZeroDivisionError) as caught:
                await reader.receive(PATIENCE)
            assert str(positions[5]) in caught.value.__notes__[0]
        assert [*reader.positions().values()] == [positions[4]]
        assert reader.statistics().read == 5


async def test_a_timeout_out_of_a_predicate_is_no_silence(client: Client) -> None:
    """It is raised like any other error, also to who waits for a while."""
    stream = client.stream("orders")
    await fill(stream, 1)

    def where(_: Any) -> bool:
        raise TimeoutError("of the predicate")

    async with stream.reader(start=OLDEST, where=where) as reader:
        with pytest.raises(TimeoutError, match="of the predicate"):
            await reader.receive(PATIENCE)


# --- life ------------------------------------------------------------------------------------


async def test_a_closed_reader_yields_nothing_and_does_not_move(client: Client) -> None:
    """What was read ahead is dropped; whoever asks is told that it has ended, at once."""
    a, b = client.stream("a"), client.stream("b")
    await fill(a, 10)
    async with client.reader([a, b], start=OLDEST) as reader:
        await soon(lambda: reader.statistics().buffered == 10, "it has read ahead")
        seeking = asyncio.create_task(reader.seek(OLDEST))
        await asyncio.sleep(0)
    with contextlib.suppress(ClosedError):
        await seeking
    for move in (reader.seek(OLDEST), reader.add_stream(b), reader.remove_stream("a")):
        with pytest.raises(ClosedError, match="was closed"):
            await move
    async with asyncio.timeout(PATIENCE):
        assert await reader.receive() is None
        assert [event async for event in reader] == []


async def test_a_move_that_is_cancelled_is_whole_or_not_at_all(client: Client) -> None:
    """Wherever it was: what the reader says that it reads is what it reads."""
    a, b = client.stream("a"), client.stream("b")
    await fill(a, 3)
    await fill(b, 3)
    async with a.reader(start=OLDEST) as reader:
        await take(reader, 3)
        for turn in range(24):
            for move in (partial(reader.add_stream, b, OLDEST), partial(reader.remove_stream, b)):
                moving = asyncio.create_task(move())
                for _ in range(turn % 12):
                    await asyncio.sleep(0)
                moving.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await moving
                named = {stream.name for stream in reader.streams}
                assert named == {shard.stream for shard in reader.positions()}
                if "b" in named:
                    await reader.seek(OLDEST, stream="b")
                    assert numbers(await take(reader, 3)) == [0, 1, 2]
                else:
                    await nothing_comes(reader, 0)
                    break


async def test_an_error_of_where_one_was_does_not_stop_a_reader_that_moved(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It arrives behind the move: the next read says whether it still holds."""
    stream = client.stream("orders")
    await fill(stream, 1)
    async with stream.reader() as reader:
        cursor: Any = reader._reading._cursor
        read, begun, failing = cursor.read, asyncio.Event(), asyncio.Event()

        async def refused(*_: Any) -> Any:
            begun.set()
            await failing.wait()
            monkeypatch.setattr(cursor, "read", read)
            raise BackendRejected("of before")

        monkeypatch.setattr(cursor, "read", refused)
        await fill(stream, 2, first=1)
        await asyncio.wait_for(begun.wait(), PATIENCE)
        seeking = asyncio.create_task(reader.seek(OLDEST))
        await soon(lambda: [*reader.positions().values()] == [None], "it has moved")
        failing.set()
        await seeking
        assert numbers(await take(reader, 3)) == [0, 1, 2]


async def test_a_saved_position_moves_the_stream_that_is_named(client: Client) -> None:
    """One that says nothing of it is refused: nothing would move."""
    a, b = client.stream("a"), client.stream("b")
    await fill(a, 3)
    async with a.reader(start=OLDEST) as alone:
        await take(alone, 1)
        saved = alone.position
    async with client.reader([a, b], start=OLDEST) as reader:
        with pytest.raises(ConfigError, match="must name 'b', got a"):
            await reader.seek(saved, stream=b)
        await reader.seek(saved, stream=a)
        assert number(await reader.receive(PATIENCE)) == 1
