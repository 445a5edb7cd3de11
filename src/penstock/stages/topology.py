"""A topology: stages that run together, and what happens when one of them ends.

Does        start stages in order, name them, restart them, drain and close them, fail with them.
Does not    know what they do; run anything but their runners.
Invariants  1. nothing that it started is left when its block has been left: no task, no call.
            2. a failure that no restart mends ends the block, with the error of the stage that
               failed first.
            3. stages are closed in the reverse order of their start.
Source      OTP supervisors, with the end of a block as the end of the tree.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import EllipsisType, TracebackType
from typing import Any, Literal, Self, TypeVar, overload

from penstock.clock import Clock, SystemClock
from penstock.errors import ClosedError, ConfigError
from penstock.observers import Observers
from penstock.rules.buffer import Buffer, Keep
from penstock.rules.dispatch import Dispatcher
from penstock.rules.restarts import RESTARTS, STRATEGIES, Restart, RestartLimit, Strategy
from penstock.signals import Observer
from penstock.stages.handle import StageHandle, To, to_of
from penstock.stages.protocol import Peer
from penstock.stages.stage import Consumer, Giving, Producer, ProducerConsumer, Stage
from penstock.stages.statistics import StageStatistics
from penstock.stages.supervising import Spec, Supervisor

Out = TypeVar("Out")
Make = Callable[[], Stage]
Producers = To | Peer | str | Iterable["To | Peer | str"]


class Topology:
    """Stages that run together. Use ``async with``, or `run`.

    Args:
        strategy: which stages start again with one that does: ``"one_for_one"`` it alone,
            ``"rest_for_one"`` it and those started after it, ``"one_for_all"`` all.
        max_restarts: restarts that are allowed within `max_seconds`; one more fails the topology.
        max_seconds: seconds.
        observer: who is told of signals (one or several); without any they are logged.
        clock: where time comes from.

    Raises:
        ConfigError: an unknown strategy, or a limit that is out of range.
    """

    def __init__(
        self,
        *,
        strategy: Strategy = "one_for_one",
        max_restarts: int = 3,
        max_seconds: float = 5.0,
        observer: Observer | Iterable[Observer] = (),
        clock: Clock | None = None,
    ) -> None:
        if strategy not in STRATEGIES:
            raise ConfigError(f"strategy must be one of {', '.join(STRATEGIES)}; got {strategy!r}")
        self._strategy: Strategy = strategy
        self._supervisor = Supervisor(
            strategy,
            RestartLimit(max_restarts, max_seconds),
            Observers([observer] if callable(observer) else observer),
            clock or SystemClock(),
        )
        self._entered = False

    # --- starting --------------------------------------------------------------------------------

    @overload
    def start(
        self,
        stage: Giving[Out] | Callable[[], Giving[Out]],
        *,
        name: str | None = ...,
        subscribe_to: Producers = ...,
        restart: Restart = ...,
        shutdown: float | None = ...,
        dispatcher: Dispatcher | EllipsisType | None = ...,
        buffer_size: int | EllipsisType | None = ...,
        buffer_keep: Keep | EllipsisType = ...,
        demand: Literal["forward", "accumulate"] | EllipsisType = ...,
    ) -> StageHandle[Out]: ...

    @overload
    def start(
        self,
        stage: Consumer[Any] | Callable[[], Consumer[Any]],
        *,
        name: str | None = ...,
        subscribe_to: Producers = ...,
        restart: Restart = ...,
        shutdown: float | None = ...,
    ) -> StageHandle[Any]: ...

    def start(
        self,
        stage: Stage | Make,
        *,
        name: str | None = None,
        subscribe_to: Producers = (),
        restart: Restart = "never",
        shutdown: float | None = 5.0,
        **options: Any,
    ) -> StageHandle[Any]:
        """Start a stage, behind those that were started before.

        Before the topology is entered it is only noted, and started then. `handle_start`, and the
        subscribing, happen in the stage's own task: this returns at once.

        Args:
            stage: an instance; or what makes one (a class, a function), which restarting needs.
            name: unique in the topology; None: the class's, with a number where that is taken.
            subscribe_to: one or several producers: handles, ``handle.with_options(…)``, names.
            restart: ``"never"``: a failure fails the topology; ``"temporary"``: it is signalled,
                and the others go on; ``"transient"``: it starts again when it failed;
                ``"permanent"``: whenever it ended. It says nothing of others: a consumer that is
                subscribed with ``cancel="permanent"`` ends with its producer, and needs a
                `restart` of its own, or the strategy ``"rest_for_one"``.
            shutdown: seconds that its callback may still take when it is closed, before it is
                cancelled; None: as long as it takes.
            options: `dispatcher`, `buffer_size`, `buffer_keep`, `demand`: for this run of the
                stage, instead of its class's; see `Giving` and `Producer`.

        Raises:
            ConfigError: what is out of range, unknown, taken, or cannot be restarted.
            ClosedError: the topology has been left.
        """
        self._supervisor.check_open()
        make = _maker(stage, restart, self._strategy)
        first = make()
        if not _is_stage(first):
            raise ConfigError(
                f"start needs a Producer, ProducerConsumer or Consumer, or what makes one; "
                f"got {first!r}"
            )
        _check_run(first, restart, shutdown)
        joins = _joins(first, subscribe_to)
        set_options = {key: value for key, value in options.items() if value is not ...}
        _apply(first, set_options)
        spec = Spec(
            name=self._supervisor.name_for(first, name),
            make=make,
            first=first,
            joins=joins,
            restart=restart,
            shutdown=shutdown,
            options=set_options,
        )
        first._noted = True  # pyright: ignore[reportPrivateUsage]
        return self._supervisor.add(spec)

    # --- one life-cycle --------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Start what was noted; from now on `start` starts at once.

        Raises:
            ClosedError: it has been entered before.
        """
        if self._entered:
            raise ClosedError("a topology runs once: make another one")
        self._entered = True
        await self._supervisor.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        """Close all stages, in the reverse order of their start.

        Raises:
            StageError: a stage failed, and no restart mended it; unless the body raised.
        """
        return await self._supervisor.leave(kind, error, trace)

    async def run(self) -> None:
        """Enter, wait until the work is done, and leave.

        Raises:
            StageError: a stage failed, and no restart mended it.
        """
        async with self:
            await self.wait()

    async def ready(self) -> None:
        """Wait until all stages that were started so far have started, and sent their requests.

        Nobody asks for an event before: stages that are started in one go see the first one
        together. A stage that could not start counts as ready.
        """
        self._supervisor.check_outside("wait for")
        await self._supervisor.gate.wait()

    async def wait(self) -> None:
        """Wait until the work is done: all stages have ended.

        Stages that have lost all their producers have nothing to do any more: while somebody waits
        here, they are finished, so that those behind them end too.

        Raises:
            StageError: a stage failed, and no restart mended it.
        """
        self._supervisor.check_outside("wait for")
        await self._supervisor.wait()

    async def drain(self, timeout: float | None = None) -> None:
        """Let producers take nothing more in, and wait until everything has been served.

        Each stage's `handle_finish` is called when its turn has come: the moment to emit the rest.

        Args:
            timeout: seconds; None: as long as it takes. Cancelled or timed out: the draining goes
                on, and what is still there when the block is left is dropped, and signalled.

        Raises:
            TimeoutError: it names what still runs, and what that holds.
            StageError: a stage failed, and no restart mended it.
        """
        self._supervisor.check_outside("drain")
        self._supervisor.finish_producers()
        try:
            async with asyncio.timeout(timeout):
                await self._supervisor.wait()
        except TimeoutError:
            left = ", ".join(self._supervisor.left())
            raise TimeoutError(f"after {timeout} s these stages still run: {left}") from None

    async def aclose(self) -> None:
        """Close all stages now, in the reverse order of their start. Leaving the block does so."""
        if self._entered:
            self._supervisor.check_outside("close")
        await self._supervisor.close()

    # --- looking ---------------------------------------------------------------------------------

    @property
    def stages(self) -> Mapping[str, StageHandle[Any]]:
        """All stages by name, in the order of their start."""
        return self._supervisor.handles

    def statistics(self) -> dict[str, StageStatistics]:
        """What every stage has done so far, by name."""
        return {
            name: handle.statistics()
            for name, handle in self._supervisor.handles.items()
            if handle.started
        }

    def __repr__(self) -> str:
        states = [repr(handle) for handle in self._supervisor.handles.values()]
        shown = ", ".join(states[:8]) + (f", … {len(states) - 8} more" if len(states) > 8 else "")
        return f"<Topology {self._strategy}: {shown or 'empty'}>"


def _maker(stage: Stage | Make, restart: Restart, strategy: Strategy) -> Make:
    """What makes the stage, each time that it starts."""
    if not isinstance(stage, Stage):
        if not callable(stage):
            raise ConfigError(f"start needs a stage, or what makes one; got {stage!r}")
        return stage
    if restart in {"transient", "permanent"} or strategy != "one_for_one":
        raise ConfigError(
            f"a stage that may be restarted needs to be made anew: give start() the class or a "
            f"function that makes it, not the instance {type(stage).__name__}(…)"
        )
    return lambda: stage


def _is_stage(stage: object) -> bool:
    return isinstance(stage, Producer | ProducerConsumer | Consumer)


def _check_run(stage: Stage, restart: str, shutdown: float | None) -> None:
    if restart not in RESTARTS:
        raise ConfigError(f"restart must be one of {', '.join(RESTARTS)}; got {restart!r}")
    if shutdown is not None and not shutdown >= 0:
        raise ConfigError(f"shutdown must be 0 seconds or more, or None; got {shutdown!r}")
    if stage._noted:  # pyright: ignore[reportPrivateUsage]
        raise ConfigError(f"{type(stage).__name__}(…) has been started already: make another one")


def _joins(stage: Stage, subscribe_to: Producers) -> Sequence[To]:
    several: Iterable[To | Peer | str]
    if isinstance(subscribe_to, To | str) or hasattr(subscribe_to, "send"):
        several = [subscribe_to]  # type: ignore[list-item]
    elif isinstance(subscribe_to, Iterable):
        several = subscribe_to
    else:
        several = [subscribe_to]
    joins = [to_of(to) for to in several]
    if joins and not isinstance(stage, Consumer | ProducerConsumer):
        raise ConfigError(f"{type(stage).__name__} is a producer: it cannot subscribe to anything")
    return joins


_OPTIONS = {"dispatcher", "buffer_size", "buffer_keep", "demand"}


def _apply(stage: Any, options: Mapping[str, Any]) -> None:
    """Set *options* on the instance, each checked."""
    gives, produces = issubclass(type(stage), Giving), issubclass(type(stage), Producer)
    known = _OPTIONS if produces else _OPTIONS - {"demand"}
    if unknown := options.keys() - (known if gives else set()):
        raise ConfigError(
            f"{type(stage).__name__} has no option {', '.join(sorted(unknown))}; producers have "
            f"{', '.join(sorted(_OPTIONS))}, producer-consumers all but demand, consumers none"
        )
    for name, value in options.items():
        setattr(stage, name, value)
    if gives:
        _check_giving(stage)


def _check_giving(stage: Giving[Any]) -> None:
    """Raise ConfigError for a producer whose attributes make no sense."""
    Buffer(stage.buffer_size, stage.buffer_keep)
    if (demand := getattr(stage, "demand", "forward")) not in {"forward", "accumulate"}:
        raise ConfigError(f"demand must be 'forward' or 'accumulate'; got {demand!r}")
    dispatcher: object = stage.dispatcher
    if dispatcher is not None and not (
        hasattr(dispatcher, "dispatch")
        and hasattr(dispatcher, "fresh")
        and not isinstance(dispatcher, type)
    ):
        raise ConfigError(
            f"dispatcher must be one, as DemandDispatcher() or BroadcastDispatcher(); "
            f"got {dispatcher!r}"
        )
