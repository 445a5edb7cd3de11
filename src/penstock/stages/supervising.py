"""What keeps a topology's stages running: their tasks, their restarts, their end.

Does        make runners, watch their ends, restart by the rules, close in order, collapse.
Does not    decide who restarts with whom (`rules.restarts`), or talk to users (`topology`).
Invariants  1. every runner has one task, in one task group.
            2. a stage that restarts alone is running anew before anybody can have read of its end.
            3. the first failure wins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any

from penstock.clock import Clock
from penstock.errors import ClosedError, ConfigError, StageError, SubscriptionCancelled
from penstock.observers import Observers
from penstock.rules.restarts import Restart, RestartLimit, Strategy, affected, restarts
from penstock.signals import Signal
from penstock.stages.calls import Join
from penstock.stages.gate import Gate
from penstock.stages.handle import StageHandle, To
from penstock.stages.protocol import NORMAL, SHUTDOWN, Peer
from penstock.stages.runner import Runner, World
from penstock.stages.stage import Stage
from penstock.stages.statistics import statistics_of
from penstock.stages.subscription import Subscription


@dataclass(slots=True, eq=False)
class Spec:
    """How a stage is started, each time; and its present run."""

    name: str
    make: Callable[[], Stage]
    first: Stage | None
    joins: Sequence[To]
    restart: Restart
    shutdown: float | None
    options: Mapping[str, Any]
    runner: Runner | None = None
    task: asyncio.Task[None] | None = None
    handle: StageHandle[Any] = field(init=False)
    replaced: bool = False  # its end is part of a restart, or of closing: nobody judges it


class Supervisor:
    """The running side of a `Topology`."""

    def __init__(
        self, strategy: Strategy, limit: RestartLimit, observers: Observers, clock: Clock
    ) -> None:
        self._strategy: Strategy = strategy
        self._limit = limit
        self._observers = observers
        self._clock = clock
        self._specs: dict[str, Spec] = {}
        self.handles: dict[str, StageHandle[Any]] = {}
        self.gate = Gate()
        self._group: asyncio.TaskGroup | None = None
        self._changes = asyncio.Event()
        self._draining = False
        self._to_restart: list[Spec] = []
        self._failure: StageError | None = None
        self._closing = self._left = False
        self._counts: dict[str, int] = {}

    # --- starting --------------------------------------------------------------------------------

    def check_open(self) -> None:
        """Raise ClosedError when nothing can be started any more."""
        if self._left or self._closing:
            raise ClosedError("the topology has been closed: nothing can be started in it any more")

    def name_for(self, stage: Stage, name: str | None) -> str:
        """The given name, or one of its own; ConfigError: it is taken."""
        if name is not None:
            if not name or name in self._specs:
                raise ConfigError(f"a stage's name must be new and not empty; got {name!r}")
            return name
        base = type(stage).__name__
        while True:
            self._counts[base] = number = self._counts.get(base, 0) + 1
            found = base if number == 1 else f"{base}-{number}"
            if found not in self._specs:
                return found

    def add(self, spec: Spec) -> StageHandle[Any]:
        """Take a stage in; run it if the topology runs."""
        assert spec.first is not None
        spec.handle = StageHandle(spec.name, type(spec.first), spec)
        self._specs[spec.name] = spec
        self.handles[spec.name] = spec.handle
        if self._group is not None:
            self._run(spec)
        return spec.handle

    async def open(self) -> None:
        """Run what was noted."""
        self.check_open()
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        for spec in list(self._specs.values()):
            self._run(spec)

    def _run(self, spec: Spec) -> None:
        """Make a new run of *spec*."""
        assert self._group is not None
        stage, spec.first = spec.first, None
        if stage is None:
            stage = spec.make()
            for name, value in spec.options.items():
                setattr(stage, name, value)
            if stage._noted:  # pyright: ignore[reportPrivateUsage]
                raise StageError(
                    f"{spec.name} cannot start again: what makes it gave the same instance again"
                )
            stage._noted = True  # pyright: ignore[reportPrivateUsage]
        joins = [Join(to.producer, to.options) for to in spec.joins]
        spec.replaced = False
        world = World(self._observers, self.gate, self._find, partial(self._changed, spec))
        spec.runner = Runner(stage, spec.name, joins, world)
        self.gate.begin()
        spec.task = self._group.create_task(spec.runner.run(), name=f"penstock stage {spec.name}")
        spec.task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._changes.set()

    def _find(self, producer: Peer | str) -> Peer | None:
        """Whom to send to: a handle's present run, so that nothing lies between."""
        if isinstance(producer, str):
            spec = self._specs.get(producer)
            return spec.runner if spec else None
        if isinstance(producer, StageHandle):
            return producer.runner if producer.started else None
        return producer

    # --- watching --------------------------------------------------------------------------------

    def _changed(self, spec: Spec, runner: Runner) -> None:
        """A run has ended, or has lost its last producer."""
        self._changes.set()
        if runner.ended is None or runner is not spec.runner:
            return
        reason = runner.ended
        failed = reason.kind == "failed"
        if spec.replaced or self._closing:
            if failed and not isinstance(reason.error, SubscriptionCancelled):
                self._signal(
                    spec, "stage-failed", f"{spec.name} failed while it was closed: {reason}"
                )
            return
        if restarts(spec.restart, failed=failed) and (failed or not self._draining):
            self._restart(spec)
        elif failed and spec.restart == "never":
            self._fail(_failure(spec, reason.error))
        elif failed:
            self._signal(
                spec, "stage-failed", f"{spec.name} failed, and is not restarted: {reason}"
            )

    def _restart(self, spec: Spec) -> None:
        assert spec.runner is not None
        reason = spec.runner.ended
        if not self._limit.allows(self._clock.monotonic()):
            error = StageError(
                f"{spec.name} ended ({reason}), and may not be restarted: that would be more than "
                f"{self._limit.max_restarts} restarts in {self._limit.max_seconds} s"
            )
            error.__cause__ = reason.error if reason else None
            self._fail(error)
            return
        self._signal(spec, "stage-restarted", f"{spec.name} ended ({reason}), and starts again")
        if self._strategy == "one_for_one":
            self._again([spec])
            return
        for one in affected(self._strategy, list(self._specs.values()), spec):
            one.replaced = True  # at once: those that end of this end are part of it
        self._to_restart.append(spec)
        if len(self._to_restart) == 1:
            assert self._group is not None
            self._group.create_task(self._restart_several())

    async def _restart_several(self) -> None:
        """Stop all that are to start again, the last first; then start them, the first first.

        Another that fails meanwhile may widen the circle: so there is one such restart at a time.
        """
        group: list[Spec] = []
        while not self._closing:
            specs = list(self._specs.values())
            first = min(self._to_restart, key=specs.index)
            group = affected(self._strategy, specs, first)
            known = len(self._to_restart)
            for one in group:
                one.replaced = True
            for one in reversed(group):
                await self._stop(one)
            if len(self._to_restart) == known:
                break
        self._to_restart.clear()
        if self._closing:
            return
        again = [one for one in group if one.restart != "temporary"]
        for one in group:
            one.replaced = one in again
        self._again(again)

    def _again(self, group: Sequence[Spec]) -> None:
        """Run *group* anew; consumers that live on are subscribed again."""
        former = [(spec, _former(spec)) for spec in group]
        for spec in group:
            try:
                self._run(spec)
            except Exception as error:  # noqa: BLE001 - what makes the stage is the user's
                self._fail(_failure(spec, error))
                return
        for spec, subscriptions in former:
            for subscription in subscriptions:
                # It stands behind the news of the end: a consumer that ends of that ignores it.
                consumer = subscription.tag.consumer
                if isinstance(consumer, Runner) and consumer.ended is None:
                    consumer.send(Join(spec.handle, subscription.options))
        if self._draining:
            self.finish_producers()

    def _fail(self, error: StageError) -> None:
        if self._failure is None and self._group is not None:
            self._failure = error
            self._group.create_task(self._collapse())

    async def _collapse(self) -> None:
        assert self._failure is not None
        await self.close()
        raise self._failure

    def _signal(self, spec: Spec, kind: Any, message: str) -> None:
        self._observers(Signal(kind, message, stage=spec.name))

    # --- ending ----------------------------------------------------------------------------------

    async def wait(self) -> None:
        """Wait until nothing runs any more."""
        while not self._done():
            self._changes.clear()
            # While some start again, others may wait for them without a producer.
            if not any(spec.replaced for spec in self._specs.values()):
                for runner in self._runners():
                    if runner.exhausted:
                        runner.finish(NORMAL)
            await self._changes.wait()
        if self._failure is not None:
            await self.close()
            raise self._failure

    def finish_producers(self) -> None:
        """Let stages that take no events finish, also those that start from now on."""
        self._draining = True
        for runner in self._runners():
            if runner.taking is None:
                runner.finish(NORMAL)

    def left(self) -> list[str]:
        """What still runs, and what it holds."""
        return [
            f"{runner.name} ({figures.buffered} buffered, {figures.queued} queued, "
            f"{figures.kept} kept)"
            for runner in self._runners()
            for figures in [statistics_of(runner)]
        ]

    def check_outside(self, what: str) -> None:
        """Raise StageError in a callback of one of the stages: it would wait for itself."""
        if self._group is None and not self._closing:
            raise StageError(
                f"cannot {what} a topology that was not entered: write 'async with topology'"
            )
        task = asyncio.current_task()
        for spec in self._specs.values():
            if spec.task is task:
                raise StageError(
                    f"{spec.name} cannot {what} its topology in a callback of its own: it would "
                    f"wait for itself; stop() or finish() end the stage"
                )

    async def close(self) -> None:
        """Close all, in the reverse order of their start."""
        self._closing = True
        specs = list(reversed(self._specs.values()))
        # Who has ended may still wait for the outcome of what others have: these are closed first.
        waiting = [spec for spec in specs if spec.runner is not None and spec.runner.ended]
        for spec in [*(spec for spec in specs if spec not in waiting), *waiting]:
            await self._stop(spec)
        self._changes.set()

    async def leave(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        """Close, and wait for every task; the topology's failure, unless the body raised."""
        assert self._group is not None
        try:
            await self.close()
        except asyncio.CancelledError as cancelled:
            kind, error, trace = type(cancelled), cancelled, cancelled.__traceback__
        self._left = True
        own = isinstance(error, Exception) and error is not self._failure
        try:
            await self._group.__aexit__(kind, error, trace)
        except BaseExceptionGroup:
            if own:
                return False  # the body's own error wins
            if self._failure is None:
                raise
            raise self._failure from self._failure.__cause__
        return None

    async def _stop(self, spec: Spec) -> None:
        runner, task = spec.runner, spec.task
        if runner is None or task is None:
            return
        spec.replaced = True
        runner.stop(SHUTDOWN)
        if not task.done():
            await asyncio.wait([task], timeout=spec.shutdown)
        if not task.done():
            task.cancel()
            await asyncio.wait([task])

    def _done(self) -> bool:
        if self._failure is not None:
            return True
        restarting = any(spec.replaced for spec in self._specs.values()) and not self._closing
        # A stage that has ended may still wait for the outcome of what it gave out.
        return not restarting and all(
            spec.task is not None and spec.task.done() for spec in self._specs.values()
        )

    def _runners(self) -> list[Runner]:
        return [
            spec.runner
            for spec in self._specs.values()
            if spec.runner is not None and spec.runner.ended is None
        ]


def _former(spec: Spec) -> list[Subscription]:
    """The consumers that the last run of *spec* had at its end."""
    giving = spec.runner.giving if spec.runner is not None else None
    return giving.former if giving is not None else []


def _failure(spec: Spec, error: BaseException | None) -> StageError:
    if isinstance(error, StageError):
        return error
    failed = StageError(f"{spec.name} failed: {type(error).__name__}: {error}")
    failed.__cause__ = error
    return failed
