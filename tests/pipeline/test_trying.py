"""Handlers in tests: every outcome, without a server and without waiting."""

from __future__ import annotations

import time

import pytest

from penstock import App, AppOutcome, ClosedError, ConfigError, Event, Reject, Retry, RetryLater
from pipeline.helping import Invoice, Order

pytestmark = pytest.mark.one_loop

app = App("redis://127.0.0.1:1")  # nobody is there: a test does not ask
calls: list[int] = []


@app.on("orders", group="billing", into="invoices")
async def bill(order: Order) -> Invoice | None:
    """Every outcome, by the order's number."""
    calls.append(order.number)
    match order.number:
        case 0:
            return None
        case 1:
            raise ValueError("no such customer")
        case 2:
            raise Reject("never")
        case 3:
            raise RetryLater(60.0, "the shop is closed")
    return Invoice(order.number)


@app.on("orders", group="labels", into="labels", where="eu")
def label(event: Event[Order]) -> list[dict[str, str]]:
    """Several results, in a thread."""
    return [{"key": str(event.key), "of": str(event.value.number + n)} for n in range(2)]


@app.on_batch("orders", group="audit", size=10)
async def store(orders: list[Order]) -> None:
    """A batch."""
    if len(orders) > 3:
        raise OSError("too many")
    calls.append(len(orders))


async def test_the_outcome_says_what_became_of_it() -> None:
    """Acked with results, acked without, failed, rejected, later."""
    calls.clear()
    async with app.test() as test:

        async def billed(number: int) -> AppOutcome:
            return await test.send("orders", Order(number), group="billing")

        assert await billed(7) == AppOutcome("acked", [Invoice(7)])
        assert await billed(0) == AppOutcome("acked", [])
        failed = await billed(1)
        assert (failed.status, failed.attempts, str(failed.error)) == (
            *("failed", 1),
            "no such customer",
        )
        assert failed.delay == Retry().delay(1, 0.0)
        rejected = await billed(2)
        assert (rejected.status, rejected.delay) == ("rejected", None)
        assert isinstance(rejected.error, Reject)
        later = await billed(3)
        assert (later.status, later.delay, later.attempts) == ("retry", 60.0, 0)
        assert await billed(8) == AppOutcome("acked", [Invoice(8)])  # the others do not disturb it
        assert await test.values("invoices") == [Invoice(7), Invoice(8)]
    assert calls == [7, 0, 1, 2, 3, 8]


async def test_delays_are_skipped_and_not_waited_for() -> None:
    """All attempts at once, up to the dead letter."""
    calls.clear()
    began = time.monotonic()
    async with app.test() as test:
        dead = await test.send("orders", Order(1), group="billing", attempts=9)
        later = await test.send("orders", Order(3), group="billing", attempts=4)
    assert (dead.status, dead.attempts, dead.delay) == ("dead-lettered", 5, None)
    assert calls == [1] * 5 + [3] * 4
    assert later.status == "retry"
    assert time.monotonic() - began < 20  # the delays of both are minutes


async def test_metadata_filters_and_threads_are_as_in_earnest() -> None:
    """What is filtered out is not handled."""
    async with app.test() as test:
        eu = await test.send("orders", Order(4), group="labels", key="k", topic="eu")
        us = await test.send("orders", Order(4), group="labels", topic="us")
    assert eu.outputs == [{"key": "k", "of": "4"}, {"key": "k", "of": "5"}]
    assert us == AppOutcome("filtered", [])


async def test_batches_are_sent_as_one() -> None:
    """A list, as the handler will be given it; one event is a batch of one."""
    calls.clear()
    async with app.test() as test:
        good = await test.send_batch("orders", [Order(n) for n in range(3)], group="audit")
        bad = await test.send_batch("orders", [Order(n) for n in range(4)], group="audit")
        one = await test.send("orders", Order(1), group="audit")
    assert good == AppOutcome("acked", [])
    assert (bad.status, type(bad.error)) == ("failed", OSError)
    assert one.status == "acked"
    assert calls == [3, 1]


async def test_what_a_handler_would_never_be_given_is_said_at_once() -> None:
    """An id that is stored already is no new event; a list is not longer than `size`."""
    calls.clear()
    async with app.test() as test:
        first = await test.send("orders", Order(0), group="billing", id="order-0")
        again = await test.send("orders", Order(0), group="billing", id="order-0")
        with pytest.raises(ConfigError, match=r"takes 1 to 10 values.*got 11"):
            await test.send_batch("orders", [Order(0)] * 11, group="audit")
        with pytest.raises(ConfigError, match="got 0"):
            await test.send_batch("orders", [], group="audit")
    assert (first.status, again.status, calls) == ("acked", "duplicate", [0])


async def test_one_test_is_in_nobodys_way() -> None:
    """Not a key's next event behind its first, which failed; nor the second use of a test."""
    keyed = App()

    @keyed.on("orders", group="keyed", share="shards", acks="explicit")
    async def take(order: Order) -> None:
        if order.number == 1:
            raise ValueError("one")

    test = keyed.test()
    for _ in range(2):
        async with test:
            statuses = [(await test.send("orders", Order(n), key="k")).status for n in (1, 2)]
            assert statuses == ["failed", "acked"]


async def test_which_handler_is_meant_must_be_clear() -> None:
    """Or it is said which there are."""
    async with app.test() as test:
        with pytest.raises(ConfigError, match="groups billing, labels, audit"):
            await test.send("orders", Order(1))
        with pytest.raises(ConfigError, match="and none is"):
            await test.send("refunds", Order(1))
        with pytest.raises(ConfigError, match="use send"):
            await test.send_batch("orders", [Order(1)], group="billing")


async def test_the_client_of_the_app_is_that_of_the_test() -> None:
    """Handlers that append elsewhere do so in the memory."""
    other = App()
    including = App()
    including.include(other)

    @other.on("orders", group="billing")
    async def bill_elsewhere(order: Order) -> None:
        await other.client.stream("log").append({"n": order.number})

    async with including.test() as test:
        outcome = await test.send("orders", Order(7))
        assert outcome.status == "acked"
        assert await test.values("log") == [{"n": "7"}]
    with pytest.raises(ClosedError):
        _ = other.client
    with pytest.raises(ClosedError):
        _ = test.client


async def test_undecodable_events_are_rejected() -> None:
    """As in earnest; the handler is not called."""
    calls.clear()
    async with app.test() as test:
        outcome = await test.send("orders", Order(7), group="billing")
        untyped = test.client.stream("orders", codec="json")
        await untyped.append({"colour": "red"})
        outcome = await test.send("orders", Order(8), group="billing")
    assert outcome.status == "acked"
    assert calls == [7, 8]
