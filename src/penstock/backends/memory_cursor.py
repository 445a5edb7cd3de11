"""MemoryCursor: a place in several shards that moves forward, in memory.

Does        read forward, in turns; notice what was trimmed away before it was read.
Does not    judge what a loss is: `rules/gaps.py` does.
Invariants  1. a read takes nothing before it returns: cancelled, it has skipped nothing.
            2. every read lets its loop turn once, so that beats and timers never starve.
Cost        per read: one pass over the shards.
Used by     backends.memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

from penstock.backends.memory_log import StoredLog
from penstock.backends.memory_store import Bell
from penstock.backends.memory_store import Place as Home
from penstock.errors import ClosedError, PositionLost
from penstock.event import Position, Shard, Start
from penstock.ports import Page
from penstock.rules.gaps import Place, position_lost


class MemoryCursor:
    """A place in several shards that moves forward.

    Args:
        home: where the logs are; its lock is held while this is made.
        starts: where reading begins, by shard.
    """

    def __init__(self, home: Home, starts: Mapping[Shard, Start]) -> None:
        self._home = home
        self._bell = Bell()
        self._turn = 0
        self._closed = self._woken = False
        self._places: dict[Shard, Place] = {}
        self._logs: dict[Shard, StoredLog | None] = {}
        self._lost: list[tuple[Shard, PositionLost]] = []
        self._begin(starts)

    async def read(self, limit: int, wait: float) -> Sequence[Page]:
        """The next entries, at most *limit* in all; waits up to *wait* seconds for the first.

        Cancelled: nothing is skipped, the same entries come again.

        Raises:
            PositionLost: events were trimmed away; raised once, and the next read goes on.
            ClosedError: the cursor was closed, also while this waited.
        """
        clock = self._home.clock
        deadline = clock.monotonic() + wait
        await asyncio.sleep(0)
        self._woken = False
        while True:
            if self._closed:
                raise ClosedError(f"the cursor over {[*self._places]} was closed")
            self._bell.clear()
            with self._home.store.lock:
                self._judge()
                pages = [] if self._lost else self._collect(limit)
            if self._lost:
                raise self._lost.pop(0)[1]
            now = clock.monotonic()
            if pages or now >= deadline:
                return pages
            await self._bell.wait(clock, deadline - now)
            if self._woken:
                deadline = clock.monotonic()

    async def move(self, starts: Mapping[Shard, Start]) -> None:
        """See `ports.Cursor.move`."""
        with self._home.store.lock:
            self._begin(starts)

    def leave(self, shards: Collection[Shard]) -> None:
        """See `ports.Cursor.leave`."""
        for shard in shards:
            self._places.pop(shard, None)
            self._logs.pop(shard, None)
        self._lost = [(shard, error) for shard, error in self._lost if shard not in shards]

    async def wake(self) -> None:
        """See `ports.Cursor.wake`."""
        self._woken = True
        self._bell.ring()

    def positions(self) -> Mapping[Shard, Position | None]:
        """Behind what the next read begins, by shard; None: from the beginning."""
        return {shard: place.position for shard, place in self._places.items()}

    async def aclose(self) -> None:
        """Close the cursor; a read that waits ends with ClosedError."""
        self._closed = True
        with self._home.store.lock:
            self._home.store.detach(self._bell)
        self._bell.ring()

    def _begin(self, starts: Mapping[Shard, Start]) -> None:
        """Under the lock: from here on, what is appended is behind the anchor."""
        for shard, start in starts.items():
            log = self._home.store.log(shard)
            self._places[shard] = Place.at(start, None if log is None else log.state())
            self._logs[shard] = log
        self._lost = [(shard, error) for shard, error in self._lost if shard not in starts]
        self._home.store.attach(self._bell, starts)

    def _judge(self) -> None:
        for shard, place in self._places.items():
            log, before = self._home.store.log(shard), self._logs[shard]
            if before is not None and log is not before:
                place.vanished()
            self._logs[shard] = log
            gap = place.judge(None if log is None else log.state())
            if gap is not None:
                self._lost.append((shard, position_lost(gap, shard)))

    def _collect(self, limit: int) -> list[Page]:
        shards = list(self._places)
        if not shards:
            return []  # while this waited, all were left
        self._turn = (self._turn + 1) % len(shards)  # the first of one read is the last of the next
        pages: list[Page] = []
        for shard in shards[self._turn :] + shards[: self._turn]:
            log, place = self._logs[shard], self._places[shard]
            if log is None or limit <= 0:
                continue
            at = log.behind(place.after, limit)
            entries = log.entries[at]
            if entries:
                keys = log.keys[at]
                place.read(len(entries), Position(keys[0]), Position(keys[-1]))
                pages.append(Page(shard, entries))
                limit -= len(entries)
        return pages
