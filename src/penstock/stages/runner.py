"""What runs a stage: its inbox, and one task that calls it with one message after the other.

Does        take messages in, call the program's callbacks, name their failures, end in order.
Does not    hold the protocol's rules (`giving`, `taking`), or watch others (`topology`).
Invariants  1. one callback at a time, to its end; messages are handled in the order of sending.
            2. sending never waits: demand alone bounds an inbox.
            3. what a stage has sent is in the other's inbox before the news of its end.
            4. what is dropped at the end is counted, signalled, and returned to its source.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from inspect import isawaitable
from typing import Any, cast

from penstock.errors import StageError
from penstock.observers import Observers
from penstock.rules.trace import Carrier, Trace
from penstock.signals import Kind, Signal
from penstock.stages.calls import Call, Cast, Info, Internal, Join, Mode, Nudge, Receipt
from penstock.stages.giving import GivingSide
from penstock.stages.protocol import (
    NORMAL,
    SHUTDOWN,
    Ask,
    Cancel,
    Cancelled,
    Events,
    Message,
    Peer,
    Reason,
    Subscribe,
)
from penstock.stages.stage import LATER, Consumer, Giving, ProducerConsumer, Stage
from penstock.stages.statistics import StageStatistics
from penstock.stages.subscription import Subscription
from penstock.stages.taking import TakingSide, drop

TURN = 64
"""Messages that a stage handles at most before other tasks get their turn."""


class Runner:
    """One run of one stage; a `Peer`.

    Args:
        stage: whose callbacks are called.
        name: what it is called in errors and signals.
        joins: the subscriptions to begin with.
        observers: who is told of signals.
        find: a stage by its name; None: there is none.
        changed: called when the stage has ended, or has lost its last producer.
    """

    __slots__ = (
        *("_changed", "_inbox", "_joins", "_observers", "_over_waiters", "_task", "_waiter"),
        *("ended", "ending", "find", "finishing", "giving", "lost", "name"),
        *("stage", "taking", "trace"),
    )

    def __init__(
        self,
        stage: Stage,
        name: str,
        joins: Sequence[Join],
        observers: Observers,
        find: Callable[[Peer | str], Peer | None],
        changed: Callable[[Runner], None],
    ) -> None:
        self.stage = stage
        self.name = name
        self.find = find
        self.ended: Reason | None = None
        self.ending: Reason | None = None
        self.finishing: Reason | None = None
        self.trace: Trace | None = None  # what belongs to the call that is under way
        self.lost = 0
        self._joins = joins
        self._observers = observers
        self._changed = changed
        self._inbox: deque[Message | Internal] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self.giving = (
            GivingSide(self, cast("Giving[Any]", stage)) if isinstance(stage, Giving) else None
        )
        self.taking = (
            TakingSide(self, cast("Consumer[Any]", stage))
            if isinstance(stage, Consumer | ProducerConsumer)
            else None
        )
        self._task: asyncio.Task[Any] | None = None
        self._over_waiters: list[asyncio.Future[Reason]] = []
        stage._runner = self  # pyright: ignore[reportPrivateUsage]

    # --- the inbox -------------------------------------------------------------------------------

    def send(self, message: Message | Internal) -> None:
        """Put *message* behind all others. Never waits, never raises."""
        if self.ended is not None:
            self._late(message)
            return
        self._inbox.append(message)
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    async def run(self) -> None:
        """Run the stage to its end. Cancelled: it ends as shut down."""
        reason, started = SHUTDOWN, False
        self._task = asyncio.current_task()
        try:
            await self.hook("handle_start")
            started = True
            for join in self._joins:
                if self.taking is not None and not self.ending:
                    await self._join(join, self.taking)
            reason = await self._serve()
        except asyncio.CancelledError:
            await self._end(SHUTDOWN, started)
            if started:
                await self._leave(SHUTDOWN)
            raise
        except Exception as error:  # noqa: BLE001 - whatever a callback raises ends its stage
            failed = error if isinstance(error, StageError) else self.failure("the stage", error)
            reason = Reason("failed", failed)
        await self._end(reason, started)
        if started:
            await self._leave(reason)

    async def _serve(self) -> Reason:
        """Handle messages until the stage ends; why it does."""
        inbox, giving, taking = self._inbox, self.giving, self.taking
        turn = 0
        while not self.ending:
            if not inbox:
                if self.finishing and self._served():
                    return self.finishing
                await self._wait()
                turn = 0
                continue
            message = inbox.popleft()
            kind = type(message)
            if kind is Events and taking is not None:
                rest = taking.events(cast("Events", message))
            elif kind is Ask and giving is not None:
                rest = giving.ask(cast("Ask", message))
            else:
                rest = self._unusual(message)
            if rest is not None:  # awaited only where something waits: most callbacks do not
                await rest
            if giving is not None and giving.outlet.rare:
                await giving.tend()
            turn += 1
            if turn >= TURN:
                turn = 0
                await asyncio.sleep(0)
        return self.ending

    async def _wait(self) -> None:
        if self.taking is not None and not self.taking.sources and self.taking.had_sources:
            self._changed(self)
        self._waiter = waiter = asyncio.get_running_loop().create_future()
        try:
            await waiter
        finally:
            self._waiter = None

    def _served(self) -> bool:
        if self.taking is not None and (self.taking.sources or self.taking.queue):
            return False
        return self.giving is None or not self.giving.outlet.waiting

    # --- what is not the hot road ----------------------------------------------------------------

    async def _unusual(self, message: Message | Internal) -> None:
        giving, taking = self.giving, self.taking
        match message:
            case Call():
                await self._call(message)
            case Cast():
                await self.hook("handle_cast", message.request)
            case Info():
                await self._info(message)
            case Join() if taking is not None:
                await self._join(message, taking)
            case Cancelled() if taking is not None:
                await taking.cancelled(message)
            case Subscribe() if giving is not None:
                await giving.subscribe(message)
            case Cancel() if giving is not None:
                await giving.cancel(message)
            case Nudge() if giving is not None:
                if rest := giving.nudged():
                    await rest
            case Mode() if giving is not None:
                await giving.mode(message)
            case _:
                self._misdirected(message)

    def _misdirected(self, message: Message | Internal) -> None:
        kind = type(message).__name__
        self.signal(
            "protocol-error", f"{self.name} is a {self.kind} and takes no {kind}; it is ignored"
        )
        if type(message) is Events:
            drop(message, None)

    async def _join(self, join: Join, taking: TakingSide) -> None:
        subscription = await taking.join(join)
        if join.answer is not None and not join.answer.done():
            join.answer.set_result(subscription)

    async def _call(self, call: Call) -> None:
        try:
            reply = await self.hook("handle_call", call.request, call)
        except StageError as error:
            call.fail(error)
            if type(self.stage).handle_call is Stage.handle_call:
                return  # the caller's mistake: the stage answers no calls at all
            raise
        if reply is not LATER:
            call.reply(reply)

    async def _info(self, info: Info) -> None:
        """An info takes its place behind everything that is there."""
        if not info.due:
            if self.taking is not None and self.taking.queue:
                self.taking.queue.append(info)
                return
            if self.giving is not None and self.giving.inform(info):
                return
        await self.hook("handle_info", info.message)

    async def informed(self, info: Info) -> None:
        """An info that has waited behind incoming events: now behind what is to go out."""
        if self.giving is None or not self.giving.inform(info):
            await self.hook("handle_info", info.message)

    # --- what the two sides and the stage itself ask for -----------------------------------------

    def pump(self) -> Awaitable[None] | None:
        """Demand came: go on with what waits. Returns what is to be awaited, if anything is."""
        taking = self.taking
        return taking.pump() if taking is not None and taking.queue else None

    async def hook(self, name: str, *arguments: Any) -> Any:
        """Call one of the rarer callbacks."""
        callback = getattr(self.stage, name, None)
        if callback is None:
            return None
        try:
            result = callback(*arguments)
            return await result if isawaitable(result) else result
        except BaseException as error:
            raise self.failure(name, error) from error

    async def resolve(self, result: Any, hook: str) -> list[Any] | None:
        """What a callback returned, as a list of events."""
        if isawaitable(result):
            result = await result
        if result is None or type(result) is list:
            return cast("list[Any] | None", result)
        return self.listed(result, hook)

    def listed(self, result: Any, hook: str) -> list[Any]:
        """*result* as a list, or StageError: it is no sequence of events."""
        if self.giving is None:
            raise self._gives_nothing(result)
        if isinstance(result, Sequence) and not isinstance(result, str | bytes | bytearray):
            return list(cast("Sequence[Any]", result))
        raise StageError(
            f"{self.name}: {type(self.stage).__name__}.{hook} must give a sequence of events "
            f"(a list, best of all), or None; got {_short(result)} ({type(result).__name__})"
        )

    def give(self, events: list[Any], trace: Trace | None) -> None:
        """What a call of handle_events returned."""
        if self.giving is None:
            raise self._gives_nothing(events)
        if trace is not None:
            trace.add(len(events))
        self.giving.emit(events, trace)

    def _gives_nothing(self, result: Any) -> StageError:
        return StageError(
            f"{self.name}: {type(self.stage).__name__}.handle_events must return None, as a "
            f"consumer gives nothing out; got {_short(result)} ({type(result).__name__})"
        )

    def emit(self, events: Sequence[Any], of: Receipt | None) -> None:
        """The program emits events by itself."""
        if self.giving is None or self.ended is not None:
            raise StageError(f"{self.name} has ended: it can emit nothing any more")
        several = cast("list[Any]", events) if type(events) is list else self.listed(events, "emit")
        if several:
            # A task of the stage's own may emit while a call is under way that is none of its.
            own = self.trace if self.trace is not None and self.in_callback() else None
            trace = own if of is None else of.trace
            if trace is not None:
                trace.add(len(several))
            self.giving.emit(several, trace)

    def supply(self, events: list[Any], carrier: Carrier | None) -> None:
        """Events come from a task of the stage's own; where it has ended, they are returned."""
        if self.giving is not None and self.ended is None:
            self.giving.emit(events, carrier)
        elif carrier is not None:
            carrier.fail(events, None)

    def keep(self) -> Receipt:
        """Hold the outcome of the call that is under way."""
        return Receipt(self.trace)

    def inform(self, message: Any) -> None:
        """Post an info to the stage itself."""
        self.send(Info(message))

    def unhandled(self, hook: str, message: Any) -> None:
        """A message came that the stage has no callback for."""
        self.signal(
            "unhandled-message",
            f"{self.name} has no {hook}; a message for it was ignored ({type(message).__name__})",
        )

    def stop(self, reason: Reason) -> None:
        """End when the callback that is under way has returned."""
        if self.ending is None:
            self.ending = reason
            self._wake()

    def finish(self, reason: Reason) -> None:
        """Take nothing more in; end when all is served."""
        if self.finishing is None and self.ending is None:
            self.finishing = reason
            if self.taking is not None:
                for subscription in list(self.taking.sources.values()):
                    subscription.cancel()
            self._wake()

    def signal(self, kind: Kind, message: str, count: int | None = None) -> None:
        """Tell the observers."""
        self._observers(Signal(kind, message, stage=self.name, count=count))

    def failure(self, hook: str, error: BaseException) -> BaseException:
        """What a callback's *error* becomes: a StageError, but for a cancellation from outside."""
        if isinstance(error, StageError):
            return error
        if not isinstance(error, Exception):
            task = asyncio.current_task()
            outside = task is None or task.cancelling()
            if not isinstance(error, asyncio.CancelledError) or outside:
                return error
        failed = StageError(
            f"{self.name}: {type(self.stage).__name__}.{hook} raised "
            f"{type(error).__name__}: {error}"
        )
        failed.__cause__ = error
        return failed

    def in_callback(self) -> bool:
        """Whether the caller runs in this stage's own task."""
        return self._task is not None and asyncio.current_task() is self._task

    async def over(self) -> Reason:
        """Wait for the end; why it came."""
        if self.ended is None:
            waiter: asyncio.Future[Reason] = asyncio.get_running_loop().create_future()
            self._over_waiters.append(waiter)
            return await waiter
        return self.ended

    # --- introspection ---------------------------------------------------------------------------

    @property
    def kind(self) -> str:
        """What it is, in a word of the protocol."""
        if self.giving is None:
            return "consumer"
        return "producer" if self.taking is None else "producer-consumer"

    @property
    def subscriptions(self) -> list[Subscription]:
        """All that are open, to producers first."""
        sources = self.taking.sources.values() if self.taking else ()
        consumers = self.giving.consumers.values() if self.giving else ()
        return [*sources, *consumers]

    @property
    def exhausted(self) -> bool:
        """Whether it had producers, has none any more, and has handled all that they sent."""
        taking = self.taking
        return (
            taking is not None
            and taking.had_sources
            and not (taking.sources or taking.queue or self._inbox)
        )

    def statistics(self) -> StageStatistics:
        """The stage at this moment."""
        giving, taking = self.giving, self.taking
        return StageStatistics(
            name=self.name,
            kind=self.kind,
            state=_state(self),
            demand_in=giving.outlet.asked if giving else 0,
            demand_out=sum(one.asked for one in taking.sources.values()) if taking else 0,
            received=taking.received if taking else 0,
            handled=taking.handled if taking else 0,
            emitted=giving.outlet.emitted if giving else 0,
            delivered=giving.outlet.delivered if giving else 0,
            buffered=giving.outlet.waiting if giving else 0,
            queued=taking.queued if taking else 0,
            discarded=giving.discarded if giving else 0,
            calls=sum(side.calls for side in (giving, taking) if side),
            seconds=sum(side.seconds for side in (giving, taking) if side),
            subscriptions=tuple(one.statistics() for one in self.subscriptions),
        )

    # --- the end ---------------------------------------------------------------------------------

    async def _end(self, reason: Reason, started: bool) -> None:
        """Tell everybody, and drop what is left. The program's last callback comes first."""
        if started:
            try:
                await self.hook("handle_close", reason)
            except StageError as error:
                self.signal("stage-failed", str(error))
                if reason.kind != "failed":
                    reason = Reason("failed", error)
            except asyncio.CancelledError:
                self._over(reason)
                raise
        self._over(reason)

    def _over(self, reason: Reason) -> None:
        self.ended = reason
        lost = self.lost
        if self.taking is not None:
            lost += self.taking.end(reason)
        if self.giving is not None:
            lost += self.giving.end(reason)
        while self._inbox:
            message = self._inbox.popleft()
            lost += len(message.events) if type(message) is Events else 0
            self._late(message, counted=True)
        for join in self._joins:
            if join.answer is not None and not join.answer.done():
                join.answer.set_exception(StageError(f"{self.name} has ended"))
        if lost:
            self.signal(
                "events-dropped",
                f"{self.name} ended ({reason.kind}) with {lost} events that it had been given, or "
                f"had to give, and that were not served",
                lost,
            )
        for waiter in self._over_waiters:
            if not waiter.done():
                waiter.set_result(reason)
        self._changed(self)

    async def _leave(self, reason: Reason) -> None:
        """What the stage does when all others have been told: only its own resources are left."""
        leave = getattr(self.stage, "handle_left", None)
        if leave is not None:
            try:
                await leave(reason)
            except Exception as error:  # noqa: BLE001 - the stage has ended; it is said all the same
                self.signal("stage-failed", str(self.failure("handle_left", error)))

    def _late(self, message: Message | Internal, *, counted: bool = False) -> None:
        """Answer a message that comes when all is over."""
        reason = (self.ended or NORMAL).as_down()
        if type(message) is Subscribe:
            message.tag.consumer.send(Cancelled(message.tag, reason))
        elif type(message) is Events:
            dropped = drop(message, None)
            if not counted:
                text = f"{self.name} has ended: {dropped} events that still came were dropped"
                self.signal("events-dropped", text, dropped)
        elif type(message) is Call:
            message.fail(StageError(f"{self.name} has ended ({reason}): it answers no call"))
        elif type(message) is Join and message.answer is not None and not message.answer.done():
            message.answer.set_exception(StageError(f"{self.name} has ended: it cannot subscribe"))

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name!r} {_state(self)}>"


def _state(runner: Runner) -> str:
    if runner.ended is not None:
        return f"ended: {runner.ended.kind}"
    if runner.ending or runner.finishing:
        return "ending"
    return "running"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
