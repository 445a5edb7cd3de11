"""The server stands and refuses: the right error, no hot loop, no flood, and all goes on after."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from faults.machinery import GROUP, STREAM, FaultyServer, asked, faulty, soon, stored, watched
from faults.refusing import RefusingProxy
from penstock import (
    OLDEST,
    BackendRejected,
    BackendUnavailable,
    Client,
    Group,
    Reader,
    Signal,
    connect,
)
from support.servers import MissingServerError, embedded_binary, redis_binary

pytestmark = pytest.mark.one_loop

LEASE = 0.8
TOLD_ONCE = ("disconnected", "server-refuses")


@pytest.fixture(params=[embedded_binary, redis_binary], ids=["valkey", "redis7"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FaultyServer]:
    """A server whose settings a test may change."""
    try:
        binary = request.param()
    except MissingServerError as missing:
        pytest.skip(str(missing))
    with faulty(binary, tmp_path, aof=False) as running:
        yield running


class Work:
    """A writer, a reader and a member at work on one client."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.sent = 0
        self.read: list[int] = []
        self.handled: Counter[int] = Counter()

    async def write(self) -> None:
        """Append numbers, each as often as it takes."""
        stream = self.client.stream(STREAM)
        while True:
            try:
                await stream.append({"n": self.sent}, timeout=30.0)
            except BackendUnavailable:
                continue
            self.sent += 1
            await asyncio.sleep(0.01)

    async def see(self, reader: Reader[Any]) -> None:
        """Read until cancelled."""
        async for event in reader:
            self.read.append(int(event.value["n"]))

    async def handle(self, group: Group[Any]) -> None:
        """Handle and ack until cancelled."""
        async for event in group:
            self.handled[int(event.value["n"])] += 1
            group.ack(event)

    async def goes_on(self) -> None:
        """Return when everything that was sent until now, and more, was read and handled."""
        goal = self.sent + 10
        await soon(
            lambda: len(self.read) > goal and len(self.handled) > goal,
            "work goes on after the refusals",
        )


@asynccontextmanager
async def at_work(url: str) -> AsyncGenerator[tuple[Work, list[Signal]]]:
    """Work on the server, ended when the block is left."""
    async with watched(url) as (client, signals):
        work, stream = Work(client), client.stream(STREAM)
        await stream.append({"n": -1})
        async with stream.reader(start=OLDEST) as reader, stream.group(GROUP, lease=LEASE) as group:
            loops = (work.write(), work.see(reader), work.handle(group))
            tasks = [asyncio.create_task(loop) for loop in loops]
            try:
                await work.goes_on()
                yield work, signals
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize(
    "refusal",
    [
        "LOADING Redis is loading the dataset in memory",
        "MISCONF Errors writing to the AOF file: No space left on device",
        "NOREPLICAS Not enough good replicas to write.",
        "READONLY You can't write against a read only replica.",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "CLUSTERDOWN The cluster is down",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "BUSY Redis is busy running a script.",
    ],
    ids=lambda text: text.partition(" ")[0],
)
@pytest.mark.conformance("PU-058", "SS-066")
async def test_refused_for_seconds_there_is_no_hot_loop_and_no_flood(
    refusal: str, embedded_url: str
) -> None:
    async with (
        RefusingProxy(int(embedded_url.rpartition(":")[2])) as proxy,
        at_work(proxy.url) as (work, signals),
    ):
        signals.clear()
        before = proxy.connections
        proxy.refusal = refusal
        await asyncio.sleep(2.0)
        proxy.refusal = None
        asked_for = sum(proxy.refused.values()) - proxy.refused["SCRIPT"]  # those come in one go
        assert asked_for < 150, f"in 2 s: {proxy.refused}"
        assert proxy.connections - before < 60
        told = Counter(signal.kind for signal in signals)
        assert sum(told[kind] for kind in TOLD_ONCE) <= 2 * 3, told  # three connections
        await work.goes_on()
    assert stored(embedded_url)[1:] == list(range(len(stored(embedded_url)) - 1)), "each once"


async def test_full_memory_stops_appends_and_consumers_go_on(server: FaultyServer) -> None:
    async with watched(server.url) as (client, signals):
        stream = client.stream(STREAM)
        await stream.append_many([{"n": n} for n in range(20)])
        async with stream.group(GROUP, lease=LEASE, ack_interval=0.01) as group:
            first = [await group.receive(5.0) for _ in range(10)]
            asked(server.url, "CONFIG", "SET", "maxmemory", "1mb")
            asked(server.url, "CONFIG", "SET", "maxmemory-policy", "noeviction")
            with pytest.raises(BackendRejected, match="OOM") as caught:
                await stream.append({"n": 99})
            assert not caught.value.retryable
            await asyncio.sleep(2.5 * LEASE)
            for event in first:
                assert event is not None
                group.ack(event)
            await group.flush()
            nacked = await group.receive(5.0)
            assert nacked is not None
            group.nack(nacked, delay=0.0)
            async with stream.group(GROUP, lease=LEASE, member="other") as other:
                left = {int(event.value["n"]) for event in first if event}
                while len(left) < 20:
                    for one in (group, other):
                        if (event := await one.receive(0.05)) is not None:
                            one.ack(event)
                            left.add(int(event.value["n"]))
        assert not [one for one in signals if one.kind == "member-lapsed"], "beats need no memory"
        assert asked(server.url, "XPENDING", STREAM, GROUP)["pending"] == 0
        asked(server.url, "CONFIG", "SET", "maxmemory", "0")
        await stream.append({"n": 100})


async def test_full_memory_stops_no_owner_of_shards(server: FaultyServer) -> None:
    """It commits, so that what is done can be trimmed, and shards move; letters wait for memory."""
    async with watched(server.url) as (client, signals):
        stream = client.stream(STREAM, shards=2)
        for n in range(20):
            await stream.append({"n": n}, key=f"k{n}")
        shared: dict[str, Any] = {"share": "shards", "lease": LEASE}
        seen: set[int] = set()
        async with stream.group(GROUP, **shared) as group:
            asked(server.url, "CONFIG", "SET", "maxmemory", "1mb")
            asked(server.url, "CONFIG", "SET", "maxmemory-policy", "noeviction")
            first = await group.receive(5.0)
            assert first is not None
            seen.add(int(first.value["n"]))
            group.ack(first)
            await group.flush()
            async with stream.group(GROUP, **shared) as other:
                async with asyncio.timeout(20.0):
                    while len(seen) < 20 or not other.statistics().acked:
                        for one in (group, other):
                            if (event := await one.receive(0.05)) is not None:
                                seen.add(int(event.value["n"]))
                                one.ack(event)
                                await one.flush()
                assert await group.lag() == 0
        assert not [one for one in signals if one.kind == "member-lapsed"], "beats need no memory"
        asked(server.url, "CONFIG", "SET", "maxmemory", "0")


async def test_replicas_that_are_wanted_and_missing(server: FaultyServer) -> None:
    async with watched(server.url) as (client, _):
        stream = client.stream(STREAM)
        await stream.append({"n": 0})
        asked(server.url, "CONFIG", "SET", "min-replicas-to-write", "1")
        with pytest.raises(BackendUnavailable, match="min-replicas-to-write") as caught:
            await stream.append({"n": 1}, timeout=0.6)
        assert caught.value.retryable
        waiting = asyncio.create_task(stream.append({"n": 2}, timeout=20.0))
        await asyncio.sleep(0.3)
        asked(server.url, "CONFIG", "SET", "min-replicas-to-write", "0")
        await waiting
    assert stored(server.url) == [0, 2]


async def test_a_demoted_master_is_left_and_waited_for(server: FaultyServer) -> None:
    async with at_work(server.url) as (work, signals):
        port = server.port
        asked(server.url, "REPLICAOF", "127.0.0.1", "1")  # nobody is there
        await soon(lambda: any(one.kind == "disconnected" for one in signals), "it was left")
        await asyncio.sleep(0.5)
        begun = asked(server.url, "INFO", "stats")["total_connections_received"]
        await asyncio.sleep(1.0)
        more = asked(server.url, "INFO", "stats")["total_connections_received"] - begun
        assert more < 30, f"{more} connections in a second to a replica"
        asked(server.url, "REPLICAOF", "NO", "ONE")
        await work.goes_on()
        assert port == server.port


async def test_a_script_that_runs_for_long(server: FaultyServer) -> None:
    asked(server.url, "CONFIG", "SET", "lua-time-limit", "50")
    async with at_work(server.url) as (work, _):
        loop = asyncio.get_running_loop()
        stuck = loop.run_in_executor(None, _spin, server.url)
        await soon(lambda: _is_busy(server.url), "the server is busy")
        await asyncio.sleep(1.0)
        asked(server.url, "SCRIPT", "KILL")
        await stuck
        await work.goes_on()


def _spin(url: str) -> None:
    with redis.Redis.from_url(url, socket_timeout=20) as client, pytest.raises(redis.RedisError):
        client.eval("while true do end", 0)


def _is_busy(url: str) -> bool:
    try:
        asked(url, "PING")
    except redis.RedisError as error:
        return "BUSY" in str(error) or "busy" in str(error).lower()
    return False


async def test_no_room_for_another_client(server: FaultyServer) -> None:
    async with watched(server.url) as (client, _):
        stream = client.stream(STREAM)
        await stream.append({"n": 0})
        await client.redis.config_set("maxclients", 2)
        began = time.monotonic()
        before = (await client.redis.info("stats"))["rejected_connections"]
        with pytest.raises(BackendUnavailable, match="max number of clients"):
            async with connect(server.url, timeout=1.0):
                pass
        assert time.monotonic() - began >= 0.9, "it waits: a client may go"
        tried = (await client.redis.info("stats"))["rejected_connections"] - before
        assert 2 <= tried < 20, "with growing pauses"
        await stream.append({"n": 1})


@pytest.mark.parametrize("as_member", [True, False], ids=["group", "reader"])
async def test_answers_over_the_servers_limit_come_in_smaller_pieces(
    server: FaultyServer, as_member: bool
) -> None:
    count, size = 60, 100_000
    async with watched(server.url) as (client, signals):
        stream = client.stream(STREAM)
        for n in range(count):
            await stream.append({"n": n, "filling": "x" * size})
        asked(server.url, "CONFIG", "SET", "client-output-buffer-limit", "normal 1mb 0 0")
        made: Any = stream.group(GROUP) if as_member else stream.reader(start=OLDEST)
        seen: list[int] = []
        async with made as source:
            async with asyncio.timeout(30):
                while len(set(seen)) < count:
                    event = await source.receive(20.0)
                    assert event is not None
                    seen.append(int(event.value["n"]))
                    if as_member:
                        source.ack(event)
        assert Counter(seen) == Counter(range(count)), "each once"
        assert any(one.kind == "disconnected" for one in signals), "the limit was met"


async def test_a_refusal_says_what_is_missing(server: FaultyServer) -> None:
    asked(server.url, "SET", "text", "not a stream")
    asked(server.url, "ACL", "SETUSER", "few", "on", ">pw", "~other", "+@all")
    async with watched(server.url) as (client, _):
        with pytest.raises(BackendRejected, match=r"WRONGTYPE.*another name"):
            await client.stream("text").append({"n": 1})
    async with watched(server.url, user="few", password="pw") as (client, _):
        with pytest.raises(BackendRejected, match=r"NOPERM.*rights"):
            await client.stream(STREAM).append({"n": 1})
    with pytest.raises(BackendRejected, match=r"WRONGPASS.*password of the URL") as caught:
        async with connect(server.url, user="few", password="wrong-one"):
            pass
    assert "wrong-one" not in str(caught.value)
