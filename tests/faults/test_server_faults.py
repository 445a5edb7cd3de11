"""The server is killed, paused, emptied, or forgets: nothing wrong is said, and all goes on."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from faults.machinery import (
    GROUP,
    STREAM,
    FaultyServer,
    asked,
    excess,
    faulty,
    lag_of,
    pending_of,
    soon,
    stored,
    watched,
)
from penstock import (
    OLDEST,
    BackendError,
    Client,
    Group,
    OutcomeUnknown,
    PositionLost,
    Reader,
    Writer,
)
from support.meter import lost
from support.servers import MissingServerError, embedded_binary, redis_binary

pytestmark = pytest.mark.one_loop

LEASE = 0.8


@pytest.fixture(params=[embedded_binary, redis_binary], ids=["valkey", "redis7"])
def binary(request: pytest.FixtureRequest) -> Path:
    try:
        return request.param()
    except MissingServerError as missing:
        pytest.skip(str(missing))


@pytest.fixture
def durable(binary: Path, tmp_path: Path) -> Iterator[FaultyServer]:
    """A server that keeps what it has confirmed: AOF, written before each reply."""
    with faulty(binary, tmp_path, aof=True) as server:
        yield server


@pytest.fixture
def volatile(binary: Path, tmp_path: Path) -> Iterator[FaultyServer]:
    """A server that keeps nothing over a restart."""
    with faulty(binary, tmp_path, aof=False) as server:
        yield server


class Load:
    """A writer at work, a reader and two members of a group: what they sent, saw and handled."""

    def __init__(self) -> None:
        self.sent = 0
        self.errors: list[Exception] = []
        self.read: list[int] = []
        self.told: list[PositionLost] = []
        self.handled: Counter[int] = Counter()
        self.writing = True
        self.unknown: set[int] = set()
        self.unsent: set[int] = set()
        self.pending: Callable[[], int] = lambda: 0

    async def write(self, writer: Writer[Any]) -> None:
        """Send numbers until told to stop; after an error, flush, and go on with the next."""
        since = 0
        self.pending = lambda: writer.statistics().pending
        while self.writing:
            try:
                await writer.send({"n": self.sent})
                self.sent += 1
                if self.sent % 10 == 0:
                    await asyncio.sleep(0.001)
                if self.sent - since >= 500:
                    await writer.flush()
                    since = self.sent
            except OutcomeUnknown as error:
                self._on_error(error)
                since = await self._flushed(writer, since)
            except BackendError as error:
                self.errors.append(error)
        await self._flushed(writer, since)

    async def _flushed(self, writer: Writer[Any], since: int) -> int:
        """Hear what became of everything since the last flush."""
        try:
            await writer.flush()
        except OutcomeUnknown as error:
            self._on_error(error)
            first = since + error.stored
            self.unknown |= set(range(first, first + error.unknown))
            self.unsent |= set(range(first + error.unknown, self.sent))
        return self.sent

    def _on_error(self, error: Exception) -> None:
        self.errors.append(error)

    async def see(self, reader: Reader[Any]) -> None:
        """Read until cancelled; where the server lost its data, that is said, and it goes on."""
        while True:
            try:
                async for event in reader:
                    self.read.append(int(event.value["n"]))
            except PositionLost as lost:
                self.told.append(lost)
            else:
                return

    async def handle(self, group: Group[Any]) -> None:
        """Handle and ack until cancelled."""
        async for event in group:
            self.handled[int(event.value["n"])] += 1
            group.ack(event)


@asynccontextmanager
async def under_load(url: str) -> AsyncGenerator[tuple[Load, Client, list[Any]]]:
    """Load on the server; leaving the block ends the writer, and what it sent is drained."""
    load = Load()
    async with watched(url) as (client, signals), watched(url) as (other, more):
        stream = client.stream(STREAM)
        async with (
            stream.writer(max_pending=200) as writer,
            stream.group(GROUP, lease=LEASE, max_in_flight=100) as one,
            other.stream(STREAM).group(GROUP, lease=LEASE, max_in_flight=100) as two,
            stream.reader(start=OLDEST) as reader,
        ):
            writing = asyncio.create_task(load.write(writer))
            others = [
                asyncio.create_task(load.handle(one)),
                asyncio.create_task(load.handle(two)),
                asyncio.create_task(load.see(reader)),
            ]
            try:
                await soon(lambda: load.sent > 1000, "the writer gets going")
                yield load, client, signals
                load.writing = False
                await asyncio.wait_for(writing, 20)
                await soon(lambda: everything_is_settled(url), "lag and pending end at 0")
            finally:
                for task in [writing, *others]:
                    task.cancel()
                ended = await asyncio.gather(writing, *others, return_exceptions=True)
            signals.extend(more)
            failures = [e for e in ended if e and not isinstance(e, asyncio.CancelledError)]
            assert not failures, failures


def everything_is_settled(url: str) -> bool:
    return pending_of(url) == 0 and lag_of(url) == 0


async def goes_on(load: Load) -> None:
    """Writer, reader and group all get on after the fault."""
    sent = load.sent
    await soon(lambda: load.sent > sent + 1000, "the writer goes on")


async def pause(server: FaultyServer) -> None:
    server.pause()
    await asyncio.sleep(3)
    server.resume()


async def kill(server: FaultyServer) -> None:
    server.kill()
    await asyncio.sleep(0.3)
    await asyncio.to_thread(server.start)


async def flush_scripts(server: FaultyServer) -> None:
    for _ in range(20):
        asked(server.url, "SCRIPT", "FLUSH")
        await asyncio.sleep(0.02)


async def kill_clients(server: FaultyServer) -> None:
    for _ in range(10):
        asked(server.url, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("fault", [kill, pause, flush_scripts, kill_clients])
@pytest.mark.conformance("PU-059")
async def test_where_the_state_survives_nothing_is_lost_doubled_or_unknown(
    durable: FaultyServer, fault: Callable[[FaultyServer], Any]
) -> None:
    async with under_load(durable.url) as (load, _, _):
        began = time.monotonic()
        await fault(durable)
        await goes_on(load)
        assert time.monotonic() - began < 12 + lost(began)
    assert not load.errors
    held = stored(durable.url)
    assert held == list(range(load.sent)), "doubled, lost or out of order"
    assert not load.told, "the reader lost nothing"
    assert load.read == held[: len(load.read)], "read twice, not at all, or out of order"
    assert set(load.handled) == set(held), "not handled"
    assert excess(load.handled) <= 2 * 100 * 10, "more handled twice than was in flight"


async def test_a_server_that_lost_its_data_is_never_called_right(volatile: FaultyServer) -> None:
    async with under_load(volatile.url) as (load, _, signals):
        before = load.sent
        volatile.pause()  # what is sent from here on is in flight when it dies
        sent = load.sent
        await soon(lambda: load.sent > sent and load.pending() > 0, "appends are under way")
        await kill(volatile)
        await goes_on(load)
    assert load.sent > before
    held = stored(volatile.url)
    assert held == sorted(set(held)), "doubled or out of order"
    assert not load.unsent & set(held)
    # What came back as stored after the restart is there; the rest was lost with the server.
    gap = [n for n in range(held[0], load.sent) if n not in set(held)]
    assert set(gap) <= load.unknown | load.unsent, "called stored, and is not"
    assert load.errors, "something was in flight when the server died, and nobody was told"
    assert all(isinstance(error, OutcomeUnknown) for error in load.errors)
    assert set(held) <= set(load.handled)
    assert any(s.kind == "group-lost" for s in signals)


async def test_flushall_under_load_is_survived(binary: Path, tmp_path: Path) -> None:
    with faulty(binary, tmp_path, aof=False) as server:
        async with under_load(server.url) as (load, _, signals):
            asked(server.url, "FLUSHALL")
            await goes_on(load)
        held = stored(server.url)
    assert held == list(range(held[0], load.sent)), "no connection broke: nothing can be unknown"
    assert not load.errors
    assert set(held) <= set(load.handled)
    assert len(load.told) <= 1, "a reader says once that its place is gone"
    assert {"group-lost", "session-reset"} <= {s.kind for s in signals}


async def send_until_refused(writer: Writer[Any]) -> int:
    """Send, one in each turn of the event loop; how many were taken."""
    sent = 0
    with contextlib.suppress(OutcomeUnknown):
        while True:
            await writer.send({"n": sent})
            sent += 1
            await asyncio.sleep(0)
    return sent


@pytest.mark.parametrize("idempotent", [True, False])
async def test_what_is_sent_as_an_outcome_becomes_unknown_is_not_stored_behind_it(
    volatile: FaultyServer, idempotent: bool
) -> None:
    """Also not what was sent in that very turn of the event loop: the order would be lost."""
    async with watched(volatile.url) as (client, _):
        stream = client.stream(STREAM)
        async with stream.writer(
            timeout=0.3, max_pending=1_000_000, idempotent=idempotent
        ) as writer:
            await writer.send({"n": -1})  # its connection has been made
            await writer.flush()
            volatile.pause()
            sent = await send_until_refused(writer)
            volatile.resume()
            with pytest.raises(OutcomeUnknown) as caught:
                await writer.flush()
            said = caught.value
            assert said.stored + said.unknown + said.unsent == sent
            await writer.send({"n": sent})
            await writer.flush()
    first, *held = stored(volatile.url)
    assert first == -1
    assert held[-1] == sent, "the writer is not usable after the flush"
    assert held[:-1] == list(range(len(held) - 1)), "stored behind what is unknown"
    assert said.stored <= len(held) - 1 <= said.stored + said.unknown
