"""A group: its members share the events, and each event is acked when the work on it is done."""

import asyncio

import penstock
from penstock import END


async def main() -> None:
    async with penstock.connect() as client:
        orders = client.stream("orders")
        await orders.append_many([{"id": number} for number in range(1, 4)])

        # A new group begins at the oldest event, so that nothing is missed.
        async with orders.group("billing", until=END) as group:
            async for event in group:
                async with group.handling(event):  # acks on leaving
                    print("billed", event.value["id"])

        # An existing group goes on where it stands: only what is new comes.
        await orders.append({"id": 4})
        async with orders.group("billing") as group:
            event = await group.receive(timeout=5.0)
            assert event is not None
            print("billed", event.value["id"])
            group.ack(event)  # queues; sent within `ack_interval`, 0.1 s
            await group.flush()  # … or now, if you want to know that it arrived
            print("pending:", len(await group.pending()), "lag:", await group.lag())

        # Another group has its own view of the same stream.
        async with orders.group("audit", until=END) as group:
            print("audited", [event.value["id"] async for event in group])

        # Those were not acked: leaving handed them back, uncounted, and they come again.
        async with orders.group("audit", until=END) as group:
            async for event in group:
                group.ack(event)
                print("again", event.value["id"], "attempts:", event.attempts)


asyncio.run(main())

# Prints:
#  | billed 1
#  | billed 2
#  | billed 3
#  | billed 4
#  | pending: 0 lag: 0
#  | audited ['1', '2', '3', '4']
#  | again 1 attempts: 0
#  | again 2 attempts: 0
#  | again 3 attempts: 0
#  | again 4 attempts: 0
