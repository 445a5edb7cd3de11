"""Stages that share work: each event goes to one consumer, the one that has asked for most."""

import asyncio

from penstock.stages import Consumer, DemandDispatcher, IterableStage, Subscription, Topology

warm = asyncio.Event()


class Baker(Consumer[str]):
    """Bakes what it gets; bob's oven is cold until the rolls are done."""

    async def handle_events(self, events: list[str], source: Subscription) -> None:
        for order in events:
            if self.name == "bob":
                await warm.wait()
            print(self.name, "bakes", order)
            if order == "rolls":
                warm.set()


async def main() -> None:
    # Who is free asks for more, and gets it: bob holds up nobody but himself.
    async with Topology() as topology:
        orders = topology.start(IterableStage(["bread", "cake", "pie", "rolls"]))
        for name in ["ann", "bob"]:
            topology.start(Baker(), name=name, subscribe_to=orders.with_options(max_demand=1))
        await topology.wait()

    # Three producers of one order each: all begin with ann, unless they shuffle.
    for shuffle in (False, True):
        print("shuffled:" if shuffle else "as subscribed:")
        async with Topology() as topology:
            bakers = [topology.start(Baker(), name=name) for name in ["ann", "cyd", "dan"]]
            for number in range(3):
                scones = IterableStage([f"scone {number}"])
                dispatcher = DemandDispatcher(shuffle=shuffle)
                one = topology.start(scones, dispatcher=dispatcher, demand="accumulate")
                for baker in bakers:
                    await baker.subscribe(one.with_options(cancel="temporary"))
                one.demand("forward")  # now that all bakers have subscribed
                await one.wait()
            await topology.wait()


asyncio.run(main())

# Prints:
#  | ann bakes bread
#  | ann bakes pie
#  | ann bakes rolls
#  | bob bakes cake
#  | as subscribed:
#  | ann bakes scone 0
#  | ann bakes scone 1
#  | ann bakes scone 2
#  | shuffled:
#  | cyd bakes scone 0
#  | ann bakes scone 1
#  | ann bakes scone 2
