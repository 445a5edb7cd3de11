"""``penstock info``, ``groups``, ``pending``, ``trim``, ``doctor``: what they say."""

from __future__ import annotations

import json
from typing import Any

import pytest

import penstock
from cli.shell import Shell
from penstock import OLDEST
from penstock.ports import MemberOptions


def objects(shell: Shell, *arguments: str) -> list[dict[str, Any]]:
    """What a command prints with ``--json``."""
    done = shell(*arguments, "--json")
    assert done.code == 0, done
    return [json.loads(line) for line in done.out.splitlines()]


async def leave_pending(url: str) -> None:
    """Five of ten handed out to the member bob of the group g, two of them acked; bob dies."""
    async with penstock.connect(url) as client:
        backend, shard = client.backend, client.stream("orders").shard(0)
        options = MemberOptions(OLDEST, name="bob")
        member = await backend.join([shard], "g", options)
        pages = await member.fetch(5, 1.0)
        ids = [entry[0] for page in pages for entry in page.entries]
        assert len(ids) == 5
        await member.ack(shard, ids[:2])
        member.abandon()


@pytest.fixture
def orders(shell: Shell) -> None:
    """Ten events."""
    shell("append", "orders", stdin=b"".join(b'{"n":%d}\n' % n for n in range(10)))


@pytest.mark.usefixtures("orders")
def test_info_describes_a_stream(shell: Shell) -> None:
    """As JSON, and as plain text with tabs."""
    (about,) = objects(shell, "info", "orders")
    assert (about["length"], about["layout"], about["codec"]) == (10, "fields", "fields")
    assert about["groups"] == 0
    assert about["bytes"] > 0
    assert about["oldest"] < about["newest"]
    assert about["oldest_time"].endswith("Z")
    assert about["server"].startswith("Valkey ")
    assert about["durability"] == "volatile"
    assert "length\t10\n" in shell("info", "orders").out.decode()


@pytest.mark.usefixtures("orders")
def test_info_describes_the_server(shell: Shell) -> None:
    """With its streams, foreign ones too."""
    (about,) = objects(shell, "info")
    assert about["url"] == shell.url
    assert [one["stream"] for one in about["streams"]] == ["orders"]
    assert "\norders\t10\t" in shell("info").out.decode()


@pytest.mark.one_loop
@pytest.mark.usefixtures("orders")
async def test_groups_and_pending_tell_who_holds_what(shell: Shell, embedded_url: str) -> None:
    """Lag, pending, members; and each pending event."""
    await leave_pending(embedded_url)
    (group,) = objects(shell, "groups", "orders")
    assert (group["group"], group["lag"], group["pending"]) == ("g", 5, 3)
    (member,) = group["members"]
    assert (member["member"], member["pending"]) == ("bob", 3)
    pending = objects(shell, "pending", "orders", "g")
    assert [(one["member"], one["deliveries"]) for one in pending] == [("bob", 1)] * 3
    assert len(objects(shell, "pending", "orders", "g", "--limit", "2")) == 2
    plain = shell("groups", "orders").out.decode()
    assert plain.startswith("group\tlag\tpending\tparked\tdead\tmembers\tlast\ng\t5\t3\t0\t0\t1\t")
    assert shell("pending", "orders", "g").out.count(b"\tbob\t") == 3


@pytest.mark.usefixtures("orders")
@pytest.mark.conformance("CR-018")
def test_no_groups_and_no_such_group_are_said(shell: Shell) -> None:
    """Nothing is printed where there is nothing."""
    done = shell("groups", "orders")
    assert (done.code, done.out, done.err) == (0, b"", "stream 'orders' has no groups\n")
    assert objects(shell, "groups", "orders") == []
    missing = shell("pending", "orders", "g")
    assert missing.code == 1
    assert "there is no group 'g' of stream 'orders'; it has none" in missing.err


@pytest.mark.one_loop
@pytest.mark.usefixtures("orders")
async def test_trim_keeps_what_is_not_acked(shell: Shell, stored: Any, embedded_url: str) -> None:
    """Unless it is forced."""
    await leave_pending(embedded_url)
    (kept,) = objects(shell, "trim", "orders", "--max-events", "4")
    assert kept == {"stream": "orders", "removed": 2, "left": 8}
    assert "4 events more kept" in shell("trim", "orders", "--max-events", "4").err
    done = shell("trim", "orders", "--max-events", "4", "--force")
    assert (done.code, done.err) == (0, "removed 4 events of 'orders'; 4 left\n")
    assert stored.xlen("orders") == 4


@pytest.mark.usefixtures("orders")
def test_the_doctor_has_a_verdict_on_everything(shell: Shell) -> None:
    """None of them bad here."""
    found = {one["check"]: one for one in objects(shell, "doctor")}
    assert {one["verdict"] for one in found.values()} <= {"ok", "warn"}
    for about in ("penstock", "event-loop", "extra", "server-binary", "connection", "server"):
        assert about in found
    assert found["durability"]["verdict"] == "warn"
    assert "volatile" in found["durability"]["text"]
    assert found["scripts"]["verdict"] == "ok"
    assert "XACKDEL" in found["commands"]["text"]
    assert found["streams"]["text"] == "1 looked at"
    assert shell("doctor").out.startswith(b"verdict\tcheck\tabout\ttext\nok\tpenstock\t")


def test_the_doctor_sees_what_is_bad(shell: Shell, stored: Any) -> None:
    """A policy that evicts streams, and a better durability."""
    stored.config_set("maxmemory", "1gb")
    stored.config_set("maxmemory-policy", "allkeys-lru")
    stored.config_set("appendonly", "yes")
    try:
        done = shell("doctor", "--json")
    finally:
        stored.config_set("maxmemory", "0")
        stored.config_set("maxmemory-policy", "noeviction")
        stored.config_set("appendonly", "no")
    found = {one["check"]: one for one in map(json.loads, done.out.splitlines())}
    assert done.code == 1
    assert found["eviction-policy"]["verdict"] == "bad"
    assert "allkeys-lru" in found["eviction-policy"]["text"]
    assert "crash-safe" in found["durability"]["text"]


def test_the_doctor_works_without_a_url() -> None:
    """About the installation there is much to say."""
    done = Shell("")("doctor")
    assert done.code == 0
    assert b"server-binary" in done.out
    assert b"no --url and no $PENSTOCK_URL" in done.out


def test_every_server_is_served(servers: str) -> None:
    """Redis 7.0 knows fewer commands; what is said is the same."""
    shell = Shell(servers)
    assert shell("append", "orders", stdin=b'{"a":1}\n').code == 0
    assert shell("read", "orders", "--group", "g").out == b'{"a":"1"}\n'
    assert shell("groups", "orders").code == 0
    assert shell("pending", "orders", "g").out == b""
    assert shell("info").code == 0
    assert shell("doctor").code == 0
    assert shell("trim", "orders", "--max-events", "0").code == 0
