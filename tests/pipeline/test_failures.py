"""What handlers raise, and what becomes of their events; in memory and on both servers."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from penstock import (
    App,
    BackendUnavailable,
    Client,
    DecodeError,
    Event,
    Position,
    Reject,
    Retry,
    RetryLater,
    connect,
)
from penstock.event import Shard
from penstock.info import DeadLetter
from pipeline.helping import Invoice, Order, orders, pending, soon, stored

pytestmark = pytest.mark.one_loop

QUICK = Retry(attempts=3, first=0.01, cap=0.02)


async def letters(client: Client, group: str, stream: str = "orders") -> list[DeadLetter]:
    """The dead letters of a group."""
    return list(await client.backend.letters(Shard(stream), group, None, 100))


async def test_a_failure_comes_again_until_it_is_dead(url: str) -> None:
    """Retried with a delay, then a dead letter with the error's class and text; others go on."""
    app = App(url)
    calls: dict[int, list[int]] = {}

    @app.on("orders", group="billing", retry=QUICK)
    async def bill(event: Event[Order]) -> None:
        calls.setdefault(event.value.number, []).append(event.attempts)
        if event.value.number == 1:
            raise ValueError("no such customer")
        if event.value.number == 2 and event.attempts == 0:
            raise OSError("the line is busy")

    async with app:
        await orders(app.client, 4)
        await soon(lambda: letters(app.client, "billing"), "a dead letter")
        await soon(lambda: app.statistics()["bill"].handled == 3, "the others")
        (letter,) = await letters(app.client, "billing")
        statistics = app.statistics()["bill"]
    assert calls == {0: [0], 1: [0, 1, 2], 2: [0, 1], 3: [0]}
    assert (letter.error, letter.reason, letter.attempts) == ("ValueError", "no such customer", 3)
    assert (statistics.failed, statistics.rejected) == (4, 0)


async def test_rejected_and_undecodable_events_are_dead_at_once(url: str) -> None:
    """No retry; the handler never sees what cannot be decoded."""
    app = App(url)
    seen: list[int] = []

    @app.on("orders", group="billing", retry=QUICK)
    async def bill(order: Order) -> None:
        seen.append(order.number)
        if order.number == 1:
            raise Reject("no such customer")

    @app.on("orders", group="looking", retry=QUICK)
    async def look(event: Event[Order]) -> None:
        assert event.value.number >= 0

    async with app:
        client = app.client
        await orders(client, 2)
        await client.stream("orders", codec="json").append({"colour": "red"})
        await orders(client, 1, first=2)
        await soon(lambda: app.statistics()["bill"].handled == 2, "the good ones")
        await soon(lambda: app.statistics()["look"].handled == 3, "the good ones")
        await soon(lambda: _count(client, "billing", 2), "both letters")
        found = {letter.error: letter.reason for letter in await letters(client, "billing")}
        (looked,) = await letters(client, "looking")
        statistics = app.statistics()
    assert seen == [0, 1, 2]
    assert found["Reject"] == "no such customer"
    assert "number" in found["DecodeError"]
    assert looked.error == "DecodeError"
    assert statistics["bill"].rejected == 2
    assert statistics["look"].rejected == 1


async def _count(client: Client, group: str, count: int) -> bool:
    return len(await letters(client, group)) == count


async def test_retry_later_comes_again_and_counts_nothing(url: str) -> None:
    """However often: no attempt is counted, and nothing is dead-lettered."""
    app = App(url)
    attempts: list[int] = []

    @app.on("orders", group="billing", retry=QUICK)
    async def bill(event: Event[Order]) -> None:
        attempts.append(event.attempts)
        if len(attempts) < 6:
            raise RetryLater(0.01, "the shop is closed")

    async with app:
        await orders(app.client, 1)
        await soon(lambda: app.statistics()["bill"].handled == 1, "handled")
        statistics = app.statistics()["bill"]
        assert await letters(app.client, "billing") == []
    assert attempts == [0] * 6
    assert (statistics.postponed, statistics.failed) == (5, 0)


async def test_a_batch_that_failed_comes_again_in_halves(url: str) -> None:
    """At last the bad one fails alone, and only it is dead-lettered."""
    app = App(url)
    sizes: list[int] = []
    done: set[int] = set()

    @app.on_batch("orders", group="audit", size=8, within=0.3, retry=QUICK)
    async def store(some: list[Order]) -> None:
        sizes.append(len(some))
        if any(order.number == 5 for order in some):
            raise ValueError("five is right out")
        done.update(order.number for order in some)

    async with app:
        await orders(app.client, 8)
        await soon(lambda: letters(app.client, "audit"), "a dead letter")
        await soon(lambda: len(done) == 7, "the others")
        assert [letter.reason for letter in await letters(app.client, "audit")] == [
            "five is right out"
        ]
    assert sizes[0] == 8
    assert max(sizes[1:]) <= 4


async def test_one_undecodable_event_does_not_harm_its_batch(url: str) -> None:
    """The others are handled together, without it."""
    app = App(url)
    taken: list[list[int]] = []

    @app.on_batch("orders", group="audit", size=3, within=1.0)
    def store(some: list[Order]) -> None:
        taken.append([order.number for order in some])

    async with connect(url) as client:
        await orders(client, 1)
        await client.stream("orders", codec="json").append({"colour": "red"})
        await orders(client, 1, first=2)
        async with app:
            await soon(lambda: letters(client, "audit"), "a dead letter")
            await soon(lambda: app.statistics()["store"].handled == 2, "handled")
    assert taken == [[0, 2]]


async def test_results_are_stored_before_the_event_is_acked(url: str) -> None:
    """One that cannot be stored is a failure of its event; ids are of its place; keys are kept."""
    app = App(url)

    @app.on("orders", group="billing", into="invoices", retry=QUICK)
    async def bill(order: Order) -> list[Invoice]:
        if order.number == 1:
            return [Invoice(1), {"not": "an invoice"}]  # type: ignore[list-item]
        return [Invoice(10 * order.number + copy) for copy in range(3)]

    async with app:
        stream = app.client.stream("orders", type=Order)
        position = await stream.append(Order(2), key="customer-3")
        await stream.append(Order(1))
        await soon(lambda: app.statistics()["bill"].handled == 1, "one is handled")
        await soon(lambda: letters(app.client, "billing"), "the other is dead")
        events = await stored(app.client, "invoices", Invoice)
        (letter,) = await letters(app.client, "billing")
    good = [event for event in events if event.value.number >= 20]
    assert [event.value.number for event in good] == [20, 21, 22]
    assert [event.id for event in good] == [f"billing/orders/0/{position}/{n}" for n in range(3)]
    assert {event.key for event in good} == {"customer-3"}
    assert letter.error == "EncodeError"


async def test_an_event_that_is_handled_again_stores_its_results_once(url: str) -> None:
    """Its ids are the same: within the window of appends, what was stored stands."""
    app = App(url)
    calls: list[int] = []

    @app.on("orders", group="billing", into="invoices", retry=QUICK)
    async def bill(order: Order) -> Invoice:
        calls.append(order.number)
        return Invoice(len(calls))  # another result at the second call: the first one stands

    async with app:
        await orders(app.client, 1)
        await soon(lambda: app.statistics()["bill"].handled == 1, "handled")
        await app.client.stream("orders").groups()
    async with connect(url) as client:
        if client.url.scheme != "memory" or client.url.path:
            await client.backend.drop(Shard("orders"), "billing")
            async with app:
                await soon(lambda: app.statistics()["bill"].handled == 1, "handled again")
            assert len(calls) == 2
            assert [event.value for event in await stored(client, "invoices", Invoice)] == [
                Invoice(1)
            ]


async def test_results_wait_for_a_server_that_is_away(
    memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is no failure of the event: the result is stored when the server is back."""
    app = App(memory)
    tries = 0

    @app.on("orders", group="billing", into="invoices")
    async def bill(order: Order) -> Invoice:
        return Invoice(order.number)

    async with app:
        runner = app._running._runners[0]  # type: ignore[union-attr]
        assert runner.into is not None
        append = runner.into.append

        async def flaky(*args: Any, **kwargs: Any) -> Position:
            nonlocal tries
            tries += 1
            if tries < 3:
                raise BackendUnavailable("gone")
            return await append(*args, **kwargs)

        monkeypatch.setattr(runner.into, "append", flaky)
        await orders(app.client, 1)
        await soon(lambda: app.statistics()["bill"].handled == 1, "handled")
        assert app.statistics()["bill"].failed == 0
        assert len(await stored(app.client, "invoices")) == 1


async def test_a_coroutine_that_takes_longer_than_hold_is_cancelled(memory: str) -> None:
    """Its place is free again, and the event has failed, with a text that says what to do."""
    app = App(memory)
    cancelled: list[int] = []

    @app.on("orders", group="billing", hold=0.5, retry=Retry(attempts=1))
    async def bill(order: Order) -> None:
        try:
            await asyncio.sleep(30 if order.number == 0 else 0)
        except asyncio.CancelledError:
            cancelled.append(order.number)
            raise

    async with app:
        await orders(app.client, 2)
        await soon(lambda: letters(app.client, "billing"), "a dead letter")
        await soon(lambda: app.statistics()["bill"].handled == 1, "the next one")
    assert cancelled == [0]


async def test_what_is_cancelled_inside_a_handler_is_a_failure(memory: str) -> None:
    """Nobody has told the handler to end: it failed, and its worker goes on."""
    app = App(memory)

    @app.on("orders", group="billing", retry=Retry(attempts=1))
    async def bill(order: Order) -> None:
        if order.number == 0:
            task = asyncio.create_task(asyncio.sleep(30))
            task.cancel()
            await task

    async with app:
        await orders(app.client, 2)
        await soon(lambda: app.statistics()["bill"].handled == 1, "the next one")
        await soon(lambda: letters(app.client, "billing"), "a dead letter")


async def test_a_decode_error_of_something_else_is_a_failure_like_any_other(memory: str) -> None:
    """Only the event's own means that the event is undecodable."""
    app = App(memory)

    @app.on("orders", group="billing", retry=QUICK)
    async def bill(_: Order) -> None:
        raise DecodeError("the customer's record", stream="customers", position="1-0")

    async with app:
        await orders(app.client, 1)
        await soon(lambda: app.statistics()["bill"].failed == 3, "three attempts")
        assert app.statistics()["bill"].rejected == 0


async def test_a_function_that_gives_a_coroutine_fails_and_says_why(memory: str) -> None:
    """A wrapper that hides an ``async def`` must not ack what was never done."""
    app = App(memory)

    async def work(order: Order) -> None: ...

    @app.on("orders", group="billing", retry=Retry(attempts=1))
    def bill(order: Order) -> object:
        return work(order)

    async with app:
        await orders(app.client, 1)
        await soon(lambda: letters(app.client, "billing"), "a dead letter")
        (letter,) = await letters(app.client, "billing")
    assert "returned work that is not done (coroutine)" in letter.reason


async def test_failures_are_logged_with_their_traceback_and_do_not_flood(
    memory: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The first of a kind at once; then one every few seconds, with how many there were."""
    app = App(memory)

    @app.on("orders", group="billing", retry=Retry(attempts=1))
    async def bill(_: Order) -> None:
        raise ValueError("no such customer")

    with caplog.at_level(logging.WARNING, "penstock.app"):
        async with app:
            await orders(app.client, 30)
            await soon(lambda: app.statistics()["bill"].failed >= 10, "failures")
    told = [record for record in caplog.records if record.name == "penstock.app"]
    assert len(told) == 1
    assert told[0].exc_info is not None
    assert "handler bill failed with ValueError: no such customer" in told[0].getMessage()


async def test_nothing_is_left_pending_when_all_is_done(url: str) -> None:
    """Acked, dead-lettered or handed back: the pending list is empty at the end."""
    app = App(url)

    @app.on("orders", group="billing", concurrency=8, retry=QUICK)
    async def bill(order: Order) -> None:
        if order.number % 10 == 7:
            raise Reject("seven")

    async with connect(url) as client:
        async with app:
            await orders(client, 100)
            await soon(lambda: app.statistics()["bill"].handled == 90, "handled")
            await soon(lambda: app.statistics()["bill"].rejected == 10, "rejected")
        assert await pending(client, "orders", "billing") == 0
        assert len(await letters(client, "billing")) == 10
