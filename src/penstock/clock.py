"""Clock: the one place where time comes from, and the delays of trying again.

Does        give monotonic and wall-clock seconds, and sleep; compute backoff delays.
Does not    read a server's clock: backends compare durations only.
Invariants  1. leases and deadlines use `monotonic`, which never steps.
            2. a Backoff never sleeps by itself: it yields delays, the runner waits.
Used by     backends and streams; `penstock.testing.ManualClock` stands in for it in tests.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from typing import Protocol


class Clock(Protocol):
    """What the library asks of time. Durations are seconds."""

    def monotonic(self) -> float:
        """Seconds that never step back; the zero is arbitrary."""
        ...

    def time(self) -> float:
        """Seconds since 1970, by this machine."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after *seconds*; cancellable."""
        ...


class SystemClock:
    """The machine's own clock."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)

    async def sleep(self, seconds: float) -> None:
        """Return after *seconds*; cancellable."""
        await asyncio.sleep(seconds)


async def set_within(event: asyncio.Event, seconds: float | None) -> None:
    """Wait until *event* is set, for at most *seconds*; None: for as long as it takes."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass


class Backoff:
    """Delays that grow, are capped, and are spread so that many clients do not come at once.

    Args:
        first: the ceiling of the first delay, in seconds.
        cap: the ceiling of every later delay, in seconds.

    The n-th delay is drawn evenly between half of and the whole ``min(cap, first * 2**n)``.

    Source: "equal jitter": at least half the ceiling is waited, so a dead server is never hammered.
    """

    def __init__(self, first: float = 0.05, cap: float = 2.0) -> None:
        self._first = first
        self._cap = cap
        self._tries = 0

    def __iter__(self) -> Iterator[float]:
        while True:
            yield self.next()

    def next(self) -> float:
        """The next delay in seconds."""
        ceiling = min(self._cap, self._first * 2.0 ** min(self._tries, 30))
        self._tries += 1
        return ceiling * (0.5 + random.random() / 2)

    def reset(self) -> None:
        """Begin with the first delay again: something went well."""
        self._tries = 0
