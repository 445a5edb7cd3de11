"""Stages that own a part each: all events of a key go to the same consumer, in order."""

import asyncio

from penstock import stages
from penstock.stages import PartitionDispatcher, Route, Topology

Order = tuple[str, int]
orders = [(customer, number) for number in range(1, 4) for customer in ("ann", "bob", "tom")]


class Show(stages.Consumer[Order]):
    """Says what it was called with."""

    def handle_events(self, events: list[Order], source: stages.Subscription) -> None:
        print(f"{self.name}:", *[f"{customer}-{number}" for customer, number in events])


def customer_of(order: Order) -> str:
    return order[0]


def desk_of(order: Order) -> str | Route | None:
    customer, number = order
    if customer == "tom":
        return None  # nobody gets it; it costs no demand
    if number > 2:
        return Route((customer.upper(), number), "late")  # another event, to that partition
    return "early"


async def share(dispatcher: PartitionDispatcher, *partitions: int | str) -> None:
    async with Topology() as topology:
        source = topology.start(stages.IterableStage(orders), dispatcher=dispatcher)
        for partition in partitions:  # each needs a consumer, and has one at a time
            to = source.with_options(partition=partition)
            topology.start(Show(), name=f"partition {partition}", subscribe_to=to)
        await topology.wait()


async def main() -> None:
    print("by key, with a hash that never changes:")
    await share(PartitionDispatcher(2, key=customer_of), 0, 1)
    print("by name, with a function of one's own:")
    await share(PartitionDispatcher(["early", "late"], hash=desk_of), "early", "late")


asyncio.run(main())

# Prints:
#  | by key, with a hash that never changes:
#  | partition 0: bob-1 bob-2 bob-3
#  | partition 1: ann-1 tom-1 ann-2 tom-2 ann-3 tom-3
#  | by name, with a function of one's own:
#  | partition early: ann-1 bob-1 ann-2 bob-2
#  | partition late: ANN-3 BOB-3
