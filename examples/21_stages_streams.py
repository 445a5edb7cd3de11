"""From stream to stream through stages: an event is acked when all that came of it is stored."""

import asyncio
from dataclasses import dataclass

import penstock
from penstock import END, Event, Retry, Stream
from penstock.stages import ProducerConsumer, SourceStage, Subscription, TargetStage, Topology


@dataclass
class Order:
    id: int
    lines: list[str]


class Split(ProducerConsumer[Event[Order], str]):
    """Gives out the lines of orders; order 2 cannot be handled at the first attempt."""

    def handle_events(self, events: list[Event[Order]], source: Subscription) -> list[str]:
        for event in events:
            if event.value.id == 2 and event.attempts == 0:
                raise ConnectionError("no answer from the price list")
        return [line for event in events for line in event.value.lines]


async def move(orders: Stream[Order], lines: Stream[str]) -> None:
    group = orders.group("split", until=END, retry=Retry(first=0.0))
    try:
        async with Topology() as topology:
            source = topology.start(SourceStage(group))
            split = topology.start(Split(), subscribe_to=source.with_options(max_demand=1))
            topology.start(TargetStage(lines.writer()), subscribe_to=split)
            await topology.wait()
    except penstock.StageError as error:
        print(error)
    acks = group.statistics()
    print(f"acked {acks.acked}, nacked {acks.nacked}")
    print("stored:", [event.value for event in await lines.read_range()])


async def main() -> None:
    async with penstock.connect() as client:
        orders, lines = client.stream("orders", type=Order), client.stream("lines", type=str)
        await orders.append_many([Order(1, ["tea", "milk"]), Order(2, ["oil"]), Order(3, ["rye"])])
        await move(orders, lines)
        await move(orders, lines)  # what failed comes again, counted; what was not handled, too


asyncio.run(main())

# Prints:
#  | Split.handle_events raised ConnectionError: no answer from the price list
#  | acked 1, nacked 1
#  | stored: ['tea', 'milk']
#  | acked 2, nacked 0
#  | stored: ['tea', 'milk', 'oil', 'rye']
