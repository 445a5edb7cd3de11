"""Settling: what a member tells the backend about events that it was given.

Does        queue acks and hand-backs, and send them in batches.
Does not    decide what may be acked (`rules.ledger`).
Invariants  1. what could not be sent stays queued, in order; nothing is dropped.
            2. one sender at a time.
            3. an ack that finds nothing to ack is counted and signalled, unless it may be one that
               was sent before and whose reply was lost.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from penstock.clock import Backoff, Clock
from penstock.errors import BackendUnavailable, PenstockError
from penstock.event import Event, Shard
from penstock.ports import EventMember
from penstock.rules.ledger import Acks, Ledger

ACKS_AT_ONCE: Final = 1000
"""Queued acks that are sent without waiting for the interval."""


class Settling:
    """The outcomes of one member's events, on their way.

    Args:
        ledger: what is held, and which acks are queued.
        interval: seconds between sends; None: acks are sent by `flush` alone.
        clock: for the pauses after failures.
        missed: told how many acks of a stream found nothing to ack.
        settled: called when there is room again.
    """

    def __init__(
        self,
        ledger: Ledger,
        interval: float | None,
        clock: Clock,
        *,
        missed: Callable[[str, int], None],
        settled: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._interval = interval
        self._clock = clock
        self._missed = missed
        self._settled = settled
        self._backs: list[_HandBack] = []
        self._send = asyncio.Event()
        self._unsure = 0
        self.sending = asyncio.Lock()
        self.acked = 0

    def ack(self, events: Iterable[Event[Any]]) -> None:
        """Queue acks; LeaseLost for those that are not held, after queueing the others."""
        try:
            self._ledger.ack(events)
        finally:
            if self._ledger.queued >= ACKS_AT_ONCE:
                self.hurry()

    def hand_back(self, events: Iterable[Event[Any]], delay: float, *, failed: bool) -> int:
        """Queue the hand-back of those that are held; how many that were."""
        released = self._ledger.release(events)
        for shard, ids in released.items():
            self._backs.append(_HandBack(shard, ids, delay, failed))
        self.hurry()
        return sum(map(len, released.values()))

    def fail(self, events: Iterable[Event[Any]], delay: Callable[[int], float]) -> int:
        """Queue the hand-back of events that failed, those of as many attempts due together.

        *delay*: seconds by the attempts so far.
        """
        by_attempts: dict[int, list[Event[Any]]] = {}
        for event in events:
            by_attempts.setdefault(event.attempts, []).append(event)
        return sum(
            self.hand_back(some, delay(attempts), failed=True)
            for attempts, some in by_attempts.items()
        )

    def hurry(self) -> None:
        """Send now, not at the interval."""
        self._send.set()

    def lose(self, stream: str) -> None:
        """The group of *stream* was lost: what is queued for it means nothing."""
        self._ledger.lose(stream)
        self._backs = [back for back in self._backs if back.shard.stream != stream]

    async def flush(self, member: EventMember, *, acks: bool = True) -> None:
        """Send everything, and wait until it is confirmed; *acks* False: hand-backs alone.

        Raises:
            BackendError: what was not confirmed stays queued.
        """
        async with self.sending:
            await self._send_backs(member)
            if acks:
                await self._send_all_acks(member)
        self._settled()

    async def run(self, member: EventMember, failed: Callable[[BaseException], None]) -> None:
        """Send at the interval, or as soon as there is much; until cancelled.

        *failed* is told what no retry can save.
        """
        backoff = Backoff()
        told = ""
        while True:
            try:
                async with asyncio.timeout(self._interval):
                    await self._send.wait()
            except TimeoutError:
                pass
            self._send.clear()
            if not self._backs and (self._interval is None or not self._ledger.queued):
                continue
            try:
                await self.flush(member, acks=self._interval is not None)
                backoff.reset()
                told = ""
            except PenstockError as error:
                if not isinstance(error, BackendUnavailable) and str(error) != told:
                    told = str(error)
                    failed(error)
                await self._clock.sleep(backoff.next())
                self.hurry()

    async def _send_all_acks(self, member: EventMember) -> None:
        taken = deque(self._ledger.take_acks())
        try:
            while taken:
                await self._send_acks(member, taken.popleft())
        finally:
            for acks in taken:  # one shard's failure is not the others' loss
                self._ledger.restore(acks)

    async def _send_acks(self, member: EventMember, acks: Acks) -> None:
        count = len(acks.plain) + len(acks.fenced)
        try:
            done = await member.ack(acks.shard, acks.plain) if acks.plain else 0
            if acks.fenced:
                done += await member.ack(acks.shard, acks.fenced, fenced=True)
        except BaseException:
            self._ledger.restore(acks)
            self._unsure += count  # they may have arrived all the same
            raise
        self._ledger.confirmed(acks.shard)
        arrived = min(count - done, self._unsure)
        self._unsure = 0
        self.acked += done + arrived
        if missed := count - done - arrived:
            self._missed(acks.shard.stream, missed)

    async def _send_backs(self, member: EventMember) -> None:
        while self._backs:
            shard, ids, delay, failed, tried = self._backs[0]
            if tried:  # it may have arrived, and come again since: what is held stays
                held = self._ledger.held_ids(shard)
                ids = [entry_id for entry_id in ids if entry_id not in held]
            self._backs[0] = self._backs[0]._replace(tried=True)
            await member.park(shard, ids, delay, failed=failed)
            self._ledger.returned(shard, ids)
            del self._backs[0]


class _HandBack(NamedTuple):
    """Events to hand back."""

    shard: Shard
    ids: list[bytes]
    delay: float
    failed: bool
    tried: bool = False
