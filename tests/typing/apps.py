"""Apps as type checkers see them: checked by mypy, never run."""

from __future__ import annotations

from typing import Any, assert_type

import msgspec

import penstock
from penstock import App, AppOutcome, Client, Event, HandlerStatistics, Retry


class Order(msgspec.Struct):
    number: int


class Invoice(msgspec.Struct):
    number: int


app = App("redis://localhost:6379", drain_timeout=10.0, client_name="shop", timeout=2.0)


@app.on("orders", group="billing", into="invoices", concurrency=16, retry=Retry(attempts=3))
async def bill(order: Order) -> Invoice | None:
    if order.number < 0:
        raise penstock.Reject("no such order")
    if order.number == 0:
        raise penstock.RetryLater(60.0)
    return Invoice(order.number)


@app.on(["orders", "refunds"], group="log", share="shards", lease=5.0, where="eu.*")
def log(event: Event[Order]) -> None:
    assert_type(event.value, Order)


@app.on_batch("orders", group="audit", size=1000, within=0.5)
def store(orders: list[Order]) -> None: ...


async def decorating_keeps_types() -> None:
    assert_type(await bill(Order(7)), Invoice | None)
    store([Order(7)])
    await bill("no order")  # type: ignore[arg-type]
    app.on("orders", group="billing", colour="red")  # type: ignore[call-arg]
    app.on("orders")  # type: ignore[call-arg]
    App(color="red")  # type: ignore[call-arg]


async def living() -> None:
    async with app as entered:
        assert_type(entered, App)
        assert_type(app.client, Client)
        assert_type(app.running, bool)
        assert_type(app.statistics(), dict[str, HandlerStatistics])
        await app.wait()
        await app.drain(timeout=5.0)
    assert_type(await app.run(signals=True, url="memory://", drain_timeout=1.0), bool)
    app.include(App())


async def trying() -> None:
    async with app.test() as test:
        outcome = await test.send("orders", Order(7), group="billing", key="k", attempts=5)
        assert_type(outcome, AppOutcome)
        assert_type(outcome.outputs, list[Any])
        assert_type(outcome.error, BaseException | None)
        assert_type(await test.send_batch("orders", [Order(7)]), AppOutcome)
        assert_type(await test.values("invoices"), list[Any])
        await test.clock.advance(60.0)
