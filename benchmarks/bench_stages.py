"""Stages beside bare tasks: numbers, doubled, summed, in lists of one length.

    make bench, or python benchmarks/bench_stages.py [--events N] [--rounds N] [--json]

Ours: a Producer, a ProducerConsumer and a Consumer in a topology; demand, statistics and all.
Beside it three bare tasks that hand lists of the same length through two `asyncio.Queue(2)`.
"""

from __future__ import annotations

import asyncio
import time

from common import Claim, main

from penstock.stages import Consumer, Producer, ProducerConsumer, Topology


class Numbers(Producer[int]):
    """0, 1, 2, … up to *count*, as many as are asked for."""

    def __init__(self, count: int) -> None:
        self._next, self._count = 0, count

    def handle_demand(self, demand: int) -> list[int]:
        start = self._next
        self._next = end = min(start + demand, self._count)
        if end == self._count:
            self.finish()
        return list(range(start, end))


class Double(ProducerConsumer[int, int]):
    """Twice what comes."""

    def handle_events(self, events: list[int], source: object) -> list[int]:
        return [2 * event for event in events]


class Total(Consumer[int]):
    """The sum of what comes."""

    total = 0

    def handle_events(self, events: list[int], source: object) -> None:
        self.total += sum(events)


def stages(max_demand: int):
    """Stages that ask for so many events at most; they hand on half of that at a time."""

    async def run(_port: int, events: int) -> float:
        total = Total()
        started = time.perf_counter()
        async with Topology() as topology:
            numbers = topology.start(Numbers(events))
            double = topology.start(
                Double(), subscribe_to=numbers.with_options(max_demand=max_demand)
            )
            topology.start(total, subscribe_to=double.with_options(max_demand=max_demand))
            await topology.wait()
        took = time.perf_counter() - started
        assert total.total == events * (events - 1), "something was lost, or came twice"
        return took

    return run


def queues(length: int):
    """Three tasks and two queues, for lists of *length*."""

    async def run(_port: int, events: int) -> float:
        first: asyncio.Queue[list[int] | None] = asyncio.Queue(2)
        second: asyncio.Queue[list[int] | None] = asyncio.Queue(2)
        total = 0

        async def produce() -> None:
            for start in range(0, events, length):
                await first.put(list(range(start, min(start + length, events))))
            await first.put(None)

        async def double() -> None:
            while (numbers := await first.get()) is not None:
                await second.put([2 * number for number in numbers])
            await second.put(None)

        async def consume() -> None:
            nonlocal total
            while (numbers := await second.get()) is not None:
                total += sum(numbers)

        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for part in (produce, double, consume):
                group.create_task(part())
        took = time.perf_counter() - started
        assert total == events * (events - 1)
        return took

    return run


if __name__ == "__main__":
    main(
        "stages",
        {
            "stages, max_demand 1000": stages(1000),
            "bare queues, lists of 500": queues(500),
            "stages, max_demand 100": stages(100),
            "bare queues, lists of 50": queues(50),
        },
        [
            Claim("stages, max_demand 1000", "bare queues, lists of 500", 0.7),
            Claim("stages, max_demand 100", "bare queues, lists of 50", 0.5),
        ],
        events=2_000_000,
        on_server=False,
        what="three stages",
    )
