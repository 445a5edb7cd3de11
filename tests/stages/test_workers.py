"""Workers on tasks: demand, restarts, the end; what GenStage's ConsumerSupervisor promises."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from penstock import ConfigError, StageError
from penstock.rules.trace import Fresh
from penstock.stages import StageHandle, Topology
from penstock.stages.protocol import (
    NORMAL,
    Ask,
    Cancelled,
    Events,
    Reason,
    Subscribe,
)
from penstock.stages.workers import Workers
from penstock.testing import ManualClock
from stages.fixtures import PATIENCE, Seen, Stranger, kinds, quiet, watched


class Bench:
    """Work that ends when the test says so.

    Attributes:
        started: the events, in the order in which work on them began; again, when restarted.
        stopped: those whose work was cancelled.
    """

    def __init__(self) -> None:
        self.started: Seen[Any] = Seen()
        self.stopped: Seen[Any] = Seen()
        self.working: dict[Any, asyncio.Future[Any]] = {}
        self.most = 0

    async def __call__(self, event: Any) -> Any:
        self.working[event] = future = asyncio.get_running_loop().create_future()
        self.most = max(self.most, len(self.working))
        self.started.append(event)
        try:
            return await future
        except asyncio.CancelledError:
            self.stopped.append(event)
            raise
        finally:
            self.working.pop(event, None)

    def finish(self, *events: Any) -> None:
        """Let the work on *events* end well, with the event itself."""
        for event in events:
            self.working[event].set_result(event)

    def fail(self, *events: Any) -> None:
        """Let it fail."""
        for event in events:
            self.working[event].set_exception(ValueError(f"bad {event}"))


class Shop:
    """Workers that a stranger, by hand, gives events to."""

    def __init__(self, topology: Topology, work: Any = None, **options: Any) -> None:
        self.topology = topology
        self.bench = work or Bench()
        self.source = Stranger("source")
        self.workers: Workers[Any] = Workers(self.bench, **{"shutdown": 0, **options})
        self.handle: StageHandle[Any] | None = None
        self.outcomes: list[tuple[list[Any], str, Any]] = []

    async def open(self, *, restart: Any = "never", shutdown: Any = 5.0, **to: Any) -> Shop:
        """Start them; returns when they have subscribed and asked."""
        self.handle = self.topology.start(
            self.workers, subscribe_to=self.source.to(**to), restart=restart, shutdown=shutdown
        )
        await self.source.first(Ask)
        return self

    def give(self, *events: Any) -> None:
        """Send *events*, whose outcomes are written down."""
        carrier = Fresh(
            lambda events, kind, error: self.outcomes.append((list(events), kind, error))
        )
        self.send(Events(self.tag, list(events), carrier))

    def end(self, reason: Reason = NORMAL) -> None:
        """The producer has ended."""
        self.send(Cancelled(self.tag, reason.as_down()))

    def send(self, message: Any) -> None:
        assert self.handle is not None
        self.handle.send(message)

    @property
    def tag(self) -> Any:
        return self.source.of(Subscribe)[0].tag

    @property
    def asks(self) -> list[int]:
        """What was asked for, each time."""
        return [ask.demand for ask in self.source.of(Ask)]

    async def settled(self) -> None:
        """Wait until nothing happens any more."""
        await quiet(self.topology, self.source.messages, self.bench.started, self.outcomes)


async def turns_until(enough: Callable[[], bool]) -> None:
    """Let the event loop turn until *enough*."""
    async with asyncio.timeout(PATIENCE):
        while not enough():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0)


# --- making them -----------------------------------------------------------------------------


@pytest.mark.conformance("GS-156")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Workers(None), "a function of one event"),  # type: ignore[arg-type]
        (lambda: Workers(len, restart="permanent"), "again for ever"),  # type: ignore[arg-type]
        (lambda: Workers(len, restart="never"), "temporary or transient"),  # type: ignore[arg-type]
        (lambda: Workers(len, max_restarts=-1), "max_restarts"),
        (lambda: Workers(len, max_seconds=0), "max_seconds"),
        (lambda: Workers(len, shutdown=-1), "shutdown"),
        (lambda: Workers(len, on="fibres"), "tasks, threads, processes"),  # type: ignore[arg-type]
        (lambda: Workers(len, workers=2), "max_demand bounds tasks"),
        (lambda: Workers(len, on="threads", workers=0), "at least 1"),
        (lambda: Workers(len, on="processes", max_bytes=0), "max_bytes"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make()


@pytest.mark.conformance("GS-156")
async def test_workers_are_started_by_instance_class_or_function_and_have_a_name() -> None:
    class Own(Workers[Any]):
        def __init__(self) -> None:
            super().__init__(Bench())

    async with Topology() as topology:
        assert topology.start(Workers(Bench(), shutdown=0)).name == "Workers"
        assert topology.start(Own).name == "Own"
        assert topology.start(
            lambda: Workers(Bench(), shutdown=0), name="mine", restart="transient"
        ).alive


# --- by hand ---------------------------------------------------------------------------------


@pytest.mark.conformance("GS-157")
async def test_a_child_that_was_started_by_hand_tells_what_came_of_it() -> None:
    topology, signals = watched()
    async with topology:
        shop = await Shop(topology).open(max_demand=2)
        good, bad, cut = (shop.workers.start(event) for event in "abc")
        await shop.bench.started.reach(3)
        assert shop.workers.children == [good, bad, cut]
        assert shop.workers.count()[:2] == (3, 3)

        shop.bench.finish("a")
        assert await good.wait() == "a"
        shop.bench.fail("b")
        with pytest.raises(StageError, match="Bench-2 failed: ValueError: bad b") as raised:
            await bad.wait()
        assert isinstance(raised.value.__cause__, ValueError)
        shop.workers.terminate(cut)
        with pytest.raises(StageError, match="terminated"):
            await cut.wait()
        await shop.settled()
        assert [child.state for child in (good, bad, cut)] == ["done", "failed", "terminated"]
        assert shop.workers.children == []
        assert shop.workers.count() == (0, 3, 1, 1, 1, 0)
        assert kinds(signals) == ["stage-failed"]


@pytest.mark.conformance("GS-157")
async def test_work_that_is_no_coroutine_runs_too_and_its_exception_is_the_childs_alone() -> None:
    def work(event: int) -> int:
        if event:
            raise asyncio.CancelledError if event == 1 else ValueError
        return event

    async with Topology(observer=lambda _: None) as topology:
        workers = Workers(work)
        handle = topology.start(workers)
        await turns_until(lambda: handle.alive)
        children = [workers.start(event) for event in range(3)]
        assert await children[0].wait() == 0
        for child in children[1:]:
            with pytest.raises(StageError):
                await child.wait()
        assert [child.state for child in children] == ["done", "terminated", "failed"]
        assert handle.alive


@pytest.mark.conformance("GS-157")
async def test_children_started_by_hand_do_not_count_for_demand() -> None:
    async with Topology() as topology:
        shop = await Shop(topology).open(max_demand=2, min_demand=0)
        shop.give("x", "y")
        extra = [shop.workers.start(event) for event in "abc"]
        await shop.bench.started.reach(5)
        shop.bench.finish("a", "b", "c")
        await asyncio.gather(*(child.wait() for child in extra))
        await shop.settled()
        assert shop.asks == [2]


async def test_a_stage_that_has_ended_starts_no_work_by_hand() -> None:
    topology, _ = watched()
    async with topology:
        shop = await Shop(topology).open()
        assert shop.handle is not None
        shop.handle.stop()
        await shop.handle.wait()
        with pytest.raises(StageError, match="has ended"):
            shop.workers.start("a")


# --- restarts --------------------------------------------------------------------------------


@pytest.mark.conformance("GS-158")
async def test_a_temporary_child_that_fails_is_signalled_by_name_and_not_restarted() -> None:
    topology, signals = watched()
    async with topology:
        shop = await Shop(topology).open(max_demand=2)
        shop.give("a", "b")
        await shop.bench.started.reach(2)
        shop.bench.fail("a")
        await shop.settled()
        assert shop.bench.started == ["a", "b"]
        (signal,) = signals
        assert (signal.kind, signal.count) == ("stage-failed", 1)
        assert "Bench-1 failed: ValueError: bad a" in signal.message
        assert shop.workers.count().failed == 1
        assert shop.handle is not None
        assert shop.handle.alive
        shop.bench.finish("b")


@pytest.mark.conformance("GS-158", "GS-166")
async def test_a_transient_child_that_fails_is_restarted_in_its_own_place() -> None:
    topology, signals = watched()
    async with topology:
        shop = await Shop(topology, restart="transient").open(max_demand=1)
        shop.give("a")
        await shop.bench.started.reach(1)
        (child,) = shop.workers.children
        shop.bench.fail("a")
        await shop.bench.started.reach(2)
        await shop.settled()
        assert shop.bench.started == ["a", "a"]
        assert shop.workers.children == [child]
        assert child.restarts == 1
        assert shop.asks == [1]  # it has kept its room
        assert kinds(signals) == ["stage-restarted"]
        shop.bench.finish("a")
        await shop.source.messages.until(lambda _: shop.asks == [1, 1])
        assert child.state == "done"
        assert shop.outcomes == [(["a"], "done", None)]


@pytest.mark.conformance("GS-158")
async def test_a_transient_child_that_ends_well_or_is_terminated_is_not_restarted() -> None:
    topology, signals = watched()
    async with topology:
        shop = await Shop(topology, restart="transient").open(max_demand=2)
        shop.give("a", "b")
        await shop.bench.started.reach(2)
        shop.bench.finish("a")
        shop.workers.terminate(shop.workers.children[1])
        await shop.settled()
        assert shop.bench.started == ["a", "b"]
        assert shop.workers.children == []
        assert signals == []


@pytest.mark.conformance("GS-159")
async def test_one_restart_too_many_ends_the_stage_with_the_work_and_the_cause() -> None:
    topology, signals = watched()
    async with topology:
        shop = Shop(topology, restart="transient", max_restarts=2)
        await shop.open(max_demand=1, restart="temporary")
        shop.give("a")
        for times in range(1, 4):
            await shop.bench.started.reach(times)
            shop.bench.fail("a")
        assert shop.handle is not None
        reason = await shop.handle.wait()
    assert "Bench-1 failed" in str(reason.error)
    assert "2 restarts in 5.0 s: ValueError: bad a" in str(reason.error)
    assert isinstance(reason.error, StageError)
    assert isinstance(reason.error.__cause__, ValueError)
    assert kinds(signals).count("stage-restarted") == 2
    assert [(events, kind) for events, kind, _ in shop.outcomes] == [(["a"], "failed")]


@pytest.mark.conformance("GS-159")
async def test_restarts_that_lie_far_enough_apart_are_never_too_many() -> None:
    clock = ManualClock()
    topology, signals = watched()
    async with topology:
        shop = Shop(topology, restart="transient", max_restarts=1, max_seconds=5.0, clock=clock)
        await shop.open(max_demand=1)
        shop.give("a")
        for times in range(1, 5):
            await shop.bench.started.reach(times)
            shop.bench.fail("a")
            await shop.bench.started.reach(times + 1)
            await clock.advance(5.1)
        assert kinds(signals) == ["stage-restarted"] * 4
        shop.bench.finish("a")
