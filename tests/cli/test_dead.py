"""``penstock dead``: the dead letters of a group, listed, shown, replayed, dropped."""

from __future__ import annotations

import json
from typing import Any

import pytest

import penstock
from cli.shell import Shell
from penstock import END, Retry

pytestmark = pytest.mark.one_loop


@pytest.fixture
async def two_letters(embedded_url: str) -> None:
    """Four events; the odd ones are given up at once by the group g."""
    async with penstock.connect(embedded_url) as client:
        orders = client.stream("orders")
        for n in range(4):
            await orders.append({"n": n}, key=f"k{n}", id=f"e{n}")
        async with orders.group("g", until=END, retry=Retry(attempts=1)) as group:
            async for event in group:
                if int(event.value["n"]) % 2:
                    group.fail(event, ValueError(f"no {event.value['n']}"))
                else:
                    group.ack(event)


def objects(shell: Shell, *arguments: str) -> list[dict[str, Any]]:
    done = shell(*arguments, "--json")
    assert done.code == 0, done
    return [json.loads(line) for line in done.out.splitlines()]


@pytest.mark.usefixtures("two_letters")
def test_they_are_listed_and_shown(shell: Shell) -> None:
    """With error, reason, key, and the event as `read --events` prints it."""
    first, second = objects(shell, "dead", "ls", "orders", "g")
    assert (first["error"], first["reason"], first["key"]) == ("ValueError", "no 1", "k1")
    assert (second["attempts"], second["key"]) == (1, "k3")
    assert "\tValueError\tno 1\t" in shell("dead", "ls", "orders", "g").out.decode()
    assert objects(shell, "dead", "ls", "orders", "g", "--error", "KeyError") == []
    assert len(objects(shell, "dead", "ls", "orders", "g", "--limit", "1")) == 1

    (whole,) = objects(shell, "dead", "show", "orders", "g", first["letter"])
    assert whole["event"]["fields"] == {"n": "1"}
    assert (whole["event"]["id"], whole["event"]["position"]) == ("e1", first["position"])
    done = shell("dead", "show", "orders", "g", "1-1")
    assert done.code == 1
    assert "no dead letter '1-1'" in done.err


@pytest.mark.usefixtures("two_letters")
def test_a_replay_names_what_or_all_and_is_asked_for(shell: Shell) -> None:
    """Replayed twice, it changes nothing the second time; the group's next member gets it."""
    first, _ = objects(shell, "dead", "ls", "orders", "g")
    assert shell("dead", "replay", "orders", "g").code == 2
    assert shell("dead", "replay", "orders", "g", first["letter"]).code == 2  # nobody to ask
    done = shell("dead", "replay", "orders", "g", first["letter"], "--yes")
    assert (done.code, done.err.strip()) == (0, "replayed 1 of 1 dead letter")
    assert shell("dead", "replay", "orders", "g", first["letter"], "--yes").code == 1  # gone
    again = shell("read", "orders", "--group", "g")
    assert [json.loads(line)["n"] for line in again.out.splitlines()] == ["1"]
    assert len(objects(shell, "dead", "ls", "orders", "g")) == 1


@pytest.mark.usefixtures("two_letters")
def test_they_are_dropped_for_good(shell: Shell) -> None:
    """All, or those of one class of error."""
    done = shell("dead", "drop", "orders", "g", "--all", "--error", "KeyError", "--yes")
    assert "dropped 0 of 0 dead letters of KeyError" in done.err
    done = shell("dead", "drop", "orders", "g", "--all", "--yes", "--json")
    assert (done.code, done.err.strip()) == (0, "dropped 2 of 2 dead letters")
    assert json.loads(done.out) == {"stream": "orders", "group": "g", "chosen": 2, "dropped": 2}
    assert objects(shell, "dead", "ls", "orders", "g") == []
    assert shell("read", "orders", "--group", "g").out == b""
