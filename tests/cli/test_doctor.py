"""``penstock doctor``: each fault by its own name, and nothing where there is none."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis
from click.testing import CliRunner

from cli.shell import Shell
from faults.machinery import FaultyServer, faulty
from penstock import connect
from penstock.cli.doctor import doctor
from penstock.cli.doctor_server import of_clients, of_server
from penstock.cli.doctor_streams import LAGGING, LONG, MANY_CONSUMERS, of_stream
from penstock.cli.facts import Facts
from penstock.cli.survey import Consumer, Group, Seen
from support.servers import MissingServerError, embedded_binary, redis_binary

pytestmark = pytest.mark.one_loop

IDLE = 0.2
"""Seconds after which these tests call a consumer dead."""


@pytest.fixture(params=[embedded_binary, redis_binary], ids=["valkey", "redis7"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FaultyServer]:
    """A server that keeps what it confirms, with nothing wrong about it."""
    try:
        binary = request.param()
    except MissingServerError as missing:
        pytest.skip(str(missing))
    with faulty(binary, tmp_path, aof=True) as running:
        yield running


class Report(NamedTuple):
    """What the doctor said."""

    code: int
    findings: list[dict[str, Any]]

    @property
    def faults(self) -> dict[str, list[str]]:
        """By check, what it is about; without what is in order."""
        found: dict[str, list[str]] = {}
        for one in self.findings:
            if one["verdict"] != "ok":
                found.setdefault(one["check"], []).append(one["about"])
        return found


def examined(url: str, *arguments: str) -> Report:
    """The doctor's report."""
    words = ["--url", url, "--json", "--idle", str(IDLE), *arguments]
    done = CliRunner().invoke(doctor, words, standalone_mode=False, catch_exceptions=False)
    return Report(done.return_value, [json.loads(line) for line in done.stdout.splitlines()])


# --- seeds: what a system looks like that has this fault ------------------------------------


def stranded(client: Any, _: ExitStack) -> None:
    """A consumer took entries, and was never seen again."""
    _entries(client, 5)
    client.xgroup_create("orders", "workers", "0")
    client.xreadgroup("workers", "worker-1", {"orders": ">"}, count=3)
    time.sleep(2 * IDLE)


def held_by_the_living(client: Any, stack: ExitStack) -> None:
    """Entries that a consumer took and forgot, while it reads on."""
    stranded(client, stack)
    client.xreadgroup("workers", "worker-1", {"orders": ">"}, count=1)


def overtaken(client: Any, _: ExitStack) -> None:
    """Trimmed before it was read."""
    _entries(client, 2)
    client.xgroup_create("orders", "slow", "0")
    client.xreadgroup("slow", "s", {"orders": ">"}, count=1)
    client.xack("orders", "slow", client.xrange("orders", count=1)[0][0])
    _entries(client, 20)
    client.xtrim("orders", maxlen=5, approximate=False)


def pending_trimmed(client: Any, stack: ExitStack) -> None:
    """Trimmed before it was acked."""
    held_by_the_living(client, stack)
    _entries(client, 5)
    client.xtrim("orders", maxlen=2, approximate=False)


def two_of_a_name(client: Any, stack: ExitStack) -> None:
    """Two processes that call themselves the same."""
    client.xgroup_create("orders", "workers", "0", mkstream=True)
    for _ in range(2):
        _blocked_reader(client, stack)
    _until(lambda: sum(one["cmd"] == "xreadgroup" for one in client.client_list()) == 2)


def nobody_reads(client: Any, _: ExitStack) -> None:
    """A group that was made and left."""
    _entries(client, 3)
    client.xgroup_create("orders", "forgotten", "0")


def shards_of(note: str, age: float) -> Callable[[Any, ExitStack], None]:
    """A group that shares shards is behind, and its only member beat *age* seconds ago."""

    def seed(client: Any, _: ExitStack) -> None:
        _entries(client, 3)
        client.hset("penstock:{orders}:orders:positions", "billing", "0-0")
        beat = f"token:30000:7@{int((time.time() - age) * 1000)}{note}"
        client.hset("penstock:{orders}:orders:roster@billing", "one", beat)

    return seed


def not_a_stream(client: Any, _: ExitStack) -> None:
    """The key of a stream of ours holds something else."""
    client.hset("penstock:{orders}:orders:meta", mapping={"version": "1", "layout": "fields"})
    client.set("orders", "text")


def exhausted(client: Any, _: ExitStack) -> None:
    """Somebody added the last id there is."""
    client.xadd("orders", {"n": 1}, id=f"{2**64 - 1}-{2**64 - 2}")


def ahead(client: Any, _: ExitStack) -> None:
    """A clock that was wrong."""
    client.xadd("orders", {"n": 1}, id=str(int(time.time() * 1000) + 10 * 86_400_000))


def setting(name: str, value: str) -> Callable[[Any, ExitStack], None]:
    """A server that is set so."""
    return lambda client, _: client.config_set(name, value)


def evicting(client: Any, _: ExitStack) -> None:
    """A cache's settings."""
    client.config_set("maxmemory", "1gb")
    client.config_set("maxmemory-policy", "allkeys-lru")


def nearly_full(client: Any, _: ExitStack) -> None:
    """No room for much."""
    client.config_set("maxmemory", int(client.info()["used_memory"] * 1.02))


def without_persistence(client: Any, _: ExitStack) -> None:
    """What it has, is gone when it ends."""
    client.config_set("appendonly", "no")


def demoted(client: Any, _: ExitStack) -> None:
    """A replica; its master cannot be reached, which is none of the doctor's business."""
    client.replicaof("127.0.0.1", "1")


SEEDS: dict[str, tuple[Callable[[Any, ExitStack], None], dict[str, str]]] = {
    "stranded": (stranded, {"stranded-pending": "orders/workers", "dead-consumer": "worker-1"}),
    "held": (held_by_the_living, {"stranded-pending": "orders/workers"}),
    "overtaken": (overtaken, {"overtaken-group": "orders/slow"}),
    "pending-trimmed": (pending_trimmed, {"trimmed-pending": "orders/workers"}),
    "nobody-reads": (nobody_reads, {"no-consumers": "orders/forgotten"}),
    "nobody-owns": (shards_of("", 60.0), {"no-consumers": "orders/billing"}),
    "all-rest": (shards_of("r", 1.0), {"all-resting": "orders/billing"}),
    "wrong-type": (not_a_stream, {"wrong-type": "orders"}),
    "exhausted": (exhausted, {"id-exhaustion": "orders"}),
    "ahead": (ahead, {"future-ids": "orders"}),
    "evicting": (evicting, {"eviction-policy": "allkeys-lru"}),
    "nearly-full": (nearly_full, {"memory-near-limit": ""}),
    "volatile": (without_persistence, {"durability": "appendonly"}),
    "replica": (demoted, {"replica": "127.0.0.1"}),
    "timeout": (setting("timeout", "30"), {"client-timeout": "timeout"}),
    "keepalive": (setting("tcp-keepalive", "0"), {"no-keepalive": "tcp-keepalive"}),
    "buffers": (
        setting("client-output-buffer-limit", "normal 1mb 0 0"),
        {"output-buffer-limit": "client-output-buffer-limit"},
    ),
    "replicas": (
        setting("min-replicas-to-write", "1"),
        {"replicas-missing": "min-replicas-to-write"},
    ),
}
"""By name: what is seeded, and which checks must say so, about what. Nothing else may."""

ALSO = {
    "held": {"dead-consumer"},
    "pending-trimmed": {"stranded-pending", "dead-consumer", "overtaken-group"},
}
"""What follows from a seed, sooner or later."""


@pytest.mark.parametrize("name", SEEDS)
def test_a_seeded_fault_is_named_and_nothing_else(name: str, server: FaultyServer) -> None:
    seed, expected = SEEDS[name]
    with redis.Redis.from_url(server.url) as client, ExitStack() as stack:
        seed(client, stack)
        report = examined(server.url)
    faults = {check: about for check, about in report.faults.items() if check != "old-server"}
    for check, about in expected.items():
        assert any(about in one for one in faults.pop(check, [])), (check, report.faults)
    assert not set(faults) - ALSO.get(name, set()), report.faults
    bad = any(one["verdict"] == "bad" for one in report.findings)
    assert report.code == int(bad)


def test_a_name_that_several_connections_use(embedded_url: str) -> None:
    """Where consumers can be counted: not on Redis 7.0."""
    with redis.Redis.from_url(embedded_url) as client, ExitStack() as stack:
        two_of_a_name(client, stack)
        report = examined(embedded_url)
    assert "shared-consumer-name" in report.faults
    assert report.code == 1


def test_a_master_that_would_empty_its_replicas(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    binary = embedded_binary()
    with (
        faulty(binary, tmp_path / "a", aof=False) as master,
        faulty(binary, tmp_path / "b", aof=False) as replica,
        redis.Redis.from_url(replica.url) as client,
    ):
        client.replicaof("127.0.0.1", str(master.port))
        _until(lambda: client.info()["master_link_status"] == "up")
        assert "volatile-master" in examined(master.url).faults


async def test_nothing_is_wrong_with_what_uses_us(server: FaultyServer) -> None:
    """A writer, a reader, members that share, hold and hand back: as the examples do."""
    async with connect(server.url) as client:
        stream = client.stream("orders")
        await stream.append_many([{"n": n} for n in range(50)])
        async with stream.group("billing", lease=0.4) as one, stream.group("billing"):
            held = await one.receive(5.0)
            given = await one.receive(5.0)
            assert held is not None
            assert given is not None
            one.nack(given, delay=5.0)
            await one.flush()
            await asyncio.sleep(2 * IDLE)
            arguments = ("doctor", "--json", "--idle", str(IDLE))
            done = await asyncio.to_thread(Shell(server.url), *arguments)
            found = [json.loads(line) for line in done.out.splitlines()]
            report = Report(done.code, found)
            assert set(report.faults) <= {"old-server"}, report.faults
            assert report.code == 0


def test_a_dead_member_of_ours_is_found_by_a_second_look(embedded_url: str) -> None:
    with redis.Redis.from_url(embedded_url) as client:
        stranded(client, ExitStack())
        client.hset("penstock:{orders}:orders:beats@workers", "worker-1", "token:400:7")
        report = examined(embedded_url)
    assert {"stranded-pending", "dead-consumer"} <= set(report.faults)


def test_only_these_streams(embedded_url: str) -> None:
    with redis.Redis.from_url(embedded_url) as client:
        stranded(client, ExitStack())
        client.xadd("other", {"n": 1})
        assert "stranded-pending" not in examined(embedded_url, "other").faults
        assert "stranded-pending" in examined(embedded_url, "orders").faults
        assert "no-stream" in examined(embedded_url, "missing").faults


def test_warnings_count_where_that_is_asked_for(embedded_url: str) -> None:
    assert "durability" in examined(embedded_url).faults
    assert examined(embedded_url).code == 0
    assert examined(embedded_url, "--strict").code == 1


def test_what_must_not_be_looked_at_is_said(embedded_url: str) -> None:
    with redis.Redis.from_url(embedded_url) as client:
        stranded(client, ExitStack())
        client.acl_setuser(
            "blind",
            True,
            passwords=["+pw"],
            keys=["*"],
            commands=["+@all", "-config", "-client|list"],
        )
        report = examined(embedded_url.replace("://", "://blind:pw@"))
        client.acl_deluser("blind")
    assert set(report.faults["rights"]) == {"config", "clients"}
    assert "stranded-pending" in report.faults


# --- what takes too long to seed --------------------------------------------------------------


def group(**changes: Any) -> Group:
    """A group with nothing wrong."""
    plain = Group("g", 0, 0, 0, (5, 0), None, {}, [Consumer("c", 0, 0.0, None)])
    return plain._replace(**changes)


@pytest.mark.parametrize(
    ("seen", "check"),
    [
        (Seen("s", "stream", length=LONG, last=(5, 0)), "no-retention"),
        (Seen("s", "stream", last=(9, 0), groups=[group(lag=LAGGING)]), "lagging"),
        (Seen("s", "stream", last=(5, 0), groups=[group(pending=10_000)]), "pending-growth"),
        (
            Seen(
                "s",
                "stream",
                last=(5, 0),
                groups=[
                    group(consumers=[Consumer(str(n), 0, 1e5, None) for n in range(MANY_CONSUMERS)])
                ],
            ),
            "abandoned-consumers",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_grows_is_a_warning(seen: Seen, check: str) -> None:
    assert [(one.verdict, one.check) for one in of_stream(seen, 10, 300.0)] == [("warn", check)]


def test_retention_is_enough() -> None:
    kept = Seen("s", "stream", length=LONG, last=(5, 0), marks={"retention": "…"})
    assert not list(of_stream(kept, 10, 300.0))


def test_reads_without_an_end() -> None:
    waiting = {"cmd": "xreadgroup", "flags": "b", "idle": "61"}
    assert [one.check for one in of_clients([waiting])] == ["endless-block"]
    assert not list(of_clients([{**waiting, "idle": "5"}, {**waiting, "flags": "N"}]))


@pytest.mark.parametrize(
    ("info", "check"),
    [
        ({"redis_version": "7.0.15"}, "old-server"),
        ({"redis_version": "7.4.2"}, "old-server"),
        ({"aof_last_write_status": "err"}, "persistence-failing"),
        ({"rdb_last_bgsave_status": "err"}, "persistence-failing"),
    ],
)
def test_what_a_server_says_about_itself(info: dict[str, str], check: str) -> None:
    sound = {"redis_version": "8.2.3", "aof_enabled": "1", "maxmemory_policy": "noeviction"}
    faults = [one.check for one in of_server(Facts({**sound, **info}, {"timeout": "0"}))]
    assert check in faults
    plain = of_server(Facts(sound, {"timeout": "0"}))
    assert all(one.verdict == "ok" for one in plain)


# --- helpers ----------------------------------------------------------------------------------


def _entries(client: Any, count: int) -> None:
    for n in range(count):
        client.xadd("orders", {"n": n})


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _blocked_reader(client: Any, stack: ExitStack) -> None:
    """Reads and waits, as a program of others does."""
    own = redis.Redis(port=client.connection_pool.connection_kwargs["port"])

    def read() -> None:
        with suppress(redis.RedisError):
            own.xreadgroup("workers", "worker", {"orders": ">"}, block=20_000)

    thread = threading.Thread(target=read)
    thread.start()

    def end() -> None:
        client.delete("orders")  # ends the read with an error of its own
        thread.join(10)
        own.close()

    stack.callback(end)
