"""Commands that change something tell programs what they did, with --json."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from penstock import END, Retry, connect
from penstock.cli.commands import penstock
from streams.helping import fill

pytestmark = pytest.mark.one_loop


def objects(url: str, *words: str) -> list[dict[str, Any]]:
    """What a command prints, run in this process."""
    done = CliRunner().invoke(
        penstock, [*words, "--url", url, "--json"], standalone_mode=False, catch_exceptions=False
    )
    assert done.return_value == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
async def orders(embedded_url: str) -> None:
    """Four events; the odd ones are given up by the group g."""
    async with connect(embedded_url) as client:
        stream = client.stream("orders")
        await fill(stream, 4)
        async with stream.group("g", until=END, retry=Retry(attempts=1)) as group:
            async for event in group:
                if int(event.value["n"]) % 2:
                    group.fail(event, ValueError("odd"))
                else:
                    group.ack(event)


@pytest.mark.usefixtures("orders")
def test_a_group_is_made_set_back_and_removed(embedded_url: str) -> None:
    """What was done, or would be, and where the group stood before."""

    def change(*words: str) -> dict[str, Any]:
        (told,) = objects(embedded_url, "groups", "orders", *words)
        return told

    assert change("--create", "new") == {
        "stream": "orders",
        "group": "new",
        "change": "create",
        "start": "oldest",
        "done": True,
        "before": [],
    }
    planned = change("--reset", "new", "--start", "newest", "--dry-run")
    assert (planned["change"], planned["start"], planned["done"]) == ("reset", "newest", False)
    assert change("--reset", "new", "--start", "newest", "--yes") == {**planned, "done": True}
    assert (planned["before"][0]["lag"], planned["before"][0]["pending"]) == (4, 0)
    gone = change("--delete", "new", "--yes")
    assert (gone["change"], gone["start"], gone["done"]) == ("delete", None, True)
    assert gone["before"][0]["lag"] == 0


@pytest.mark.usefixtures("orders")
def test_letters_are_replayed_and_dropped(embedded_url: str) -> None:
    """Those of one error, a page at a time; then there are none."""
    place = ("orders", "g", "--all", "--yes")
    (told,) = objects(embedded_url, "dead", "replay", *place, "--error", "KeyError")
    assert told == {"stream": "orders", "group": "g", "chosen": 0, "replayed": 0}
    (told,) = objects(embedded_url, "dead", "replay", *place, "--error", "ValueError")
    assert told == {"stream": "orders", "group": "g", "chosen": 2, "replayed": 2}
    (told,) = objects(embedded_url, "dead", "drop", *place)
    assert told == {"stream": "orders", "group": "g", "chosen": 0, "dropped": 0}
