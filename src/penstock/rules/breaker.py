"""Breaker: when everything fails, the failing is not the events'.

Does        count how many different events failed in a row; say when to stop, and when to try one.
Does not    wait, or look at a clock: times are handed in.
Invariants  1. one success closes it and forgets every failure.
            2. while it is open one event is tried at a time, after pauses that double up to a cap.
"""

from __future__ import annotations

from collections.abc import Hashable


class Breaker:
    """What stands between a member and a service that is down.

    Args:
        limit: how many different events fail in a row before it opens; 0: it never does.
        first: seconds before the first event is tried.
        cap: the longest such pause, in seconds.
    """

    def __init__(self, limit: int, first: float, cap: float) -> None:
        self._limit = limit
        self._first = max(first, 0.05)
        self._cap = max(cap, self._first)
        self._failing: set[Hashable] = set()
        self._pause = self._first
        self.open = False
        self.trying = False
        self.try_at = 0.0

    @property
    def failing(self) -> int:
        """How many different events have failed since the last success."""
        return len(self._failing)

    def failed(self, event: Hashable, now: float) -> bool:
        """*event* failed; whether it opens by that."""
        if not self._limit:
            return False
        if self.open:
            self._pause = min(self._cap, 2 * self._pause)
        else:
            self._failing.add(event)
            if len(self._failing) < self._limit:
                return False
        opened, self.open = not self.open, True
        self.trying = False
        self.try_at = now + self._pause
        return opened

    def succeeded(self) -> bool:
        """An event was handled; whether it closes by that."""
        self._failing.clear()
        self._pause = self._first
        closed, self.open = self.open, False
        self.trying = False
        return closed

    def undecided(self, now: float) -> None:
        """What was tried says nothing: try another."""
        self.trying = False
        self.try_at = min(self.try_at, now)

    def may_try(self, now: float) -> bool:
        """Whether an event may be handed out although it is open."""
        return not self.trying and now >= self.try_at
