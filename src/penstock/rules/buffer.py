"""Events that nobody has asked for yet, and the infos that wait between them.

Does        keep emissions in order, hand them out again in pieces, drop at a bound.
Does not    decide who gets what (`dispatch`), or tell anybody (the runner signals what it drops).
Invariants  1. first in, first out; an info comes out after everything that was stored before it.
            2. the bound counts events; infos are never dropped: those that were pinned behind a
               dropped event come out at that moment.
            3. no work per event: emissions are kept, cut and joined as whole lists.
Source      GenStage's buffer: `buffer_size`, `buffer_keep`, infos pinned behind events.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Literal, NamedTuple

from penstock.errors import ConfigError
from penstock.rules.trace import Carrier

Keep = Literal["first", "last"]
"""Which end survives when a buffer is full."""


class Piece(NamedTuple):
    """Events that lie together, with what follows their outcome (None: nothing does)."""

    events: list[Any]
    carrier: Carrier | None


class Overflow(NamedTuple):
    """What did not fit, and the infos that it had held up."""

    dropped: list[Piece]
    infos: list[Any]


class _Segment:
    """One emission, or what is left of it. `infos`: what is pinned behind it; None: nothing.

    An empty list is a cut: what comes behind is handed out apart.
    """

    __slots__ = ("carrier", "events", "infos", "start")

    def __init__(self, events: list[Any], carrier: Carrier | None) -> None:
        self.events = events
        self.start = 0  # what lies before it has been handed out: not cut off, so that many small
        self.carrier = carrier  # pieces of a large emission cost no more than few
        self.infos: list[Any] | None = None


class Buffer:
    """A bounded queue of events, with infos between them.

    Args:
        size: the most events that are kept; None: all; 0: none.
        keep: ``"last"`` drops the oldest when it is full, ``"first"`` the newest.

    Raises:
        ConfigError: a negative size, or an unknown end.
    """

    __slots__ = ("_apart", "_keep", "_segments", "_size", "count")

    def __init__(self, size: int | None = None, keep: Keep = "last") -> None:
        if size is not None and (type(size) is not int or size < 0):
            raise ConfigError(f"buffer_size must be 0 events or more, or None; got {size!r}")
        if keep not in {"first", "last"}:
            raise ConfigError(f"buffer_keep must be 'first' or 'last'; got {keep!r}")
        self._size = size
        self._keep: Keep = keep
        self._segments: deque[_Segment] = deque()
        self._apart = False  # whether what was taken last ended at a cut
        self.count = 0

    def store(
        self, events: list[Any], carrier: Carrier | None = None, *, apart: bool = False
    ) -> Overflow | None:
        """Keep *events* behind all others; what did not fit, or None.

        *apart*: never handed out in one piece with what comes behind.
        """
        overflow = self._make_room(events, carrier)
        if overflow:
            events = events[overflow[1] : overflow[2]]
        if events:
            segment = _Segment(events, carrier)
            segment.infos = [] if apart else None
            self._segments.append(segment)
            self.count += len(events)
        return overflow[0] if overflow else None

    def restore(self, pieces: list[Piece]) -> None:
        """Put *pieces*, which had left, back before all others, whatever the bound."""
        for events, carrier in reversed(pieces):
            if events:
                self._segments.appendleft(_Segment(events, carrier))
                self.count += len(events)

    def put_back(self, events: list[Any], carrier: Carrier | None, infos: list[Any]) -> None:
        """Undo a part of the last `take`: *events* are first again, and *infos* behind them."""
        segment = _Segment(events, carrier)
        segment.infos = infos if infos or self._apart else None
        self._segments.appendleft(segment)
        self.count += len(events)

    def pin(self, info: Any) -> bool:
        """Let *info* out after everything that is stored now; False: nothing is, it is due now."""
        if not self._segments:
            return False
        last = self._segments[-1]
        last.infos = [*(last.infos or ()), info]
        return True

    def take(self, limit: int) -> tuple[Piece, list[Any]] | None:
        """The next piece of at most *limit* events, and the infos behind it; None: empty.

        A piece ends at an info, at a cut, and where the events behind follow another outcome.
        """
        if not self._segments or limit < 1:
            return None
        first = self._head(limit)
        if len(first.events) == limit or first.infos is not None or first.carrier is not None:
            self._apart = first.infos is not None
            return Piece(first.events, first.carrier), first.infos or []
        self._apart = False
        events, infos = self._join(first.events, limit)
        return Piece(events, None), infos

    def clear(self) -> list[Piece]:
        """Empty the buffer, infos and all; the events that it held."""
        pieces = [Piece(one.events[one.start :], one.carrier) for one in self._segments]
        self._segments.clear()
        self.count = 0
        return pieces

    def _join(self, events: list[Any], limit: int) -> tuple[list[Any], list[Any]]:
        """Go on with what follows, as long as nothing lies between."""
        own = False
        while self._segments and self._segments[0].carrier is None and len(events) < limit:
            if not own:
                events, own = list(events), True
            segment = self._head(limit - len(events))
            events += segment.events
            if segment.infos is not None:
                self._apart = True
                return events, segment.infos
        return events, []

    def _head(self, limit: int) -> _Segment:
        """The first segment, or a part of it, which then has no infos: they are behind its end."""
        first, start = self._segments[0], self._segments[0].start
        if len(first.events) - start <= limit:
            self._segments.popleft()
            if start:
                first.events, first.start = first.events[start:], 0
            self.count -= len(first.events)
            return first
        first.start += limit
        self.count -= limit
        return _Segment(first.events[start : start + limit], first.carrier)

    def _make_room(
        self, events: list[Any], carrier: Carrier | None
    ) -> tuple[Overflow, int, int] | None:
        """What is dropped so that *events* fit, and from where to where they are kept."""
        if self._size is None or self.count + len(events) <= self._size:
            return None
        if self._keep == "first":
            room = max(0, self._size - self.count)  # what came back may be above the bound
            return Overflow([Piece(events[room:], carrier)], []), 0, room
        skip = max(0, len(events) - self._size)
        overflow = self._drop_oldest(self.count + len(events) - skip - self._size)
        if skip:
            overflow.dropped.append(Piece(events[:skip], carrier))
        return overflow, skip, len(events)

    def _drop_oldest(self, count: int) -> Overflow:
        overflow = Overflow([], [])
        while count > 0:
            part = self._head(count)
            count -= len(part.events)
            overflow.dropped.append(Piece(part.events, part.carrier))
            overflow.infos.extend(part.infos or ())
        return overflow
