"""What the machine kept from us: bounds of time grow by it, so that a busy one is no failure.

Does        notice, by a thread that sleeps and looks how late it wakes, when this process stood
            still or had to wait for a processor.
Does not    make a bound tighter: on an idle machine nothing is added.
"""

from __future__ import annotations

import threading
import time
from collections import deque

_TICK = 0.01  # seconds between two looks
_USUAL = 0.005  # seconds late that any machine is at times


class Meter:
    """How late a thread of this process woke, and when."""

    def __init__(self) -> None:
        self._late: deque[tuple[float, float]] = deque(maxlen=20_000)
        threading.Thread(target=self._watch, name="meter", daemon=True).start()

    def lost(self, since: float) -> float:
        """Seconds since then, by `time.monotonic`, in which it should have run and did not."""
        return sum(end - max(begin, since) for begin, end in list(self._late) if end > since)

    def _watch(self) -> None:
        due = time.monotonic() + _TICK
        while True:
            time.sleep(max(0.0, due - time.monotonic()))
            now = time.monotonic()
            if now - due > _USUAL:
                self._late.append((due, now))
            due = now + _TICK


METER = Meter()
"""The one of this process, from the first import on."""


def lost(since: float) -> float:
    """As `Meter.lost`: what a bound of time that began then grows by."""
    return METER.lost(since)
