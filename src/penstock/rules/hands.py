"""Hands: what has been handed to the program, and since when.

Does        find what has been in a hand for `hold` seconds; count anew what was extended.
Does not    look at a clock, or know what is settled: that is asked when it matters.
Invariants  1. an event counts from when it was handed out, or last extended.
            2. the list of hands is gone through when its oldest is due, or when it is mostly empty.
Cost        per batch that is handed out: one entry. Per look with nothing due: one comparison.
Used by     streams.shard_membership.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from penstock.event import Event

_CROWD: Final = 20_000
"""Events that are listed, beyond twice as many as there were, before the list is gone through."""

_TOGETHER: Final = 0.25
"""Seconds within which events count as handed out at once: `hold` is that exact."""


class Hands:
    """Events in hand.

    Args:
        hold: the longest that one may stay there, in seconds.
        still: those of some events that are still in hand.
    """

    def __init__(self, hold: float, still: Callable[[list[Event[Any]]], list[Event[Any]]]) -> None:
        self._hold = hold
        self._still = still
        self._hands: deque[tuple[float, list[Event[Any]]]] = deque()
        self._since: dict[int, float] = {}
        self._listed = 0
        self._left = 0
        self._late: list[Event[Any]] = []

    def handed(self, events: list[Event[Any]], now: float) -> None:
        """These were given to the program at *now*."""
        if self._hands and now - self._hands[-1][0] < _TOGETHER:
            self._hands[-1][1].extend(events)
        else:
            self._hands.append((now, list(events)))
        self._listed += len(events)
        if self._listed > 2 * self._left + _CROWD:
            self._look_through(now)

    def extend(self, event: Event[Any], now: float) -> None:
        """Count *event* anew from *now*."""
        self._since[id(event)] = now
        self._hands.append((now, [event]))
        self._listed += 1

    def late(self, now: float) -> list[Event[Any]]:
        """What has been in a hand for `hold` seconds, since the last call."""
        if self._hands and self._hands[0][0] + self._hold <= now:
            self._look_through(now)
        late, self._late = self._late, []
        return self._still(late)

    def held(self) -> list[Event[Any]]:
        """Everything that is in a hand."""
        return [event for since, events in self._hands for event in self._held(events, since)]

    def _look_through(self, now: float) -> None:
        """Drop what is settled; set aside what has been held too long."""
        kept: deque[tuple[float, list[Event[Any]]]] = deque()
        for since, events in self._hands:
            held = self._held(events, since)
            if held and since + self._hold <= now:
                self._late += held
            elif held:
                kept.append((since, held))
        self._hands = kept
        self._listed = self._left = sum(len(events) for _, events in kept)
        if self._since:  # only of what is still in a hand: an id may name another event later
            listed = {id(event) for _, events in kept for event in events}
            self._since = {one: at for one, at in self._since.items() if one in listed}

    def _held(self, events: list[Event[Any]], since: float) -> list[Event[Any]]:
        """Those that are in a hand, and count from then."""
        held = self._still(events)
        if self._since:
            held = [event for event in held if self._since.get(id(event), since) == since]
        return held
