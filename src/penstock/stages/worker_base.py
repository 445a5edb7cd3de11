"""What stages have in common that work on several events at once.

Does        check options, begin and close with the stage, count each subscription's demand.
Does not    say what becomes of results: `workers` does.
Invariants  1. events that are taken and unfinished are never more than `max_demand`, for each
               subscription; nothing is asked for that has not been finished.
            2. a child's end is handled in the stage's own turn, as a callback: all that ended
               meanwhile together.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Literal, cast

from penstock.clock import Clock, SystemClock
from penstock.errors import ConfigError
from penstock.rules.restarts import RestartLimit
from penstock.signals import Kind
from penstock.stages.calls import Info, Kept
from penstock.stages.crew import Child, ChildCount, Crew, told
from penstock.stages.protocol import Reason, Tag
from penstock.stages.stage import Demand, Stage
from penstock.stages.subscription import Subscription
from penstock.stages.worker_pool import On, Pool, Tasks, Threads, check_pool, named
from penstock.stages.worker_processes import Processes

Restart = Literal["temporary", "transient"]
"""Whether work that failed is done again: never; or within the limit."""

MAX_BYTES = 16 * 2**20
"""The most bytes of an event, or a result, that crosses to a process."""

_ENDED = object()


class Slots:
    """What a subscription has on its way here.

    Args:
        source: the subscription.
        least: how many must have finished before it is asked for as many again.
    """

    __slots__ = ("_finished", "_least", "order", "source")

    def __init__(self, source: Subscription, least: int) -> None:
        self.source = source
        self.order: deque[Child] = deque()  # of results that are given out in order
        self._least = least
        self._finished = 0

    def begin(self) -> None:
        """Ask for the first events."""
        if self.source.demand.manual:
            self.source.ask(self.source.options.max_demand)

    def finished(self, count: int) -> None:
        """*count* more have finished; ask for as many as have, when they are enough."""
        self._finished += count
        if self._finished >= self._least and self.source.demand.manual:
            demand, self._finished = self._finished, 0
            self.source.ask(demand)


class Batch:
    """The events of one call of `handle_events`: their outcome is one.

    Args:
        slots: of the subscription that they came by.
        kept: of the call.
        size: how many they are.
    """

    __slots__ = ("kept", "left", "size", "slots")

    def __init__(self, slots: Slots, kept: Kept, size: int) -> None:
        self.slots = slots
        self.kept = kept
        self.size = self.left = size

    def done(self) -> None:
        """One of them has left."""
        self.left -= 1
        if not self.left:
            self.kept.done()


class Place:
    """Where a child's event stood: which of a batch."""

    __slots__ = ("batch", "index")

    def __init__(self, batch: Batch, index: int) -> None:
        self.batch = batch
        self.index = index


class Working(Stage):
    """A stage whose events are worked on by a crew; see `Workers` and `WorkerMap`."""

    def __init__(
        self,
        work: Callable[[Any], Any],
        *,
        on: On,
        workers: int | None,
        restart: Restart,
        max_restarts: int,
        max_seconds: float,
        shutdown: float | None,
        max_bytes: int,
        results: bool,
        clock: Clock | None,
    ) -> None:
        if not callable(work):
            raise ConfigError(f"work must be a function of one event; got {work!r}")
        _check_restart(restart)
        if shutdown is not None and not shutdown >= 0:
            raise ConfigError(f"shutdown must be 0 seconds or more, or None; got {shutdown!r}")
        check_pool(on, workers, max_bytes)
        self._shutdown = shutdown
        self._told = False
        self._slots: dict[Tag, Slots] = {}
        self._pool = self._make_pool(work, on, workers, max_bytes, results=results)
        self._crew = Crew(
            named(work),
            self._pool,
            transient=restart == "transient",
            limit=RestartLimit(max_restarts, max_seconds),
            clock=clock or SystemClock(),
            where=self._where,
            tell=self._tell,
            signal=self._say,
            stop=self.stop,
        )

    def _make_pool(
        self,
        work: Callable[[Any], Any],
        on: On,
        workers: int | None,
        max_bytes: int,
        *,
        results: bool,
    ) -> Pool:
        if on == "tasks":
            return Tasks(work)
        if on == "threads":
            return Threads(work, workers)
        return Processes(
            work,
            workers,
            max_bytes,
            results=results,
            died=lambda error: self._crew.died(error),  # noqa: PLW0108 - there is none yet
            failed=self.stop,
        )

    # --- what is worked on -----------------------------------------------------------------------

    @property
    def children(self) -> list[Child]:
        """What is worked on now, in the order of its start."""
        return self._crew.children

    def count(self) -> ChildCount:
        """How many children there are, and were since the stage began."""
        return self._crew.count()

    # --- callbacks -------------------------------------------------------------------------------

    async def handle_start(self) -> None:
        """Start threads or processes. Override it with a call of this one."""
        await self._pool.open()

    def handle_subscribe(self, subscription: Subscription) -> Demand | None:
        """Demand is this stage's own business. Override it with this one's answer."""
        if subscription.peer_is == "consumer":
            return None
        slots = Slots(subscription, self._least(subscription.demand.max, subscription.demand.min))
        self._slots[subscription.tag] = slots
        self._running().send(Info(slots, due=True))  # it may ask only after it has subscribed
        return "manual"

    def handle_cancel(self, reason: Reason, subscription: Subscription) -> None:
        """What it has on its way is finished all the same. Override it with a call of this one."""
        self._slots.pop(subscription.tag, None)

    def handle_info(self, message: Any) -> None:
        """Infos of its own: a child has ended, a subscription begins. Leave others to this one."""
        if message is _ENDED:
            self._told = False
            self._settle(self._crew.ended())
        elif isinstance(message, Slots):
            message.begin()
        else:
            super().handle_info(message)

    async def handle_close(self, reason: Reason) -> None:
        """Let children end in time, then end them. Override it with a call of this one."""
        loop = asyncio.get_running_loop()
        deadline = None if self._shutdown is None else loop.time() + self._shutdown
        task = asyncio.current_task()
        at_once = task is not None and task.cancelling() > 0
        seconds = 0.0 if at_once or self._hurries(reason) else self._shutdown
        left = None if deadline is None else max(0.0, deadline - loop.time())
        try:
            await self._crew.close(seconds, 0 if at_once else left)
        finally:
            self._leave(self._crew.ended())

    # --- for the two kinds -----------------------------------------------------------------------

    def _least(self, most: int, least: int) -> int:
        """How many must have finished before as many are asked for."""
        raise NotImplementedError

    def _hurries(self, reason: Reason) -> bool:
        """Whether children have no time to end when the stage ends."""
        return False

    def _where(self, child: Child) -> str:
        """Which event it is that a child failed on."""
        return ""

    def _settle(self, ended: list[Child]) -> None:
        """Children have ended."""
        raise NotImplementedError

    def _leave(self, ended: list[Child]) -> None:
        """The last children have ended, and the stage does so too."""
        raise NotImplementedError

    def _slots_of(self, source: Subscription) -> Slots:
        return self._slots.get(source.tag) or Slots(source, 1)

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            self._running().send(Info(_ENDED, due=True))

    def _say(self, kind: Kind, message: str, count: int | None = None) -> None:
        self._running().signal(kind, f"{self.name}: {message}", count)

    def _say_failed(self, failed: list[Child]) -> None:
        """One signal for all that have failed meanwhile."""
        if failed:
            first = failed[0]
            error = cast("BaseException", first.error)
            more = f" (and {len(failed) - 1} more did)" if len(failed) > 1 else ""
            self._say("stage-failed", f"{first.name} failed{more}: {told(error)}", len(failed))

    def _lose(self, count: int, kept: Kept) -> None:
        """*count* events that it had been given were not served; the runner says so."""
        lost = self._running().lost
        if kept.trace is None:
            lost.dropped += count
        else:
            lost.returned += count


def _check_restart(restart: str) -> None:
    if restart == "permanent":
        raise ConfigError(
            "restart='permanent' would do each event again for ever, as work on an event has an "
            "end: use 'transient', which does it again when it failed, or 'temporary'"
        )
    if restart not in {"temporary", "transient"}:
        raise ConfigError(f"restart must be temporary or transient; got {restart!r}")
