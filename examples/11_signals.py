"""Nothing silent: what no caller waits for is told to observers, or else logged."""

import asyncio

import penstock
from penstock import NEWEST, Retry, Signal


def watch(signal: Signal) -> None:
    """Called at once, from the event loop; it must not wait."""
    print(f"[{signal.severity}] {signal.kind}: stream {signal.stream}, {signal.count}")


async def main() -> None:
    async with penstock.connect(observer=watch) as client:
        orders = client.stream("orders")
        await orders.append({"id": 7})

        # `hold` is the longest that an event may stay in a hand.
        options = {"hold": 0.5, "retry": Retry(first=0.0)}
        async with orders.group("billing", **options) as group:
            first = await group.receive(timeout=5.0)
            again = await group.receive(timeout=5.0)  # … and it was held for too long
            assert first is not None
            assert again is not None
            print("again, attempts:", again.attempts)
            try:
                group.ack(first)
            except penstock.LeaseLost as error:
                print("too late:", str(error).partition(";")[0])
            group.extend(again)  # long work says now and then that it is getting on
            group.ack(again)

        # An existing group goes on where it stands; another `start` is reported, not applied.
        async with orders.group("billing", start=NEWEST):
            pass


asyncio.run(main())

# Prints:
#  | [warning] hold-expired: stream orders, 1
#  | [info] nacked: stream orders, 1
#  | again, attempts: 1
#  | too late: an event must be acked while it is in hand
#  | [info] start-ignored: stream orders, None
