"""How many events to ask for, so that what is in flight stays within events and bytes.

Does        derive the size of the next fetch from the room that is left and the sizes seen.
Does not    fetch, or count what is in flight (`ledger`).
Invariants  1. what is in flight is at most the budget, plus one fetch.
            2. the first fetch is small: nothing is known yet about the entries.
            3. a reply that does not come makes the next fetches smaller: a server that ends
               connections whose answer is over its limit would else never get it through.
            4. one event is always allowed when nothing is in flight, however large it is.
"""

from __future__ import annotations

from typing import Final

FIRST: Final = 64
"""Events of the first fetch: 64 of the largest default size (1 MiB) are the default budget."""

PAGE: Final = 1000
"""Events of a fetch at most: past this a reply delays others more than it saves round trips."""

_FORGET: Final = 0.9
"""How fast a large entry is forgotten, per fetch: half after seven."""


_SHRINK: Final = 8
"""How much smaller a fetch is after a reply that did not come: three of them, and it is 1."""

_GROW: Final = 25
"""One part in so many is added per fetch that brings events: back to a page after some fifty."""


class FetchSizer:
    """The size of the next fetch.

    Args:
        max_events: the most events that may be in flight.
        max_bytes: the most bytes that may be in flight.
    """

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._largest = 0.0
        self._page = PAGE

    def next(self, events: int, size: int) -> int:
        """How many events to ask for while *events* of *size* bytes are in flight; 0: none."""
        return min(self.room(events, size), self._page if self._largest else min(FIRST, self._page))

    def room(self, events: int, size: int) -> int:
        """How many more there is room for, over all fetches, as far as sizes are known."""
        room = self._max_events - events
        if room <= 0 or not self._largest:
            return max(0, room)
        by_bytes = int((self._max_bytes - size) / self._largest)
        if by_bytes < 1:
            return 0 if events else 1
        return min(room, by_bytes)

    def seen(self, events: int, size: int, largest: int) -> None:
        """A fetch brought *events* of *size* bytes, the largest of *largest* bytes."""
        if events:
            self._page = min(PAGE, self._page + 1 + self._page // _GROW)
            self._largest = max(float(largest), self._largest * _FORGET, 1.0)

    def lost(self) -> None:
        """The connection ended before the reply came: it may have been too large."""
        self._page = max(1, self._page // _SHRINK)
