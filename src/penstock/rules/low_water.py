"""Low water: up to where everything of a shard is done, whatever the order it is done in.

Does        keep what was fetched and is not done, in the order of the log; give the mark that may
            be committed, and the notes that say what behind it is done all the same.
Does not    know time, keys or failures; commit.
Invariants  1. nothing at or before the mark is open.
            2. the notes name every open event up to the last one that is done: the others up to
               there are done, and are not handed out again.
            3. what is kept is what is open, and little more, however long one event stays open.
Cost        per event: one dict entry in, one out, one step of a deque. Notes are made only where
            events are done out of order.
Used by     streams.shard_work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, Generic, TypeVar

import msgspec

from penstock.event import Position

T = TypeVar("T")

_CROWD: Final = 1_000
"""Done ids behind an open one that are kept, beyond as many as are open, before they are merged."""

_LAST: Final = (1 << 64) - 1


class Hole(msgspec.Struct, array_like=True, frozen=True):
    """An event that is not done, though later ones are; or one that has failed.

    `due`: in how many seconds it may be handed out again, counted from the commit.
    """

    id: bytes
    deliveries: int = 0
    attempts: int = 0
    company: int = 0
    due: float = 0.0


class Notes(msgspec.Struct, array_like=True, frozen=True):
    """What is kept beside a mark. Up to `frontier`, all is done but the holes.

    `replayed`: the same of the shard's replay log, where what is done is gone.
    """

    frontier: bytes = b""
    holes: tuple[Hole, ...] = ()
    replayed: tuple[Hole, ...] = ()

    def packed(self) -> bytes:
        """As bytes; ``b""`` if it says nothing."""
        return msgspec.msgpack.encode(self) if self != Notes() else b""

    @classmethod
    def of(cls, packed: bytes) -> Notes:
        """Read back what `packed` made."""
        return msgspec.msgpack.decode(packed, type=cls) if packed else cls()


class LowWater(Generic[T]):
    """The open events of one log.

    Args:
        mark: behind what reading begins.
    """

    def __init__(self, mark: bytes) -> None:
        self._last = mark
        self._order: deque[bytes] = deque()
        self.open: dict[bytes, T] = {}

    def fetched(self, ids: Sequence[bytes], events: dict[bytes, T]) -> None:
        """*ids* come next in the log; of them, *events* are open, the others are done."""
        self._order.extend(ids)
        self.open.update(events)
        self._last = ids[-1]

    def mark(self) -> bytes:
        """The last place up to which everything is done."""
        order, opened = self._order, self.open
        while order and order[0] not in opened:
            order.popleft()
        return before(order[0]) if order else self._last

    def beyond(self) -> tuple[bytes, list[bytes]]:
        """The last one that is done behind the mark, and what is open before it; else nothing."""
        self.mark()
        order, opened = self._order, self.open
        if len(order) == len(opened):
            return b"", []
        frontier = next(one for one in reversed(order) if one not in opened)
        if len(order) > 2 * len(opened) + _CROWD:
            kept = [one for one in order if one in opened or one == frontier]
            self._order = order = deque(kept)
        holes: list[bytes] = []
        for one in order:
            if one == frontier:
                break
            if one in opened:
                holes.append(one)
        return frontier, holes


def before(entry_id: bytes) -> bytes:
    """The place right before an event, in the form of ids."""
    *head, last = Position.of(entry_id)
    if last or not head:
        return Position((*head, max(0, last - 1))).raw
    return Position((head[0] - 1, _LAST)).raw if head[0] else b"0-0"


def is_behind(entry_id: bytes, frontier: bytes) -> bool:
    """Whether an event stands behind *frontier*."""
    return Position.of(entry_id) > Position.of(frontier)
