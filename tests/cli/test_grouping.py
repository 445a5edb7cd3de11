"""``penstock groups`` and ``lag``: watched, made, set back, removed."""

from __future__ import annotations

import json
from typing import Any

import pytest

import penstock
from cli.shell import Shell, wait_until
from penstock import END

pytestmark = pytest.mark.one_loop


@pytest.fixture
def orders(shell: Shell) -> None:
    """Ten events."""
    shell("append", "orders", stdin=b"".join(b'{"n":%d}\n' % n for n in range(10)))


def objects(shell: Shell, *arguments: str) -> list[dict[str, Any]]:
    done = shell(*arguments, "--json")
    assert done.code == 0, done
    return [json.loads(line) for line in done.out.splitlines()]


async def read_all(url: str, group: str) -> list[int]:
    async with (
        penstock.connect(url) as client,
        client.stream("orders").group(group, until=END) as member,
    ):
        found = []
        async for event in member:
            found.append(int(event.value["n"]))
            member.ack(event)
    return found


@pytest.mark.usefixtures("orders")
async def test_a_group_is_made_set_back_and_removed(shell: Shell, embedded_url: str) -> None:
    """Nothing happens without --yes where nobody can be asked, nor with --dry-run."""
    assert "would make" in shell("groups", "orders", "--create", "g", "--dry-run").err
    assert objects(shell, "groups", "orders") == []
    newest = shell("groups", "orders", "--create", "g", "--start", "newest")
    assert (newest.code, newest.out) == (0, b"")
    assert shell("groups", "orders", "--create", "g").code == 2
    assert await read_all(embedded_url, "g") == []

    assert shell("groups", "orders", "--reset", "g").code == 2  # where to?
    assert shell("groups", "orders", "--reset", "g", "--start", "oldest").code == 2  # who says so?
    told = shell("groups", "orders", "--reset", "g", "--start", "oldest", "--dry-run")
    assert "0 events behind" in told.err
    assert await read_all(embedded_url, "g") == []
    assert shell("groups", "orders", "--reset", "g", "--start", "oldest", "--yes").code == 0
    assert await read_all(embedded_url, "g") == list(range(10))

    assert shell("groups", "orders", "--delete", "g", "--yes").code == 0
    assert objects(shell, "groups", "orders") == []
    gone = shell("groups", "orders", "--delete", "g", "--yes")
    assert (gone.code, "no group 'g'" in gone.err) == (1, True)


@pytest.mark.usefixtures("orders")
async def test_a_group_with_members_is_not_set_back(shell: Shell, embedded_url: str) -> None:
    async with (
        penstock.connect(embedded_url) as client,
        client.stream("orders").group("g") as member,
    ):
        assert await member.receive(5.0) is not None
        done = shell("groups", "orders", "--reset", "g", "--start", "newest", "--yes")
        assert done.code == 2
        assert "when no member lives" in done.err
        with pytest.raises(penstock.ConfigError, match="live"):
            await client.stream("orders").reset_group("g", penstock.NEWEST)


@pytest.mark.usefixtures("orders")
async def test_lag_over_all_streams(shell: Shell, embedded_url: str) -> None:
    """In events and, where it can be known, in seconds."""
    assert shell("lag").err.strip() == "there is no group"
    await read_all(embedded_url, "done")
    assert shell("groups", "orders", "--create", "late").code == 0
    found = {one["group"]: one for one in objects(shell, "lag")}
    assert (found["done"]["lag"], found["late"]["lag"]) == (0, 10)
    assert found["late"]["stream"] == "orders"
    (only,) = objects(shell, "lag", "orders", "late")
    assert only["lag"] == 10
    assert shell("lag", "orders", "nobody").code == 1
    assert "\tlate\t10\t" in shell("lag", "orders").out.decode()


@pytest.mark.usefixtures("orders")
def test_watching_looks_again(shell: Shell) -> None:
    """One picture behind the other in a pipe, until it is interrupted."""
    shell("groups", "orders", "--create", "g")
    with shell.running("groups", "orders", "--watch", "0.1") as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first.startswith(b"group\tlag\t")
        assert process.stdout.readline().startswith(b"g\t10\t")
        shell("append", "orders", stdin=b'{"n":10}\n')
        out = process.stdout
        wait_until(lambda: out.readline().startswith(b"g\t11\t"))


async def test_groups_that_share_shards_say_how_far_each_shard_is(
    shell: Shell, embedded_url: str
) -> None:
    """In events and seconds, also where what was committed is within what was read."""
    async with penstock.connect(embedded_url) as client:
        stream = client.stream("keyed", shards=2)
        for number in range(20):
            await stream.append({"n": number}, key=f"k{number % 7}")
        newest = (await stream.info()).newest
        async with stream.group("totals", share="shards", until=penstock.idle(0.3)) as group:
            async for event in group:  # one behind the other: the last ones stay undone
                if event.position != newest[event.shard]:
                    group.ack(event)
            await group.flush()
            statistics = group.statistics()
            assert await group.lag() == 2
    assert (statistics.yielded, statistics.acked) == (20, 18)
    for command in ("groups", "lag"):
        found = {one["shard"]: one for one in objects(shell, command, "keyed")}
        assert [found[shard]["lag"] for shard in (0, 1)] == [1, 1], command
    assert all(one["lag_s"] > 0 for one in found.values())
    assert b"group\tshard\tlag\t" in shell("groups", "keyed").out


@pytest.mark.usefixtures("orders")
def test_a_group_that_is_not_there_is_told_by_every_command(shell: Shell) -> None:
    """Also where it might have left letters."""
    for command in (["lag"], ["pending"], ["dead", "ls"]):
        done = shell(*command, "orders", "nobody")
        assert (done.code, "no group 'nobody'" in done.err) == (1, True), (command, done)
    shell("groups", "orders", "--create", "g")
    assert "nothing of 'orders'" in shell("pending", "orders", "g").err
