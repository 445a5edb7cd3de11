"""The API of stages as type checkers see it: checked by mypy, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import assert_type

import msgspec

from penstock import Client, Event
from penstock.stages import (
    BroadcastDispatcher,
    Consumer,
    IterableStage,
    PartitionDispatcher,
    Producer,
    ProducerConsumer,
    Reason,
    SourceStage,
    StageHandle,
    StageStatistics,
    Subscription,
    TargetStage,
    To,
    Topology,
    WorkerMap,
    Workers,
    iterate,
)


class Order(msgspec.Struct):
    number: int


class Numbers(Producer[int]):
    async def handle_demand(self, demand: int) -> Sequence[int]:
        return range(demand)


class Double(ProducerConsumer[int, str]):
    def handle_events(self, events: list[int], source: Subscription) -> list[str]:
        return [str(2 * event) for event in events]

    def handle_finish(self) -> None:
        self.emit(["the end"])
        self.emit([1])  # type: ignore[list-item]


class Store(Consumer[str]):
    async def handle_events(self, events: list[str], source: Subscription) -> None:
        source.cancel("shutdown")

    async def handle_cancel(self, reason: Reason, subscription: Subscription) -> None:
        assert_type(reason.down, bool)


class Wrong(Producer[int]):
    def handle_demand(self, demand: int) -> list[str]:  # type: ignore[override]
        return []


async def running() -> None:
    async with Topology(strategy="rest_for_one") as topology:
        assert_type(topology, Topology)
        numbers = topology.start(Numbers())
        assert_type(numbers, StageHandle[int])
        double = topology.start(Double, subscribe_to=numbers, restart="transient")
        assert_type(double, StageHandle[str])
        to = double.with_options(max_demand=100, cancel="transient", selector=str.isalpha)
        assert_type(to, To)
        store = topology.start(Store(), name="store", subscribe_to=[to, "other"])
        topology.start(Numbers(), dispatcher=BroadcastDispatcher(), demand="accumulate")
        topology.start(Numbers(), dispatcher=PartitionDispatcher(4), buffer_size=None)
        topology.start(Store(), dispatcher=None)  # type: ignore[call-overload]
        double.with_options(cancel="sometimes")  # type: ignore[arg-type]
        assert_type(await store.subscribe(double), Subscription)
        assert_type(await store.wait(), Reason)
        assert_type(store.statistics(), StageStatistics)
        assert_type(topology.statistics(), dict[str, StageStatistics])
        async for event in double.events(max_demand=10):
            assert_type(event, str)
        async for _ in iterate([numbers, double]):
            pass
        await topology.drain(timeout=1.0)


async def adapting(client: Client) -> None:
    async def ticks() -> AsyncIterator[float]:
        yield 1.0

    def length(word: str) -> int:
        return len(word)

    async with Topology() as topology:
        assert_type(topology.start(IterableStage([1, 2])), StageHandle[int])
        assert_type(topology.start(IterableStage(ticks())), StageHandle[float])
        group = client.stream("orders", type=Order).group("billing")
        source = topology.start(SourceStage(group))
        assert_type(source, StageHandle[Event[Order]])
        topology.start(TargetStage(client.stream("copies").writer()), subscribe_to=source)
        assert_type(topology.start(WorkerMap(length)), StageHandle[int])
        topology.start(Workers(length, on="processes", workers=2))
