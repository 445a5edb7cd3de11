"""A member of the demo's group, in a process of its own: ``python -m … demo_member bob``.

Does        share the stream's numbers with the other members; sum them up in windows of 3 s;
            report each window to the parent, and ack its events when the parent has taken it.
Does not    print or judge: the parent does. Start or end the server: it is given a URL.
Invariants  1. an event is acked when the parent has accounted for its window, not before. So
               whoever kills this process: the other members get what was not yet accounted for.
            2. when the parent is gone (its pipe ends), this process ends.
Cost        per event: `event.value` (one decode), one turn of `Window.add`, one ack.
Source      group.batches, the fast path: lists, and acks that are sent in batches.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final

import penstock
from penstock.cli.demo_lines import (
    GROUP,
    MAX_LINE,
    STREAM,
    Drain,
    Failed,
    Joined,
    Message,
    Remark,
    Report,
    Taken,
    from_parent,
    to_line,
)
from penstock.cli.demo_loop import run_fast
from penstock.cli.demo_rules import Number, Window, partition_table

LEASE: Final = 2.0
"""Seconds without a heartbeat after which the others take a member's events over."""

WINDOW: Final = 3.0
"""Seconds between two lines of a member."""

DRAINING: Final = 0.1
"""Seconds between two lines while the demo drains."""

HOLD: Final = 60.0
"""Seconds that an event may be in hand: twenty windows, should the parent be slow."""

LARGEST: Final = 500_000
"""Events of a window at most, some 200 MB; a fuller one is reported early."""


class Member:
    """One member at work.

    Args:
        group: the open group.
        partitions: how many partitions its events are spread over.
    """

    def __init__(self, group: penstock.Group[Number], partitions: int) -> None:
        self._group = group
        self._partitions = partitions
        self._table = partition_table(partitions)
        self._every = WINDOW
        self._hurry = asyncio.Event()
        self._taken = asyncio.Event()
        self._reports = 0
        self._begin()

    async def gather(self) -> None:
        """Take events for as long as the group gives some."""
        async for batch in self._group.batches(size=1000, within=0.05):
            self._window.add(_numbers(batch))
            self._batches.append(batch)
            if batch[0].deliveries > 1 and not self._taking_over:
                self._taking_over = True
                say(Remark("takes over events that were handed out before"))
            if len(self._batches) * 1000 > LARGEST and len(self._window) > LARGEST:
                self._hurry.set()

    async def report(self) -> None:
        """Close a window every 3 s, have it taken, ack it."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every):
                    await self._hurry.wait()
            self._hurry.clear()
            if self._batches or self._every == WINDOW:
                await self._hand_over()

    async def obey(self, parent: asyncio.StreamReader) -> None:
        """Do what the parent says; return when it says End, or is gone."""
        while line := await parent.readline():
            match from_parent(line):
                case Taken():
                    self._taken.set()
                case Drain():
                    self._every = DRAINING
                    self._hurry.set()
                case _:
                    return

    def _begin(self) -> None:
        self._window = Window(self._table, self._partitions)
        self._batches: list[list[penstock.Event[Number]]] = []
        self._since = time.monotonic()
        self._taking_over = False

    async def _hand_over(self) -> None:
        window, batches, since = self._window, self._batches, self._since
        self._begin()
        self._reports += 1
        self._taken.clear()
        say(Report(self._reports, self._since - since, window.parts(), window.runs()))
        await self._taken.wait()
        for batch in batches:
            try:
                self._group.ack(batch)
            except penstock.LeaseLost as error:
                say(Remark(str(error)))  # another member has them now: it reports them too
            await asyncio.sleep(0)  # a window is long: others get their turn


def say(message: Message) -> None:
    """Tell the parent; waits while the pipe is full, as nothing better can be done meanwhile."""
    rest = memoryview(to_line(message))
    while rest:
        rest = rest[os.write(sys.stdout.fileno(), rest) :]


async def work(name: str, url: str, partitions: int) -> None:
    """Be the member *name* until the parent says End, or is gone."""
    parent = await _stdin()
    async with penstock.connect(url, observer=_tell) as client:
        stream = client.stream(STREAM, type=Number)
        joining = stream.group(
            GROUP,
            member=name,
            lease=LEASE,
            hold=HOLD,
            max_in_flight=1_000_000,
            max_in_flight_bytes=1 << 30,
        )
        async with joining as group:
            say(Joined())
            member = Member(group, partitions)
            await _until_first(member.obey(parent), member.gather(), member.report())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a member; its exit code."""
    parser = argparse.ArgumentParser(prog="demo_member", description="A member of the demo.")
    parser.add_argument("name")
    parser.add_argument("--url", default=os.environ.get("PENSTOCK_URL"))
    parser.add_argument("--partitions", type=int, default=8)
    given = parser.parse_args(arguments)
    # Windows hold hundreds of thousands of events that are no garbage: look for cycles rarely.
    gc.set_threshold(200_000, 50, 100)
    try:
        run_fast(work(given.name, given.url, given.partitions))
    except penstock.PenstockError as error:
        with suppress(BrokenPipeError):
            say(Failed(str(error)))
        return 1
    except BrokenPipeError:
        return 1  # the parent is gone
    return 0


def _numbers(batch: Sequence[penstock.Event[Number]]) -> list[Number]:
    try:
        return [event.value for event in batch]
    except penstock.DecodeError:
        return _readable(batch)


def _readable(batch: Sequence[penstock.Event[Number]]) -> list[Number]:
    """Somebody else wrote into the stream: leave out what is no Number, and say so."""
    numbers: list[Number] = []
    for event in batch:
        try:
            numbers.append(event.value)
        except penstock.DecodeError as error:
            say(Remark(f"not counted: {error}"))
    return numbers


async def _stdin() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=MAX_LINE)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def _until_first(*works: Coroutine[Any, Any, None]) -> None:
    """Run all until one has ended; cancel the others; raise what went wrong."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _tell(signal: penstock.Signal) -> None:
    """What happens in the background is for people to know; the parent shows it."""
    with suppress(BrokenPipeError):  # the parent is gone: so are we, soon
        if signal.severity != "info":
            say(Remark(signal.message))


if __name__ == "__main__":
    sys.exit(main())
