"""``confirm=``: what an append waits for; with a real replica, and with a real disk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from penstock import ConfigError, NotConfirmed, connect
from penstock.rules.durability import Way, way_of
from streams.helping import everything, numbers, soon
from support.meter import lost
from support.servers import embedded_binary, redis_binary, running

pytestmark = pytest.mark.one_loop


@pytest.fixture
def replicated() -> Iterator[tuple[str, str]]:
    """A master and a replica of it, which follows."""
    with running(redis_binary()) as master, running(redis_binary()) as replica:
        yield master.url, replica.url


async def _follow(master: str, replica: str) -> None:
    async with connect(master) as client, connect(replica) as other:
        await other.redis.execute_command("REPLICAOF", "127.0.0.1", urlsplit(master).port)

        async def follows() -> bool:
            info = await other.redis.info("replication")
            seen = await client.redis.info("replication")
            return info.get("master_link_status") == "up" and seen["connected_slaves"] == 1

        await soon(follows, "the replica follows")


async def test_a_replica_confirms(replicated: tuple[str, str]) -> None:
    """One question for many batches; what an append returned for is on the replica."""
    master, replica = replicated
    await _follow(master, replica)
    async with connect(master, confirm="all") as client, connect(replica) as other:
        stream = client.stream("orders")
        await stream.append({"n": 0})
        assert await other.stream("orders").length() == 1
        async with stream.writer(confirm=1) as writer:
            for n in range(1, 3001):
                await writer.send({"n": n})
            await writer.flush()
            assert await other.stream("orders").length() == 3001
        stats = await client.redis.info("commandstats")
        assert stats["cmdstat_wait"]["calls"] <= 12
    async with connect(master) as client:
        assert numbers(await everything(client.stream("orders"))) == list(range(3001))


async def test_a_shortfall_says_what_is_stored(replicated: tuple[str, str]) -> None:
    """The replica hangs: stored on the master, not confirmed; with an id it can be sent again."""
    master, replica = replicated
    await _follow(master, replica)
    async with connect(master) as client, connect(replica) as other:
        stream = client.stream("orders")
        await stream.append({"n": 0}, confirm=1)
        await other.redis.execute_command("REPLICAOF", "NO", "ONE")
        with pytest.raises(NotConfirmed, match="stored in 'orders' on the master") as raised:
            await stream.append({"n": 1}, id="a", confirm=1, timeout=1.5)
        assert (raised.value.stored, raised.value.confirmed) == (1, 0)
        assert await stream.length() == 2
        await stream.append({"n": 1}, id="a")
        assert await stream.length() == 2
        with pytest.raises(ConfigError, match="needs 1 connected replicas, and the server has 0"):
            async with client.stream("others").writer(confirm="all"):
                pass


async def test_a_disk_that_always_writes_confirms_by_its_reply() -> None:
    """``appendfsync always``: known good on every server, and nothing more is asked."""
    for find in (embedded_binary, redis_binary):
        with running(find()) as server:
            async with connect(server.url) as client:
                with pytest.raises(ConfigError, match="confirm='fsync' needs"):
                    await client.stream("orders").append({"n": 0}, confirm="fsync")
                await client.redis.config_set("appendonly", "yes")
                await client.redis.config_set("appendfsync", "everysec")
                with pytest.raises(ConfigError, match="confirm='fsync' needs"):
                    await client.stream("orders").append({"n": 0}, confirm="fsync")
                await client.redis.config_set("appendfsync", "always")
            async with connect(server.url, confirm="fsync") as client:
                began = time.monotonic()
                await client.stream("orders").append({"n": 0})
                assert time.monotonic() - began < 10 + lost(began)
                assert await client.stream("orders").length() == 1


async def test_what_cannot_be_is_said_before_anything_is_started(url: str) -> None:
    """On connecting, on opening a writer, and on appending; memory has no disk."""
    wanted: tuple[str | int, ...] = ("fsync", "all", 2)
    for level in wanted:
        with pytest.raises(ConfigError):
            async with connect(url, confirm=level):  # type: ignore[arg-type]
                pass
    async with connect(url) as client:
        stream = client.stream("orders")
        for level in (*wanted, 0, True, "disk"):
            with pytest.raises(ConfigError):
                async with stream.writer(confirm=level):  # type: ignore[arg-type]
                    pass
        with pytest.raises(ConfigError):
            await stream.append({"n": 1}, confirm=1)
        assert await stream.length() == 0


async def test_appends_on_the_shared_connection_do_not_wait(replicated: tuple[str, str]) -> None:
    """Who asks for no confirmation has his answer while another one waits for his."""
    master, replica = replicated
    await _follow(master, replica)
    async with connect(master) as client, connect(replica) as other:
        await client.stream("slow").append({"n": 0}, confirm=1)
        await other.redis.execute_command("REPLICAOF", "NO", "ONE")
        slow = asyncio.create_task(client.stream("slow").append({"n": 1}, confirm=1, timeout=3))
        await asyncio.sleep(0.05)
        for n in range(20):
            await client.stream("quick").append({"n": n})
        assert not slow.done()
        with pytest.raises(NotConfirmed):
            await slow


async def test_a_refused_question_is_not_asked_again(replicated: tuple[str, str]) -> None:
    """No right to WAIT: stored, not confirmed, and said at once; the next append is taken too."""
    master, replica = replicated
    await _follow(master, replica)
    where = urlsplit(master)
    async with connect(master) as client:
        rules = ("on", ">x", "~*", "&*", "+@all", "-wait")
        await client.redis.execute_command("ACL", "SETUSER", "nowait", *rules)
        async with connect(f"redis://nowait:x@{where.hostname}:{where.port}") as other:
            for n in range(2):
                with pytest.raises(NotConfirmed, match="NOPERM") as raised:
                    await other.stream("orders").append({"n": n}, confirm=1)
                assert (raised.value.stored, raised.value.confirmed) == (1, 0)
        assert await client.stream("orders").length() == 2
        stats = await client.redis.info("commandstats")
        assert stats["cmdstat_wait"]["rejected_calls"] == 2


def test_the_way_of_a_server() -> None:
    """Valkey's WAITAOF answers too early under everysec; Redis from 7.2 on does not."""
    redis = {"aof_enabled": "1", "redis_version": "8.0.6"}
    valkey = {**redis, "redis_version": "7.2.4", "valkey_version": "9.1.0"}
    everysec, always = {"appendfsync": "everysec"}, {"appendfsync": "always"}
    assert way_of("server", {}, {}) == Way()
    assert way_of("fsync", redis, everysec) == Way("WAITAOF", 1)
    assert way_of("fsync", valkey, always) == Way()
    assert way_of(2, {"connected_slaves": "3"}, {}) == Way("WAIT", 2)
    assert way_of("all", {"connected_slaves": "3"}, {}) == Way("WAIT", 3)
    for info, config in (
        (valkey, everysec),
        ({**redis, "redis_version": "7.4.1"}, everysec),
        ({**redis, "redis_version": "7.0.15"}, {}),
        ({"aof_enabled": "0"}, always),
    ):
        with pytest.raises(ConfigError):
            way_of("fsync", info, config)
