"""Unread: how many entries a log has lost before they were read, and whether it is another log.

Does        count what was read, as numbers in the log's whole history, and compare that with what
            the log says of itself.
Does not    read, or ask the log.
Invariants  1. where every entry up to the place that was read is gone, what is gone beyond those
               was never read; where all was read, what was not counted was never read. So the
               numbers are exact, also where single entries were removed.
            2. where the count is not known, nothing is said; it is known again when the reader has
               caught up with the end.
            3. a log that has had fewer entries, or ends before what it had, is another one.
Cost        per page of entries: two comparisons, and its ids are kept until it is committed.
Used by     backends with groups that share shards.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence

from penstock.event import Position

NOWHERE = Position((0, 0))
"""Before every entry."""


class Unread:
    """What was read of one log.

    Args:
        position: behind what reading begins.
        seen: the newest entry that the log is known to have had; `NOWHERE`: none.
        counted: a place up to which entries are counted; None: none.
        count: how many entries were ever added up to there.
    """

    def __init__(
        self, position: Position, seen: Position, counted: Position | None, count: int
    ) -> None:
        self._at = position
        self._seen = seen
        self._count = count if counted == position else None
        self._kept: deque[tuple[Position, int, Sequence[bytes]]] = deque()
        self._keep()

    def read(self, ids: Sequence[bytes]) -> None:
        """A page of entries was read."""
        self._at = Position.of(ids[-1])
        self._seen = max(self._seen, self._at)
        if self._count is not None:
            self._count += len(ids)
            self._keep(ids)

    def is_other(self, newest: Position, added: int) -> bool:
        """Whether a log that ends at *newest*, and has had *added* entries, is another one."""
        return newest < self._seen or (self._count is not None and added < self._count)

    def lost(self, oldest: Position | None, newest: Position, added: int, length: int) -> int:
        """How many were lost since the last call, by how the log stands; no read is under way."""
        if self._at >= newest:
            missing = 0 if self._count is None else added - self._count
            self._count = added
        elif self._count is None or (oldest is not None and oldest <= self._at):
            return 0
        else:
            missing = added - length - self._count
            self._count += max(0, missing)
        if missing:
            self._kept.clear()
        self._keep()
        return max(0, missing)

    def kept(self, position: Position) -> tuple[Position, int] | None:
        """*position*, and how many entries came up to it; it is committed now.

        Where that is not counted, the last place before it that is; None: there is none.
        """
        kept = self._kept
        while len(kept) > 1 and kept[1][0] <= position:
            kept.popleft()
        if not kept:
            return None
        known, page = kept[0][:2], kept[1] if len(kept) > 1 else None
        if known[0] > position:  # what was counted begins behind it, or in the page around it
            known, page = None, kept[0]
        elif known[0] == position:
            return known
        if page is None or not page[2]:
            return known
        _, count, ids = page
        return position, count - len(ids) + bisect_right(ids, position, key=Position.of)

    def _keep(self, ids: Sequence[bytes] = ()) -> None:
        if self._count is not None and (not self._kept or self._kept[-1][0] != self._at):
            self._kept.append((self._at, self._count, ids))
