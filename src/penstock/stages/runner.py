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
from typing import Any, NamedTuple, cast

from penstock.errors import ConfigError, StageError
from penstock.observers import Observers
from penstock.rules.trace import Trace
from penstock.signals import Kind, Signal
from penstock.stages.calls import Call, Cast, Info, Internal, Join, Kept
from penstock.stages.ending import answer_late, tell_all
from penstock.stages.gate import Gate
from penstock.stages.giving import GivingSide
from penstock.stages.handle import To, to_of
from penstock.stages.messages import handle_unusual
from penstock.stages.program import Program
from penstock.stages.protocol import (
    SHUTDOWN,
    Ask,
    Events,
    Message,
    Peer,
    Reason,
)
from penstock.stages.stage import Consumer, Giving, ProducerConsumer, Stage
from penstock.stages.subscription import Subscription
from penstock.stages.taking import Lost, TakingSide

TURN = 64  # messages that a stage handles at most before other tasks get their turn


class World(NamedTuple):
    """What is around a stage.

    `observers` are told of signals; `gate` holds the first asks; `find` gives a peer by its name or
    handle (None: there is none); `changed` is called when the stage has ended, or has lost its last
    producer.
    """

    observers: Observers
    gate: Gate
    find: Callable[[Peer | str], Peer | None]
    changed: Callable[[Runner], None]


class Runner:
    """One run of one stage; a `Peer`.

    Args:
        stage: whose callbacks are called.
        name: what it is called in errors and signals.
        joins: the subscriptions to begin with.
        world: what is around it.
    """

    __slots__ = (
        *("_flushed", "_gate_told", "_inbox", "_joins", "_over_waiters", "_task", "_waiter"),
        *("ended", "ending", "finishing", "giving", "kept", "lost", "name", "program"),
        *("promised", "stage", "taking", "timers", "trace", "world"),
    )

    def __init__(
        self,
        stage: Stage,
        name: str,
        joins: Sequence[Join],
        world: World,
    ) -> None:
        self.stage = stage
        self.name = name
        self.program = Program(stage, name)
        self.world = world
        self.ended: Reason | None = None
        self.ending: Reason | None = None
        self.finishing: Reason | None = None
        self.trace: Trace | None = None  # what belongs to the call that is under way
        self.kept: set[Kept] = set()  # work that goes on beside the calls
        self.promised: set[Call] = set()  # replies that were put off
        self.timers: list[tuple[float, asyncio.TimerHandle]] = []  # and when they are due
        self.lost = Lost()
        self._joins = joins
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
        self._flushed = self._gate_told = False
        self._task: asyncio.Task[Any] | None = None
        self._over_waiters: list[asyncio.Future[Reason]] = []
        stage._runner = self  # pyright: ignore[reportPrivateUsage]

    # --- the inbox -------------------------------------------------------------------------------

    def send(self, message: Message | Internal) -> None:
        """Put *message* behind all others. Never waits, never raises."""
        if self.ended is not None:
            answer_late(self, message)
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
            await self.program.hook("handle_start")
            started = True
            await self._subscribe()
            reason = await self._serve()
        except Exception as error:  # noqa: BLE001 - whatever a callback raises ends its stage
            failed = (
                error if isinstance(error, StageError) else self.program.failure("the stage", error)
            )
            reason = Reason("failed", failed)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            reason = Reason("failed", error)
            raise
        finally:  # also where it is cancelled, which goes on up then
            self._ready()
            try:
                await self._end(reason, started)
            finally:
                await self._leave(reason)

    async def _subscribe(self) -> None:
        """Send the requests to begin with; the first asks follow when everybody has."""
        begun: list[Subscription] = []
        for join in self._joins:
            if self.taking is not None and not (self.ending or self.finishing):
                begun.append(await self.taking.join(join))  # noqa: PERF401 - one at a time
        self._ready(begun)

    def _ready(self, begun: Sequence[Subscription] = ()) -> None:
        def ask() -> None:
            for subscription in begun:
                TakingSide.begin(subscription)

        if not self._gate_told:
            self._gate_told = True
            self.world.gate.ready(ask)

    async def _serve(self) -> Reason:
        """Handle messages until the stage ends; why it does."""
        inbox, giving, taking = self._inbox, self.giving, self.taking
        turn = 0
        while not self.ending:
            if not inbox:
                if self.finishing and not self._flushed and self._input_over():
                    self._flushed = True  # what it still holds may come out, and is served too
                    await self.program.hook("handle_finish")
                    continue
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
                rest = handle_unusual(self, message)
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
        self._waiter = waiter = asyncio.get_running_loop().create_future()
        if self.taking is not None and not self.taking.sources and self.taking.had_sources:
            self.world.changed(self)
        if self.giving is not None and (self.finishing or (self.taking and self.taking.queue)):
            self.giving.say_if_stuck()
        try:
            await waiter
        finally:
            self._waiter = None

    def _input_over(self) -> bool:
        return self.taking is None or not (self.taking.sources or self.taking.queue)

    def _served(self) -> bool:
        if self.kept or not self._input_over():
            return False
        return self.giving is None or not self.giving.outlet.waiting

    # --- what the two sides and the stage itself ask for -----------------------------------------

    async def informed(self, info: Info) -> None:
        """An info that has waited behind incoming events: now behind what is to go out."""
        if self.giving is None or not self.giving.inform(info):
            await self.program.hook("handle_info", info.message)

    def pump(self) -> Awaitable[None] | None:
        """Demand came: go on with what waits. Returns what is to be awaited, if anything is."""
        taking = self.taking
        return taking.pump() if taking is not None and taking.queue else None

    def keep(self) -> Kept:
        """Hold the outcome of the call that is under way."""
        return self._keep(self.trace if self.in_callback() else None)

    def keep_each(self, count: int) -> list[Kept]:
        """The same for each of its *count* events, as far as they have outcomes of their own."""
        trace = self.trace if self.in_callback() else None
        parts = trace.split(count) if trace is not None else None
        return [self._keep(part) for part in parts or [trace] * count]

    def _keep(self, trace: Trace | None) -> Kept:
        one = Kept(trace, self._kept_closed)
        self.kept.add(one)
        return one

    def _kept_closed(self, one: Kept) -> None:
        self.kept.discard(one)
        if self.finishing:
            self._wake()

    def subscribe(self, to: To | Peer | str) -> None:
        """Subscribe after the callback that is under way."""
        if self.taking is None:
            raise ConfigError(
                f"{self.name} is a producer: it takes no events, and cannot subscribe"
            )
        self.send(Join(*to_of(to)))

    def cast_later(self, request: Any, seconds: float) -> asyncio.TimerHandle:
        """Post a cast after *seconds*."""
        if self.ended is not None:
            raise StageError(f"{self.name} has ended: it casts nothing any more", stage=self.name)
        loop = asyncio.get_running_loop()
        now = loop.time()
        self.timers = [
            (when, timer) for when, timer in self.timers if when > now and not timer.cancelled()
        ]
        timer = loop.call_later(seconds, self.send, Cast(request))
        self.timers.append((now + seconds, timer))
        return timer

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
        self.world.observers(Signal(kind, message, stage=self.name, count=count))

    def in_callback(self) -> bool:
        """Whether the caller runs in this stage's own task."""
        return self._task is not None and asyncio.current_task() is self._task

    async def over(self) -> Reason:
        """Wait for the end; why it came."""
        if self.ended is None:
            waiter: asyncio.Future[Reason] = asyncio.get_running_loop().create_future()
            self._over_waiters.append(waiter)
            try:
                return await waiter
            finally:
                self._over_waiters.remove(waiter)
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
            and self._waiter is not None
            and taking.had_sources
            and not (taking.sources or taking.queue or self._inbox)
        )

    # --- the end ---------------------------------------------------------------------------------

    async def _end(self, reason: Reason, started: bool) -> None:
        """Tell everybody, and drop what is left. The program's last callback comes first."""
        if started:
            try:
                await self.program.hook("handle_close", reason)
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
        tell_all(self, reason, self._inbox)
        for waiter in list(self._over_waiters):
            if not waiter.done():
                waiter.set_result(reason)
        self.world.changed(self)

    async def _leave(self, reason: Reason) -> None:
        """What the stage does when all others have been told: only its own resources are left."""
        try:
            await self.stage._close_own(reason)  # pyright: ignore[reportPrivateUsage]
        except Exception as error:  # noqa: BLE001 - the stage has ended; it is said all the same
            self.signal("stage-failed", str(self.program.failure("close", error)))

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    @property
    def state(self) -> str:
        """In a word or three: does it run?"""
        if self.ended is not None:
            return f"ended: {self.ended.kind}"
        return "ending" if self.ending or self.finishing else "running"

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name!r} {self.state}>"
