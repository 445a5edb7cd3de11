"""One group of one shard in memory: who holds which event, and what is parked for whom.

Does        give events out, take them back, forget them when acked; say what is still needed.
Does not    wait, beat, or know who lives: members say so.
Invariants  1. every event that was given out and is not acked has one owner: a member or the
               parking place. `EventGroup.last` divides what was given out from what was not.
            2. what a struck member holds stays under its name until another takes it, so its own
               next incarnation may be that other.
            3. an event that the log lost is dropped when it would be given again, and counted.
Cost        per event: two dict entries on the way out, two removals by its ack.
Used by     memory_groups.
Source      Redis' pending entries list, XCLAIM, XAUTOCLAIM.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from penstock.backends.letter_format import REPLAYED, pack
from penstock.backends.memory_log import ZERO, Key, StoredLog, key_before
from penstock.backends.memory_members import Tenant
from penstock.event import Position, Shard
from penstock.ports import Death, GroupInfo, MemberInfo, PendingInfo, RawEntry
from penstock.rules.leases import STRUCK


class Holder(Tenant):
    """A member, or the parking place, with what it holds: key, deliveries and since when, by id."""

    def __init__(self, name: str, lease: float) -> None:
        super().__init__(name, lease)
        self.held: dict[bytes, tuple[Key, int, float]] = {}


class EventGroup:
    """One group of one shard. Pure: every verb is one step under the store's lock."""

    def __init__(self, log: StoredLog, start: str, last: Key) -> None:
        self.log = log
        self.start = start
        self.last = last
        self.place = "the oldest event" if last == ZERO else f"behind {Position(last)}"
        self.members: dict[str, Holder] = {}
        self.parked = Holder("", 0.0)
        self.orphans: deque[tuple[Holder, bytes]] = deque()
        self._owners: dict[bytes, Holder] = {}
        self._attempts: dict[bytes, tuple[int, int]] = {}  # failures, company
        self._dues: list[tuple[float, Key, bytes]] = []
        self._unread: int | None = 0
        self._dropped = 0

    def give_new(
        self, holder: Holder, limit: int, now: float, *, noack: bool = False
    ) -> Sequence[RawEntry]:
        """The next events that nobody was given yet; *noack*: held by nobody from then on."""
        at = self.log.behind(self.last, limit)
        keys, entries = self.log.keys[at], self.log.entries[at]
        if entries:
            self.last = keys[-1]
        if entries and not noack:
            ids = [entry[0] for entry in entries]
            holder.held.update(zip(ids, ((key, 1, now) for key in keys), strict=True))
            self._owners.update(dict.fromkeys(ids, holder))
        return entries

    def give_again(
        self, holder: Holder, ids: Iterator[bytes], limit: int, now: float
    ) -> tuple[list[tuple[Key, RawEntry, tuple[int, int, int]]], int]:
        """Up to *limit* of *ids* to *holder*; those whose event is gone are dropped and counted."""
        given: list[tuple[Key, RawEntry, tuple[int, int, int]]] = []
        lost = 0
        while len(given) < limit and (entry_id := next(ids, None)) is not None:
            key, deliveries, _ = self._owners[entry_id].held.pop(entry_id)
            entry = self.log.get(key)
            if entry is None:
                lost += 1
                del self._owners[entry_id]
                self._attempts.pop(entry_id, None)
                continue
            holder.held[entry_id] = (key, deliveries + 1, now)
            self._owners[entry_id] = holder
            counts = (deliveries + 1, *self._attempts.get(entry_id, (0, 0)))
            given.append((key, entry, counts))
        given.sort(key=lambda row: row[0])
        return given, lost

    def ack(self, ids: Iterable[bytes], owner: Holder | None) -> int:
        """Forget *ids*; with *owner*, only those that it holds."""
        acked = 0
        for entry_id in ids:
            holder = self._owners.get(entry_id)
            if holder is None or (owner is not None and holder is not owner):
                continue
            del self._owners[entry_id], holder.held[entry_id]
            self._attempts.pop(entry_id, None)
            acked += 1
        return acked

    def bury(
        self, holder: Holder, death: Death, time: float, letters: StoredLog, *, replayed: bool
    ) -> bool | None:
        """Move an event that *holder* holds to *letters*; None: it was trimmed; False: not its."""
        if not self.holds(holder, death.id):
            return False
        key, deliveries, _ = holder.held[death.id]
        entry = self.log.get(key)
        if entry is not None:
            position, own = (entry[1][1], entry[1][REPLAYED:]) if replayed else (death.id, entry[1])
            header = pack(position, deliveries, death, time)
            letters.append([header + list(own)], int(time * 1000))
        self.ack([death.id], holder)
        return None if entry is None else True

    def park(
        self, holder: Holder, ids: Iterable[bytes], due: float, failed: bool, company: int = 0
    ) -> list[bytes]:
        """Keep *ids* for whoever fetches when they are due; those that *holder* held."""
        kept = [entry_id for entry_id in ids if self.holds(holder, entry_id)]
        for entry_id in kept:
            key, deliveries, _ = holder.held.pop(entry_id)
            self.parked.held[entry_id] = (key, deliveries, due)
            self._owners[entry_id] = self.parked
            heapq.heappush(self._dues, (due, key, entry_id))
            if failed:
                self._attempts[entry_id] = (self._attempts.get(entry_id, (0, 0))[0] + 1, company)
        return kept

    def holds(self, holder: Holder, entry_id: bytes) -> bool:
        """Whether *holder* holds the event."""
        return self._owners.get(entry_id) is holder

    def is_held(self, entry_id: bytes) -> bool:
        """Whether anybody holds the event, the parking place included."""
        return entry_id in self._owners

    def due(self, now: float) -> Iterator[bytes]:
        """Parked events that are due by *now*, each taken off the schedule."""
        while (at := self.next_due()) is not None and at <= now:
            yield heapq.heappop(self._dues)[2]

    def next_due(self) -> float | None:
        """When the next parked event is due."""
        while self._dues:
            due, _, entry_id = self._dues[0]
            held = self.parked.held.get(entry_id)
            if held is not None and held[2] == due:
                return due
            heapq.heappop(self._dues)  # acked meanwhile, or parked once more
        return None

    def strike(self, name: str, seen: str) -> int | None:
        """Take *name* for dead if its heartbeat still is *seen*; how many events it held."""
        holder = self.members.get(name)
        if holder is None or holder.beat != seen or seen == STRUCK:
            return None
        holder.beat = STRUCK
        by_key = sorted(holder.held, key=lambda entry_id: holder.held[entry_id][0])
        self.orphans.extend((holder, entry_id) for entry_id in by_key)
        self.sweep()
        return len(by_key)

    def orphaned(self) -> Iterator[bytes]:
        """What the dead still hold, each taken off the list."""
        while self.orphans:
            holder, entry_id = self.orphans.popleft()
            if holder.beat == STRUCK and self.holds(holder, entry_id):
                yield entry_id

    def sweep(self) -> None:
        """Strike off the dead who hold nothing any more."""
        for holder in list(self.members.values()):
            if holder.beat == STRUCK and not holder.held:
                del self.members[holder.name]

    def needed(self) -> Key:
        """The first key that the group still needs: acked-only trimming leaves it, and the rest."""
        oldest = min((held[0] for held in self._all_held()), default=None)
        behind = (self.last[0], self.last[1] + 1)
        return behind if oldest is None else min(oldest, behind)

    def mark(self) -> Key:
        """Up to where everything is acked: where the group goes on, should it be lost."""
        return key_before(self.needed())

    def forget(self, keys: Sequence[Key], *, counted: bool) -> None:
        """The log lost *keys*, in order: note what the group had not come to; drop what is parked.

        *counted*: they were trimmed. Of what was removed one by one, no number is told.
        """
        unread = len(keys) - bisect_right(keys, self.last)
        if unread:
            self._unread = self._unread + unread if counted and self._unread is not None else None
        gone = set(keys) if self.parked.held else ()
        for entry_id, (key, _, _) in list(self.parked.held.items() if gone else ()):
            if key in gone:
                del self.parked.held[entry_id], self._owners[entry_id]
                self._attempts.pop(entry_id, None)
                self._dropped += 1

    def take_lost(self) -> tuple[int | None, int]:
        """Events that were lost unread (None: not known how many), and parked; told once."""
        lost, self._unread, self._dropped = (self._unread, self._dropped), 0, 0
        return lost

    def info(self, name: str, shard: Shard, now: float, time: float) -> GroupInfo:
        """The group as it stands; *time*: seconds since 1970."""
        members = tuple(
            MemberInfo(m.name, len(m.held), now - m.active, m.beating(now))
            for m in self.members.values()
        )
        following: int = self.log.behind(self.last, 0).start
        lag = len(self.log.keys) - following
        since = self.log.keys[following][0] / 1000 if lag else time
        oldest = min(self._all_held(), default=None)
        dead = self.log.dead.get(name)
        mark = self.mark()
        pending = len(self._owners) - len(self.parked.held)
        last = None if self.last == ZERO else Position(self.last)
        return GroupInfo(
            *(name, shard, lag, pending, len(self.parked.held), last, members),
            pending_age=None if oldest is None else max(0.0, now - oldest[2]),
            lag_seconds=max(0.0, time - since),
            dead=len(dead.keys) if dead else 0,
            mark=None if mark == ZERO else Position(mark),
            deliveries=self.log.added - lag,
        )

    def pending(self, shard: Shard, limit: int, now: float) -> list[PendingInfo]:
        """The oldest events that members hold."""
        rows = [
            PendingInfo(
                shard,
                Position(key),
                m.name,
                now - since,
                n,
                self._attempts.get(entry_id, (0, 0))[0],
            )
            for m in self.members.values()
            for entry_id, (key, n, since) in m.held.items()
        ]
        return heapq.nsmallest(limit, rows, key=lambda row: row.position)

    def _all_held(self) -> Iterator[tuple[Key, int, float]]:
        for holder in (self.parked, *self.members.values()):
            yield from holder.held.values()
