"""Appends with terms: once for each id, on top of what was seen, or later; and a cap."""

import asyncio
import time

import penstock


async def main() -> None:
    async with penstock.connect() as client:
        keep = penstock.Retention(cap=5)
        orders = client.stream("orders", retention=keep)

        # A program that does not know whether it was heard sends again, under the same id.
        first = await orders.append({"id": 7}, id="order-7")
        print("the same place:", await orders.append({"id": 7}, id="order-7") == first)
        try:
            await orders.append({"id": 8}, id="order-7")
        except penstock.ConflictError as error:
            print("another order:", error.position == first)

        # Two that decided on the same state: one is right.
        await orders.append({"id": 8}, expect=first)
        try:
            await orders.append({"id": 9}, expect=first)
        except penstock.ConflictError:
            print("something came since")

        # Not before its time; then like any other.
        await orders.append({"id": 10}, deliver_at=time.time() + 0.2)
        print("waiting:", (await orders.info()).delayed, "of", await orders.length() + 1)
        async with orders.reader(start=penstock.OLDEST) as reader:
            print("came:", [(await anext(reader)).value["id"] for _ in range(3)])

        # The cap holds whatever groups need.
        try:
            await orders.append_many([{"id": n} for n in range(11, 15)])
        except penstock.StreamFull:
            print("full with", await orders.length())


asyncio.run(main())

# Prints:
#  | the same place: True
#  | another order: True
#  | something came since
#  | waiting: 1 of 3
#  | came: ['7', '8', '10']
#  | full with 3
