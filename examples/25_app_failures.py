"""What a handler raises: again later, never, or not now; and lists, whose bad event is found."""

import asyncio
import logging

import penstock

logging.disable(logging.WARNING)  # failures are logged with their traceback; not here

app = penstock.App()
retry = penstock.Retry(attempts=2, first=0.01)
closed = ["closed"]
billed = {}


@app.on("orders", group="billing", retry=retry)
async def bill(event: penstock.Event[dict]) -> None:
    match event.value["id"]:
        case "1":
            raise penstock.Reject("no such customer")  # a dead letter at once
        case "2" if closed:
            raise penstock.RetryLater(0.01, closed.pop())  # again, and no failure is counted
        case "3" if not event.attempts:
            raise OSError("the line is busy")  # a failure: again, after a delay
    billed[event.value["id"]] = event.attempts


@app.on_batch("orders", group="audit", size=4, within=0.2, retry=retry)
async def store(orders: list[dict]) -> None:
    if any(order["id"] == "2" for order in orders):
        raise ValueError("two is right out")  # comes again in halves, at last alone


async def main():
    async with app:
        await app.client.stream("orders").append_many([{"id": n} for n in range(4)])
        while True:
            billing, audit = app.statistics().values()
            if billing.handled == 3 and audit.handled == 3 and audit.failed > 3:
                break
            await asyncio.sleep(0.01)
        print("billed after failures:", dict(sorted(billed.items())))
        print("rejected:", billing.rejected, "later:", billing.postponed)
        print("stored:", audit.handled)


asyncio.run(main())

# Prints:
#  | billed after failures: {'0': 0, '2': 0, '3': 1}
#  | rejected: 1 later: 1
#  | stored: 3
