"""The master moves: everything finds the new one by itself, and the old one is left."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from faults.machinery import GROUP, STREAM, asked, soon, watched
from faults.nodes import Node
from penstock import (
    OLDEST,
    BackendUnavailable,
    Client,
    Group,
    OutcomeUnknown,
    PositionLost,
    Reader,
    connect,
)
from support.servers import MissingServerError, redis_binary

pytestmark = [pytest.mark.one_loop, pytest.mark.timeout(120)]

LEASE = 1.0


class Watched:
    """A master, a replica, and three sentinels that watch them."""

    def __init__(self, folder: Path) -> None:
        self.servers = [Node(folder, "a"), Node(folder, "b")]
        self.sentinels = [Node(folder, f"s{n}") for n in range(3)]
        self.hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.sentinels)
        self.url = f"redis+sentinel://{self.hosts}/main"

    def start(self) -> None:
        """Start all, and return when the sentinels know of each other and of the replica."""
        first, second = self.servers
        plain = ("--save", "", "--repl-diskless-sync-delay", "0")
        first.start(*plain)
        second.start(*plain, "--replicaof", "127.0.0.1", str(first.port))
        for node in self.sentinels:
            (node.folder / "conf").write_text(
                f"sentinel monitor main 127.0.0.1 {first.port} 2\n"
                "sentinel down-after-milliseconds main 1500\n"
                "sentinel failover-timeout main 3000\n"
            )
            node.start(str(node.folder / "conf"), "--sentinel")
        _until(lambda: all(self._knows(node) for node in self.sentinels))

    def _knows(self, node: Node) -> bool:
        about = asked(node.url, "SENTINEL", "MASTER", "main")
        flat = about if isinstance(about, dict) else dict(zip(about[::2], about[1::2], strict=True))
        return (int(flat["num-other-sentinels"]), int(flat["num-slaves"])) == (2, 1)

    @property
    def master(self) -> Node:
        """Where two sentinels say that it is."""
        said = Counter(
            int(asked(node.url, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")[1])
            for node in self.sentinels
        )
        port = said.most_common(1)[0][0]
        return next(node for node in self.servers if node.port == port)

    def stop(self) -> None:
        """End all."""
        for node in [*self.sentinels, *self.servers]:
            node.stop()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Watched]:
    """Redis under the eyes of three sentinels."""
    try:
        redis_binary()
    except MissingServerError as missing:
        pytest.skip(str(missing))
    watched_by = Watched(tmp_path)
    try:
        watched_by.start()
        yield watched_by
    finally:
        watched_by.stop()


class Load:
    """Appends, a reader and a member, on one client."""

    def __init__(self, client: Client) -> None:
        self.stream = client.stream(STREAM)
        self.confirmed: list[int] = []
        self.unknown: set[int] = set()
        self.read: list[int] = []
        self.handled: Counter[int] = Counter()

    async def write(self) -> None:
        """Append numbers, each until it is stored or nobody can say."""
        number = 0
        while True:
            try:
                await self.stream.append({"n": number}, timeout=30.0)
                self.confirmed.append(number)
            except BackendUnavailable:
                continue
            except OutcomeUnknown:
                self.unknown.add(number)
            number += 1
            await asyncio.sleep(0.005)

    async def see(self, reader: Reader[Any]) -> None:
        """Read until cancelled; what a failover lost is said once, and reading goes on."""
        while True:
            with contextlib.suppress(PositionLost):
                async for event in reader:
                    self.read.append(int(event.value["n"]))

    async def handle(self, group: Group[Any]) -> None:
        """Handle and ack until cancelled."""
        async for event in group:
            self.handled[int(event.value["n"])] += 1
            group.ack(event)

    async def goes_on(self, what: str) -> None:
        """Return when more was confirmed, and that was read and handled."""
        goal = (self.confirmed[-1] if self.confirmed else 0) + 20
        await soon(lambda: self.confirmed and self.confirmed[-1] > goal, f"{what}: appends", 40)
        await soon(lambda: self.read and self.read[-1] > goal, f"{what}: the reader", 40)
        await soon(lambda: max(self.handled) > goal, f"{what}: the member", 40)

    async def store(self, number: int) -> None:
        """Append one number, as often as it takes."""
        async with asyncio.timeout(40):
            while True:
                with contextlib.suppress(BackendUnavailable):
                    await self.stream.append({"n": number}, timeout=30.0)
                    return


async def test_work_goes_on_by_itself_when_the_master_moves(cluster: Watched) -> None:
    """First as planned, with the old master alive; then by its death."""
    async with watched(cluster.url) as (client, signals):
        load = Load(client)
        await load.stream.append({"n": -1})
        async with (
            load.stream.reader(start=OLDEST) as reader,
            load.stream.group(GROUP, lease=LEASE) as group,
        ):
            work = (load.write(), load.see(reader), load.handle(group))
            tasks = [asyncio.create_task(one) for one in work]
            try:
                await load.goes_on("before")
                first = cluster.master
                await soon(lambda: _fails_over(cluster.sentinels[0]), "a failover begins", 40)
                await soon(lambda: cluster.master is not first, "the master moved", 40)
                await load.goes_on("after a planned failover")
                second = cluster.master
                await soon(lambda: _replicas(second.url) == 1, "the old one follows", 40)
                second.signal(signal.SIGKILL)
                await soon(lambda: cluster.master is not second, "the master moved again", 40)
                await load.goes_on("after its death")
                assert cluster.master is first
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        with redis.Redis.from_url(first.url, decode_responses=True) as there:
            numbers = [int(fields["n"]) for _, fields in there.xrange(STREAM)]
        assert numbers == sorted(set(numbers)), "in order, each once"
        told = Counter(one.kind for one in signals)
        assert told["disconnected"] <= 12, told
        lost = set(load.confirmed) - set(numbers)
        told_lost = told["confirmed-lost"] + told["session-reset"]
        assert not lost or told_lost, f"{sorted(lost)} vanished without a word"


async def test_a_master_that_was_paused_is_left_while_it_sleeps(cluster: Watched) -> None:
    async with watched(cluster.url) as (client, _):
        load = Load(client)
        await load.store(0)
        old = cluster.master
        await soon(lambda: _replicas(old.url) == 1, "the replica follows", 40)
        old.signal(signal.SIGSTOP)
        try:
            await load.store(1)
            assert cluster.master is not old
            new = cluster.master
        finally:
            old.signal(signal.SIGCONT)
        await load.store(2)
        with redis.Redis.from_url(new.url, decode_responses=True) as there:
            assert [int(fields["n"]) for _, fields in there.xrange(STREAM)] == [0, 1, 2]


async def test_sentinels_with_credentials_of_their_own(cluster: Watched) -> None:
    for node in cluster.sentinels:
        asked(node.url, "ACL", "SETUSER", "watch", "on", ">eyes", "allcommands", "allchannels")
        asked(node.url, "ACL", "SETUSER", "default", "off")
    with pytest.raises(BackendUnavailable, match="no sentinel knows 'main'"):
        async with connect(cluster.url, timeout=0.5):
            pass
    async with connect(cluster.url, sentinel_user="watch", sentinel_password="eyes") as client:
        await client.stream(STREAM).append({"n": 1})
        assert await client.redis.xlen(STREAM) == 1
        async with client.stream(STREAM).group(GROUP, lease=LEASE) as group:
            event = await group.receive(10.0)
            assert event is not None
            await asyncio.sleep(1.5 * LEASE)
            group.ack(event)
            await group.flush()


async def test_one_sentinel_is_enough_and_none_is_said(cluster: Watched) -> None:
    cluster.sentinels[0].stop()
    cluster.sentinels[1].stop()
    async with connect(cluster.url) as client:
        await client.stream(STREAM).append({"n": 1})
    with pytest.raises(BackendUnavailable, match="no sentinel knows 'other'"):
        async with connect(f"redis+sentinel://{cluster.hosts}/other", timeout=0.5):
            pass


def _fails_over(sentinel: Node) -> bool:
    """Whether it took the order; it takes none before it has heard of the replica lately."""
    try:
        asked(sentinel.url, "SENTINEL", "FAILOVER", "main")
    except redis.ResponseError:
        return False
    return True


def _replicas(url: str) -> int:
    return int(asked(url, "INFO", "replication")["connected_slaves"])


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
