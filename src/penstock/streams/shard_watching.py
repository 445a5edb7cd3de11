"""ShardWatching: what becomes of the events of shards that are in hand, by word or by time.

Does        take acks; judge failures; hand out what is due; release what was held too long; rest
            when the program hangs; tell when it gets on with nothing.
Does not    own shards, fetch or commit: `stream_share.py` and `shard_membership.py` do.
Invariants  1. what a program that still works has in hand is never taken from it before `hold`.
            2. a member rests while its program holds nothing and has asked for nothing, nor said
               anything, for `hold`: others are due its shards. It ends with the next word.
            3. a stall is told once, until something is settled again.
Used by     shard_membership.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, TypeVar

from penstock.clock import set_within
from penstock.errors import LeaseLost
from penstock.event import Event
from penstock.rules.fates import Failure, fate
from penstock.signals import counted
from penstock.streams.shard_shelf import ShardShelf

if TYPE_CHECKING:
    from penstock.streams.client import Client
    from penstock.streams.group_options import GroupOptions

T = TypeVar("T")

_DONE_AT_ONCE: Final = 5_000
"""Acks that are committed without waiting for the interval."""


class ShardWatching(ShardShelf[T]):
    """What was handed out, until it is settled. Arguments as for `Group`."""

    def __init__(self, client: Client, group: str, options: GroupOptions) -> None:
        super().__init__(client, group, options)
        self._heard_at = self._told_at = 0.0
        self._settled = -1
        self._stalled = False

    def heard(self) -> None:
        """The program asks, or has settled something: its shards are its own again."""
        super().heard()
        if self.resting:
            self._rest(False)

    async def _watch(self) -> None:
        """Hand out what is due; ack what was delayed; see what the program does of it."""
        while True:
            await set_within(self._tick, self._pause())
            self._tick.clear()
            now = self._clock.monotonic()
            self._hand_out(now)
            self._ack_delayed(now)
            if late := self._hands.late(now):
                self._release(late)
            self._look_for_a_hang(now)
            self._look_for_progress(now)

    def _ack_delayed(self, now: float = math.inf) -> None:
        """Ack what was handed out long enough before *now*; all, when a program ends well."""
        while self._delayed and self._delayed[0][0] <= now:
            _, events = self._delayed.popleft()
            self._ack([event for event in events if self.holds(event)])

    def _hand_out(self, now: float) -> None:
        for work in set(self._works.values()):
            if work.lanes and not work.yielding:
                ready = work.lanes.due(now)
                company = {id(one.event): one.company for one in ready if one.company}
                self._inbox.put([one.event for one in ready], company)
        if self.breaker.open and self.breaker.may_try(now):
            self._inbox.let_out(1)

    def _pause(self) -> float:
        """Seconds until something may be due."""
        now, options = self._clock.monotonic(), self._options
        dues = [work.lanes.next_due() for work in self._works.values() if work.lanes]
        dues += [self._delayed[0][0]] if self._delayed else []
        dues += [self.breaker.try_at] if self.breaker.open and not self.breaker.trying else []
        first = min((due for due in dues if due is not None), default=now + 1.0)
        return max(0.001, min(first - now, 1.0, options.hold / 4, options.lease / 4))

    def _look_for_a_hang(self, now: float) -> None:
        """Rest, when nothing was heard of the program for `hold`: it holds nothing any more.

        What it held was handed out before, and has been released.
        """
        if self._heard or self._inbox.waiting:
            self._heard, self._heard_at = False, now
        elif self.resting or self._noack:  # what nobody keeps stays where it is
            return
        elif now - self._heard_at >= self._options.hold:
            self._rest(True)

    def _rest(self, resting: bool) -> None:
        self.resting = resting
        for share in self._shares.values():
            if not share.stopped:  # then it rests for good
                share.member.rest(resting)
        self._room.set()

    def _look_for_progress(self, now: float) -> None:
        """Tell when there is no room for more, and nothing was settled for one lease."""
        works = set(self._works.values())
        settled = self._acked + self._nacked + sum(work.done - work.confirmed for work in works)
        left = sum(work.opened - work.lanes.parked for work in works)
        if settled != self._settled or not self.full or not left:
            self._settled, self._told_at, self._stalled = settled, now, False
        elif now - self._told_at >= self._options.lease and not self._stalled:
            self._stalled = True
            text = (
                f"{left} events are in hand or wait to be, which is the most, and none of them "
                f"was acked for {self._options.lease} s"
            )
            self.signal("stalled", text, next(iter(self._shares)), left)

    def _ack(self, events: Iterable[Event[T]]) -> None:
        if self.breaker.failing or self.breaker.open:
            self._succeeded()
        refused: list[Event[T]] = []
        for origin, several in groupby(events, _origin):
            work = self._works.get(origin)
            if work is None:
                refused += self.of_past(origin, several)
            else:
                refused += work.ack(several)
                if work.lanes:
                    self._tick.set()
                if work.done - work.confirmed >= _DONE_AT_ONCE:
                    self._send.set()
        if refused:
            raise lost(refused)

    def _release(self, late: list[Event[T]]) -> None:
        self._expired += len(late)
        hold = self._options.hold
        for event in late:
            self._fail([event], Failure(1), "HoldExpired", f"held for {hold} s without an ack")
        text = (
            f"{len(late)} events of group {self._group!r} were held for {hold} s without an ack; "
            f"they count as failed and come again"
        )
        self.signal("hold-expired", text, late[0].stream, len(late))

    def _fail(self, events: list[Event[T]], failure: Failure, error: str, reason: str) -> int:
        """These failed together: each comes again, or is given up, as `rules.fates` says."""
        events = [event for event in events if self.is_ours(event)]
        now = self._clock.monotonic()
        if not events:
            self.breaker.undecided(now)
            return 0
        self._count(events[0], now, rejected=failure.final)
        tried = self.breaker.open and not failure.final
        failure = failure._replace(together=len(events), open=tried)
        given_up = 0
        for event in events:
            work = self._works[event.origin]
            end = fate(
                self._options.retry,
                failure,
                event.attempts,
                work.company(event),
                random.random(),
                letters=self._options.dead_letters,
            )
            if end.given_up:
                given_up += 1
                work.bury(event, event.attempts + 1, error, reason[:1000])
            else:
                due, company = now + end.delay, end.company
                work.park(event, due, failed=company is not None, company=company or 0)
        self._nacked += len(events)
        self._given_up += given_up
        self.sort_out()
        self._say(events, given_up, error or reason[:200] or "no reason given")
        return len(events)

    def _say(self, events: list[Event[T]], given_up: int, why: str) -> None:
        stream, group = events[0].stream, f"group {self._group!r}"
        if given_up:
            self._send.set()
            text = f"{counted(given_up)} of {group} went to its dead letters: {why}"
            self.signal("dead-lettered", text, stream, given_up)
        if rest := len(events) - given_up:
            self.signal("nacked", f"{counted(rest)} of {group} failed: {why}", stream, rest)

    def _count(self, event: Event[T], now: float, *, rejected: bool) -> None:
        """A failure in a row may open the breaker; a handler that rejects an event works."""
        if rejected:
            self.breaker.undecided(now)
        elif self.breaker.failed((id(event.origin), event.entry_id), now):
            count = self.breaker.failing
            text = (
                f"{count} different events of group {self._group!r} failed in a row, and none "
                f"succeeded: events are tried one by one until one does, and none goes to the "
                f"dead letters meanwhile"
            )
            self.signal("breaker-opened", text, event.stream, count)
        if self.breaker.open:
            self._inbox.let_out(0)

    def _succeeded(self) -> None:
        """An event was handled: the failing, if it was everything's, is over."""
        if self.breaker.succeeded():
            self._inbox.let_out(None)
            text = f"an event of group {self._group!r} was handled: all flow again"
            self.signal("breaker-closed", text, "", 1)

    def _give_back(self, events: list[Event[T]], delay: float) -> None:
        now = self._clock.monotonic()
        for event in events:
            self._works[event.origin].park(event, now + delay, failed=False)
        self.sort_out()


_origin = attrgetter("origin")


def lost(events: Sequence[Event[Any]]) -> LeaseLost:
    """What is raised for *events* that are not in hand any more."""
    first = events[0]
    more = f" and {len(events) - 1} more" if len(events) > 1 else ""
    return LeaseLost(
        f"an event must be acked while it is in hand; {first.stream!r} {first.position}{more} was "
        f"handed back or held for longer than `hold`, or its shard has another owner; it comes "
        f"again; call group.extend(event) in long work, or raise hold=",
        positions=tuple(str(event.position) for event in events),
    )
