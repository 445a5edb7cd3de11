"""Appends with terms in memory: the reference for ids, expected positions and delayed events.

Does        judge each event of a batch behind the ones before it, and store it, or not; keep what
            waits for its time, and put it into its log when that has come.
Does not    lock or ring: `memory_store` does, and calls this within.
Invariants  1. what an event's terms refuse leaves no trace.
            2. ids are forgotten when the longest window that was asked for is over.
            3. a waiting event is in exactly one place: here, or in its log.
Source      `backends/redis/append_scripts.py`: the same, on a server.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from penstock.event import Position
from penstock.rules.terms import NOTHING, Stored, Terms, not_newest, other_content

if TYPE_CHECKING:
    from penstock.backends.memory_log import StoredLog


class Extras:
    """What one log keeps beside its entries."""

    def __init__(self) -> None:
        self._ids: dict[str, _Known] = {}
        self._longest = 0.0
        self._waiting: list[tuple[float, int, list[bytes]]] = []
        self._numbers = itertools.count()

    @property
    def delayed(self) -> int:
        """How many events wait for their time."""
        return len(self._waiting)

    def waiting(self) -> Extras:
        """What waits, alone, for a log that takes this one's place."""
        extras = Extras()
        extras._waiting = self._waiting
        extras._numbers = self._numbers
        return extras

    def due_in(self, now: float) -> float | None:
        """Seconds until the next event is due; None if none waits."""
        return max(0.0, self._waiting[0][0] - now) if self._waiting else None

    def append(
        self,
        log: StoredLog,
        rows: Sequence[list[bytes]],
        terms: Mapping[int, Terms],
        window: float,
        now: float,
    ) -> Sequence[Stored]:
        """Judge and store *rows*, one behind the other; *now*: seconds since 1970."""
        self._longest = max(self._longest, window)
        self._forget(now - self._longest)
        return [
            self._one(log, row, terms.get(index, NOTHING), now, window)
            for index, row in enumerate(rows)
        ]

    def move(self, log: StoredLog, now: float, limit: int) -> int:
        """Put what is due into the log, at most *limit* events; how many."""
        rows: list[list[bytes]] = []
        while self._waiting and self._waiting[0][0] <= now and len(rows) < limit:
            rows.append(heapq.heappop(self._waiting)[2])
        if rows:
            log.append(rows, int(now * 1000))
        return len(rows)

    def _one(
        self, log: StoredLog, row: list[bytes], terms: Terms, now: float, window: float
    ) -> Stored:
        known = self._ids.get(terms.id) if terms.id and window else None
        if known is not None and now - known.time < window:
            if known.digest == terms.digest:
                return known.position
            return other_content(log.stream, terms.id, known.position)
        newest = Position(log.last)
        if terms.expect is not None and terms.expect != newest:
            return not_newest(log.stream, terms.expect, newest)
        position: Position | None = None
        if terms.due is not None and terms.due > now:
            heapq.heappush(self._waiting, (terms.due, next(self._numbers), row))
        else:
            position = log.append([row], int(now * 1000))[0]
        if terms.id and window:
            self._ids.pop(terms.id, None)  # it stands behind all others now
            self._ids[terms.id] = _Known(now, terms.digest, position)
        return position

    def _forget(self, before: float) -> None:
        """Ids stand in the order of their time: the oldest first."""
        while self._ids:
            oldest = next(iter(self._ids))
            if self._ids[oldest].time > before:
                return
            del self._ids[oldest]


class _Known(NamedTuple):
    """When an id was stored, with which content, and where; None: it waited."""

    time: float
    digest: bytes
    position: Position | None
