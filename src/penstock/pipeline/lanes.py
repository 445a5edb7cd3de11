"""Lanes: which event may be handled now, where events of one key keep their order.

Does        let one event of a key through at a time; keep those behind it, in order.
Does not    wait, handle, or bound what is kept: whoever asks looks at `waiting`.
Invariants  1. of one key at most one event is out at a time, and they go out in order.
            2. where one fails, those behind it are given up: they must come again behind it.
            3. events without a key wait for nobody.
            4. what was given up is forgotten: that it ends later changes nothing.
Used by     `runner.py`, for groups that share shards. Keyed concurrency stands on it later.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Lane(Generic[T]):
    """What is out of one key, and what waits behind it."""

    __slots__ = ("front", "waiting")

    def __init__(self, front: T) -> None:
        self.front = front
        self.waiting: deque[T] = deque()


class Lanes(Generic[T]):
    """One lane for each key that has an event out."""

    def __init__(self) -> None:
        self._lanes: dict[str, Lane[T]] = {}
        self.waiting = 0

    def admit(self, key: str | None, event: T) -> bool:
        """Whether *event* may be handled now; else it is kept until `leave` gives it."""
        if key is None:
            return True
        lane = self._lanes.get(key)
        if lane is None:
            self._lanes[key] = Lane(event)
            return True
        lane.waiting.append(event)
        self.waiting += 1
        return False

    def front(self, key: str | None) -> T | None:
        """The one of *key* that is out; None: none."""
        lane = None if key is None else self._lanes.get(key)
        return None if lane is None else lane.front

    def crowded(self) -> list[Lane[T]]:
        """The lanes in which something waits."""
        return [lane for lane in self._lanes.values() if lane.waiting] if self.waiting else []

    def leave(self, key: str | None, event: T) -> T | None:
        """*event* of *key* has been handled: the next of that key, which is out now; None: none."""
        lane = self._of(key, event)
        if lane is None:
            return None
        if not lane.waiting:
            del self._lanes[str(key)]
            return None
        self.waiting -= 1
        lane.front = lane.waiting.popleft()
        return lane.front

    def give_up(self, key: str | None, event: T) -> list[T]:
        """*event* of *key* failed, or is lost: all that waited behind it, and is kept no more."""
        lane = self._of(key, event)
        if lane is None:
            return []
        del self._lanes[str(key)]
        self.waiting -= len(lane.waiting)
        return list(lane.waiting)

    def clear(self) -> list[T]:
        """Everything that waits; what is out stays out."""
        given = [event for lane in self._lanes.values() for event in lane.waiting]
        for lane in self._lanes.values():
            lane.waiting.clear()
        self.waiting = 0
        return given

    def _of(self, key: str | None, event: T) -> Lane[T] | None:
        """The lane in which *event* is the one that is out: it may have been given up since."""
        lane = None if key is None else self._lanes.get(key)
        return lane if lane is not None and lane.front is event else None
