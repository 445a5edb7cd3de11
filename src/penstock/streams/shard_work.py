"""ShardWork: one shard while this member owns it, from its events to what is committed of them.

Does        make events of pages; know which are open, which wait for their key or their time, and
            which become dead letters; make the next commit of all that.
Does not    fetch, wait, judge failures or send: `stream_share.py`, `shard_membership.py` do.
Invariants  1. a commit says everything that happened up to it: mark, notes, letters; the next one
               is made when it is confirmed.
            2. each delivery is an Event object of its own: what was given back, lost or held for
               too long can only be settled by its next delivery.
            3. a dead letter stays open, and its key waits, until the letter is stored.
Cost        per event: one Event, one dict entry in and out.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any, Final, Generic, TypeVar

from penstock.event import Event, Position, Shard
from penstock.ports import Along, Burial, Ownership, Page, PendingInfo
from penstock.rules.lanes import Lanes, Waiting
from penstock.rules.low_water import Hole, LowWater, Notes, before, is_behind
from penstock.streams.format import ShardOrigin

T = TypeVar("T")

LETTERS_AT_ONCE: Final = 100
"""Dead letters of one commit: they carry what the events held."""

REPLAYED_AT_ONCE: Final = 500
"""Ids of one commit that are removed from the replay log."""

HOLES: Final = 20_000
"""Events behind the mark of which a commit says more: some hundred kilobytes."""


class ShardWork(Generic[T]):
    """One shard in one epoch.

    Args:
        shard: which.
        ownership: what came with it.
        origin, replay_origin: of its events, and of those that come again from its dead letters;
            no other epoch's events share them.
        now: when it was taken, by the monotonic clock.
    """

    def __init__(
        self,
        shard: Shard,
        ownership: Ownership,
        origin: ShardOrigin,
        replay_origin: ShardOrigin,
        now: float,
    ) -> None:
        self.shard = shard
        self.epoch = ownership.epoch
        self.state = ownership.state
        self.origin = origin
        self.replay_origin = replay_origin
        self.lanes = Lanes()
        self.back: list[Event[T]] = []
        self.beyond: list[Event[T]] = []
        self.yielding = self.crowded = False
        self.sending: tuple[Position, Along] | None = None
        self.done = self.confirmed = 0
        self.bytes = self.largest = 0
        self._log: LowWater[Event[T]] = LowWater(ownership.start.raw)
        self._replay: LowWater[Event[T]] = LowWater(b"")
        notes = Notes.of(ownership.notes)
        self._since = now - ownership.age
        self._frontier = notes.frontier
        self._known = (_by_id(notes.holes), _by_id(notes.replayed))
        self._failed: dict[tuple[bool, bytes], Waiting] = {}
        self._dying: dict[tuple[bool, bytes], Burial] = {}
        self._buried: list[tuple[bool, bytes]] = []
        self._gone: list[bytes] = []
        self._changed = False
        self._sent = 0

    @property
    def opened(self) -> int:
        """How many events are not done, those that wait among them."""
        return len(self._log.open) + len(self._replay.open)

    @property
    def in_flight(self) -> int:
        """How many are in the inbox or in a hand, or done and not yet committed."""
        return self.opened - self.lanes.parked + self.done - self.confirmed

    @property
    def in_hand(self) -> int:
        """How many the program has, where none of this shard are in the inbox."""
        kept = len(self.back) + len(self.beyond) + len(self._dying)
        return self.opened - self.lanes.parked - kept

    @property
    def changed(self) -> bool:
        """Whether there is something to commit."""
        return self._changed or self.sending is not None

    @property
    def dying(self) -> bool:
        """Whether dead letters are on their way."""
        return bool(self._dying or self._buried)

    def take_in(self, page: Page, now: float) -> list[Event[T]]:
        """The events of a page that may be handed out now."""
        replay = page.shard.replay
        origin, known = (self.replay_origin if replay else self.origin), self._known[replay]
        entries = page.entries
        if not replay and self._frontier:
            entries = self._left(entries)
        ids = [entry[0] for entry in page.entries]
        events: list[Event[T]] = [
            Event(origin, entry[0], entry[1], 1, 0, len(b"".join(entry[1]))) for entry in entries
        ]
        if known:
            events = [self._as_known(event, known.get(event.entry_id)) for event in events]
        self._of(replay).fetched(ids, {event.entry_id: event for event in events})
        sizes = [event.size for event in events]
        self.bytes += sum(sizes)
        self.largest = max(sizes, default=0)
        if len(events) < len(ids):
            self._changed = True
        return self._free(events, known, now)

    def holds(self, event: Event[Any]) -> bool:
        """Whether this very delivery is open, and not on its way to the dead letters."""
        where = event.origin is self.replay_origin
        opened = self._of(where).open.get(event.entry_id)
        return opened is event and (where, event.entry_id) not in self._dying

    def still(self, origin: Any, events: Iterable[Event[Any]]) -> list[Event[Any]]:
        """Those of *events*, all of one origin, that are held."""
        get = self._of(origin is self.replay_origin).open.get
        held = [event for event in events if get(event.entry_id) is event]
        return [event for event in held if self.holds(event)] if self._dying else held

    def ack(self, events: Iterable[Event[Any]]) -> list[Event[Any]]:
        """These are done, all of one origin; what of them is not held any more, though still open.

        What is done already is left alone.
        """
        refused: list[Event[Any]] = []
        done = size = 0
        where, special = False, bool(self._failed or self._dying or self.lanes)
        pop = self._log.open.pop
        for event in events:
            if not done and event.origin is self.replay_origin:
                where, special, pop = True, True, self._replay.open.pop
            held = pop(event.entry_id, None)
            if held is not event or (special and (where, event.entry_id) in self._dying):
                if held is not None:
                    self._of(where).open[event.entry_id] = held
                    refused.append(event)
                continue
            done += 1
            size += event.size
            if special:
                self._settle(where, event.entry_id)
        self.done += done
        self.bytes -= size
        self._changed |= done > 0
        return refused

    def _settle(self, where: bool, entry_id: bytes) -> None:
        self._failed.pop((where, entry_id), None)
        self.lanes.done(entry_id)
        if where:
            self._gone.append(entry_id)

    def park(self, event: Event[Any], due: float, *, failed: bool, company: int = 0) -> None:
        """An event that is held comes again at *due*, in a delivery of its own."""
        where = event.origin is self.replay_origin
        again: Event[T] = Event(
            event.origin,
            event.entry_id,
            event.raw,
            event.deliveries + 1,
            event.attempts + failed,
            event.size,
        )
        self._of(where).open[event.entry_id] = again
        self.lanes.park(again, due, company)
        if again.attempts:
            self._failed[where, event.entry_id] = Waiting(again.position, again, due, company)
            self._changed = True

    def bury(self, event: Event[Any], attempts: int, error: str, reason: str) -> None:
        """An event that is held becomes a dead letter, with the next commit."""
        where = event.origin is self.replay_origin
        self._dying[where, event.entry_id] = Burial(
            event.entry_id, attempts, event.deliveries, error, reason, event.raw, where
        )
        self._changed = True

    def company(self, event: Event[Any]) -> int:
        """The most events that may be handed out together with *event*; 0: any number."""
        failed = self._failed.get((event.origin is self.replay_origin, event.entry_id))
        return 0 if failed is None else failed.company

    def pending(self, member: str, now: float) -> list[PendingInfo]:
        """What is not done, in order; `idle` is not known."""
        return [
            PendingInfo(self.shard, event.position, member, 0.0, event.deliveries, event.attempts)
            for log in (self._log, self._replay)
            for event in log.open.values()
        ]

    def next_commit(self, now: float) -> tuple[Position, Along] | None:
        """What to commit; the same until it is confirmed. None: nothing."""
        if self.sending is None and self._changed:
            burials = self._take_dying()
            replayed = tuple(islice(self._gone, REPLAYED_AT_ONCE))
            self._sent = self.done
            self._changed = bool(self._dying) or len(self._gone) > len(replayed)
            along = Along(self._notes(now).packed(), burials, replayed)
            self.sending = (Position.of(self._log.mark()), along)
        return self.sending

    def committed(self) -> int:
        """The pending commit is confirmed; how many events are done by it."""
        assert self.sending is not None
        _, along = self.sending
        self.sending = None
        del self._gone[: len(along.replayed)]
        for _, entry_id in self._buried:
            self.lanes.done(entry_id)
        self._buried = []
        count, self.confirmed = self._sent - self.confirmed, self._sent
        return count

    def _of(self, replay: bool) -> LowWater[Event[T]]:
        return self._replay if replay else self._log

    def _left(self, entries: Iterable[Any]) -> list[Any]:
        """Without what the last owner had done already."""
        left: list[Any] = []
        for entry in entries:
            if self._frontier and is_behind(entry[0], self._frontier):
                self._frontier = b""
            if not self._frontier or entry[0] in self._known[0]:
                left.append(entry)
        return left

    @staticmethod
    def _as_known(event: Event[T], hole: Hole | None) -> Event[T]:
        if hole is None:
            return event
        return Event(
            event.origin,
            event.entry_id,
            event.raw,
            hole.deliveries + 1,
            hole.attempts,
            event.size,
        )

    def _free(self, events: list[Event[T]], known: dict[bytes, Hole], now: float) -> list[Event[T]]:
        """What need not wait; of what the last owner had seen fail, what is not due yet does."""
        if not known:
            return self.lanes.admit(events)
        free: list[Event[T]] = []
        for event in events:
            hole = known.pop(event.entry_id, None)
            if hole is not None and hole.attempts:
                due = self._since + hole.due
                where = event.origin is self.replay_origin
                waiting = Waiting(event.position, event, due, hole.company)
                self._failed[where, event.entry_id] = waiting
                if due > now:
                    self.lanes.park(event, due, hole.company)
                    continue
            free += self.lanes.admit([event])
        return free

    def _take_dying(self) -> tuple[Burial, ...]:
        """The next dead letters: done with this commit."""
        taken = list(islice(self._dying.items(), LETTERS_AT_ONCE))
        for (where, entry_id), _ in taken:
            del self._dying[where, entry_id]
            event = self._of(where).open.pop(entry_id)
            self.bytes -= event.size
            self.done += 1
            self._failed.pop((where, entry_id), None)
            self._buried.append((where, entry_id))
            if where:
                self._gone.insert(0, entry_id)
        return tuple(burial for _, burial in taken)

    def _notes(self, now: float) -> Notes:
        frontier, holes = self._log.beyond()
        if self._frontier:  # what the last owner had done behind it has not all been read yet
            frontier, holes = self._frontier, list(self._log.open)
        if len(holes) > HOLES:
            frontier, holes = before(holes[HOLES]), holes[:HOLES]
        known = [
            [self._aged(hole, now) for hole in self._known[where].values()]
            for where in (False, True)
        ]
        waiting = {one.event.entry_id for one in self.lanes.waiting()}
        rows = dict.fromkeys((*holes, *(one for where, one in self._failed if not where)))
        return Notes(
            frontier,
            (*(self._hole(False, one, waiting, now) for one in rows), *known[0]),
            (
                *(self._hole(True, one, waiting, now) for where, one in self._failed if where),
                *known[1],
            ),
        )

    def _aged(self, hole: Hole, now: float) -> Hole:
        """What the last owner said of an event that has not been read yet."""
        due = max(0.0, self._since + hole.due - now)
        return Hole(hole.id, hole.deliveries, hole.attempts, hole.company, due)

    def _hole(self, where: bool, entry_id: bytes, waiting: set[bytes], now: float) -> Hole:
        event = self._of(where).open[entry_id]
        failed = self._failed.get((where, entry_id))
        due, company = (failed.due, failed.company) if failed is not None else (0.0, 0)
        deliveries = event.deliveries - (entry_id in waiting)
        return Hole(entry_id, deliveries, event.attempts, company, max(0.0, due - now))


def _by_id(holes: Iterable[Hole]) -> dict[bytes, Hole]:
    return {hole.id: hole for hole in holes}
