"""Watching: what comes of time passing while a member works.

Does        release what was held too long; ack, where acks are delayed; notice a program that gets
            on with nothing.
Does not    fetch or send: it tells those who do.
Invariants  1. what a program that still works has in hand is never taken from it before `hold`.
            2. a stall is told once, until something is settled again.
Used by     `membership.Membership`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from penstock.clock import Clock
from penstock.event import Event
from penstock.rules.ledger import Ledger
from penstock.streams.failing import Failures, Tell
from penstock.streams.fetching import Fetching
from penstock.streams.group_options import GroupOptions
from penstock.streams.inbox import Inbox
from penstock.streams.settling import Settling


class Watch:
    """The watch of one member. Its parts are those of `Membership`."""

    def __init__(  # noqa: PLR0917 - made by Membership alone
        self,
        options: GroupOptions,
        clock: Clock,
        ledger: Ledger,
        inbox: Inbox[Any],
        settling: Settling,
        failures: Failures,
        fetching: Fetching[Any],
        tell: Tell,
    ) -> None:
        self._options = options
        self._clock = clock
        self._ledger = ledger
        self._inbox = inbox
        self._settling = settling
        self._failures = failures
        self._fetching = fetching
        self._tell = tell
        self._later: deque[tuple[float, Sequence[Event[Any]]]] = deque()
        self._settled = -1
        self._since = 0.0
        self._stalled = False
        self.expired = 0

    def ack_later(self, events: Sequence[Event[Any]]) -> None:
        """These were handed out now: they are acked when `ack_delay` is over."""
        self._later.append((self._clock.monotonic() + self._options.ack_delay, events))

    def ack_now(self) -> None:
        """Do not wait any longer: the member leaves, and its program has gone well."""
        while self._later:
            self._ack(self._later.popleft()[1])

    async def run(self) -> None:
        """Watch, until cancelled."""
        every = min(1.0, self._options.hold / 4, self._options.lease / 4)
        if self._options.acks == "delayed":
            every = min(every, max(0.02, self._options.ack_delay / 4))
        while True:
            await self._clock.sleep(every)
            now = self._clock.monotonic()
            while self._later and self._later[0][0] <= now:
                self._ack(self._later.popleft()[1])
            self._release(now)
            self._look_for_progress(now)

    def _ack(self, events: Sequence[Event[Any]]) -> None:
        self._settling.ack([event for event in events if self._ledger.in_hand(event)])
        self._fetching.room.set()

    def _release(self, now: float) -> None:
        """Let go of what was held too long, and of the rest if that was all the program does."""
        expired = self._ledger.expired(now)
        late = [event for events in expired for event in events]
        if not late:
            return
        self.expired += len(late)
        hold = self._options.hold
        text = (
            f"{len(late)} events were held for {hold} s without an ack; they count as failed and "
            f"come again"
        )
        self._tell("hold-expired", text, late[0].stream, len(late))
        for events in expired:
            self._failures.fail(
                events, kind="HoldExpired", reason=f"held for {hold} s without an ack"
            )
        self._fetching.room.set()
        if not self._inbox.waiting and not self._ledger.in_hands():
            self._fetching.rest()

    def _look_for_progress(self, now: float) -> None:
        """Tell when the member's hands are full, and nothing was settled for one lease."""
        settled = self._settling.acked + self._failures.failed
        if settled != self._settled or not self._fetching.crowded:
            self._settled, self._since, self._stalled = settled, now, False
        elif now - self._since >= self._options.lease and not self._stalled:
            self._stalled = True
            count = self._ledger.events
            text = (
                f"{count} events are in hand, which is the most, and none of them was acked for "
                f"{self._options.lease} s"
            )
            self._tell("stalled", text, next(iter(self._fetching.handles)).stream, count)
