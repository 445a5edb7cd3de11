"""A running stage, as the program around it sees it.

Does        call, cast, inform, subscribe, steer and look at a stage from outside its callbacks.
Does not    change: when the stage is restarted, its handle stays.
Invariants  1. everything but `call`, `subscribe`, `resubscribe` and `wait` returns at once.
            2. to be used on the event loop that the topology runs on.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, Protocol, TypeVar, cast

from penstock.errors import ConfigError, StageError
from penstock.rules.demand import DEFAULT_MAX_DEMAND
from penstock.stages.calls import Call, Cast, Info, Join, Mode
from penstock.stages.giving import check_extra
from penstock.stages.protocol import (
    NORMAL,
    CancelMode,
    Message,
    Peer,
    Reason,
    SubscribeOptions,
    Tag,
)
from penstock.stages.stage import Consumer, Giving, Producer, ProducerConsumer, Stage
from penstock.stages.statistics import StageStatistics, statistics_of
from penstock.stages.subscription import Subscription

if TYPE_CHECKING:
    from penstock.stages.iterating import EventIterator
    from penstock.stages.runner import Runner

T = TypeVar("T")


class To(NamedTuple):
    """A producer, and how to subscribe to it. Made by `StageHandle.with_options`, or by hand.

    `producer`: a handle, any `Peer`, or the name of a stage of the same topology.
    """

    producer: Peer | str
    options: SubscribeOptions = SubscribeOptions()


class Run(Protocol):
    """Where a handle finds its stage."""

    @property
    def first(self) -> Stage | None:
        """What will run first; None: it has begun."""
        ...

    @property
    def runner(self) -> Runner | None:
        """What runs now, or ran last."""
        ...


class StageHandle(Generic[T]):
    """One stage of a topology. `Topology.start` returns it.

    Attributes:
        name: its name, unique in the topology.
    """

    def __init__(self, name: str, kind: type[Stage], run: Run) -> None:
        self.name = name
        self._kind = kind
        self._run = run

    def send(self, message: Message) -> None:
        """Take a message of the protocol in: a handle is a `Peer`."""
        runner = self._run.runner
        if runner is None:
            raise StageError(f"{self.name} has not been started: enter its topology first")
        runner.send(message)

    # --- subscribing -----------------------------------------------------------------------------

    def with_options(
        self,
        *,
        max_demand: int = DEFAULT_MAX_DEMAND,
        min_demand: int | None = None,
        cancel: CancelMode = "permanent",
        **extra: Any,
    ) -> To:
        """This stage, and how to subscribe to it: for ``subscribe_to=``.

        Args:
            max_demand: the most events that it may send ahead of the subscriber's work.
            min_demand: ask for more when so few of them are left, 0 to ``max_demand - 1``; None:
                half. 0: only when all are handled; ``max_demand - 1``: after each event.
            cancel: what the subscriber does when this stage ends: see `Reason`.
            extra: what this stage's dispatcher understands (``partition=``, ``selector=``), and
                what its `handle_subscribe` looks at.

        Raises:
            ConfigError: an option that is out of range, that can never be served, or that nobody
                here understands.
        """
        options = SubscribeOptions(max_demand, min_demand, cancel, extra)
        self.check(options)
        return To(self, options)

    def check(self, options: SubscribeOptions) -> None:
        """Raise ConfigError where this stage could never serve a subscription with *options*."""
        runner = self._run.runner
        stage: Any = runner.stage if runner else self._run.first
        if not isinstance(stage, Giving):
            raise ConfigError(f"{self.name} is a consumer: nothing can subscribe to it")
        try:
            options.check()
            check_extra(cast("Giving[Any]", stage), options.extra)
        except ConfigError as error:
            raise ConfigError(f"{self.name}: {error}") from None

    async def subscribe(
        self,
        to: To | Peer | str,
        *,
        timeout: float = 5.0,
    ) -> Subscription:
        """Subscribe this stage to *to*; waits until the request was sent, not for its acceptance.

        A producer that refuses cancels later, as one that is not there: `cancel` says what this
        stage does then. Cancelled: the request may still be carried out.

        Args:
            to: a handle, ``handle.with_options(…)``, or a stage's name.
            timeout: seconds; the stage may be busy with a callback.

        Raises:
            ConfigError: this stage takes no events, or *to* gives none.
            StageError: this stage has ended.
            TimeoutError: it did not come to it in time; it still may.
        """
        return await self._join(to, None, timeout)

    async def resubscribe(
        self,
        old: Subscription | Tag,
        to: To | Peer | str,
        *,
        reason: Reason | BaseException | str | None = None,
        timeout: float = 5.0,
    ) -> Subscription:
        """End *old* and subscribe anew, in one step at the producer. An *old* that is over is fine.

        Args:
            old: a subscription to the same producer.
            to: as for `subscribe`.
            reason: why the old one ends; it decides whether this stage lives: see `Reason`.
            timeout: as for `subscribe`.

        Raises:
            The same as `subscribe`.
        """
        tag = old.tag if isinstance(old, Subscription) else old
        return await self._join(to, (tag, Reason.of(reason)), timeout)

    async def _join(
        self, to: To | Peer | str, replaces: tuple[Tag, Reason] | None, timeout: float
    ) -> Subscription:
        if not issubclass(self._kind, Consumer | ProducerConsumer):
            raise ConfigError(
                f"{self.name} is a producer: it takes no events, and cannot subscribe"
            )
        producer, options = to_of(to)
        if not getattr(producer, "started", True):
            raise StageError(f"{producer!r} has not been started: enter its topology first")
        if self.runner.in_callback():
            raise StageError(
                f"{self.name} cannot wait for itself in a callback of its own: use self.subscribe"
            )
        answer: asyncio.Future[Subscription] = asyncio.get_running_loop().create_future()
        self.runner.send(Join(producer, options, answer, replaces))
        async with asyncio.timeout(timeout):
            return await answer

    # --- messages --------------------------------------------------------------------------------

    async def call(self, request: Any, timeout: float | None = 5.0) -> Any:
        """Ask the stage, and wait for the reply of its `handle_call`.

        Cancelled, or too late: the stage may still handle it; its answer is dropped.

        Args:
            request: whatever the stage understands.
            timeout: seconds; None: as long as it takes.

        Raises:
            TimeoutError: no answer in time.
            StageError: the stage has ended, its `handle_call` raised, or it has none.
        """
        runner = self.runner
        if runner.in_callback():
            raise StageError(
                f"{self.name} was called from a callback of its own: it would wait for itself"
            )
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        runner.send(Call(request, answer))
        async with asyncio.timeout(timeout):
            return await answer

    def cast(self, request: Any) -> None:
        """Hand *request* to its `handle_cast`, and wait for nothing."""
        self.runner.send(Cast(request))

    def info(self, message: Any) -> None:
        """Call its `handle_info` with *message*, after everything that is buffered now."""
        self.runner.send(Info(message))

    def demand(self, mode: Literal["forward", "accumulate"] | None = None) -> str:
        """Whether asks and events are passed on, or kept back; with *mode*: change it.

        Returns:
            The mode as it is now; a change takes its turn behind what the stage has to do already.

        Raises:
            ConfigError: the stage is no producer, or *mode* is unknown.
        """
        runner = self.runner
        if runner.giving is None:
            raise ConfigError(f"{self.name} is a consumer: it has no demand mode")
        if mode not in {None, "forward", "accumulate"}:
            raise ConfigError(f"the mode must be 'forward' or 'accumulate'; got {mode!r}")
        if mode is not None:
            if mode == "accumulate" and not issubclass(self._kind, Producer):
                raise ConfigError(f"{self.name} takes events too: it cannot accumulate")
            runner.send(Mode(mode == "accumulate"))
        return "accumulate" if runner.giving.outlet.accumulating else "forward"

    def stop(self, error: BaseException | None = None) -> None:
        """End it after the callback under way; what was not served is dropped, and signalled."""
        self.runner.stop(Reason.of(error))

    def finish(self) -> None:
        """Let it take nothing more in, and end when everything has been served."""
        self.runner.finish(NORMAL)

    # --- looking ---------------------------------------------------------------------------------

    @property
    def started(self) -> bool:
        """Whether it has begun to run."""
        return self._run.runner is not None

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        runner = self._run.runner
        return runner is not None and runner.ended is None

    @property
    def ended(self) -> Reason | None:
        """Why it ended; None: it has not."""
        runner = self._run.runner
        return runner.ended if runner else None

    async def wait(self) -> Reason:
        """Wait until it has ended, for good or to be restarted; why it has."""
        return await self.runner.over()

    def statistics(self) -> StageStatistics:
        """What it has done so far."""
        return statistics_of(self.runner)

    def estimate_buffered_count(self) -> int:
        """Events that were given out and that nobody has asked for; 0, and a signal: a consumer."""
        runner = self.runner
        if runner.giving is None:
            runner.signal("protocol-error", f"{self.name} is a consumer: it buffers nothing")
            return 0
        return runner.giving.outlet.waiting

    def events(
        self,
        *,
        max_demand: int = DEFAULT_MAX_DEMAND,
        min_demand: int | None = None,
        cancel: CancelMode = "permanent",
        **extra: Any,
    ) -> EventIterator[T]:
        """Iterate over what it gives out: ``async for event in handle.events()``; see `iterate`."""
        from penstock.stages.iterating import iterate

        return iterate(
            self.with_options(max_demand=max_demand, min_demand=min_demand, cancel=cancel, **extra)
        )

    @property
    def runner(self) -> Runner:
        """The stage's present run."""
        runner = self._run.runner
        if runner is None:
            raise StageError(f"{self.name} has not been started: enter its topology first")
        return runner

    def __repr__(self) -> str:
        runner = self._run.runner
        return (
            f"<StageHandle {runner!r}>" if runner else f"<StageHandle {self.name!r}, not started>"
        )


def to_of(to: To | Peer | str) -> To:
    """*to* with its options, checked as far as the producer is known."""
    if not isinstance(to, To):
        to = To(to)
    producer, options = to
    if isinstance(producer, StageHandle):
        producer.check(options)
        return To(producer, options)
    options.check()
    if not isinstance(producer, str) and not hasattr(producer, "send"):
        raise ConfigError(
            f"a producer must be a stage's handle (as start() returns it), its name, or something "
            f"that has send(message); got {producer!r}"
        )
    return To(producer, options)
