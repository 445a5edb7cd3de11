"""Bell: wakes whoever waits for a change in memory, from whatever thread.

Does        ring, and wait with an end.
Does not    know who rings: `memory_store` does.
Invariants  1. what is rung after `clear` ends the next wait: no change is slept through.
"""

from __future__ import annotations

import asyncio
import contextlib
import math

from penstock.clock import Clock


class Bell:
    """Wakes one waiter, from whatever thread; belongs to the loop that it was made in."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wake the waiter, or let its next wait return at once."""
        if self._event.is_set():
            return
        if running_loop() is self._loop:
            self._event.set()
        else:
            with contextlib.suppress(RuntimeError):  # its loop is closed: nobody waits there
                self._loop.call_soon_threadsafe(self._event.set)

    def clear(self) -> None:
        """Begin to listen: what is rung from here on ends the next wait."""
        self._event.clear()

    async def wait(self, clock: Clock, seconds: float) -> None:
        """Return when rung, or after *seconds*; cancellable, and leaves nothing behind."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        if math.isinf(seconds):
            await self._event.wait()
            return
        alarm = self._loop.create_task(_sleep(clock, seconds))
        alarm.add_done_callback(lambda _: self._event.set())
        try:
            await self._event.wait()
        finally:
            alarm.cancel()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop that runs in this thread, if any."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def _sleep(clock: Clock, seconds: float) -> None:
    await clock.sleep(seconds)
