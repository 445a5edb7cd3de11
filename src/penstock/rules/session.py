"""The idempotent append session: which batch was stored, which goes again, what is unknown.

Does        number batches, judge the server's answers, and say what must be sent again.
Does not    send, wait or know Redis; the runner is `backends/redis/appender.py`.
Invariants  1. batches are stored in order: batch n+1 is only stored after batch n.
            2. a batch is OK, FAIL or UNKNOWN, and UNKNOWN only if a connection broke, or time ran
               out, while its answer was still to come.
            3. what stands behind a batch that fails is never stored before it: it goes again in
               order, or fails too.
Source      Kafka's idempotent producer (KIP-98): one sequence per producer and partition.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final, Generic, Literal, NamedTuple, TypeVar

B = TypeVar("B")

WINDOW: Final = 16
"""Batches in flight at once. The server keeps the answers of 64, four times as many."""

Answer = Literal["stored", "again", "gap", "missing", "unmarked", "refused", "retry"]
"""The server's answer to a batch: stored now; stored before; not the next one; no such session;
the stream's mark is gone; refused for good; refused for now."""


class AppendSession(Generic[B]):
    """The window of one session: what waits, and what flies, in order.

    Args:
        window: how many batches may fly at once.
    """

    def __init__(self, window: int = WINDOW) -> None:
        self._window = window
        self._waiting: deque[B] = deque()
        self._flying: deque[Flight[B]] = deque()
        self._next = 1
        self._confirmed = 0
        self.trouble: set[Answer | Literal["cut"]] = set()

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing flies."""
        return not self._waiting and not self._flying

    @property
    def in_air(self) -> bool:
        """Whether an answer is still to come on the present connection."""
        return any(flight.in_air for flight in self._flying)

    def add(self, batch: B) -> None:
        """*batch* is to be stored behind all earlier ones."""
        self._waiting.append(batch)

    def oldest(self) -> B | None:
        """The batch that has waited longest."""
        if self._flying:
            return self._flying[0].batch
        return self._waiting[0] if self._waiting else None

    def take(self) -> Iterator[Flight[B]]:
        """What to send now, in order; nothing while there is trouble."""
        while self._waiting and len(self._flying) < self._window and not self.trouble:
            flight = Flight(self._waiting.popleft(), self._next)
            self._next += 1
            self._flying.append(flight)
            yield flight

    def answered(self, flight: Flight[B], answer: Answer) -> bool:
        """Judge an answer; True: the batch is stored and leaves the window."""
        flight.in_air = False
        if answer in ("stored", "again"):
            self._flying.remove(flight)
            self._confirmed = max(self._confirmed, flight.sequence)
            return True
        self.trouble.add(answer)
        return False

    def cut(self) -> None:
        """The connection broke: what has no answer may or may not be stored."""
        self.trouble.add("cut")
        for flight in self._flying:
            flight.unsure |= flight.in_air
            flight.in_air = False

    def rewind(self) -> Iterator[Flight[B]]:
        """All is well again: send what flies once more, in order, under the same sequences."""
        self.trouble = set()
        for flight in list(self._flying):
            flight.in_air = True
            yield flight

    def behind(self, last: int) -> int:
        """How many confirmed batches a server that stands at *last* has lost (a failover)."""
        return max(0, self._confirmed - last)

    def renew(self) -> None:
        """A new session: what flew goes first, under new sequences from 1."""
        self._waiting.extendleft(flight.batch for flight in reversed(self._flying))
        self._flying.clear()
        self._next, self._confirmed = 1, 0

    def missing(self) -> Undecided[B]:
        """The server does not know the session: take out what that makes unknown, and all behind.

        Without any of that, nothing is taken out, and `renew` stores it in a new session.
        """
        if not any(flight.unsure for flight in self._flying):
            return Undecided([], [])
        return self.give_up()

    def refused(self) -> Undecided[B]:
        """The first batch that flies was refused for good: take out everything.

        What a connection broke over before is unknown: rights are looked at before sequences.
        """
        return self.give_up()

    def give_up(self) -> Undecided[B]:
        """Take out everything: what may be stored, and what certainly is not."""
        flying = list(self._flying)
        sure = len(flying)
        while sure and not (flying[-1].unsure or flying[-1].in_air):
            flying.pop()
            sure -= 1
        unknown = [flight.batch for flight in flying]
        behind = [flight.batch for flight in list(self._flying)[sure:]]
        taken = Undecided(unknown, behind + list(self._waiting))
        for flight in self._flying:
            flight.in_air = False  # an answer that still comes is of no use to anyone
        self._flying.clear()
        self._waiting.clear()
        self.trouble = set()
        return taken


class Flight(Generic[B]):
    """A batch under its sequence.

    `in_air`: its answer is still to come. `unsure`: a connection broke before it came.
    """

    __slots__ = ("batch", "in_air", "sequence", "unsure")

    def __init__(self, batch: B, sequence: int) -> None:
        self.batch = batch
        self.sequence = sequence
        self.in_air = True
        self.unsure = False


class Undecided(NamedTuple, Generic[B]):
    """What is left of a session: these may be stored, those are certainly not."""

    unknown: list[B]
    unsent: list[B]
