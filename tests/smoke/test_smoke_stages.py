"""Stages in a second: also run against the built wheel, on every Python that is here."""

from __future__ import annotations

import asyncio

import pytest

import penstock
from penstock.stages import (
    BroadcastDispatcher,
    Consumer,
    IterableStage,
    ProducerConsumer,
    SourceStage,
    TargetStage,
    Topology,
    WorkerMap,
)

pytestmark = pytest.mark.smoke


class Double(ProducerConsumer[int, int]):
    def handle_events(self, events: list[int], source: object) -> list[int]:
        return [2 * event for event in events]


class Total(Consumer[int]):
    total = 0

    async def handle_events(self, events: list[int], source: object) -> None:
        await asyncio.sleep(0)
        self.total += sum(events)


class Copy(ProducerConsumer["penstock.Event[dict[str, str]]", "dict[str, str]"]):
    def handle_events(
        self, events: list[penstock.Event[dict[str, str]]], source: object
    ) -> list[dict[str, str]]:
        return [event.value for event in events]


async def test_numbers_are_doubled_and_summed() -> None:
    """Through a stage between, to several consumers, and back to ``async for``."""
    totals = [Total(), Total()]
    async with Topology() as topology:
        numbers = topology.start(IterableStage(range(5000)))
        double = topology.start(Double(), subscribe_to=numbers, dispatcher=BroadcastDispatcher())
        for total in totals:
            topology.start(total, subscribe_to=double.with_options(max_demand=10))
        await topology.wait()
    assert [total.total for total in totals] == [4999 * 5000] * 2


async def test_work_is_done_side_by_side_and_comes_out_in_order() -> None:
    async with Topology() as topology:
        numbers = topology.start(IterableStage(range(100)))
        lengths = topology.start(
            WorkerMap(str, on="threads", workers=2), subscribe_to=numbers.with_options(max_demand=8)
        )
        assert [event async for event in lengths.events()] == [str(n) for n in range(100)]


async def test_a_stream_is_moved_and_acked_when_all_is_stored() -> None:
    async with penstock.connect("memory://") as client:
        source, target = client.stream("source"), client.stream("target")
        await source.append_many([{"n": n} for n in range(300)])
        async with Topology() as topology:
            group = topology.start(SourceStage(source.group("move", until=penstock.END)))
            copied = topology.start(Copy(), subscribe_to=group.with_options(max_demand=50))
            topology.start(TargetStage(target.writer()), subscribe_to=copied)
            await topology.wait()
        assert await target.length() == 300
        (info,) = await source.groups()
        assert (info.pending, info.lag) == (0, 0)
