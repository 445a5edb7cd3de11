"""One shard in memory: its entries in the order of their positions.

Does        give out positions, find, cut and remove entries; count events and bytes.
Does not    lock, ring, or know streams: `memory_store` does.
Invariants  1. positions grow strictly, also when the clock steps back.
Cost        per event: one bytes id, one list, one tuple, one size.
Used by     backends.memory*.
Source      Redis' stream ids, XADD: milliseconds-sequence, never below the last one given out.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from penstock.backends.memory_terms import Extras
from penstock.event import Position, PositionRun, Start
from penstock.ports import RawEntry, TrimTo
from penstock.rules.gaps import LogState

if TYPE_CHECKING:
    from penstock.backends.memory_pending import EventGroup

Key = tuple[int, ...]
"""A position as a plain tuple of two numbers: compared often, so kept light."""

ZERO: Final[Key] = (0, 0)
LAST_SEQUENCE: Final = (1 << 64) - 1


class StoredLog:
    """One shard: its entries in order of their keys, and the groups that share its events.

    `bytes` are those of names and contents. `dead` are the letters of each group, `replays` what
    it was handed back of them.
    """

    def __init__(self, stream: str = "") -> None:
        self.stream = stream
        self.keys: list[Key] = []
        self.entries: list[RawEntry] = []
        self.last: Key = ZERO
        self.added = 0
        self.bytes = 0
        self.removed: Key = ZERO
        self.event_groups: dict[str, EventGroup] = {}
        self.dead: dict[str, StoredLog] = {}
        self.replays: dict[str, StoredLog] = {}
        self.extras = Extras()

    def append(self, rows: Sequence[list[bytes]], now: int) -> PositionRun:
        """Add *rows* behind the last entry; *now* in milliseconds since 1970."""
        ms, first = (now, 0) if now > self.last[0] else (self.last[0], self.last[1] + 1)
        self.keys.extend((ms, first + n) for n in range(len(rows)))
        self.entries.extend((b"%d-%d" % (ms, first + n), row) for n, row in enumerate(rows))
        self.last = self.keys[-1] if rows else self.last
        self.added += len(rows)
        self.bytes += sum(map(size_of, rows))
        return PositionRun(Position((ms, first)), len(rows))

    def state(self) -> LogState:
        """What `rules.gaps` needs to see whether something was trimmed away."""
        oldest = Position(self.keys[0]) if self.keys else None
        newest, removed = Position(self.last), Position(self.removed)
        return LogState(self.added, len(self.keys), oldest, newest, removed)

    def behind(self, key: Key, limit: int) -> slice:
        """Where the next *limit* entries behind *key* lie."""
        first = bisect_right(self.keys, key)
        return slice(first, first + max(limit, 0))

    def get(self, key: Key) -> RawEntry | None:
        """The entry at *key*, or None if it is gone."""
        at = bisect_left(self.keys, key)
        return self.entries[at] if at < len(self.keys) and self.keys[at] == key else None

    def range(
        self, first: Key | None, last: Key | None, limit: int, reverse: bool
    ) -> list[RawEntry]:
        """Entries from *first* to *last*, both included."""
        low = 0 if first is None else bisect_left(self.keys, padded(first, 0))
        high = (
            len(self.keys) if last is None else bisect_right(self.keys, padded(last, LAST_SEQUENCE))
        )
        if reverse:
            return self.entries[max(low, high - max(limit, 0)) : high][::-1]
        return self.entries[low : min(high, low + max(limit, 0))]

    def trim(self, limit: TrimTo, needed: Iterator[Key]) -> int:
        """Remove the oldest; *needed* are the first keys that the groups still need."""
        if limit.max_bytes is not None:
            cut = self._over(limit.max_bytes)
        elif limit.max_events is not None:
            cut = max(0, len(self.keys) - limit.max_events)
        else:
            cut = bisect_left(self.keys, padded(limit.before or ZERO, 0))
        if limit.acked_only:
            cut = min(cut, min((bisect_left(self.keys, key) for key in needed), default=cut))
        for group in self.event_groups.values():
            group.forget(self.keys[:cut], counted=True)
        self.bytes -= sum(size_of(row) for _, row in self.entries[:cut])
        del self.keys[:cut], self.entries[:cut]
        return cut

    def _over(self, size: int) -> int:
        """How many of the oldest to remove until so many bytes are left."""
        cut, excess = 0, self.bytes - size
        while excess > 0 and cut < len(self.entries):
            excess -= size_of(self.entries[cut][1])
            cut += 1
        return cut

    def remove(self, keys: Iterable[Key]) -> int:
        """Remove single entries; how many there were."""
        removed: list[Key] = []
        for key in keys:
            at = bisect_left(self.keys, key)
            if at < len(self.keys) and self.keys[at] == key:
                self.bytes -= size_of(self.entries[at][1])
                del self.keys[at], self.entries[at]
                self.removed = max(self.removed, key)
                removed.append(key)
        for group in self.event_groups.values():
            group.forget(sorted(removed), counted=False)
        return len(removed)


def key_behind(start: Start, log: StoredLog | None) -> Key:
    """Behind which key reading begins, as a key that stays right when more is appended."""
    if start.kind == "newest":
        return ZERO if log is None else log.last
    if start.kind == "after" and start.position is not None:
        return padded(start.position, 0)
    if start.kind == "at" and start.time is not None:
        # Rounded down to the millisecond: ids know no less, and including beats losing.
        ms = math.floor(start.time * 1000)
        return (ms - 1, LAST_SEQUENCE) if ms > 0 else ZERO
    return ZERO


def key_before(key: Key) -> Key:
    """The last key that may stand before *key*."""
    ms, sequence = padded(key, 0)
    if sequence:
        return (ms, sequence - 1)
    return (ms - 1, LAST_SEQUENCE) if ms else ZERO


def padded(key: Key, sequence: int) -> Key:
    """*key* with both numbers; a lone one gets *sequence*, as Redis completes ids."""
    return tuple(key) if len(key) > 1 else (*key, sequence)


def size_of(row: Sequence[bytes]) -> int:
    """The bytes of an entry's names and contents."""
    return sum(map(len, row))
