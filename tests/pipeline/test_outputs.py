"""Results with metadata: what goes on by itself, and what a handler says with `Output`."""

from __future__ import annotations

import asyncio

import pytest

from penstock import OLDEST, App, ConfigError, Event, Output, Retention, Retry, connect
from pipeline.helping import Invoice, Order, orders, soon, stored

pytestmark = pytest.mark.one_loop


async def test_key_and_headers_go_on_by_themselves_and_nothing_else_does(url: str) -> None:
    """A trace that came in goes out; name and topic say what the input was."""
    app = App(url)

    @app.on("orders", group="billing", into="invoices")
    async def bill(order: Order) -> Invoice:
        return Invoice(order.number)

    async with app:
        await app.client.stream("orders", type=Order).append(
            Order(7), key="c3", headers={"traceparent": "00-1"}, name="paid", topic="eu"
        )
        await app.client.stream("orders", type=Order).append(Order(8))
        await soon(lambda: app.statistics()["bill"].handled == 2, "handled")
        first, second = await stored(app.client, "invoices", Invoice)
    assert (first.key, dict(first.headers)) == ("c3", {"traceparent": "00-1"})
    assert (first.name, first.topic) == ("", "")
    assert (second.key, dict(second.headers)) == (None, {})


async def test_an_output_says_what_it_carries(url: str) -> None:
    """Each part is its own, or the event's where it is left out; None is none."""
    app = App(url)

    @app.on("orders", group="billing", into="invoices")
    def bill(event: Event[Order]) -> list[Output[Invoice] | Invoice] | None:
        headers = {**event.headers, "by": "billing"}
        return [
            Output(
                Invoice(1),
                key="mine",
                headers=headers,
                name="made",
                topic="eu",
                timestamp=5.0,
                id="invoice-1",
            ),
            Output(Invoice(2), key=None, headers=None),
            Output(Invoice(3), topic="us"),
            Invoice(4),
        ]

    async with app:
        stream = app.client.stream("orders", type=Order)
        position = await stream.append(Order(7), key="c3", headers={"trace": "x"})
        await soon(lambda: app.statistics()["bill"].written == 4, "all are written")
        events = await stored(app.client, "invoices", Invoice)
    said = [(e.value.number, e.key, dict(e.headers), e.name, e.topic) for e in events]
    assert said == [
        (1, "mine", {"trace": "x", "by": "billing"}, "made", "eu"),
        (2, None, {}, "", ""),
        (3, "c3", {"trace": "x"}, "", "us"),
        (4, "c3", {"trace": "x"}, "", ""),
    ]
    assert events[0].timestamp == 5.0
    assert [e.id for e in events] == [
        "invoice-1",
        *(f"billing/orders/0/{position}/{number}" for number in (1, 2, 3)),
    ]


async def test_an_id_of_ones_own_is_stored_once_and_another_content_fails(url: str) -> None:
    """The same content is what was stored already; another one is told, not dropped."""
    app = App(url)

    @app.on("orders", group="billing", into="invoices", retry=Retry(attempts=1))
    async def bill(order: Order) -> Output[Invoice]:
        return Output(Invoice(order.number), id="the-one", key=None)

    async with app:
        stream = app.client.stream("orders", type=Order)
        await stream.append_many([Order(1), Order(1), Order(2)])
        await soon(lambda: app.statistics()["bill"].failed == 1, "the third fails")
        await soon(lambda: app.statistics()["bill"].handled == 2, "the others do not")
        events = await stored(app.client, "invoices", Invoice)
        letters = [letter async for letter in stream.dead_letters("billing")]
    assert [event.value.number for event in events] == [1]
    assert [letter.error for letter in letters] == ["ConflictError"]


async def test_an_output_can_wait_for_its_time(url: str) -> None:
    """It is stored when the event is acked, and seen when it is due."""
    app = App(url)
    due: list[float] = []

    @app.on("orders", group="billing", into="reminders")
    async def bill(event: Event[Order]) -> Output[Invoice]:
        due.append(event.timestamp + 0.4)
        return Output(Invoice(event.value.number), deliver_at=due[-1])

    async with app:
        await app.client.stream("orders", type=Order).append(Order(7))
        await soon(lambda: app.statistics()["bill"].handled == 1, "handled")

        async def seen() -> bool:
            return bool(await stored(app.client, "reminders", Invoice))

        await soon(seen, "the reminder is seen")
        (reminder,) = await stored(app.client, "reminders", Invoice)
    assert reminder.value == Invoice(7)
    assert reminder.timestamp >= due[0] - 0.002  # positions are in whole milliseconds


async def test_results_of_a_batch_say_their_keys_themselves(memory: str) -> None:
    """A batch has no one key; each output may have its own."""
    app = App(memory)

    @app.on_batch("orders", group="billing", size=10, within=0.1, into="invoices")
    async def bill(orders: list[Order]) -> list[Output[Invoice]]:
        return [Output(Invoice(order.number), key=order.customer or ...) for order in orders]

    async with app.test() as test:
        await test.send_batch("orders", [Order(1, "anna"), Order(2)])
        events = await test.stored("invoices")
    assert [(event.value.number, event.key) for event in events] == [(1, "anna"), (2, None)]


async def test_an_output_that_goes_nowhere_is_said() -> None:
    """At the decoration where the annotation tells, at the call where it does not."""
    app = App("memory://")
    with pytest.raises(ConfigError, match="as into="):

        @app.on("orders", group="a")
        async def annotated(order: Order) -> list[Output[Invoice]] | None: ...

    @app.on("orders", group="b")
    async def silent(_order: Order):  # type: ignore[no-untyped-def]
        return Output(Invoice(1))

    async with app.test() as test:
        outcome = await test.send("orders", Order(1), group="b")
    assert outcome.status == "failed"
    assert "into= does not say where it goes" in str(outcome.error)


async def test_results_wait_for_room_in_a_stream_that_is_full(url: str) -> None:
    """A cap that refuses holds handlers back: their events have not failed, and none is lost."""
    app = App(url)

    @app.on("orders", group="billing", into="invoices", retry=Retry(attempts=1))
    async def bill(order: Order) -> Invoice:
        return Invoice(order.number)

    async with connect(url) as client:
        full = Retention(max_events=1, cap=2, at_cap="refuse")
        invoices = client.stream("invoices", type=Invoice, retention=full)
        await invoices.append(Invoice(-1))
        async with invoices.group("sending", start=OLDEST) as sending, app:
            await orders(client, 4)
            await soon(lambda: app.statistics()["bill"].running == 1, "the second waits")
            await soon(lambda: app.statistics()["bill"].written == 1, "as many as it takes")
            found: list[int] = []
            while len(found) < 5:
                event = await asyncio.wait_for(anext(sending), 10.0)
                found.append(event.value.number)
                sending.ack(event)
                await sending.flush()
            statistics = app.statistics()["bill"]
    assert found == [-1, 0, 1, 2, 3]
    assert (statistics.failed, statistics.rejected) == (0, 0)
