"""One meaning on every server: the suite, and the ways in and out, on a Redis 8 and a Valkey 8.

Run by `make servers`, which fetches them. Redis 7.0 and Valkey 9 are what all other tests run on.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from cli.shell import Shell
from conformance.test_redis import RedisHarness
from penstock import END, OLDEST, connect
from penstock.backends.redis.log import RedisBackend
from penstock.testing.conformance import Check, checks, name_of
from support.servers import running

pytestmark = [pytest.mark.servers, pytest.mark.one_loop]

HOME = Path(__file__).parent.parent.parent / ".servers"
SERVERS = {"redis-8": ("redis_version", 8), "valkey-8": ("valkey_version", 8)}


@pytest.fixture(scope="module", params=SERVERS)
def newer(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """The name and the URL of each."""
    binary = HOME / request.param / "server"
    if not binary.exists():
        pytest.skip(f"no {request.param}: run `make servers`")
    with running(binary) as server:
        yield request.param, server.url


def test_they_are_what_they_are_called(newer: tuple[str, str]) -> None:
    name, url = newer
    field, major = SERVERS[name]
    with redis.Redis.from_url(url) as client:
        info = client.info("server")
    assert int(str(info[field]).split(".")[0]) == major
    assert ("valkey_version" in info) == name.startswith("valkey")


@pytest.mark.parametrize("check", checks(RedisBackend.features), ids=name_of)
async def test_the_suite(check: Check, newer: tuple[str, str]) -> None:
    await check(RedisHarness(newer[1]))


async def test_what_users_do(newer: tuple[str, str]) -> None:
    """A writer with shards, a reader, two members, one of which hands back; nothing twice."""
    async with connect(newer[1]) as client:
        stream = client.stream("orders", shards=2)
        async with stream.writer() as writer:
            for n in range(500):
                await writer.send({"n": n}, key=str(n % 7))
        async with stream.reader(start=OLDEST, until=END) as reader:
            read = sorted([int(event.value["n"]) async for event in reader])
        assert read == list(range(500))
        handled: Counter[int] = Counter()
        async with stream.group("g", lease=0.8) as one, stream.group("g", lease=0.8) as two:
            first = await one.receive(10.0)
            assert first is not None
            one.nack(first, delay=0.0)
            async with asyncio.timeout(30):
                while len(handled) < 500:
                    for member in (one, two):
                        if (event := await member.receive(0.05)) is not None:
                            handled[int(event.value["n"])] += 1
                            member.ack(event)
        assert set(handled.values()) == {1}


def test_the_doctor_finds_nothing(newer: tuple[str, str]) -> None:
    with redis.Redis.from_url(newer[1]) as client:
        client.flushall()
    shell = Shell(newer[1])
    assert shell("append", "orders", stdin=b'{"n":1}\n').code == 0
    assert shell("read", "orders", "--group", "g").code == 0
    done = shell("doctor", "--json")
    assert done.code == 0, done.err
    faults = [one for one in map(json.loads, done.out.splitlines()) if one["verdict"] != "ok"]
    assert {one["check"] for one in faults} <= {"durability", "old-server"}, faults
