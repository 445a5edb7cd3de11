"""Lanes: which event may be handled now, where events of one key keep their order.

Does        let one event of a key through at a time; keep those behind it, in order.
Does not    wait, handle, or bound what is kept: whoever asks looks at `waiting`.
Invariants  1. of one key at most one event is out at a time, and they go out in order.
            2. where one fails, those behind it are given up: they must come again behind it.
            3. events without a key wait for nobody.
Used by     `runner.py`, for groups that share shards. Keyed concurrency stands on it later.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Lanes(Generic[T]):
    """One lane for each key that has an event out."""

    def __init__(self) -> None:
        self._lanes: dict[str, deque[T]] = {}
        self.waiting = 0

    def admit(self, key: str | None, event: T) -> bool:
        """Whether *event* may be handled now; else it is kept until `leave` gives it."""
        if key is None:
            return True
        lane = self._lanes.get(key)
        if lane is None:
            self._lanes[key] = deque()
            return True
        lane.append(event)
        self.waiting += 1
        return False

    def leave(self, key: str | None) -> T | None:
        """One of *key* has been handled: the next of that key, which is out now; None: none."""
        if key is None:
            return None
        lane = self._lanes[key]
        if not lane:
            del self._lanes[key]
            return None
        self.waiting -= 1
        return lane.popleft()

    def give_up(self, key: str | None) -> list[T]:
        """One of *key* failed: all that waited behind it, which are kept no more."""
        if key is None:
            return []
        lane = self._lanes.pop(key)
        self.waiting -= len(lane)
        return list(lane)

    def clear(self) -> list[T]:
        """Everything that waits; what is out stays out."""
        given = [event for lane in self._lanes.values() for event in lane]
        for lane in self._lanes.values():
            lane.clear()
        self.waiting = 0
        return given
