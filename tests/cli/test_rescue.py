"""``penstock rescue``: what is stranded comes again, of any client, and never from the living."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from click.testing import CliRunner

from cli.shell import Shell
from penstock import connect
from penstock.cli.rescuing import rescue

pytestmark = pytest.mark.one_loop

BEATS = "penstock:{orders}:orders:beats@workers"


@pytest.fixture
def others(servers: str) -> Iterator[Any]:
    """A system that never used us: a stream, a group, and a client of its own."""
    with redis.Redis.from_url(servers, decode_responses=True) as client:
        for n in range(20):
            client.xadd("orders", {"n": n})
        client.xgroup_create("orders", "workers", "0")
        yield client


def take(client: Any, consumer: str, count: int) -> None:
    """A consumer takes entries, and does nothing with them."""
    client.xreadgroup("workers", consumer, {"orders": ">"}, count=count)


def age(client: Any, consumer: str) -> None:
    """It took them ten minutes ago."""
    pending = client.xpending_range("orders", "workers", "-", "+", 10_000, consumer)
    ids = [one["message_id"] for one in pending]
    client.xclaim("orders", "workers", consumer, 0, ids, idle=600_000, justid=True)


def rescued(url: str, *arguments: str) -> dict[str, dict[str, Any]]:
    """What rescue says, by consumer."""
    words = ["--url", url, "--json", "orders", *arguments]
    done = CliRunner().invoke(rescue, words, standalone_mode=False, catch_exceptions=False)
    assert done.return_value == 0
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {one["consumer"]: one for one in found}


def owners(client: Any) -> dict[str, int]:
    """Who holds how many entries."""
    about = client.xpending("orders", "workers")["consumers"] or []
    return {one["name"]: one["pending"] for one in about}


def test_first_it_only_says_what_it_would_do(others: Any, servers: str) -> None:
    take(others, "dead", 5)
    age(others, "dead")
    take(others, "alive", 3)
    found = rescued(servers)
    assert found["dead"]["what"] == "would be rescued"
    assert (found["dead"]["pending"], found["dead"]["stranded"]) == (5, 5)
    assert found["alive"]["what"] == "left: idle for less than 300 s"
    assert owners(others) == {"dead": 5, "alive": 3}


async def test_a_living_member_handles_what_was_rescued(others: Any, servers: str) -> None:
    take(others, "dead", 20)
    age(others, "dead")
    found = await _in_thread(servers, "workers", "--apply")
    assert found["dead"]["rescued"] == 20
    assert found["dead"]["what"] == "rescued"
    async with connect(servers) as client, client.stream("orders").group("workers") as group:
        handled: set[int] = set()
        while len(handled) < 20:
            event = await group.receive(10.0)
            assert event is not None
            handled.add(int(event.value["n"]))
            assert event.attempts == 0, "nobody failed"
            group.ack(event)
        await group.flush()
    assert handled == set(range(20))
    assert owners(others) == {}


def test_more_than_a_page(others: Any, servers: str) -> None:
    with others.pipeline(transaction=False) as pipeline:
        for n in range(20, 1200):
            pipeline.xadd("orders", {"n": n})
        pipeline.execute()
    take(others, "dead", 1200)
    age(others, "dead")
    assert rescued(servers, "--apply")["dead"]["rescued"] == 1200
    assert owners(others) == {"@penstock:parked": 1200}
    assert rescued(servers, "--apply") == {}, "what is parked is nobody's"


def test_a_member_of_ours_that_beats_keeps_what_it_holds(others: Any, servers: str) -> None:
    take(others, "ours", 4)
    age(others, "ours")
    others.hset(BEATS, "ours", "token:400:1")
    with _beating(servers):
        found = rescued(servers, "--apply")
    assert found["ours"]["what"] == "left: it is alive"
    assert owners(others) == {"ours": 4}


def test_a_member_of_ours_that_stands_still_is_struck(others: Any, servers: str) -> None:
    take(others, "ours", 4)
    others.hset(BEATS, "ours", "token:400:1")
    found = rescued(servers, "--apply")
    assert found["ours"]["rescued"] == 4, "a lease without a beat is enough, however short it idled"
    assert others.hget(BEATS, "ours") == "struck"
    assert owners(others) == {"@penstock:parked": 4}


def test_what_was_trimmed_is_counted_as_lost(others: Any, servers: str) -> None:
    take(others, "dead", 10)
    age(others, "dead")
    others.xtrim("orders", maxlen=15, approximate=False)
    found = rescued(servers, "--apply")["dead"]
    assert (found["rescued"], found["trimmed"]) == (5, 5)
    assert owners(others) == {"@penstock:parked": 5}


def test_it_may_go_to_a_consumer_of_theirs(others: Any, servers: str) -> None:
    take(others, "dead", 5)
    age(others, "dead")
    assert rescued(servers, "workers", "--apply", "--to", "worker-2")["dead"]["rescued"] == 5
    assert owners(others) == {"worker-2": 5}
    mine = others.xreadgroup("workers", "worker-2", {"orders": "0"})
    assert [int(fields["n"]) for _, fields in mine[0][1]] == list(range(5))


@pytest.mark.usefixtures("others")
def test_what_there_is_not(servers: str) -> None:
    shell = Shell(servers)
    missing = shell("rescue", "orders", "nobody")
    assert missing.code == 1
    assert "there is no group 'nobody'" in missing.err
    assert "'workers'" in missing.err
    assert shell("rescue", "no-stream").code == 1
    assert shell("rescue", "orders", "--url", "memory://").code == 2


async def _in_thread(url: str, *arguments: str) -> dict[str, dict[str, Any]]:
    return await asyncio.to_thread(_by_process, url, *arguments)


def _by_process(url: str, *arguments: str) -> dict[str, dict[str, Any]]:
    done = Shell(url)("rescue", "orders", *arguments, "--json")
    assert done.code == 0, done.err
    assert "no member of Penstock is in the group" in done.err
    return {one["consumer"]: one for one in map(json.loads, done.out.splitlines())}


class _beating:  # noqa: N801 - reads as a verb
    """A member that beats beside the test."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._client.close()

    def _run(self) -> None:
        counter = 1
        while not self._over.wait(0.05):
            counter += 1
            self._client.hset(BEATS, "ours", f"token:400:{counter}")
