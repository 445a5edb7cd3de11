"""Stages that all get every event, or those that they select, at the pace of the slowest."""

import asyncio

from penstock import Signal
from penstock.stages import BroadcastDispatcher, Consumer, IterableStage, Subscription, Topology


class Show(Consumer[dict[str, int]]):
    """Says what it was called with."""

    def handle_events(self, events: list[dict[str, int]], source: Subscription) -> None:
        print(f"{self.name:<6}", *[event["id"] for event in events])


def large(order: dict[str, int]) -> bool:
    return order["price"] > 100


def wrong(order: dict[str, int]) -> bool:
    return order["prize"] > 100


def heard(signal: Signal) -> None:
    print(f"{signal.kind}: {signal.message.partition(':')[2].strip()}")


async def main() -> None:
    prices = [80, 120, 90, 300, 60, 101]
    orders = [{"id": number, "price": price} for number, price in enumerate(prices)]
    async with Topology(observer=heard) as topology:
        # Nothing goes out until all are there: who subscribes later gets what comes later.
        source = topology.start(
            IterableStage(orders), dispatcher=BroadcastDispatcher(), demand="accumulate"
        )
        audit = topology.start(Show(), name="audit")
        await audit.subscribe(source.with_options(max_demand=4, min_demand=0))
        alarm = topology.start(Show(), name="alarm")
        await alarm.subscribe(source.with_options(selector=large))
        # A selector that raises ends its own subscription, and harms nobody else.
        broken = topology.start(Show(), name="broken")
        await broken.subscribe(source.with_options(selector=wrong, cancel="temporary"))

        source.demand("forward")
        await topology.wait()
        print("asked of the source:", source.statistics().calls, "times")


asyncio.run(main())

# Prints:
#  | subscription-refused: IterableStage → broken>: its selector raised KeyError('prize')
#  | audit  0 1 2 3
#  | alarm  1 3
#  | audit  4 5
#  | alarm  5
#  | asked of the source: 2 times
