"""Stages as users write them: Producer, ProducerConsumer, Consumer, and what each may do.

Does        name the callbacks, with what they mean when they are not overridden.
Does not    run: a `Topology` starts a stage, its `runner` calls it.
Invariants  1. one callback at a time, to its end: also where it awaits, nothing else of the stage
               runs meanwhile, so its attributes need no lock.
            2. every callback may be ``def`` (it runs inline, and holds up the event loop) or
               ``async def``.
            3. a callback that raises, or returns what it must not, ends the stage with a StageError
               that names both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar

from penstock.errors import StageError
from penstock.stages.protocol import NORMAL, Reason

if TYPE_CHECKING:
    from penstock.rules.buffer import Keep
    from penstock.rules.dispatch import Dispatcher
    from penstock.stages.calls import Call, Kept
    from penstock.stages.handle import To
    from penstock.stages.protocol import Peer
    from penstock.stages.runner import Runner
    from penstock.stages.subscription import Subscription

In = TypeVar("In")
Out = TypeVar("Out")

Demand = Literal["automatic", "manual"]
"""Who asks a producer for more: the stage by itself, or the program by `Subscription.ask`."""

LATER: Final = object()
"""Returned by `handle_call`: the reply comes later, by `Call.reply`."""


class Stage:
    """What all stages have. Derive from one of its three kinds."""

    _runner: Runner | None = None
    _noted = False  # by a topology: an instance runs once

    # --- callbacks, for subclasses ---------------------------------------------------------------

    def handle_start(self) -> Awaitable[None] | None:
        """Called once, before anything else: open what the stage needs. An error: not started."""

    def handle_close(self, reason: Reason) -> Awaitable[None] | None:
        """Called once, after everything else, if `handle_start` went well: close what it opened."""

    def handle_finish(self) -> Awaitable[None] | None:
        """Nothing more will come, and all that came has been handled: the last words.

        Called once, where the stage finishes: its producers have all ended, or it was told to, as
        by ``topology.drain()``. What it emits here is served before it ends, and it ends when what
        it has kept (`keep`) is done. Not called where it fails or is closed.
        """

    def handle_subscribe(
        self, subscription: Subscription
    ) -> Demand | Awaitable[Demand | None] | None:
        """A subscription begins, on either side; `subscription.peer_is` tells which the other is.

        Returns:
            On the consumer's side ``"manual"``, to ask by ``subscription.ask(n)``; else None.
        """

    def handle_cancel(self, reason: Reason, subscription: Subscription) -> Awaitable[None] | None:
        """A subscription is over, on either side. `reason.down`: as the other side has ended.

        The stage may `stop`, `emit`, or subscribe elsewhere. What the cancel mode says comes after.
        """

    def handle_call(self, request: Any, call: Call) -> Any:
        """Somebody waits in `handle.call(request)`.

        Returns:
            The reply; it goes out behind what was emitted here. `call.reply(…)` answers earlier;
            return `LATER` to answer after this callback.
        """
        raise StageError(f"{type(self).__name__} has no handle_call; it was called with a request")

    def handle_cast(self, request: Any) -> Awaitable[None] | None:
        """Somebody said `handle.cast(request)`, and waits for nothing."""
        self._running().unhandled("handle_cast", request)

    def handle_info(self, message: Any) -> Awaitable[None] | None:
        """Somebody said `handle.info(message)`; all that was there before has been served."""
        self._running().unhandled("handle_info", message)

    async def _close_own(self, reason: Reason) -> None:
        """What the library's own stages close when all is over, also if `handle_start` failed."""

    # --- what a stage may do, in its callbacks ---------------------------------------------------

    @property
    def name(self) -> str:
        """The stage's name in its topology; the class's before it is started."""
        return self._runner.name if self._runner else type(self).__name__

    @property
    def subscriptions(self) -> Sequence[Subscription]:
        """All subscriptions of the stage, to producers and of consumers, oldest first."""
        return self._running().subscriptions

    def info(self, message: Any) -> None:
        """Call the own `handle_info` with *message* after everything that is there now."""
        self._running().inform(message)

    def cast_later(self, request: Any, seconds: float) -> asyncio.TimerHandle:
        """Call the own `handle_cast` with *request* after *seconds*; its turn comes as any other's.

        Returns:
            A handle, to `cancel` it. The end of the stage cancels it.
        """
        return self._running().cast_later(request, seconds)

    def subscribe(self, to: To | Peer | str) -> None:
        """Subscribe to *to*, after this callback: a handle, ``handle.with_options(…)``, or a name.

        Raises:
            ConfigError: as `StageHandle.subscribe`.
        """
        self._running().subscribe(to)

    def stop(self, error: BaseException | None = None) -> None:
        """End after this callback; with *error*: as failed.

        What nobody has asked for yet is lost: counted, signalled, returned to its source. To end
        after it was served, `finish`.
        """
        self._running().stop(Reason.of(error))

    def finish(self) -> None:
        """Take nothing more in, and end normally when everything has been served."""
        self._running().finish(NORMAL)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'not started' if self._runner is None else self._runner}>"

    def _running(self) -> Runner:
        if self._runner is None:
            raise StageError(
                f"{type(self).__name__} is not running: start it with topology.start(stage)"
            )
        return self._runner


class Giving(Stage, Generic[Out]):
    """What producers and producer-consumers share: they emit.

    Class attributes, which ``topology.start(stage, …)`` may override by its keywords:

    Attributes:
        buffer_size: the most events that are kept while nobody asks; None: no bound.
        buffer_keep: ``"last"`` drops the oldest where the buffer is full, ``"first"`` the newest.
        dispatcher: who gets what; None: a `DemandDispatcher`.
    """

    buffer_size: int | None = 10_000
    buffer_keep: Keep = "last"
    dispatcher: Dispatcher | None = None

    def emit(self, events: Sequence[Out], of: Kept | Iterable[Kept] | None = None) -> None:
        """Give *events* out, behind all that were given out before; what is over, is buffered.

        Args:
            events: a sequence of them; it must not be changed afterwards.
            of: what they came from, where that was kept by `keep`: one, or several, whose outcome
                is then that of these events.

        Raises:
            StageError: the stage is not running, or this is no sequence of events.
        """
        giving = self._running().giving
        assert giving is not None
        giving.emit_by_hand(events, of)

    def handle_discarded(self, count: int) -> bool | None:
        """The buffer was full, and *count* events were dropped. False: no signal, please."""


class Producer(Giving[Out]):
    """Gives events out, as many as consumers have asked for.

    Attributes:
        demand: ``"accumulate"`` begins with keeping asks and events back until
            ``handle.demand("forward")``, so that all consumers can be there before the first event.
    """

    demand: Literal["forward", "accumulate"] = "forward"

    def handle_demand(self, demand: int) -> Sequence[Out] | Awaitable[Sequence[Out] | None] | None:
        """Consumers have asked for *demand* more events.

        Called once for what was asked: who cannot serve it now, or not all of it, must remember
        that, and `emit` later. Who waits here holds up everything else that the stage has to do: to
        wait for events from elsewhere, see `IterableStage` and `SourceStage`.

        Returns:
            Events, at best *demand* of them; more are buffered; None or none: later.

        Source: GenStage handle_demand.
        """
        raise NotImplementedError(f"{type(self).__name__} must define handle_demand")


class ProducerConsumer(Giving[Out], Generic[In, Out]):
    """Takes events and gives others out, as its consumers ask for them.

    It asks for `max_demand` events at once, and is called with them when there is open demand for
    what it makes of them.
    """

    buffer_size: int | None = None

    def handle_events(
        self, events: list[In], source: Subscription
    ) -> Sequence[Out] | Awaitable[Sequence[Out] | None] | None:
        """Handle *events*, at least one, all of one subscription, in order.

        Returns:
            What to give out; None or none: nothing.

        Source: GenStage handle_events.
        """
        raise NotImplementedError(f"{type(self).__name__} must define handle_events")

    def keep(self) -> Kept:
        """In `handle_events`: what comes of these events is emitted later, ``of=`` this.

        Their outcome then waits for `Kept.done` or `Kept.failed`. What is made of several calls is
        emitted ``of=`` all that were kept of them: to say `done` of one before is to ack it.
        """
        return self._running().keep()

    def keep_each(self, events: list[In]) -> list[Kept]:
        """The same for each of *events*; see `Consumer.keep_each`."""
        return self._running().keep_each(len(events))


class Consumer(Stage, Generic[In]):
    """Takes events, and asks for more when it has handled them."""

    def handle_events(self, events: list[In], source: Subscription) -> Awaitable[None] | None:
        """Handle *events*, at least one, all of one subscription, in order. Returns nothing.

        Source: GenStage handle_events.
        """
        raise NotImplementedError(f"{type(self).__name__} must define handle_events")

    def keep(self) -> Kept:
        """In `handle_events`: the work goes on; the outcome waits for `Kept.done`."""
        return self._running().keep()

    def keep_each(self, events: list[In]) -> list[Kept]:
        """The same for each of *events*, all that `handle_events` was called with.

        Events that come from a source directly have an outcome each: one may fail alone. What a
        stage between has made of them shares the outcome of the events that it was made of.
        """
        return self._running().keep_each(len(events))
