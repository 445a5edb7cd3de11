"""The ledger of a group member: what it holds, since when, and what may still be acked.

Does        know every event from its fetch to its ack; queue acks; find what was held too long.
Does not    wait, send, or look at a clock: times are handed in.
Invariants  1. an event is held from its fetch until it is acked, handed back, or held too long.
            2. each delivery is an Event object of its own: an ack of an earlier delivery of the
               same event is refused, as that delivery was lost.
            3. after `hold` seconds in a hand an event is not ours any more.
            4. an ack of what is already acked does nothing.
            5. what was fetched before the member lapsed is acked fenced.
Cost        per event: one dict entry in, one out. Hands are gone through now and then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, Final, NamedTuple

from penstock.errors import ConfigError, LeaseLost
from penstock.event import Event, Origin, Shard

REMEMBERED: Final = 100_000
"""How many lost deliveries are remembered, to refuse their acks by name."""

_CROWD: Final = 20_000
"""Settled events that are still listed as handed out, before the list is gone through."""

_CROWD_BYTES: Final = 4 * 1024 * 1024
"""Their bytes: what is listed is not freed."""

_TOGETHER: Final = 0.25
"""Seconds within which events count as handed out at once: `hold` is that exact."""


class Acks(NamedTuple):
    """Acks to send for one shard: plain ones, and those that must be owner-checked."""

    shard: Shard
    plain: list[bytes]
    fenced: list[bytes]


class Hand(NamedTuple):
    """Events that were handed out at about the same time: one by one (`alone`), or in batches."""

    since: float
    events: list[Event[Any]]
    alone: bool


class Book:
    """What is held of one shard."""

    __slots__ = (
        *("company", "fenced", "held", "lost", "plain", "returning", "sending", "shard", "stale"),
    )

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.held: dict[bytes, Event[Any]] = {}
        self.company: dict[bytes, int] = {}
        self.stale: set[bytes] = set()
        self.lost: dict[bytes, None] = {}
        self.plain: list[bytes] = []
        self.fenced: list[bytes] = []
        self.sending: list[bytes] = []
        self.returning: set[bytes] = set()


class Ledger:
    """What one member holds.

    Args:
        hold: the longest that an event may stay in a hand, in seconds.
    """

    def __init__(self, hold: float) -> None:
        self._hold = hold
        self._books: dict[Origin, Book] = {}
        self._hands: deque[Hand] = deque()
        self._handed = self._handed_bytes = 0
        self._due: list[Hand] = []
        self._extended: dict[int, float] = {}
        self.bytes = 0
        self.queued = 0

    @property
    def events(self) -> int:
        """How many events are held."""
        return sum(len(book.held) for book in self._books.values())

    def open(self, origin: Origin, shard: Shard) -> Book:
        """The book of a shard, known by the origin of its events."""
        return self._books.setdefault(origin, Book(shard))

    def fetched(
        self,
        origin: Origin,
        events: Sequence[Event[Any]],
        company: Mapping[bytes, int] | None = None,
    ) -> None:
        """These came from the backend, all of one shard; *company*: of those that have one."""
        book = self._books[origin]
        if company:
            book.company.update(company)
        book.held.update((event.entry_id, event) for event in events)
        if book.lost:  # it came again: an ack of it may be repeated
            for event in events:
                book.lost.pop(event.entry_id, None)
        self.bytes += sum([event.size for event in events])

    def holds(self, origin: Origin, entry_id: bytes) -> bool:
        """Whether that event is held already."""
        return entry_id in self._books[origin].held

    def handed(self, events: list[Event[Any]], now: float) -> None:
        """These were given to the program at *now*: their hold begins."""
        self._handed += len(events)
        self._handed_bytes += sum([event.size for event in events])
        self._add_hand(now, events, alone=len(events) == 1)
        crowded = (
            self._handed > 2 * self.events + _CROWD
            or self._handed_bytes > 2 * self.bytes + _CROWD_BYTES
        )
        if crowded:
            self._look_through(now)

    def ack(self, events: Iterable[Event[Any]]) -> None:
        """Queue the acks of *events*.

        Raises:
            LeaseLost: some were not ours any more; all others are queued.
            ConfigError: an event of another group or reader; nothing behind it is queued.
        """
        refused: list[Event[Any]] = []
        for origin, several in groupby(events, _origin):
            book = self._book(origin)
            pop, size, plain = book.held.pop, 0, len(book.plain)
            for event in several:
                held = pop(event.entry_id, None)
                if held is not event:
                    self._refuse(book, event, held, refused)
                elif event.attempts or book.stale:
                    size += event.size
                    self._settle_fenced(book, event)
                else:
                    size += event.size
                    book.plain.append(event.entry_id)
            self.bytes -= size
            self.queued += len(book.plain) - plain
        if refused:
            raise LeaseLost(_refusal(refused), positions=tuple(str(e.position) for e in refused))

    def release(self, events: Iterable[Event[Any]]) -> dict[Shard, list[bytes]]:
        """Stop holding *events*; by shard, the ids of those that were held."""
        ids: dict[Shard, list[bytes]] = {}
        for event in events:
            book = self._book(event.origin)
            if book.held.get(event.entry_id) is event:
                self._forget(book, event)
                self._remember_lost(book, event.entry_id)
                book.returning.add(event.entry_id)
                ids.setdefault(book.shard, []).append(event.entry_id)
        return ids

    def returned(self, shard: Shard, ids: Iterable[bytes]) -> None:
        """The backend has taken back what was released."""
        for book in self._books.values():
            if book.shard == shard:
                book.returning.difference_update(ids)

    def in_hand(self, event: Event[Any]) -> bool:
        """Whether this very delivery is still held."""
        return self._book(event.origin).held.get(event.entry_id) is event

    def extend(self, event: Event[Any], now: float) -> None:
        """Count the hold of *event* anew from *now*.

        Raises:
            LeaseLost: it is not held any more.
        """
        if not self.in_hand(event):
            raise LeaseLost(_refusal([event]), positions=(str(event.position),))
        self._extended[id(event)] = now
        self._hands.append(Hand(now, [event], False))
        self._handed += 1
        if self._handed > 2 * self.events + _CROWD:
            self._look_through(now)

    def expired(self, now: float) -> list[list[Event[Any]]]:
        """What has been in a hand for `hold` seconds, still held; forget hands that are empty.

        In lists of what was handed out together.
        """
        if self._hands and self._hands[0].since + self._hold <= now:
            self._look_through(now)
        due, self._due = self._due, []
        return _together(due, self.in_hand)

    def in_hands(self) -> list[list[Event[Any]]]:
        """Everything that the program was given and has not settled, as `expired` has it."""
        self._hands = deque(
            Hand(since, [e for e in events if self._is_held_since(e, since)], alone)
            for since, events, alone in self._hands
        )
        self._forget_extended()
        return _together([*self._due, *self._hands], self.in_hand)

    def company(self, event: Event[Any]) -> int:
        """In whose company it may be handed out; 0: any."""
        return self._book(event.origin).company.get(event.entry_id, 0)

    def forget(self, events: Iterable[Event[Any]]) -> None:
        """These need no ack."""
        for event in events:
            book = self._book(event.origin)
            if book.held.get(event.entry_id) is event:
                self._forget(book, event)

    def _add_hand(self, now: float, events: list[Event[Any]], *, alone: bool) -> None:
        last = self._hands[-1] if self._hands else None
        if last is not None and last.alone == alone and now - last.since < _TOGETHER:
            last.events.extend(events)
        else:
            self._hands.append(Hand(now, list(events), alone))

    def _look_through(self, now: float) -> None:
        """Drop from the list of hands what is settled; set aside what was held too long."""
        kept: deque[Hand] = deque()
        for hand in self._hands:
            since = hand.since
            held = [event for event in hand.events if self._is_held_since(event, since)]
            if held and since + self._hold <= now:
                self._due.append(Hand(since, held, hand.alone))
            elif held:
                kept.append(Hand(since, held, hand.alone))
        self._hands = kept
        self._handed = sum(len(hand.events) for hand in kept)
        self._handed_bytes = sum(event.size for hand in kept for event in hand.events)
        self._forget_extended()

    def _forget_extended(self) -> None:
        """Keep those that are still in a hand alone: an id may name another event later."""
        if self._extended:
            held_ids = {id(event) for hand in self._hands for event in hand.events}
            self._extended = {k: at for k, at in self._extended.items() if k in held_ids}

    def lapse(self, dropped: Iterable[Event[Any]]) -> None:
        """The member was taken for dead: forget *dropped*, ack the rest fenced from now on."""
        for event in dropped:
            book = self._book(event.origin)
            if book.held.get(event.entry_id) is event:
                self._forget(book, event)
        for book in self._books.values():
            book.stale.update(book.held)
            book.fenced += book.plain
            book.plain = []

    def lose(self, stream: str) -> int:
        """The group of *stream* was lost: nothing of it is held, its queued acks mean nothing.

        How many events and acks that were.
        """
        lost = 0
        for book in self._books.values():
            if book.shard.stream == stream:
                lost += len(book.held) + len(book.plain) + len(book.fenced)
                self.queued -= len(book.plain) + len(book.fenced)
                for event in list(book.held.values()):
                    self._forget(book, event)
                    self._remember_lost(book, event.entry_id)
                book.plain, book.fenced = [], []
                book.returning = set()
        return lost

    def take_acks(self) -> list[Acks]:
        """The queued acks, by shard; they are not queued any more."""
        acks = [
            Acks(book.shard, book.plain, book.fenced)
            for book in self._books.values()
            if book.plain or book.fenced
        ]
        for book in self._books.values():
            book.sending += book.plain + book.fenced
            book.plain, book.fenced = [], []
        self.queued = 0
        return acks

    def confirmed(self, shard: Shard) -> None:
        """The acks of *shard* that were taken have been answered."""
        for book in self._books.values():
            if book.shard == shard:
                book.sending = []

    def held_ids(self, shard: Shard) -> set[bytes]:
        """The ids that are held."""
        return {
            entry_id
            for book in self._books.values()
            if book.shard == shard
            for entry_id in book.held
        }

    def known(self, shard: Shard) -> set[bytes]:
        """The ids that are held, or whose ack or hand-back is queued or under way."""
        return {
            entry_id
            for book in self._books.values()
            if book.shard == shard
            for ids in (book.held, book.plain, book.fenced, book.sending, book.returning)
            for entry_id in ids
        }

    def restore(self, acks: Acks) -> None:
        """These acks could not be sent: queue them again, before later ones."""
        for book in self._books.values():
            if book.shard == acks.shard:
                book.sending = []
                book.plain[:0] = acks.plain
                book.fenced[:0] = acks.fenced
                self.queued += len(acks.plain) + len(acks.fenced)

    def held(self) -> list[Event[Any]]:
        """Everything that is held, by shard, oldest fetch first."""
        return [event for book in self._books.values() for event in book.held.values()]

    def _settle_fenced(self, book: Book, event: Event[Any]) -> None:
        """One that failed before, or that came before a lapse; of the latter only those."""
        if not event.attempts and event.entry_id not in book.stale:
            book.plain.append(event.entry_id)
            return
        book.stale.discard(event.entry_id)
        book.company.pop(event.entry_id, None)
        book.fenced.append(event.entry_id)
        self.queued += 1

    @staticmethod
    def _refuse(
        book: Book, event: Event[Any], held: Event[Any] | None, refused: list[Event[Any]]
    ) -> None:
        """Not held: acked before, which is fine, or lost."""
        if held is not None:
            book.held[event.entry_id] = held
            refused.append(event)
        elif event.entry_id in book.lost:
            refused.append(event)

    def _forget(self, book: Book, event: Event[Any]) -> None:
        del book.held[event.entry_id]
        book.stale.discard(event.entry_id)
        book.company.pop(event.entry_id, None)
        self.bytes -= event.size

    def _is_held_since(self, event: Event[Any], since: float) -> bool:
        if self._extended and self._extended.get(id(event), since) != since:
            return False
        return self._book(event.origin).held.get(event.entry_id) is event

    def _book(self, origin: Origin) -> Book:
        try:
            return self._books[origin]
        except KeyError:
            raise ConfigError(
                f"an event can only be settled by the group that it came from, got one of "
                f"{origin.stream!r} that another group or a reader handed out"
            ) from None

    @staticmethod
    def _remember_lost(book: Book, entry_id: bytes) -> None:
        book.lost[entry_id] = None
        if len(book.lost) > REMEMBERED:
            del book.lost[next(iter(book.lost))]


_origin = attrgetter("origin")


def _together(hands: Iterable[Hand], held: Callable[[Event[Any]], bool]) -> list[list[Event[Any]]]:
    """What is held of *hands*, in lists of what was handed out together."""
    found: list[list[Event[Any]]] = []
    for hand in hands:
        some = [event for event in hand.events if held(event)]
        if hand.alone:
            found += [[event] for event in some]
        elif some:
            found.append(some)
    return found


def _refusal(events: Sequence[Event[Any]]) -> str:
    first = events[0]
    more = f" and {len(events) - 1} more" if len(events) > 1 else ""
    return (
        f"an event must be acked while it is in hand; {first.stream!r} {first.position}{more} was "
        f"handed back, held for longer than `hold`, or taken over, and comes again; "
        f"call group.extend(event) in long work, or raise hold="
    )
