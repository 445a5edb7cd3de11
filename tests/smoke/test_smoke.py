"""The main job in a second: also run against the built wheel, with nothing else installed.

Hence nothing here needs a server, the other tests' fixtures, or a package beside the core's own.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import penstock
from penstock import END, OLDEST

pytestmark = pytest.mark.smoke


class Order(msgspec.Struct):
    """What the typed streams below carry."""

    number: int
    state: str = "new"


def test_the_version_is_the_installed_one() -> None:
    """The package says the same version as its metadata."""
    assert penstock.__version__ == importlib.metadata.version("penstock")


def test_the_command_says_its_version_always() -> None:
    """``penstock --version`` needs nothing but the core."""
    done = run_command("--version")
    assert done.returncode == 0, done.stderr
    assert penstock.__version__ in done.stdout


def test_the_command_works_or_names_the_extra() -> None:
    """A command reads a stream with the extra ``cli``, and names the extra where it is missing."""
    done = run_command("info", "--url", "memory://")
    if importlib.util.find_spec("click"):
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 1
        assert "penstock[cli]" in done.stderr


async def test_what_is_appended_is_read_in_order() -> None:
    """A reader sees every event from the oldest to the end, with its metadata."""
    async with penstock.connect("memory://") as client:
        orders = client.stream("orders")
        first = await orders.append({"id": 7, "state": "paid"}, key="customer-3", topic="eu")
        second = await orders.append({"id": 8, "state": "new"})

        async with orders.reader(start=OLDEST, until=END) as reader:
            events = [event async for event in reader]

    assert [event.position for event in events] == [first, second]
    assert events[0].value == {"id": "7", "state": "paid"}
    assert (events[0].key, events[0].topic) == ("customer-3", "eu")


async def test_a_writer_stores_what_it_is_sent_in_order() -> None:
    """Typed values go in and come out as what they are."""
    async with penstock.connect("memory://") as client:
        orders = client.stream("orders", type=Order)
        async with orders.writer() as writer:
            for number in range(100):
                await writer.send(Order(number))

        async with orders.reader(start=OLDEST, until=END) as reader:
            assert [event.value.number async for event in reader] == list(range(100))


async def test_a_group_hands_out_each_event_and_acks_what_was_handled() -> None:
    """Leaving ``handling`` acks: nothing is pending, and nothing comes again."""
    async with penstock.connect("memory://") as client:
        orders = client.stream("orders", type=Order)
        await orders.append_many([Order(number) for number in range(10)])

        seen: list[int] = []
        async with orders.group("billing", until=END) as group:
            async for event in group:
                async with group.handling(event):
                    seen.append(event.value.number)

        async with orders.group("billing", until=END) as group:
            assert [event async for event in group] == []
    assert seen == list(range(10))


async def test_a_group_takes_batches() -> None:
    """The fast path: lists, acked by a plain call."""
    async with penstock.connect("memory://") as client:
        orders = client.stream("orders", type=Order)
        await orders.append_many([Order(number) for number in range(10)])

        seen: list[int] = []
        async with orders.group("audit", until=END) as group:
            async for batch in group.batches(size=4, within=0.05):
                seen += [event.value.number for event in batch]
                group.ack(batch)
    assert seen == list(range(10))


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "penstock"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert "Traceback" not in done.stderr
    return done
