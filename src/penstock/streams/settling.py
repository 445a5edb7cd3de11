"""Settling: what a member tells the backend about events that it was given.

Does        queue acks, hand-backs and dead letters, and send them in batches.
Does not    decide what may be acked (`rules.ledger`), or what becomes of a failure (`failing`).
Invariants  1. what could not be sent stays queued, in order; nothing is dropped.
            2. one sender at a time.
            3. an ack that finds nothing to ack is counted and signalled, unless it may be one that
               was sent before and whose reply was lost.
            4. what is refused for good holds up nothing else: acks get through where dead letters
               find no memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from penstock.clock import Backoff, Clock, set_within
from penstock.errors import BackendUnavailable, PenstockError
from penstock.event import Event, Shard
from penstock.ports import Death, EventMember, ParkedFull
from penstock.rules.ledger import Acks, Ledger

ACKS_AT_ONCE: Final = 1000
"""Queued acks that are sent without waiting for the interval."""

_AGAIN: Final = 0.5
"""Seconds until what found no room among the parked is tried again."""


class Settling:
    """The outcomes of one member's events, on their way.

    Args:
        ledger: what is held, and which acks are queued.
        interval: seconds between sends; None: acks are sent by `flush` alone.
        clock: for the pauses after failures.
        missed: told how many acks of a stream found nothing to ack.
        settled: called when there is room again.
        most: events that the group may have parked.
    """

    def __init__(
        self,
        ledger: Ledger,
        interval: float | None,
        clock: Clock,
        *,
        missed: Callable[[str, int], None],
        settled: Callable[[], None],
        most: int = 0,
    ) -> None:
        self._ledger = ledger
        self._interval = interval
        self._clock = clock
        self._missed = missed
        self._settled = settled
        self._most = most
        self._backs: deque[_Back] = deque()
        self._lost: set[str] = set()  # streams whose group was lost while hand-backs were sent
        self._send = asyncio.Event()
        self._unsure = 0
        self.sending = asyncio.Lock()
        self.acked = 0
        self.buried = 0
        self.full = False

    def ack(self, events: Iterable[Event[Any]]) -> None:
        """Queue acks; LeaseLost for those that are not held, after queueing the others."""
        try:
            self._ledger.ack(events)
        finally:
            if self._ledger.queued >= ACKS_AT_ONCE:
                self.hurry()

    def hand_back(
        self, events: Iterable[Event[Any]], delay: float, *, company: int | None = None
    ) -> int:
        """Queue the hand-back of those that are held; how many that were.

        *company*: of events that failed, see `ports.Page`; None: no failure is counted.
        """
        released = self._ledger.release(events)
        for shard, ids in released.items():
            self._backs.append(_Back(shard, ids, delay, company))
        self.hurry()
        return sum(map(len, released.values()))

    def bury(self, events: Iterable[Event[Any]], attempts: int, error: str, reason: str) -> int:
        """Queue the dead letters of those that are held, all of *attempts* failures; how many."""
        released = self._ledger.release(events)
        for shard, ids in released.items():
            deaths = [Death(entry_id, attempts, error, reason) for entry_id in ids]
            self._backs.append(_Back(shard, ids, 0.0, None, deaths))
        self.hurry()
        return sum(map(len, released.values()))

    def hurry(self) -> None:
        """Send now, not at the interval."""
        self._send.set()

    def lose(self, stream: str) -> None:
        """The group of *stream* was lost: what is queued for it means nothing."""
        self._ledger.lose(stream)
        self._lost.add(stream)
        self._backs = deque(back for back in self._backs if back.shard.stream != stream)

    def let_all_go(self) -> None:
        """The member leaves: what failed is handed back whether there is room or not."""
        self._most = 0

    async def flush(self, member: EventMember, *, acks: bool = True) -> None:
        """Send everything, and wait until it is confirmed; *acks* False: hand-backs alone.

        What finds no room among the parked stays queued, which is no error.

        Raises:
            BackendError: what was not confirmed stays queued.
        """
        errors: list[PenstockError] = []
        async with self.sending:
            if acks:
                await self._send_all_acks(member, errors)
            await self._send_backs(member, errors)
        self._settled()
        if errors:
            raise errors[0]

    async def run(self, member: EventMember, failed: Callable[[BaseException], None]) -> None:
        """Send at the interval, or as soon as there is much; until cancelled.

        *failed* is told what no retry can save.
        """
        backoff = Backoff()
        told = ""
        while True:
            await set_within(self._send, _AGAIN if self.full else self._interval)
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

    async def _send_all_acks(self, member: EventMember, errors: list[PenstockError]) -> None:
        """Send the acks of each shard; one shard's failure is not the others' loss."""
        taken = deque(self._ledger.take_acks())
        try:
            while taken:
                try:
                    await self._send_acks(member, taken.popleft())
                except BackendUnavailable:
                    raise
                except PenstockError as error:
                    errors.append(error)
        finally:
            for acks in taken:
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

    async def _send_backs(self, member: EventMember, errors: list[PenstockError]) -> None:
        """Send what is queued, each once; what was not taken stays, in order.

        What is queued meanwhile comes behind it; what is lost meanwhile is not kept.
        """
        waiting, self._backs = self._backs, deque()
        left: list[_Back] = []
        self._lost.clear()
        try:
            while waiting:
                if waiting[0].shard.stream not in self._lost:
                    back = self._untaken(waiting[0])
                    waiting[0] = waiting[0]._replace(tried=True)
                    if kept := await self._try(member, back, waiting[0], errors):
                        left.append(kept)
                waiting.popleft()
            self.full = any(not back.tried for back in left)
        finally:
            kept_all = [b for b in (*left, *waiting) if b.shard.stream not in self._lost]
            self._backs.extendleft(reversed(kept_all))

    async def _try(
        self, member: EventMember, back: _Back, whole: _Back, errors: list[PenstockError]
    ) -> _Back | None:
        """Send *back*, which is what of *whole* is not held again; what must be sent again.

        What was answered is not known any more: a known event would never be claimed.
        """
        try:
            await self._send_back(member, back)
        except ParkedFull as crowd:
            self._ledger.returned(back.shard, set(whole.ids) - set(crowd.left))
            return back._replace(ids=list(crowd.left), tried=False)
        except BackendUnavailable:
            raise
        except PenstockError as error:
            errors.append(error)
            return whole
        self._ledger.returned(back.shard, whole.ids)
        return None

    async def _send_back(self, member: EventMember, back: _Back) -> None:
        if back.deaths:
            self.buried += len(await member.bury(back.shard, back.deaths))
            return
        failed, company = back.company is not None, back.company or 0
        most = self._most if failed else 0
        await member.park(
            back.shard, back.ids, back.delay, failed=failed, company=company, most=most
        )

    def _untaken(self, back: _Back) -> _Back:
        """*back* without what is held: tried before, it may have arrived, and come again since."""
        if not back.tried:
            return back
        held = self._ledger.held_ids(back.shard)
        return back._replace(
            ids=[entry_id for entry_id in back.ids if entry_id not in held],
            deaths=[death for death in back.deaths if death.id not in held],
        )


class _Back(NamedTuple):
    """Events to hand back, or to give up where there are `deaths`."""

    shard: Shard
    ids: list[bytes]
    delay: float
    company: int | None
    deaths: Sequence[Death] = ()
    tried: bool = False
