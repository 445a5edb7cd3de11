"""ManualClock: time that moves when a test says so.

Does        stand in for `penstock.clock.Clock`; wake sleepers in the order of their due times.
Does not    wait for real time, or know what the program under test does between two wakes.
Invariants  1. time stands still except inside `advance` and `jump`.
            2. a sleeper wakes at exactly its due time, `monotonic` says so when it runs; only
               after a `jump` it is late, as after a blocked loop.
            3. what a woken task does, new sleeps included, happens before the next one wakes.
Used by     tests, ours and our users'.
Source      trio's MockClock, without its automatic jumps.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools

from penstock.errors import ConfigError


class ManualClock:
    """A clock for tests: `await clock.advance(20.0)`, never `asyncio.sleep`.

    Belongs to one event loop. What waits for sockets or threads does not wait for this clock.

    Args:
        time: the wall clock at the beginning, in seconds since 1970.
        turns: how many turns the loop gets after each wake, so that what woke can proceed: more
            than the longest chain of tasks that wake each other.
    """

    def __init__(self, time: float = 1_700_000_000.0, *, turns: int = 32) -> None:
        self._now = 0.0
        self._wall = time
        self._turns = turns
        self._numbers = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def monotonic(self) -> float:
        """Seconds that were advanced so far."""
        return self._now

    def time(self) -> float:
        """Seconds since 1970: where it began, and what was advanced and stepped since."""
        return self._wall + self._now

    @property
    def sleepers(self) -> int:
        """How many sleep now."""
        return sum(not future.done() for _, _, future in self._sleepers)

    async def sleep(self, seconds: float) -> None:
        """Return when *seconds* have been advanced; at once, after one turn, if not above zero.

        Cancelled: nothing is left behind.
        """
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._numbers), woken))
        await woken

    async def advance(self, seconds: float) -> None:
        """Let *seconds* pass: wake each sleeper in its turn, and let it run, before the next.

        Cancelled: time stays where it had come to.

        Raises:
            ConfigError: *seconds* is below zero. `step` sets the wall clock back.
        """
        if not seconds >= 0:
            raise ConfigError(f"time advances by 0 seconds or more, got {seconds!r}; see step()")
        end = self._now + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            due, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                self._now = max(self._now, due)
                woken.set_result(None)
                await self.settle()
        self._now = end
        await self.settle()

    def jump(self, seconds: float) -> None:
        """Let time pass in which nothing runs, as while the loop is blocked or the machine sleeps.

        Who is due by then wakes late: in the next `advance`.
        """
        self._now += seconds

    def step(self, seconds: float) -> None:
        """Step the wall clock alone, forth or back, as a time server would; nobody wakes."""
        self._wall += seconds

    async def settle(self) -> None:
        """Let the loop turn until what is ready has run; no time passes."""
        for _ in range(self._turns):
            await asyncio.sleep(0)
