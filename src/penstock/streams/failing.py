"""Failing: what a member does with events whose handling failed.

Does        decide each one's fate by `rules.fates`, and queue it; open and close the breaker; tell.
Does not    send anything (`settling`), or notice failures: the program and the watch report them.
Invariants  1. an event that is not held any more is left alone.
            2. one signal a call and kind, however many events.
            3. while the breaker is open, nothing is handed out but what it is tried with.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from penstock.clock import Clock
from penstock.errors import Reject, RetryLater
from penstock.event import Event
from penstock.rules.breaker import Breaker
from penstock.rules.fates import Failure, fate, is_about, name_of, reason_of
from penstock.rules.ledger import Ledger
from penstock.signals import Kind, counted
from penstock.streams.group_options import GroupOptions
from penstock.streams.settling import Settling

_REASON: Final = 200
"""Characters of a program's reason that a signal tells."""

Tell = Callable[[Kind, str, str, int], None]
"""Tells observers: kind, message, stream, count."""


class Failures:
    """The failures of one member.

    Args:
        ledger: what is held.
        settling: takes what becomes of them.
        options: how the group behaves.
        clock: for the breaker's pauses.
        group: the group's name.
        tell: tells observers.
        changed: called when the breaker opens or closes.
    """

    def __init__(  # noqa: PLR0917 - made by Membership alone
        self,
        ledger: Ledger,
        settling: Settling,
        options: GroupOptions,
        clock: Clock,
        group: str,
        tell: Tell,
        changed: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._settling = settling
        self._retry = options.retry
        self._letters = options.dead_letters
        self._clock = clock
        self._group = group
        self._tell = tell
        self._changed = changed
        self._ends = options.until is not None
        self._due: dict[tuple[int, bytes], float] = {}
        self.breaker = Breaker(self._retry.breaker, self._retry.first, self._retry.cap)
        self.failed = 0
        self.undecodable = 0

    def waits_for(self, now: float, patience: float) -> bool:
        """Whether what failed here is to be handed out again, as far as can be known.

        What has been due for *patience* seconds, and did not come, has gone to others.
        """
        self._due = {event: due for event, due in self._due.items() if due + patience > now}
        return bool(self._due)

    def came(self, events: Iterable[Event[Any]]) -> None:
        """These were handed out again."""
        if self._due:
            for event in events:
                self._due.pop((id(event.origin), event.entry_id), None)

    def later(self, events: Sequence[Event[Any]], seconds: float) -> None:
        """These are to come again in *seconds*, uncounted."""
        if self._settling.hand_back(events, seconds):
            self._await(events, seconds)
        self.breaker.undecided(self._clock.monotonic())
        self._changed()

    def succeeded(self) -> None:
        """An event was handled: the failing, if it was everything's, is over."""
        if self.breaker.succeeded():
            self._changed()
            text = f"an event of group {self._group!r} was handled: all flow again"
            self._tell("breaker-closed", text, "", 1)

    def fail(
        self,
        events: Iterable[Event[Any]],
        error: BaseException | None = None,
        *,
        kind: str = "",
        reason: str = "",
        delay: float | None = None,
    ) -> int:
        """These failed together; how many of them were held.

        *kind*: the name of what happened, where there is no *error*.
        """
        held = [event for event in events if self._ledger.in_hand(event)]
        if not held:
            self.breaker.undecided(self._clock.monotonic())
            return 0
        if isinstance(error, RetryLater):
            self.later(held, error.seconds)
            return len(held)
        kind = kind or name_of(error)
        reason = reason or (reason_of(error) if error is not None else "")
        guilty = [e for e in held if is_about(error, e.stream, str(e.position))]
        if guilty:
            self._count_undecodable(guilty)
            if len(guilty) < len(held):  # it is known which of them it was
                innocent = [event for event in held if event not in guilty]
                self._settling.hand_back(innocent, 0.0)
                self._await(innocent, 0.0)
        failing = guilty or held
        final = bool(guilty) or isinstance(error, Reject)
        self._open_or_not(failing[0], rejected=isinstance(error, Reject))
        is_open = self.breaker.open and not isinstance(error, Reject)
        self._settle(failing, Failure(len(failing), final, delay, is_open), kind, reason)
        return len(held)

    def _settle(
        self, events: Sequence[Event[Any]], failure: Failure, kind: str, reason: str
    ) -> None:
        """Queue what becomes of *events*, those of one fate together."""
        alike: dict[tuple[int, int], list[Event[Any]]] = {}
        for event in events:
            company = self._ledger.company(event)
            alike.setdefault((event.attempts, company), []).append(event)
        given_up = 0
        for (attempts, company), some in alike.items():
            spread = random.random()
            end = fate(self._retry, failure, attempts, company, spread, letters=self._letters)
            if end.given_up:
                given_up += self._settling.bury(some, attempts + 1, kind, reason)
            else:
                self._settling.hand_back(some, end.delay, company=end.company)
                self._await(some, end.delay)
        self.failed += len(events)
        self._say(events, given_up, kind, reason)

    def _say(self, events: Sequence[Event[Any]], given_up: int, kind: str, reason: str) -> None:
        why = kind or reason[:_REASON] or "no reason given"  # an error may quote the event
        stream, group = events[0].stream, f"group {self._group!r}"
        if given_up:
            text = f"{counted(given_up)} of {group} went to its dead letters: {why}"
            self._tell("dead-lettered", text, stream, given_up)
        if rest := len(events) - given_up:
            self._tell("nacked", f"{counted(rest)} of {group} failed: {why}", stream, rest)

    def _open_or_not(self, event: Event[Any], *, rejected: bool) -> None:
        """Count a failure in a row; a handler that rejects an event works."""
        now = self._clock.monotonic()
        if rejected:
            self.breaker.undecided(now)
            self._changed()
            return
        if self.breaker.failed((id(event.origin), event.entry_id), now):
            text = (
                f"{self.breaker.failing} different events of group {self._group!r} failed in a "
                f"row, and none succeeded: events are tried one by one until one does, and none "
                f"goes to the dead letters meanwhile"
            )
            self._tell("breaker-opened", text, event.stream, self.breaker.failing)
        if self.breaker.open:
            self._changed()

    def _count_undecodable(self, events: Sequence[Event[Any]]) -> None:
        self.undecodable += len(events)
        text = f"the codec cannot read {counted(len(events))} of group {self._group!r}"
        self._tell("undecodable", text, events[0].stream, len(events))

    def _await(self, events: Iterable[Event[Any]], delay: float) -> None:
        due = self._clock.monotonic() + delay
        for event in events if self._ends else ():  # only who ends waits for them
            self._due[id(event.origin), event.entry_id] = due
