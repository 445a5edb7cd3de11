"""One group, or one reader, over several streams."""

import asyncio
from collections import Counter

import penstock
from penstock import END, OLDEST


async def main() -> None:
    async with penstock.connect() as client:
        orders, refunds = client.stream("orders"), client.stream("refunds")
        await orders.append_many([{"amount": amount} for amount in (10, 20, 30)])
        await refunds.append_many([{"amount": amount} for amount in (5, 6)])

        # Each stream in its own order; between them there is none. Acks go where they belong.
        balance = Counter[str]()
        async with client.group("ledger", [orders, refunds], until=END) as group:
            async for event in group:
                async with group.handling(event):
                    balance[event.stream] += int(event.value["amount"])
        print(sorted(balance.items()))

        async with client.reader([orders, refunds], start=OLDEST, until=END) as reader:
            amounts = [event.value["amount"] async for event in reader if event.stream == "refunds"]
        print("refunds, in order:", amounts)

        for stream in (orders, refunds):
            (about,) = await stream.groups()
            print(stream.name, "has group", about.name, "pending:", about.pending)


asyncio.run(main())

# Prints:
#  | [('orders', 60), ('refunds', 11)]
#  | refunds, in order: ['5', '6']
#  | orders has group ledger pending: 0
#  | refunds has group ledger pending: 0
