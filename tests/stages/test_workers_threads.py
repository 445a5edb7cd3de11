"""Workers and maps on threads."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from penstock import ConfigError
from penstock.stages import Topology
from penstock.stages.sources import IterableStage
from penstock.stages.workers import WorkerMap, Workers
from stages.fixtures import PATIENCE, Forwarder, kinds, watched, within
from stages.test_workers import Shop, turns_until


class Gate:
    """Work in a thread that waits until the test opens it."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.inside = 0
        self.threads: set[str] = set()
        self.started: list[Any] = []

    def __call__(self, event: Any) -> Any:
        self.started.append(event)
        self.threads.add(threading.current_thread().name)
        self.inside += 1
        assert self.open.wait(PATIENCE)
        return event


def ours() -> list[str]:
    """The threads of pools."""
    return [one.name for one in threading.enumerate() if one.name.startswith("penstock")]


async def test_a_map_works_in_as_many_threads_as_it_was_given_and_keeps_the_order() -> None:
    both = threading.Barrier(2)

    def work(number: int) -> tuple[int, str]:
        if number < 2:
            both.wait(PATIENCE)  # so two run at the same time
        return number, threading.current_thread().name

    topology, sink = Topology(), Forwarder()
    numbers = topology.start(IterableStage(range(50)))
    stage = WorkerMap(work, on="threads", workers=2)
    topology.start(sink, subscribe_to=topology.start(stage, subscribe_to=numbers))
    async with topology:
        await within(topology)
    assert [number for number, _ in sink.events] == list(range(50))
    assert len({name for _, name in sink.events}) == 2
    assert "MainThread" not in {name for _, name in sink.events}
    await turns_until(lambda: not ours())


async def test_a_coroutine_function_is_refused_for_threads() -> None:
    async def work(event: Any) -> Any: ...

    with pytest.raises(ConfigError, match="on='tasks'"):
        Workers(work, on="threads")
    with pytest.raises(ConfigError, match="on='tasks'"):
        WorkerMap(work, on="threads")


async def test_a_function_that_returns_a_coroutine_in_a_thread_has_failed() -> None:
    async def inner() -> None: ...

    topology, signals = watched()
    numbers = topology.start(IterableStage([1]))
    topology.start(Workers(lambda _: inner(), on="threads", workers=1), subscribe_to=numbers)
    async with topology:
        await within(topology)
    assert kinds(signals) == ["stage-failed"]
    assert "on='tasks'" in signals[0].message


async def test_failures_in_threads_are_those_of_their_events_alone() -> None:
    def work(number: int) -> None:
        if number % 2:
            raise SystemExit(number)

    topology, signals = watched()
    workers = Workers(work, on="threads", workers=2)
    topology.start(workers, subscribe_to=topology.start(IterableStage(range(10))))
    async with topology:
        await within(topology)
    assert workers.count()[1:4] == (10, 5, 5)
    assert sum(signal.count or 0 for signal in signals) == 5


async def test_closing_drops_what_waits_for_a_thread_and_waits_for_what_runs() -> None:
    topology, _ = watched()
    gate = Gate()
    async with topology:
        shop = Shop(topology, work=gate, on="threads", workers=1, shutdown=None)
        await shop.open(max_demand=3, shutdown=None)
        shop.give("a", "b", "c")
        await turns_until(lambda: gate.inside == 1)
        closing = asyncio.ensure_future(topology.aclose())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not closing.done()
        gate.open.set()
        await closing
    assert gate.started == ["a", "b", "c"]
    assert shop.outcomes == [([name], "done", None) for name in ("a", "b", "c")]
    await turns_until(lambda: not ours())


async def test_a_thread_that_does_not_end_in_time_is_said_and_what_waits_is_returned() -> None:
    topology, signals = watched()
    gate = Gate()
    async with topology:
        shop = Shop(topology, work=gate, on="threads", workers=1, shutdown=0)
        await shop.open(max_demand=3)
        shop.give("a", "b", "c")
        await turns_until(lambda: gate.inside == 1)
    assert kinds(signals) == ["stage-failed", "events-returned"]
    assert "1 threads still run" in signals[0].message
    assert signals[1].count == 3
    assert shop.outcomes == [([name], "returned", None) for name in ("a", "b", "c")]
    gate.open.set()
    await turns_until(lambda: not ours())
    assert gate.started == ["a"]


async def test_transient_work_in_a_thread_is_tried_again() -> None:
    tries: list[int] = []

    def work(number: int) -> int:
        tries.append(number)
        if len(tries) < 3:
            raise ValueError(number)
        return number

    topology, sink = Topology(observer=lambda _: None), Forwarder()
    stage = WorkerMap(work, on="threads", restart="transient")
    results = topology.start(stage, subscribe_to=topology.start(IterableStage([7])))
    topology.start(sink, subscribe_to=results)
    async with topology:
        await within(topology)
    assert tries == [7, 7, 7]
    assert sink.events == [7]
