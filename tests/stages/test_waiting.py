"""What a finishing stage says when it cannot end: it holds events, and nobody is there for them."""

from __future__ import annotations

import asyncio

import pytest

from penstock.stages import (
    BroadcastDispatcher,
    Consumer,
    IterableStage,
    PartitionDispatcher,
    Producer,
    ProducerConsumer,
    Topology,
)
from stages.fixtures import Counter, Forwarder, emit, quiet, watched


async def test_a_stage_without_consumers_says_once_what_it_waits_with() -> None:
    topology, signals = watched()
    async with topology:
        counter = topology.start(Counter(), name="spring")
        await emit(counter, [1, 2, 3])
        counter.finish()
        await quiet(topology)
        counter.info("look again")
        await quiet(topology)
        assert counter.alive
        waiting = [signal for signal in signals if signal.kind == "stage-waiting"]
        assert [(signal.stage, signal.count) for signal in waiting] == [("spring", 3)]
        topology.start(late := Forwarder(), subscribe_to=counter)
        assert await late.reach(3) == [1, 2, 3]
        await topology.wait()


async def test_a_partition_without_a_consumer_is_named_too() -> None:
    topology, signals = watched()
    async with topology:
        dispatcher = PartitionDispatcher(2, hash=lambda event: event % 2)
        numbers = topology.start(IterableStage(range(4)), dispatcher=dispatcher)
        topology.start(even := Forwarder(), subscribe_to=numbers.with_options(partition=0))
        assert await even.reach(2) == [0, 2]
        with pytest.raises(TimeoutError, match=r"IterableStage \(2 buffered"):
            await topology.drain(timeout=0.05)
        assert [s.count for s in signals if s.kind == "stage-waiting"] == [2]


async def test_a_stage_that_finishes_with_consumers_says_nothing() -> None:
    topology, signals = watched()
    async with topology:
        numbers = topology.start(IterableStage(range(40)))
        topology.start(slow := Forwarder(), subscribe_to=numbers.with_options(max_demand=2))
        assert len(await slow.reach(40)) == 40
        await topology.wait()
    assert "stage-waiting" not in [signal.kind for signal in signals]


async def test_nothing_flows_before_all_that_start_together_have_subscribed() -> None:
    """Also where one of them takes its time to start."""
    may_start = asyncio.Event()

    class Slow(Consumer[int]):
        def __init__(self) -> None:
            self.seen: list[int] = []

        async def handle_start(self) -> None:
            await may_start.wait()

        def handle_events(self, events: list[int], source: object) -> None:
            self.seen += events

    async with Topology() as topology:
        numbers = topology.start(IterableStage(range(5)), dispatcher=BroadcastDispatcher())
        topology.start(quick := Forwarder(), subscribe_to=numbers)
        topology.start(slow := Slow(), subscribe_to=numbers)
        await quiet(topology)
        assert not quick.events
        may_start.set()
        await topology.ready()
        await topology.wait()
    assert quick.events == slow.seen == [0, 1, 2, 3, 4]


async def test_a_stage_that_cannot_start_holds_nobody_up() -> None:
    class Broken(Consumer[int]):
        def handle_start(self) -> None:
            raise OSError("no such thing")

    topology, signals = watched()
    async with topology:
        numbers = topology.start(IterableStage(range(5)))
        topology.start(Broken(), subscribe_to=numbers, restart="temporary")
        topology.start(other := Forwarder(), subscribe_to=numbers)
        assert await other.reach(5) == [0, 1, 2, 3, 4]
        await topology.wait()
    assert "stage-failed" in [signal.kind for signal in signals]


async def test_last_words_are_served_before_a_stage_ends() -> None:
    """A producer that keeps events of its own, and a stage between that gathers them."""

    class Desk(Producer[int]):
        def handle_demand(self, demand: int) -> None:
            pass

        def handle_finish(self) -> None:
            self.emit([1, 2, 3])

    class Sum(ProducerConsumer[int, int]):
        total = 0

        def handle_events(self, events: list[int], source: object) -> None:
            self.total += sum(events)

        async def handle_finish(self) -> None:
            self.emit([self.total])

    async with Topology() as topology:
        desk = topology.start(Desk())
        total = topology.start(Sum(), subscribe_to=desk)
        topology.start(end := Forwarder(), subscribe_to=total)
        await topology.drain()
    assert end.events == [6]
