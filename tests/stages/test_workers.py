"""Workers on tasks: demand, restarts, the end; what GenStage's ConsumerSupervisor promises."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from penstock import ConfigError, Signal, StageError
from penstock.rules.trace import Fresh
from penstock.stages import StageHandle, Subscription, Topology
from penstock.stages.crew import Child
from penstock.stages.protocol import (
    NORMAL,
    SHUTDOWN,
    Ask,
    Cancel,
    Cancelled,
    Events,
    Reason,
    Subscribe,
)
from penstock.stages.sources import IterableStage
from penstock.stages.workers import Workers
from penstock.testing import ManualClock
from stages.fixtures import PATIENCE, Counter, Seen, Stranger, kinds, quiet, watched, within


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


# --- the end ---------------------------------------------------------------------------------


@pytest.mark.conformance("GS-160")
async def test_shutdown_0_cancels_children_at_once_and_returns_their_events() -> None:
    topology, signals = watched()
    async with topology:
        shop = await Shop(topology, shutdown=0).open(max_demand=2)
        shop.give("a", "b")
        await shop.bench.started.reach(2)
    assert sorted(shop.bench.stopped) == ["a", "b"]
    assert shop.outcomes == [(["a", "b"], "returned", None)]
    assert [(one.kind, one.count) for one in signals] == [("events-dropped", 2)]


@pytest.mark.conformance("GS-160")
async def test_shutdown_none_waits_for_children_as_long_as_they_take() -> None:
    topology, signals = watched()
    async with topology:
        shop = await Shop(topology, shutdown=None).open(max_demand=2, shutdown=None)
        shop.give("a", "b")
        await shop.bench.started.reach(2)
        closing = asyncio.ensure_future(topology.aclose())
        for _ in range(30):
            await asyncio.sleep(0)
        assert not closing.done()
        shop.bench.finish("a", "b")
        await closing
    assert shop.bench.stopped == []
    assert shop.outcomes == [(["a", "b"], "done", None)]
    assert signals == []


@pytest.mark.conformance("GS-160")
async def test_shutdown_n_waits_so_long_and_cancels_what_is_left() -> None:
    topology, _ = watched()
    async with topology:
        shop = await Shop(topology, shutdown=0.05).open(max_demand=2)
        shop.give("a", "b")
        await shop.bench.started.reach(2)
        closing = asyncio.ensure_future(topology.aclose())
        for _ in range(5):
            await asyncio.sleep(0)
        assert shop.bench.stopped == []
        shop.bench.finish("a")
        await closing
    assert shop.bench.stopped == ["b"]
    assert shop.workers.count() == (0, 2, 1, 0, 1, 0)


@pytest.mark.conformance("GS-160")
async def test_a_closing_that_is_cancelled_cancels_the_children_and_waits_for_their_end() -> None:
    topology, _ = watched()
    async with topology:
        # The topology's patience ends first: it cancels the stage while that waits.
        shop = await Shop(topology, shutdown=None).open(max_demand=1, shutdown=0)
        shop.give("a")
        await shop.bench.started.reach(1)
    assert shop.bench.stopped == ["a"]
    assert shop.outcomes == [(["a"], "returned", None)]


@pytest.mark.conformance("GS-160")
async def test_a_program_that_is_cancelled_leaves_no_child_behind() -> None:
    shop: Shop | None = None

    async def program() -> None:
        nonlocal shop
        async with Topology(observer=lambda _: None) as topology:
            shop = await Shop(topology).open(max_demand=1)
            shop.give("a")
            await topology.wait()

    task = asyncio.ensure_future(program())
    await turns_until(lambda: shop is not None and bool(shop.bench.started))
    assert shop is not None
    task.cancel()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert shop.bench.stopped == ["a"]


@pytest.mark.conformance("GS-160")
async def test_a_cancellation_of_the_closing_is_passed_on_when_the_children_have_ended() -> None:
    topology, _ = watched()
    async with topology:
        shop = await Shop(topology, shutdown=None).open(max_demand=1)
        shop.give("a")
        await shop.bench.started.reach(1)
        closing = asyncio.ensure_future(shop.workers.handle_close(SHUTDOWN))
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert shop.bench.stopped == ["a"]


@pytest.mark.conformance("GS-160")
async def test_a_terminated_child_that_raises_something_else_is_neither_failed_nor_restarted() -> (
    None
):
    class Sore(Bench):
        async def __call__(self, event: Any) -> Any:
            try:
                await super().__call__(event)
            except asyncio.CancelledError:
                raise ValueError("while tidying up") from None

    topology, signals = watched()
    async with topology:
        shop = await Shop(topology, work=Sore(), restart="transient").open(max_demand=1)
        shop.give("a")
        await shop.bench.started.reach(1)
        (child,) = shop.workers.children
        shop.workers.terminate(child)
        await shop.settled()
        assert child.state == "terminated"
        assert shop.bench.started == ["a"]
        assert signals == []


@pytest.mark.conformance("GS-160", "GS-165")
async def test_one_child_can_be_terminated_and_makes_room() -> None:
    topology, _ = watched()
    async with topology:
        shop = await Shop(topology).open(max_demand=1)
        shop.give("a")
        await shop.bench.started.reach(1)
        shop.workers.terminate(shop.workers.children[0])
        await shop.source.messages.until(lambda _: shop.asks == [1, 1])
        assert shop.bench.stopped == ["a"]
        ((events, kind, error),) = shop.outcomes
        assert (events, kind) == (["a"], "failed")
        assert "terminated" in str(error)


# --- subscribing -----------------------------------------------------------------------------


@pytest.mark.conformance("GS-162")
@pytest.mark.parametrize(
    ("reason", "mode", "lives"),
    [
        (NORMAL, "permanent", False),
        (NORMAL, "transient", True),
        (SHUTDOWN, "permanent", False),
        (SHUTDOWN, "temporary", True),
        (Reason("failed", ValueError("gone")), "permanent", False),
        (Reason("failed", ValueError("gone")), "transient", False),
        (Reason("failed", ValueError("gone")), "temporary", True),
    ],
)
async def test_the_end_of_a_producer_means_what_it_means_for_a_consumer(
    reason: Reason, mode: str, lives: bool
) -> None:
    topology, _ = watched()
    async with topology:
        shop = await Shop(topology).open(restart="temporary", cancel=mode)
        shop.end(reason)
        await shop.settled()
        assert shop.handle is not None
        assert shop.handle.alive == lives


@pytest.mark.conformance("GS-162")
async def test_bad_options_are_refused_and_workers_subscribe_late_as_consumers_do() -> None:
    async with Topology() as topology:
        numbers = topology.start(Counter())
        workers = Workers(Bench(), shutdown=0)
        handle = topology.start(workers)
        with pytest.raises(ConfigError, match="max_demand"):
            numbers.with_options(max_demand=0)
        with pytest.raises(ConfigError, match="consumer"):
            topology.start(Workers(Bench(), shutdown=0), subscribe_to=handle)
        subscription = await handle.subscribe(numbers.with_options(max_demand=2))
        assert isinstance(subscription, Subscription)
        await turns_until(lambda: len(workers.children) == 2)
        subscription.cancel()


async def test_more_events_than_asked_for_are_worked_on_and_end_the_subscription() -> None:
    topology, signals = watched()
    async with topology:
        shop = await Shop(topology).open(max_demand=1, cancel="temporary")
        shop.give("a", "b")
        await shop.bench.started.reach(2)
        await shop.source.first(Cancel)
        assert kinds(signals) == ["protocol-error"]
        shop.bench.finish("a", "b")


# --- events ----------------------------------------------------------------------------------


@pytest.mark.conformance("GS-163")
async def test_events_start_children_in_order() -> None:
    async with Topology() as topology:
        shop = await Shop(topology).open(max_demand=10)
        shop.give(*range(5))
        shop.give(*range(5, 10))
        assert await shop.bench.started.reach(10) == list(range(10))
        shop.bench.finish(*range(10))


@pytest.mark.conformance("GS-164")
async def test_workers_take_the_events_of_an_iterable() -> None:
    done: list[int] = []
    async with Topology() as topology:
        numbers = topology.start(IterableStage(range(100)))
        topology.start(Workers(done.append), subscribe_to=numbers.with_options(max_demand=7))
        await within(topology)
    assert sorted(done) == list(range(100))


@pytest.mark.conformance("GS-165")
async def test_max_demand_1_never_has_two_children() -> None:
    async with Topology() as topology:
        bench = Bench()
        topology.start(
            Workers(bench, shutdown=0),
            subscribe_to=topology.start(Counter()).with_options(max_demand=1),
        )
        for number in range(5):
            await bench.started.reach(number + 1)
            bench.finish(number)
        assert bench.started[:5] == [0, 1, 2, 3, 4]
        assert bench.most == 1


@pytest.mark.conformance("GS-167")
@pytest.mark.parametrize("reason", [NORMAL, SHUTDOWN, Reason("failed", ValueError("gone"))])
async def test_children_live_on_after_a_producer_has_gone(reason: Reason) -> None:
    topology, _ = watched()
    async with topology:
        shop = await Shop(topology).open(max_demand=2, cancel="temporary")
        shop.give("a")
        await shop.bench.started.reach(1)
        shop.end(reason)
        await shop.settled()
        assert [child.event for child in shop.workers.children] == ["a"]
        shop.bench.finish("a")
        await shop.settled()
        assert shop.outcomes == [(["a"], "done", None)]


@pytest.mark.conformance("GS-167")
async def test_when_its_producers_end_normally_the_stage_ends_with_its_last_child() -> None:
    topology, signals = watched()
    async with topology:
        shop = await Shop(topology, shutdown=0).open(max_demand=4)
        shop.give("a", "b")
        await shop.bench.started.reach(2)
        shop.end()
        await shop.settled()
        shop.bench.finish("a")
        await shop.settled()
        assert shop.handle is not None
        assert shop.handle.alive
        by_hand = shop.workers.start("c")  # it serves on meanwhile
        await shop.bench.started.reach(3)
        shop.bench.finish("b", "c")
        assert (await asyncio.wait_for(shop.handle.wait(), PATIENCE)).kind == "normal"
        assert by_hand.state == "done"
    assert shop.outcomes == [(["a", "b"], "done", None)]
    assert signals == []


@pytest.mark.conformance("GS-168")
async def test_3_of_2_accepts_two_more_after_two_ends() -> None:
    async with Topology() as topology:
        bench = Bench()
        numbers = topology.start(Counter())
        topology.start(
            Workers(bench, shutdown=0),
            subscribe_to=numbers.with_options(max_demand=3, min_demand=2),
        )
        await bench.started.reach(3)
        bench.finish(0)
        await quiet(topology, bench.started)
        assert len(bench.started) == 3
        bench.finish(1)
        await quiet(topology, bench.started)
        assert bench.started == [0, 1, 2, 3, 4]


@pytest.mark.conformance("GS-169")
async def test_3_of_0_asks_for_nothing_before_a_child_has_ended() -> None:
    async with Topology() as topology:
        shop = await Shop(topology).open(max_demand=3, min_demand=0)
        shop.give("a", "b", "c")
        await shop.bench.started.reach(3)
        await shop.settled()
        assert shop.asks == [3]
        shop.bench.finish("b")
        await shop.settled()
        assert shop.asks == [3, 1]
        shop.bench.finish("a", "c")


@pytest.mark.conformance("GS-170")
@pytest.mark.parametrize(
    ("most", "least", "ends", "asks"),
    [
        (10, 2, [1, 1, 1, 1], [10, 2, 2]),
        (10, 8, [7, 1], [10, 8]),
        (4, 0, [1, 1, 1], [4, 1, 1, 1]),
        (10, 2, [5], [10, 5]),
    ],
)
async def test_it_asks_for_as_many_as_have_ended_when_they_are_enough(
    most: int, least: int, ends: list[int], asks: list[int]
) -> None:
    async with Topology() as topology:
        shop = await Shop(topology).open(max_demand=most, min_demand=least)
        shop.give(*range(most))
        await shop.bench.started.reach(most)
        numbers = iter(range(most))
        for count in ends:
            shop.bench.finish(*(next(numbers) for _ in range(count)))
            await shop.settled()
        assert shop.asks == asks
        shop.bench.finish(*numbers)


@pytest.mark.conformance("GS-165")
async def test_max_demand_bounds_each_subscription_by_itself() -> None:
    async with Topology() as topology:
        bench = Bench()
        several: Iterable[Any] = [
            topology.start(Counter(start)).with_options(max_demand=2) for start in (0, 100)
        ]
        topology.start(Workers(bench, shutdown=0), subscribe_to=several)
        await bench.started.reach(4)
        await quiet(topology, bench.started)
        assert sorted(bench.started) == [0, 1, 100, 101]
        bench.finish(0, 1)
        await bench.started.reach(6)
        await quiet(topology, bench.started)
        assert sorted(bench.started[4:]) == [2, 3]


# --- outcomes --------------------------------------------------------------------------------


async def test_an_event_is_done_when_its_child_is() -> None:
    async with Topology() as topology:
        shop = await Shop(topology).open(max_demand=4)
        shop.give("a")
        shop.give("b")
        await shop.bench.started.reach(2)
        shop.bench.finish("b")
        await shop.settled()
        assert shop.outcomes == [(["b"], "done", None)]
        shop.bench.finish("a")
        await shop.settled()
        assert shop.outcomes[1:] == [(["a"], "done", None)]


async def test_many_failures_of_one_turn_are_one_signal() -> None:
    signals: list[Signal] = []
    async with Topology(observer=signals.append) as topology:
        shop = await Shop(topology).open(max_demand=5)
        shop.give(*range(5))
        await shop.bench.started.reach(5)
        shop.bench.fail(*range(5))
        await shop.settled()
    assert [(one.kind, one.count) for one in signals] == [("stage-failed", 5)]
    assert shop.outcomes[0][1] == "failed"


async def test_a_child_shows_what_it_is() -> None:
    child = Child("secret", "send-1")
    assert repr(child) == "<Child send-1 working>"
