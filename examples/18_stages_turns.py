"""Stages that take turns: an emission is spread evenly over the consumers that have asked."""

import asyncio

from penstock import stages
from penstock.stages import DemandDispatcher, Dispatcher, RoundRobinDispatcher, Topology


class Desk(stages.Producer[int]):
    """Emits what it is given by `cast`, many at once."""

    def handle_demand(self, demand: int) -> None: ...

    def handle_cast(self, request: range) -> None:
        self.emit(request)


class Clerk(stages.Consumer[int]):
    def handle_events(self, events: list[int], source: stages.Subscription) -> None:
        print(self.name, events)


async def emit(dispatcher: Dispatcher, room: dict[str, int]) -> None:
    async with Topology() as topology:
        desk = topology.start(Desk(), dispatcher=dispatcher)
        for name, most in room.items():
            clerk = topology.start(Clerk(), name=name)
            await clerk.subscribe(desk.with_options(max_demand=most, min_demand=0))
        desk.cast(range(8))
        await topology.drain()


async def main() -> None:
    equal = {"ann": 8, "bob": 8, "cyd": 8}
    print("by demand, the default:")  # the first has room for all
    await emit(DemandDispatcher(), equal)
    print("in turns:")
    await emit(RoundRobinDispatcher(), equal)
    print("in turns of two:")
    await emit(RoundRobinDispatcher(per_turn=2), equal)
    print("in turns, with room for one:")  # who has no room is passed over
    await emit(RoundRobinDispatcher(), {"ann": 8, "bob": 1})


asyncio.run(main())

# Prints:
#  | by demand, the default:
#  | ann [0, 1, 2, 3, 4, 5, 6, 7]
#  | in turns:
#  | ann [0, 3, 6]
#  | bob [1, 4, 7]
#  | cyd [2, 5]
#  | in turns of two:
#  | ann [0, 1, 6, 7]
#  | bob [2, 3]
#  | cyd [4, 5]
#  | in turns, with room for one:
#  | ann [0, 2, 3, 4, 5, 6, 7]
#  | bob [1]
