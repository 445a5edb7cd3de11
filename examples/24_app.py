"""An App: a handler and a URL. Results go into another stream, whose handler runs beside it."""

import asyncio
import threading

import msgspec

import penstock


class Order(msgspec.Struct):
    id: int
    cents: int


class Invoice(msgspec.Struct):
    order: int
    due: str


app = penstock.App()
posted = threading.Event()


@app.on("orders", group="billing", into="invoices", concurrency=16)
async def bill(order: Order) -> Invoice | None:
    return Invoice(order.id, f"{order.cents / 100:.2f}") if order.cents else None


@app.on("invoices", group="post")
def post(event: penstock.Event[Invoice]) -> None:  # a plain function: in a thread
    print(f"order {event.value.order} of {event.key}: {event.value.due} due")
    posted.set()


async def main():
    async with app:  # or: penstock run 24_app:app --processes 4
        orders = app.client.stream("orders", type=Order)
        await orders.append(Order(6, 0))
        await orders.append(Order(7, 995), key="customer-3")
        await asyncio.to_thread(posted.wait)
        await app.drain(timeout=5.0)
        print("handled:", app.statistics()["bill"].handled)


asyncio.run(main())

# Prints:
#  | order 7 of customer-3: 9.95 due
#  | handled: 2
