"""The demo's producer: random numbers, as fast as the members take them.

Does        draw numbers and send them; hold back while the group lags; trim the stream.
Does not    run in a process of its own: it shares the parent's event loop.
Invariants  1. what waits for the members is at most `BACKLOG` events, plus what a look takes: the
               backlog stays bounded, however slow the members are.
            2. trimming never removes what the group has not acked.
Cost        per event: one random number, one Struct, one `writer.send`.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from typing import Final, NamedTuple

import penstock
from penstock.cli.demo_lines import GROUP
from penstock.cli.demo_rules import NUMBERS, Account, Number

BACKLOG: Final = 20_000
"""Events that may wait for the members: a quarter of a second of their work."""

LOOK: Final = 0.05
"""Seconds between two looks at the group: some 5 000 events at full speed."""

KEPT: Final = 20_000
"""Events that trimming leaves."""

TRIM: Final = 1.0
"""Seconds between two trims."""

_CHUNK: Final = 500
"""Events that are drawn at once: a batch of the writer."""


class Backlog(NamedTuple):
    """What the group has still to do: events not yet handed out (None: unknown), and not acked."""

    lag: int | None
    pending: int


class Pace:
    """How many events are due, at *rate* events a second.

    Time that was lost by holding back is not caught up with beyond one second.
    """

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._credit = 0.0
        self._then = now

    def due(self, now: float) -> int:
        """How many whole events are due by *now*."""
        self._credit += (now - self._then) * self._rate
        self._credit = min(self._credit, max(1.0, self._rate))
        self._then = now
        return int(self._credit)

    def sent(self, count: int) -> None:
        """So many were sent."""
        self._credit -= count


class Producer:
    """Endless random numbers into a stream.

    Args:
        stream: where to.
        account: counts what is produced.
        rate: events a second; None: as fast as the members take them.
    """

    def __init__(
        self, stream: penstock.Stream[Number], account: Account, rate: float | None
    ) -> None:
        self._stream = stream
        self._account = account
        self._rate = rate
        self._random = random.Random()
        self._room = asyncio.Event()
        self._room.set()
        self._stopped = False

    async def run(self) -> None:
        """Produce until `stop`; then all that was sent is stored."""
        pace = None if self._rate is None else Pace(self._rate, time.monotonic())
        async with self._stream.writer() as writer:
            while not self._stopped:
                await self._room.wait()
                count = _CHUNK if pace is None else min(_CHUNK, pace.due(time.monotonic()))
                if not self._stopped and count:
                    await self._send(writer, count)
                if pace is not None:
                    pace.sent(count)
                await asyncio.sleep(0 if count == _CHUNK else 0.01)

    def stop(self) -> None:
        """Send nothing more."""
        self._stopped = True
        self._room.set()

    async def watch(self) -> None:
        """Hold the producer back while the group lags, and trim now and then; endless."""
        next_trim = time.monotonic() + TRIM
        while True:
            backlog = await look(self._stream)
            if self._stopped or (backlog and (backlog.lag or 0) < BACKLOG):
                self._room.set()
            else:
                self._room.clear()
            if backlog and time.monotonic() >= next_trim:
                next_trim = time.monotonic() + TRIM
                await trim(self._stream)
            await asyncio.sleep(LOOK)

    async def _send(self, writer: penstock.Writer[Number], count: int) -> None:
        account = self._account
        for number in self._random.choices(range(NUMBERS), k=count):
            await writer.send(Number(number, time.time_ns() // 1_000_000, account.next))
            account.produced += 1


async def look(stream: penstock.Stream[Number]) -> Backlog | None:
    """How much the group has still to do; None while the server does not answer."""
    try:
        groups = await stream.groups()
    except penstock.BackendUnavailable:
        return None
    for group in groups:
        if group.name == GROUP:
            return Backlog(group.lag, group.pending + group.parked)  # parked: handed back
    return None


async def trim(stream: penstock.Stream[Number]) -> None:
    """Leave 20 000 events, and whatever the group has not yet acked."""
    with suppress(penstock.BackendUnavailable):  # the next one does it
        await stream.trim(max_events=KEPT, acked_only=True)
