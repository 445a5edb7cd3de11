"""Lanes: a key whose event has failed waits, while all others flow.

Does        keep failed events until they are due, and what comes of the same key behind them; hand
            out what may go on, in the order of the log.
Does not    look at a clock, count failures or decide when an event is due: times are handed in.
Invariants  1. of a key that waits, nothing is handed out that stands behind an event which is in
               the lane; a failed one is handed out alone.
            2. a lane goes on when what it handed out is done; it ends when it is empty.
            3. an event without a key waits alone.
Cost        nothing for events of keys that do not wait, but one look-up, and only while one does.
Used by     streams.shard_work.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from penstock.event import Event, Position


class Waiting(NamedTuple):
    """An event in a lane: where it stands, when it is due (0: it never failed), how it failed."""

    position: Position
    event: Event[Any]
    due: float = 0.0
    company: int = 0


class Lane:
    """One key that waits, or one event without a key."""

    __slots__ = ("out", "queue")

    def __init__(self) -> None:
        self.queue: list[Waiting] = []
        self.out: set[bytes] = set()


class Lanes:
    """The keys of one shard that wait."""

    def __init__(self) -> None:
        self._lanes: dict[object, Lane] = {}
        self._of: dict[bytes, object] = {}
        self.parked = 0
        self.bytes = 0

    def __bool__(self) -> bool:
        return bool(self._lanes)

    def waiting(self) -> Iterator[Waiting]:
        """Everything that is kept back, by lane, in order."""
        for lane in self._lanes.values():
            yield from lane.queue

    def admit(self, events: Iterable[Event[Any]]) -> list[Event[Any]]:
        """Of *events*, those that need not wait; the others queue.

        They come from the log, or were handed out and not taken yet: one that a lane has let out
        stays out, unless something of its key that stands before it has failed since.
        """
        if not self._lanes:
            return list(events)
        free: list[Event[Any]] = []
        for event in events:
            key = event.key
            lane = None if key is None else self._lanes.get(key)
            if lane is None or _may_stay_out(lane, event):
                free.append(event)
            else:
                lane.out.discard(event.entry_id)
                self._queue(key, Waiting(event.position, event))
        return free

    def park(self, event: Event[Any], due: float, company: int = 0) -> None:
        """*event* has failed, and waits until *due*, what comes of its key behind it."""
        name: object = event.key if event.key is not None else event.entry_id
        lane = self._lanes.setdefault(name, Lane())
        lane.out.discard(event.entry_id)
        self._queue(name, Waiting(event.position, event, due, company))

    def done(self, entry_id: bytes) -> None:
        """An event is settled for good."""
        name = self._of.pop(entry_id, None)
        if name is not None:
            self._lanes[name].out.discard(entry_id)

    def due(self, now: float) -> list[Waiting]:
        """What may be handed out at *now*; it is out from here on."""
        found: list[Waiting] = []
        for name, lane in list(self._lanes.items()):
            if lane.out:
                continue
            if lane.queue:
                found += self._release(lane, now)
            if not lane.queue and not lane.out:
                del self._lanes[name]
        return found

    def next_due(self) -> float | None:
        """When the next one is due that waits for time alone."""
        heads = (lane.queue[0].due for lane in self._lanes.values() if lane.queue and not lane.out)
        return min(heads, default=None)

    def clear(self) -> Sequence[Event[Any]]:
        """Everything that is kept back; nothing waits any more."""
        events = [one.event for one in self.waiting()]
        self.__init__()
        return events

    def _release(self, lane: Lane, now: float) -> list[Waiting]:
        """The head if it has failed and is due; else all up to the next that has failed."""
        head = lane.queue[0]
        count = 1
        if head.due > now:
            return []
        if not head.due:
            failed = (at for at, one in enumerate(lane.queue) if one.due)
            count = next(failed, len(lane.queue))
        ready, lane.queue = lane.queue[:count], lane.queue[count:]
        lane.out.update(one.event.entry_id for one in ready)
        self.parked -= count
        self.bytes -= sum(one.event.size for one in ready)
        return ready

    def _queue(self, name: object, one: Waiting) -> None:
        insort(self._lanes[name].queue, one, key=_position)
        self._of[one.event.entry_id] = name
        self.parked += 1
        self.bytes += one.event.size


def _may_stay_out(lane: Lane, event: Event[Any]) -> bool:
    out = event.entry_id in lane.out
    return out and not (lane.queue and lane.queue[0].position < event.position)


def _position(one: Waiting) -> Position:
    return one.position
