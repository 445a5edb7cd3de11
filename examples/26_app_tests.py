"""Handlers in tests: in memory, one call at a time, and without waiting for any delay."""

import asyncio

import msgspec

import penstock


class Order(msgspec.Struct):
    id: int


app = penstock.App("redis://production")  # nobody connects to it here


@app.on("orders", group="billing", into="invoices")
async def bill(order: Order) -> list[dict]:
    if order.id == 0:
        raise penstock.Reject("no such order")
    if order.id == 1:
        raise OSError("the line is busy")
    return [{"order": order.id, "copy": copy} for copy in (1, 2)]


async def test_bill():
    assert await bill(Order(7)) == [{"order": 7, "copy": 1}, {"order": 7, "copy": 2}]
    async with app.test() as test:
        outcome = await test.send("orders", Order(7))
        print(outcome.status, outcome.outputs)
        outcome = await test.send("orders", Order(0))
        print(outcome.status, repr(outcome.error))
        outcome = await test.send("orders", Order(1), attempts=5)
        print(outcome.status, "after", outcome.attempts, "failures")


asyncio.run(test_bill())

# Prints:
#  | acked [{'order': '7', 'copy': '1'}, {'order': '7', 'copy': '2'}]
#  | rejected Reject('no such order')
#  | dead-lettered after 5 failures
