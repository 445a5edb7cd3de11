"""WorkerMap on tasks: order, demand, failures, the end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock import ConfigError, StageError
from penstock.rules.trace import Fresh
from penstock.stages import PartitionDispatcher, StageHandle, Topology
from penstock.stages.protocol import NORMAL, Ask, Cancelled, Events, Subscribe
from penstock.stages.sources import IterableStage
from penstock.stages.workers import WorkerMap
from stages.fixtures import PATIENCE, Counter, Forwarder, Stranger, kinds, quiet, watched, within
from stages.test_workers import Bench


class Mill:
    """A WorkerMap between two strangers: one gives events to it, one asks it for results."""

    def __init__(self, topology: Topology, work: Any = None, **options: Any) -> None:
        self.topology = topology
        self.bench = work or Bench()
        self.source, self.sink = Stranger("source"), Stranger("sink")
        self.map: WorkerMap[Any, Any] = WorkerMap(self.bench, **{"shutdown": 0, **options})
        self.handle: StageHandle[Any] | None = None
        self.outcomes: list[tuple[list[Any], str, Any]] = []

    async def open(self, *, ask: int = 1000, restart: Any = "never", **to: Any) -> Mill:
        """Start it; returns when it has asked, and was asked for *ask* results."""
        self.handle = self.topology.start(
            self.map, subscribe_to=self.source.to(**to), restart=restart
        )
        await self.source.first(Ask)
        self.sink_tag = self.sink.subscribe(self.handle, ask=ask)
        await quiet(self.topology)
        return self

    def give(self, *events: Any) -> None:
        assert self.handle is not None
        tag = self.source.of(Subscribe)[0].tag
        carrier = Fresh(
            lambda events, kind, error: self.outcomes.append((list(events), kind, error))
        )
        self.handle.send(Events(tag, list(events), carrier))

    @property
    def asks(self) -> list[int]:
        return [ask.demand for ask in self.source.of(Ask)]

    @property
    def messages(self) -> list[list[Any]]:
        """What came out, message by message."""
        return [message.events for message in self.sink.of(Events)]

    async def settled(self) -> None:
        await quiet(self.topology, self.source.messages, self.sink.messages, self.bench.started)

    def take(self) -> None:
        """The results have been handled."""
        for message in self.sink.of(Events):
            if message.carrier is not None:
                message.carrier.finish(message.events)


async def test_work_on_the_events_of_a_batch_runs_at_the_same_time() -> None:
    async with Topology() as topology:
        mill = await Mill(topology).open(max_demand=4)
        mill.give(*"abcd")
        assert await mill.bench.started.reach(4) == list("abcd")
        assert mill.bench.most == 4


async def test_results_come_in_the_order_of_their_events() -> None:
    async with Topology() as topology:
        mill = await Mill(topology).open(max_demand=4)
        mill.give("a", "b")
        mill.give("c", "d")
        await mill.bench.started.reach(4)
        mill.bench.finish("b", "d", "c")
        await mill.settled()
        assert mill.sink.events == []
        mill.bench.finish("a")
        assert await mill.sink.reach(4) == list("abcd")


async def test_unordered_results_come_as_they_are_done_those_of_one_turn_together() -> None:
    async with Topology() as topology:
        mill = await Mill(topology, ordered=False).open(max_demand=4)
        mill.give("a", "b", "c", "d")
        await mill.bench.started.reach(4)
        mill.bench.finish("d", "b")
        await mill.settled()
        assert mill.messages == [["d", "b"]]
        mill.bench.finish("a", "c")
        await mill.settled()
        assert mill.messages == [["d", "b"], ["a", "c"]]


async def test_the_order_is_that_of_each_subscription_and_one_does_not_wait_for_another() -> None:
    async with Topology() as topology:
        bench, sink = Bench(), Forwarder()
        several = [topology.start(Counter(start)).with_options(max_demand=2) for start in (0, 100)]
        both = topology.start(WorkerMap(bench, shutdown=0), subscribe_to=several)
        topology.start(sink, subscribe_to=both)
        await bench.started.reach(4)
        bench.finish(101, 100)  # 0 and 1 are not done
        assert await sink.reach(2) == [100, 101]


async def test_none_is_a_result_like_others() -> None:
    def nothing(_: int) -> None:
        return None

    topology, sink = Topology(), Forwarder()
    numbers = topology.start(IterableStage(range(3)))
    topology.start(sink, subscribe_to=topology.start(WorkerMap(nothing), subscribe_to=numbers))
    async with topology:
        await within(topology)
    assert sink.events == [None, None, None]


@pytest.mark.parametrize("ordered", [True, False])
async def test_everything_comes_out_once_and_the_end_waits_for_the_last_result(
    ordered: bool,
) -> None:
    async def work(number: int) -> int:
        for _ in range(number * 7 % 5):
            await asyncio.sleep(0)
        return number * 10

    topology, sink = Topology(), Forwarder()
    numbers = topology.start(IterableStage(range(500)))
    results = topology.start(
        WorkerMap(work, ordered=ordered), subscribe_to=numbers.with_options(max_demand=20)
    )
    topology.start(sink, subscribe_to=results.with_options(max_demand=7))
    async with topology:
        await within(topology)
    found = sink.events if ordered else sorted(sink.events)
    assert found == [number * 10 for number in range(500)]


async def test_a_drain_gives_out_all_that_was_taken() -> None:
    topology, signals = watched()
    async with topology:
        bench, sink = Bench(), Forwarder()
        numbers = topology.start(Counter())
        results = topology.start(
            WorkerMap(bench, shutdown=0), subscribe_to=numbers.with_options(max_demand=5)
        )
        topology.start(sink, subscribe_to=results)
        await bench.started.reach(5)
        draining = asyncio.ensure_future(topology.drain(PATIENCE))
        await quiet(topology)
        assert not draining.done()
        bench.finish(*range(5))
        await draining
        assert sink.events == [0, 1, 2, 3, 4]
    assert signals == []


# --- demand ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
async def test_never_more_than_max_demand_is_taken_and_unfinished(ordered: bool) -> None:
    async with Topology() as topology:
        bench, sink = Bench(), Forwarder()
        numbers = topology.start(Counter())
        results = topology.start(
            WorkerMap(bench, ordered=ordered, shutdown=0),
            subscribe_to=numbers.with_options(max_demand=6),
        )
        topology.start(sink, subscribe_to=results)
        for turn in range(20):
            await bench.started.reach(6)
            bench.finish(max(bench.working) if turn % 2 else min(bench.working))
            await quiet(topology, bench.started)
            assert len(bench.started) - len(sink.events) <= 6


async def test_it_asks_again_when_min_demand_is_left_for_as_many_as_were_given_out() -> None:
    async with Topology() as topology:
        mill = await Mill(topology).open(max_demand=10, min_demand=7)
        mill.give(*range(10))
        await mill.bench.started.reach(10)
        mill.bench.finish(0, 1)
        await mill.settled()
        assert mill.asks == [10]
        mill.bench.finish(3)  # behind 2, which is not done
        await mill.settled()
        assert mill.asks == [10]
        mill.bench.finish(2)
        await mill.settled()
        assert mill.asks == [10, 4]


async def test_without_demand_nothing_is_worked_on() -> None:
    async with Topology() as topology:
        mill = await Mill(topology).open(ask=0, max_demand=4)
        mill.give("a", "b")
        await mill.settled()
        assert mill.bench.started == []
        assert mill.handle is not None
        mill.handle.send(Ask(mill.sink_tag, 2))
        assert await mill.bench.started.reach(2) == ["a", "b"]


async def test_what_nobody_asked_for_waits_and_is_not_asked_for_again() -> None:
    async with Topology() as topology:
        sink = Stranger()
        numbers = topology.start(Counter())
        results = topology.start(
            WorkerMap(lambda number: number), subscribe_to=numbers.with_options(max_demand=8)
        )
        sink.subscribe(results, ask=3)
        await sink.reach(3)
        await quiet(topology)
        assert sink.events == [0, 1, 2]
        figures = results.statistics()
        assert figures.buffered + figures.queued <= 16


# --- failures and outcomes -------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
async def test_work_that_fails_ends_the_stage_with_the_place_and_the_cause(ordered: bool) -> None:
    topology, signals = watched()
    async with topology:
        mill = Mill(topology, ordered=ordered, shutdown=None)
        await mill.open(max_demand=4, restart="temporary")
        mill.give("x")
        mill.give("a", "b", "c")
        await mill.bench.started.reach(4)
        mill.bench.fail("b")
        assert mill.handle is not None
        reason = await mill.handle.wait()
    assert isinstance(reason.error, StageError)
    text = str(reason.error)
    assert "Bench-3 failed on event 1 (of 3 in its batch, counted from 0) from source" in text
    assert text.endswith("ValueError: bad b")
    assert isinstance(reason.error.__cause__, ValueError)
    assert sorted(mill.bench.stopped) == ["a", "c", "x"]  # nobody waits for those
    assert [one.count for one in signals if one.kind == "events-returned"] == [3]
    assert sorted((events, kind) for events, kind, _ in mill.outcomes) == [
        (["a", "b", "c"], "failed"),
        (["x"], "returned"),
    ]


async def test_transient_work_is_tried_again_and_keeps_its_place_in_the_order() -> None:
    topology, signals = watched()
    async with topology:
        mill = await Mill(topology, restart="transient").open(max_demand=2)
        mill.give("a", "b")
        await mill.bench.started.reach(2)
        mill.bench.finish("b")
        mill.bench.fail("a")
        await mill.bench.started.reach(3)
        assert mill.asks == [2]
        mill.bench.finish("a")
        assert await mill.sink.reach(2) == ["a", "b"]
        assert kinds(signals) == ["stage-restarted"]


async def test_transient_work_that_fails_too_often_says_where_it_was() -> None:
    topology, _ = watched()
    async with topology:
        mill = Mill(topology, restart="transient", max_restarts=1)
        await mill.open(max_demand=2, restart="temporary")
        mill.give("a", "b")
        for times in (2, 3):
            await mill.bench.started.reach(times)
            mill.bench.fail("b")
        assert mill.handle is not None
        reason = await mill.handle.wait()
    assert "event 1 (of 2" in str(reason.error)
    assert "1 restarts in 5.0 s" in str(reason.error)


async def test_events_are_done_when_their_results_are() -> None:
    async with Topology() as topology:
        mill = await Mill(topology).open(max_demand=4)
        mill.give("a", "b")
        await mill.bench.started.reach(2)
        mill.bench.finish("a", "b")
        await mill.sink.reach(2)
        await mill.settled()
        assert mill.outcomes == []
        mill.take()
        assert mill.outcomes == [(["a", "b"], "done", None)]


async def test_a_failing_consumer_fails_the_events_that_led_to_its_own() -> None:
    async with Topology() as topology:
        mill = await Mill(topology, ordered=False).open(max_demand=4)
        mill.give("a", "b")
        mill.give("c")
        await mill.bench.started.reach(3)
        mill.bench.finish("a", "b", "c")
        await mill.sink.reach(3)
        message = mill.sink.of(Events)[0]
        assert message.events == ["a", "b"]
        message.carrier.fail(message.events, ValueError("no"))
        assert [(events, kind) for events, kind, _ in mill.outcomes] == [(["a", "b"], "failed")]


async def test_a_stage_that_is_closed_returns_what_it_has_not_given_out() -> None:
    topology, signals = watched()
    async with topology:
        mill = await Mill(topology).open(max_demand=4)
        mill.give("a", "b")
        mill.give("c")
        await mill.bench.started.reach(3)
        mill.bench.finish("b")
        await mill.settled()
    assert sorted(mill.bench.stopped) == ["a", "c"]
    assert sorted((events, kind) for events, kind, _ in mill.outcomes) == [
        (["a", "b"], "returned"),
        (["c"], "returned"),
    ]
    assert [(one.kind, one.count) for one in signals] == [("events-returned", 3)]


async def test_results_that_come_within_shutdown_are_still_given_out() -> None:
    topology, signals = watched()
    async with topology:
        mill = await Mill(topology, shutdown=None).open(max_demand=2)
        mill.give("a", "b")
        await mill.bench.started.reach(2)
        closing = asyncio.ensure_future(topology.aclose())
        for _ in range(5):
            await asyncio.sleep(0)
        mill.bench.finish("b", "a")
        await closing
        assert mill.sink.events == ["a", "b"]
        assert signals == []


async def test_a_dispatcher_that_fails_on_a_result_ends_the_stage_and_not_the_loop() -> None:
    def route(number: int) -> int:
        raise LookupError(number)

    topology, _ = watched()
    async with topology:
        numbers = topology.start(IterableStage(range(3)))
        results = topology.start(
            WorkerMap(lambda number: number),
            subscribe_to=numbers,
            dispatcher=PartitionDispatcher(1, hash=route),
            restart="temporary",
        )
        topology.start(
            Forwarder(), subscribe_to=results.with_options(partition=0, cancel="temporary")
        )
        reason = await asyncio.wait_for(results.wait(), PATIENCE)
    assert reason.kind == "failed"
    assert "LookupError" in str(reason.error)


async def test_events_of_a_producer_that_has_gone_are_worked_on_to_their_end() -> None:
    async with Topology() as topology:
        mill = await Mill(topology).open(max_demand=2, cancel="temporary")
        mill.give("a", "b")
        await mill.bench.started.reach(2)
        assert mill.handle is not None
        mill.handle.send(Cancelled(mill.source.of(Subscribe)[0].tag, NORMAL.as_down()))
        await mill.settled()
        mill.bench.finish("b", "a")
        assert await mill.sink.reach(2) == ["a", "b"]
        assert mill.asks == [2]


def test_a_map_needs_work() -> None:
    with pytest.raises(ConfigError, match="a function of one event"):
        WorkerMap(3)  # type: ignore[call-overload]
