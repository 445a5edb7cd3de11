"""Append events to a stream, and read them all: what every other example builds on."""

import asyncio

import penstock
from penstock import END, OLDEST


async def main() -> None:
    async with penstock.connect() as client:  # where: $PENSTOCK_URL
        orders = client.stream("orders")

        # It returns when the server has the event. Metadata is optional, and beside the value.
        first = await orders.append({"id": 7, "state": "paid"}, key="customer-3", topic="eu")
        await orders.append({"id": 8, "state": "new"}, headers={"source": "web"})

        # A reader has a cursor of its own: every reader sees every event.
        async with orders.reader(start=OLDEST, until=END) as reader:
            async for event in reader:
                print(event.value, event.key, event.topic or "-", event.headers)

        # A position has an exact text form, for wherever you keep it.
        assert penstock.Position.parse(str(first)) == first
        print("stored:", await orders.length())


asyncio.run(main())

# Prints:
#  | {'id': '7', 'state': 'paid'} customer-3 eu {}
#  | {'id': '8', 'state': 'new'} None - {'source': 'web'}
#  | stored: 2
