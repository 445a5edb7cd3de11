"""Handling: one call of a handler, from the events to what becomes of them.

Does        decode, call, store the results, ack; tell the group what failed, and how.
Does not    take events out of the group (`runner.py`).
Invariants  1. acked only after the call has returned and its results are stored.
            2. whatever a handler raises is a failure of its events, and of nothing else; being
               cancelled from outside counts none.
            3. an undecodable event never reaches the handler, nor harms those beside it in a batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from penstock.errors import ClosedError, DecodeError, LeaseLost, Reject, RetryLater
from penstock.event import Event
from penstock.pipeline.calling import Calls, Deadline
from penstock.pipeline.complaints import Complaints
from penstock.pipeline.current import Call
from penstock.pipeline.handlers import Handler
from penstock.pipeline.outputs import Outputs, check_dropped, check_finished
from penstock.ports import Outcome
from penstock.streams.group import Group

Kind = Literal["acked", "failed", "rejected", "retry", "lost"]


class Handled(NamedTuple):
    """What became of the events of a call."""

    kind: Kind
    error: BaseException | None = None


class Handling:
    """Handles the events of one handler, any number at once.

    Args:
        handler: whose.
        group: where the events come from.
        calls: runs the function.
        outputs: stores results; None: they are dropped.
        complaints: where failures are logged.
        hold: seconds that a coroutine may take; it is cancelled then, as its events are released.
        trying: for a test: nothing is logged, and `RetryLater` comes again at once.
    """

    def __init__(
        self,
        handler: Handler,
        group: Group[Any],
        calls: Calls,
        outputs: Outputs | None,
        *,
        complaints: Complaints,
        hold: float,
        trying: bool = False,
    ) -> None:
        self._handler = handler
        self._group = group
        self._calls = calls
        self._outputs = outputs
        self._complaints = complaints
        self._hold = hold
        self._trying = trying
        self.running = 0
        self.handled = self.failed = self.rejected = self.postponed = self.lost = 0

    async def handle(self, events: Sequence[Event[Any]]) -> Handled:
        """Call the handler with *events*: one, or a batch. Cancelled: they stay in hand."""
        self.running += 1
        try:
            argument, good, bad = self._decode(events)
            if not good:
                return bad
            return await self._attempt(argument, good)
        finally:
            self.running -= 1

    def _decode(self, events: Sequence[Event[Any]]) -> tuple[Any, list[Event[Any]], Handled]:
        """What the function is called with, the events that are in it; what became of others."""
        bad = Handled("acked")
        if self._handler.signature.wants_event:
            return (list(events) if self._handler.batch else events[0]), list(events), bad
        values: list[Any] = []
        good: list[Event[Any]] = []
        for event in events:
            try:
                values.append(event.value)
                good.append(event)
            except DecodeError as error:
                bad = self._reject([event], error)
            except Exception as error:  # noqa: BLE001 - a codec of the user's: whatever it raises
                bad = self._fail([event], error)
        return (values if self._handler.batch or not values else values[0]), good, bad

    async def _attempt(self, argument: Any, events: list[Event[Any]]) -> Handled:
        try:
            result = await self._call(argument, events)
            check_finished(result, self._handler.place)
            if self._outputs is not None:
                await self._outputs.write(result, events, lambda: self._extend(events))
            else:
                check_dropped(result, self._handler.place)
        except LeaseLost as error:
            return self._judge_lost(events, error)
        except RetryLater as error:
            self.postponed += len(events)
            self._group.fail(events, RetryLater(0.0) if self._trying else error)
            return Handled("retry", error)
        except (Reject, DecodeError) as error:
            return self._judge_rejected(events, error)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return self._fail(events, error)  # the handler was cancelled within
        except (KeyboardInterrupt, GeneratorExit):  # the program's own end
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is its events' failure
            return self._fail(events, error)
        return self._ack(events)

    async def _call(self, argument: Any, events: list[Event[Any]]) -> Any:
        late = Deadline(asyncio.get_running_loop().time() + self._hold)
        put_off = None if self._handler.threaded else late
        try:
            with Call(lambda: self._extend(events, put_off)):
                return await self._calls.call(argument, late)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if not late.expired or task is None or task.cancelling():
                raise
            raise TimeoutError(
                f"{self._handler.place} must return within hold={self._hold} s, and was "
                f"cancelled; raise hold=, or call penstock.extend() while long work gets on"
            ) from error

    def _ack(self, events: list[Event[Any]]) -> Handled:
        try:
            self._group.ack(events)
        except (LeaseLost, ClosedError) as error:
            gone = len(error.positions) if isinstance(error, LeaseLost) else len(events)
            self.lost += gone
            self.handled += len(events) - gone
            return Handled("lost", error)
        self.handled += len(events)
        return Handled("acked")

    def _judge_lost(self, events: list[Event[Any]], error: LeaseLost) -> Handled:
        """Ours, from storing results; or the handler's own, which is a failure like any other."""
        if not set(error.positions) & {str(event.position) for event in events}:
            return self._fail(events, error)
        self.lost += len(events)
        return Handled("lost", error)

    def _judge_rejected(self, events: list[Event[Any]], error: Reject | DecodeError) -> Handled:
        """A handler that asks for events finds by itself that one is undecodable.

        It is known which it was: those beside it come again at once, and have not failed. What
        rejects a list does not say which of it: it comes again in halves.
        """
        if isinstance(error, Reject):
            return self._reject(events, error) if len(events) == 1 else self._fail(events, error)
        bad = [e for e in events if (e.stream, str(e.position)) == (error.stream, error.position)]
        if not bad or not self._handler.signature.wants_event:
            return self._fail(events, error)
        rest = [event for event in events if event not in bad]
        self._group.settle([Outcome(event, "returned") for event in rest])
        return self._reject(bad, error)

    def _reject(self, events: list[Event[Any]], error: Reject | DecodeError) -> Handled:
        self.rejected += len(events)
        for event in events:
            self._group.fail(event, error)
        return Handled("rejected", error)

    def _fail(self, events: list[Event[Any]], error: BaseException) -> Handled:
        try:
            self._group.fail(events, error)
        except ClosedError as closed:  # a call that was left when the App ended: handed back
            self.lost += len(events)
            return Handled("lost", closed)
        self.failed += len(events)
        if not self._trying:
            self._complaints.failed(error, len(events))
        return Handled("failed", error)

    def _extend(self, events: list[Event[Any]], late: Deadline | None = None) -> None:
        """Count anew the hold of all, and the time after which a coroutine is cancelled.

        Raises:
            LeaseLost: one of them is not in hand any more.
        """
        lost: LeaseLost | None = None
        for event in events:
            try:
                self._group.extend(event)
            except LeaseLost as error:
                lost = lost or error
        if lost is not None:
            raise lost
        if late is None:
            return
        if late.expired:
            positions = tuple(str(event.position) for event in events)
            text = "this call took longer than hold, and is being cancelled"
            raise LeaseLost(text, positions=positions)
        late.when = asyncio.get_running_loop().time() + self._hold
