"""Stages that work on several events at once: `Workers`, and `WorkerMap`.

    topology.start(Workers(send), subscribe_to=orders.with_options(max_demand=20))
    sizes = topology.start(WorkerMap(measure, on="processes"), subscribe_to=pictures)

Does        settle what children have finished: outcomes, demand, results in order.
Does not    run them: a `crew` does, on tasks, threads or processes.
Invariants  those of `worker_base`; and: results of `WorkerMap(ordered=True)` are given out in the
            order of their events, for each subscription.
Source      GenStage's ConsumerSupervisor, for `Workers`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import groupby
from typing import Any, TypeVar, cast, overload

from penstock.clock import Clock
from penstock.errors import StageError
from penstock.stages.calls import Kept
from penstock.stages.crew import Child, told
from penstock.stages.protocol import Reason
from penstock.stages.stage import Consumer, ProducerConsumer
from penstock.stages.subscription import Subscription
from penstock.stages.worker_base import (
    MAX_BYTES,
    Batch,
    Place,
    Restart,
    Slots,
    Working,
)
from penstock.stages.worker_pool import On

In = TypeVar("In")
Out = TypeVar("Out")


class Workers(Working, Consumer[In]):
    """Works on each event by itself, on many at once: as many as `max_demand` of its subscriptions.

    It asks for `max_demand` events at first. When `min_demand` (at least one) children have ended
    since it asked last, it asks for as many as have: 10/2 asks for 2, 10/8 for 8, 4/0 for 1. (Other
    stages ask when `min_demand` are *left*.)

    A child's failure is signalled, and its event has failed; the others go on.

    Args:
        work: called with each event; ``def``, or on tasks ``async def``. To run in processes, it
            must be importable, and take what MessagePack can say; the annotation of its parameter
            says what that is made into.
        restart: ``"temporary"``: an event is tried once; ``"transient"``: again when it failed.
        max_restarts: how often within `max_seconds`, all events together; once more ends the stage.
            Processes that die are counted too.
        max_seconds: seconds.
        shutdown: seconds that children may take to end when the stage is closed, before they are
            cancelled; 0: at once; None: as long as they take. The stage's own ``shutdown`` in
            `Topology.start` must be as long. A function that runs in a thread cannot be cancelled:
            what still runs then is signalled; processes are killed.
        on: where the work is done: ``"tasks"``, ``"threads"`` or ``"processes"``.
        workers: how many threads or processes; None: as many as fit the machine.
        max_bytes: the most bytes of an event that goes to a process.
        clock: where the time of restarts comes from.

    Raises:
        ConfigError: an option that is out of range, or work that cannot run there.
    """

    def __init__(
        self,
        work: Callable[[In], Any],
        *,
        restart: Restart = "temporary",
        max_restarts: int = 3,
        max_seconds: float = 5.0,
        shutdown: float | None = 5.0,
        on: On = "tasks",
        workers: int | None = None,
        max_bytes: int = MAX_BYTES,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(
            work,
            on=on,
            workers=workers,
            restart=restart,
            max_restarts=max_restarts,
            max_seconds=max_seconds,
            shutdown=shutdown,
            max_bytes=max_bytes,
            results=False,
            clock=clock,
        )

    def start(self, event: In) -> Child:
        """Work on *event* too, beside what comes by subscriptions, and beyond their demand.

        Returns:
            The child; `Child.wait` waits for its end. A failure is signalled as any other.

        Raises:
            EncodeError, PayloadTooLarge: the event cannot cross to a process.
            StageError: the stage is not running.
        """
        if self._running().ended is not None:
            raise StageError(f"{self.name} has ended: it starts no work any more")
        return self._crew.start(event, (None, self.keep()))

    def terminate(self, child: Child) -> None:
        """End *child*; it is not restarted, and makes room for the next. Ended already: nothing.

        On tasks it is cancelled. In a thread or a process the work cannot be interrupted: it runs
        to its end, unnoticed.
        """
        child.terminate()

    def handle_events(self, events: list[In], source: Subscription) -> None:
        """Start a child for each."""
        slots = self._slots_of(source)
        for event, kept in zip(events, self.keep_each(events), strict=True):
            self._crew.take(event, (slots, kept))

    def _least(self, most: int, least: int) -> int:
        return max(1, least)

    def _settle(self, ended: list[Child]) -> None:
        finished: dict[Slots, int] = {}
        for child in ended:
            slots, kept = _place(child)
            if child.state == "done":
                kept.done()
            elif child.state == "failed":
                kept.failed(cast("BaseException", child.error))
            else:
                kept.failed(StageError(f"{child.name} was terminated"))
            if slots is not None:
                finished[slots] = finished.get(slots, 0) + 1
        self._say_failed([child for child in ended if child.state == "failed"])
        for slots, count in finished.items():
            slots.finished(count)

    def _leave(self, ended: list[Child]) -> None:
        self._settle([child for child in ended if child.state != "terminated"])
        cut = [child for child in ended if child.state == "terminated"]
        for child in cut:
            _place(child)[1].failed(None)
            self._lose(1, _place(child)[1])


class WorkerMap(Working, ProducerConsumer[In, Out]):
    """Gives out what `work` makes of each event; works on many at once.

    At most `max_demand` events of each subscription are in work, or wait for an earlier one whose
    result is to be given out first. Work that fails ends the stage, with an error that says which
    event of its batch it was.

    Args:
        work: called with each event; its result, also None, is an event. As for `Workers`; of
            processes come results as the annotation of its return says.
        ordered: give results out in the order of their events; else as they come.
        on, workers, restart, max_restarts, max_seconds, shutdown, max_bytes, clock: as for
            `Workers`; results of what ends within `shutdown` are still given out.

    Raises:
        ConfigError: an option that is out of range, or work that cannot run there.
    """

    @overload
    def __init__(
        self,
        work: Callable[[In], Awaitable[Out]],
        *,
        ordered: bool = ...,
        on: On = ...,
        workers: int | None = ...,
        restart: Restart = ...,
        max_restarts: int = ...,
        max_seconds: float = ...,
        shutdown: float | None = ...,
        max_bytes: int = ...,
        clock: Clock | None = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        work: Callable[[In], Out],
        *,
        ordered: bool = ...,
        on: On = ...,
        workers: int | None = ...,
        restart: Restart = ...,
        max_restarts: int = ...,
        max_seconds: float = ...,
        shutdown: float | None = ...,
        max_bytes: int = ...,
        clock: Clock | None = ...,
    ) -> None: ...

    def __init__(
        self,
        work: Callable[[In], Any],
        *,
        ordered: bool = True,
        on: On = "tasks",
        workers: int | None = None,
        restart: Restart = "temporary",
        max_restarts: int = 3,
        max_seconds: float = 5.0,
        shutdown: float | None = 5.0,
        max_bytes: int = MAX_BYTES,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(
            work,
            on=on,
            workers=workers,
            restart=restart,
            max_restarts=max_restarts,
            max_seconds=max_seconds,
            shutdown=shutdown,
            max_bytes=max_bytes,
            results=True,
            clock=clock,
        )
        self._ordered = ordered
        self._batches: set[Batch] = set()

    def handle_events(self, events: list[In], source: Subscription) -> None:
        """Start a child for each; their results are emitted later."""
        batch = Batch(self._slots_of(source), self.keep(), len(events))
        self._batches.add(batch)
        order = batch.slots.order
        for index, event in enumerate(events):
            child = self._crew.take(event, Place(batch, index))
            if self._ordered:
                order.append(child)

    def _least(self, most: int, least: int) -> int:
        return most - least

    def _hurries(self, reason: Reason) -> bool:
        return reason.kind == "failed"

    def _settle(self, ended: list[Child]) -> None:
        failed = [child for child in ended if child.state != "done"]
        slots = {child.place.batch.slots: None for child in ended}
        for one in slots:
            one.finished(self._give(one, ended))
        failures = [self._failure(child) for child in failed]
        if failures:
            self.stop(failures[0])

    def _give(self, slots: Slots, ended: list[Child]) -> int:
        """Emit what can be; of several batches together, where nobody waits for their outcome."""
        if self._ordered:
            ready = _in_order(slots)
        else:
            ready = [one for one in ended if one.state == "done" and _slots(one) is slots]
        for _, several in groupby(ready, key=lambda child: child.place.batch.kept.trace):
            children = list(several)
            kept: Kept = children[0].place.batch.kept
            self.emit([cast("Out", child.result) for child in children], of=kept)
            for child in children:
                child.place.batch.done()
            self._batches.difference_update(
                [child.place.batch for child in children if not child.place.batch.left]
            )
        return len(ready)

    def _where(self, child: Child) -> str:
        place: Place = child.place
        batch = place.batch
        return (
            f" on event {place.index} (of {batch.size} in its batch, counted from 0) from "
            f"{batch.slots.source.peer.name}"
        )

    def _failure(self, child: Child) -> StageError:
        batch: Batch = child.place.batch
        error = child.error
        why = told(error) if error is not None else "it was cancelled"
        failure = StageError(f"{self.name}: {child.name} failed{self._where(child)}: {why}")
        failure.__cause__ = error
        batch.kept.failed(failure)
        batch.left -= 1
        return failure

    def _leave(self, ended: list[Child]) -> None:
        for child in ended:
            if child.state == "failed":
                self._say_failed([child])
                self._failure(child)
        for slots in {_slots(child): None for child in ended}:
            self._give(slots, ended)
        for batch in self._batches:
            batch.kept.failed(None)
            self._lose(batch.left, batch.kept)


def _in_order(slots: Slots) -> list[Child]:
    """The results that can be given out, as all before them were."""
    ready: list[Child] = []
    while slots.order and slots.order[0].state == "done":
        ready.append(slots.order.popleft())
    return ready


def _slots(child: Child) -> Slots:
    return child.place.batch.slots


def _place(child: Child) -> tuple[Slots | None, Kept]:
    """Where a worker's event came from; None: it was started by hand."""
    place: tuple[Slots | None, Kept] = child.place
    return place
