"""What a review found about ends, failures of a part, and closing: each failed before its cure."""

from __future__ import annotations

import asyncio
import time

import pytest

from penstock import END, OLDEST, Client, ClosedError, connect, idle
from penstock.errors import BackendUnavailable, OutcomeUnknown
from penstock.testing import TcpProxy
from streams.helping import PATIENCE, everything, fill, numbers, soon

pytestmark = pytest.mark.one_loop


@pytest.mark.conformance("SS-046")
async def test_one_streams_failed_acks_do_not_drop_those_of_another(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a flush could not send is sent by the next one, whichever stream failed."""
    streams = [client.stream("a"), client.stream("b")]
    for stream in streams:
        await fill(stream, 3)
    async with client.group("g", streams, ack_interval=None) as group:
        events = [await group.receive(PATIENCE) for _ in range(6)]
        group.ack([event for event in events if event is not None])
        member = group._work._member
        real, failed = member.ack, []

        async def ack(*args: object, **options: bool) -> int:
            if not failed:
                failed.append(1)
                raise BackendUnavailable("away")
            return await real(*args, **options)

        monkeypatch.setattr(member, "ack", ack)
        with pytest.raises(BackendUnavailable):
            await group.flush()
        await group.flush()
        assert await group.pending() == []


async def test_idle_does_not_count_while_there_is_no_room(client: Client) -> None:
    """A slow program is no silence of the stream."""
    stream = client.stream("orders")
    await fill(stream, 30)
    async with stream.reader(start=OLDEST, until=idle(0.3), prefetch=10) as reader:
        seen = 0
        async for batch in reader.batches(10, 0):
            seen += len(batch)
            await asyncio.sleep(0.4)
    async with stream.group("g", until=idle(0.3), max_in_flight=20) as group:
        handled = 0
        async for batch in group.batches(10, 0):
            handled += len(batch)
            await asyncio.sleep(0.4)
            group.ack(batch)
    assert (seen, handled) == (30, 30)


async def test_a_group_ends_though_events_go_on_coming(client: Client) -> None:
    """What lies behind the end is handed back at once, uncounted."""
    stream = client.stream("orders")
    await fill(stream, 5)
    async with stream.group("g", until=END, max_in_flight=10) as group:
        await fill(stream, 100, first=5)
        async with asyncio.timeout(PATIENCE):
            got = []
            async for event in group:
                got.append(event)
                group.ack(event)
    assert numbers(got) == [0, 1, 2, 3, 4]
    async with stream.group("g", until=END) as group:
        rest = []
        async with asyncio.timeout(PATIENCE):
            async for event in group:
                rest.append(event)
                group.ack(event)
    assert sorted(numbers(rest)) == list(range(5, 105))
    assert {event.attempts for event in rest} == {0}


async def test_a_group_ends_though_its_end_was_removed(client: Client) -> None:
    """Nothing is left to wait for."""
    stream = client.stream("orders")
    positions = await fill(stream, 5)
    async with stream.group("g", until=END, max_in_flight=2) as group:
        await stream.remove([positions[-1]])
        async with asyncio.timeout(PATIENCE):
            got = []
            async for event in group:
                got.append(event)
                group.ack(event)
    assert numbers(got) == [0, 1, 2, 3]


async def test_a_bare_writer_keeps_the_order_over_a_reconnect(servers: str) -> None:
    """What is sent while it connects again comes behind what waits for the same."""
    async with connect(servers) as client:
        stream = client.stream("orders")
        async with stream.writer(idempotent=False) as writer:
            await writer.send({"n": -1})
            await writer.flush()
            client.backend.link.now.end()
            for n in range(300):
                await writer.send({"n": n})
                if n % 3 == 0:
                    await asyncio.sleep(0)
        got = numbers(await everything(stream))
    assert got == list(range(-1, 300))


async def test_a_server_that_does_not_answer_stops_nobody_for_ever(servers: str) -> None:
    """Every call has its limit."""
    host, _, port = servers.removeprefix("redis://").partition(":")
    async with (
        TcpProxy((host, int(port))) as proxy,
        connect(f"redis://127.0.0.1:{proxy.port}", timeout=0.5) as client,
    ):
        proxy.pause()
        for call in (
            lambda: client.stream("a").append({"n": 1}, timeout=0.5),
            lambda: client.stream("a").length(),
            lambda: client.stream("a").groups(),
            client.stream("a").reader().__aenter__,
        ):
            began = time.monotonic()
            with pytest.raises((BackendUnavailable, OutcomeUnknown)):
                await call()
            assert time.monotonic() - began < PATIENCE
        proxy.resume()


async def test_asking_an_ended_reader_again_lets_others_run(client: Client) -> None:
    """A poll loop does not freeze the event loop."""
    stream = client.stream("orders")
    await fill(stream, 1)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with stream.reader(start=OLDEST, until=END) as reader:
        await reader.receive(PATIENCE)
        other = asyncio.create_task(count())
        for _ in range(50):
            assert await reader.receive(1.0) is None
        other.cancel()
    assert turns >= 25


@pytest.mark.conformance("SS-067")
async def test_a_closed_client_closes_what_is_open(url: str) -> None:
    """Nothing goes on behind its back."""
    client = connect(url)
    await client.__aenter__()
    stream = client.stream("orders")
    await fill(stream, 3)
    reader = await stream.reader(start=OLDEST).__aenter__()
    group = await stream.group("g").__aenter__()
    writer = await stream.writer().__aenter__()
    await client.aclose()
    with pytest.raises(ClosedError):
        await writer.send({"n": 1})
    with pytest.raises(ClosedError):
        await stream.append({"n": 1})
    await soon(lambda: reader.statistics().buffered >= 0 and group.statistics(), "still there")


@pytest.mark.conformance("SS-015")
async def test_handles_share_their_session(servers: str) -> None:
    """A handle costs nothing, however often it is made."""
    async with connect(servers) as client:
        for _ in range(20):
            await client.stream("orders").append({"n": 1})
        sessions = [key async for key in client.redis.scan_iter("penstock:*:w@*")]
        assert len(sessions) == 1


async def test_what_cannot_be_closed_in_order_keeps_nothing_else_open(url: str) -> None:
    client = connect(url)
    closed: list[str] = []

    class One:
        open_streams = frozenset[str]()

        def __init__(self, name: str) -> None:
            self.name = name

        async def on_shards(self, stream: str, count: int) -> None:
            raise NotImplementedError

        async def aclose(self) -> None:
            closed.append(self.name)
            raise BackendUnavailable(f"{self.name} is away")

    several = [One("a"), One("b")]
    await client.__aenter__()
    await client.stream("orders").append({"n": 1})
    for one in several:
        client.opened(one)
    with pytest.raises(BackendUnavailable, match="is away"):
        await client.aclose()
    assert sorted(closed) == ["a", "b"]
    with pytest.raises(ClosedError):
        _ = client.backend
