"""What workers take and ask for, and what becomes of the events."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from penstock import Signal
from penstock.stages import Topology
from penstock.stages.crew import Child
from penstock.stages.protocol import (
    NORMAL,
    SHUTDOWN,
    Reason,
)
from penstock.stages.sources import IterableStage
from penstock.stages.workers import Workers
from stages.fixtures import PATIENCE, Counter, quiet, watched, within
from stages.test_workers import Bench, Shop


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
    assert shop.outcomes == [([name], "done", None) for name in ("a", "b")]
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


async def test_an_event_that_fails_fails_alone() -> None:
    """Though it came in one message with others."""
    async with Topology(observer=lambda _: None) as topology:
        shop = await Shop(topology).open(max_demand=4)
        shop.give("a", "b", "c")
        await shop.bench.started.reach(3)
        shop.bench.fail("b")
        await shop.settled()
        shop.bench.finish("a")
        shop.bench.finish("c")
        await shop.settled()
    outcomes = [(events, kind) for events, kind, _ in shop.outcomes]
    assert outcomes == [(["b"], "failed"), (["a"], "done"), (["c"], "done")]


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
