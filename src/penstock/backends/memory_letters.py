"""Dead letters in memory: the reference for `ports.Letters`, and what a group replays.

Does        keep what groups have given up, by group; hand it back to that group alone.
Does not    decide what is given up: members bury, each in their own way.
Invariants  1. letters and replayed events lie beside the log that they came from: neither trimming
               nor the loss of the group takes them; dropping the group does.
            2. every verb is one step under the store's lock.
Used by     memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.backends.letter_format import POSITION, as_bytes, letter_of
from penstock.backends.memory_log import ZERO, StoredLog, padded
from penstock.backends.memory_pending import EventGroup
from penstock.backends.memory_store import Place
from penstock.event import OLDEST, Position, Shard
from penstock.ports import DeadLetter


class MemoryLetters:
    """The letters of every group under one name: a part of `MemoryBackend`."""

    @property
    def _open_place(self) -> Place:
        raise NotImplementedError

    async def letters(
        self, shard: Shard, group: str, after: Position | None, limit: int
    ) -> Sequence[DeadLetter]:
        """Up to *limit* letters, oldest first, behind *after*; see `ports.Letters.letters`."""
        with self._open_place.store.lock:
            dead = self._dead(shard, group)
            entries = dead.entries[dead.behind(padded(after or ZERO, 0), limit)] if dead else []
        return [letter_of(shard, group, entry) for entry in entries]

    async def count_letters(self, shard: Shard, group: str) -> int:
        """How many there are."""
        with self._open_place.store.lock:
            dead = self._dead(shard, group)
            return len(dead.keys) if dead else 0

    async def replay(self, shard: Shard, group: str, ids: Sequence[Position]) -> int:
        """Hand letters back to that group alone; see `ports.Letters.replay`."""
        place = self._open_place
        with place.store.lock:
            log, dead = place.store.log(shard), self._dead(shard, group)
            if log is None or dead is None:
                return 0
            found = (dead.get(padded(position, 0)) for position in dict.fromkeys(ids))
            letters = [letter_of(shard, group, entry) for entry in found if entry is not None]
            rows = [[POSITION, as_bytes(letter.position), *letter.raw] for letter in letters]
            if rows:
                replayed = log.replays.setdefault(group, StoredLog())
                replayed.event_groups.setdefault(group, EventGroup(replayed, str(OLDEST), ZERO))
                replayed.append(rows, int(place.clock.time() * 1000))
                dead.remove(padded(position, 0) for position in ids)
            place.store.ring(shard)
        return len(rows)

    async def drop_letters(self, shard: Shard, group: str, ids: Sequence[Position]) -> int:
        """Remove letters for good; how many there were."""
        with self._open_place.store.lock:
            dead = self._dead(shard, group)
            return dead.remove(padded(position, 0) for position in ids) if dead else 0

    def _dead(self, shard: Shard, group: str) -> StoredLog | None:
        log = self._open_place.store.log(shard)
        return log.dead.get(group) if log else None
