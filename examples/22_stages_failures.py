"""Stages that fail: what is restarted with what, and when it is too much."""

import asyncio

import penstock
from penstock.stages import Consumer, Producer, Subscription, Topology

rows = iter(range(1, 9))


class Feed(Producer[int]):
    """Gives rows out, one at a time; its connection breaks at row 3."""

    def handle_start(self) -> None:
        print("Feed connects")

    def handle_demand(self, demand: int) -> list[int]:
        row = next(rows)
        if row == 3:
            raise ConnectionError("gone")
        return [row]


class Store(Consumer[int]):
    def handle_events(self, events: list[int], source: Subscription) -> None:
        if events[0] in (5, 7):  # no room for these
            raise ValueError("too large")
        print("stored", *events)


def heard(signal: penstock.Signal) -> None:
    print(f"[{signal.severity}] {signal.kind}: {signal.stage}")


async def main() -> None:
    # `rest_for_one` restarts a stage with those started after it: so start producers first.
    # What is to be restarted is made anew: give the class. Rows 3, 5 and 7 go down with a stage.
    topology = Topology(strategy="rest_for_one", max_restarts=2, max_seconds=60, observer=heard)
    feed = topology.start(Feed, restart="transient")
    topology.start(Store, subscribe_to=feed.with_options(max_demand=1), restart="transient")
    try:
        await topology.run()
    except penstock.StageError as error:
        print(error.__cause__)
        print(str(error).rpartition(", and ")[2])


asyncio.run(main())

# Prints:
#  | Feed connects
#  | stored 1
#  | stored 2
#  | [warning] stage-restarted: Feed
#  | Feed connects
#  | stored 4
#  | [warning] stage-restarted: Store
#  | stored 6
#  | Store.handle_events raised ValueError: too large
#  | may not be restarted: that would be more than 2 restarts in 60 s
