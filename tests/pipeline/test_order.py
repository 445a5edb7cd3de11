"""Groups that share shards: events of one key one at a time and in order, also through failures."""

from __future__ import annotations

import asyncio
import random
import threading

import pytest

from penstock import App, Event, Retry, connect
from pipeline.helping import Order, soon

pytestmark = pytest.mark.one_loop


async def test_events_of_one_key_are_handled_in_order_and_one_at_a_time(url: str) -> None:
    """Whatever the concurrency; different keys run beside each other."""
    app, chance = App(url), random.Random(7)
    done: dict[str, list[int]] = {}
    busy: set[str] = set()
    most = 0

    @app.on("orders", group="billing", share="shards", concurrency=8)
    async def bill(order: Order) -> None:
        nonlocal most
        assert order.customer not in busy
        busy.add(order.customer)
        most = max(most, len(busy))
        await asyncio.sleep(chance.random() / 500)
        busy.discard(order.customer)
        done.setdefault(order.customer, []).append(order.number)

    async with connect(url) as client:
        stream = client.stream("orders", type=Order, shards=2)
        async with stream.writer() as writer:
            for number in range(200):
                key = f"customer-{chance.randrange(10)}"
                await writer.send(Order(number, key), key=key)
        async with app:
            await soon(lambda: app.statistics()["bill"].handled == 200, "all", within=20.0)
            assert app.statistics()["bill"].failed == 0
    assert all(numbers == sorted(numbers) for numbers in done.values())
    assert most > 1


async def test_a_key_that_fails_waits_while_others_flow(url: str) -> None:
    """What stands behind the failure comes after it, though it was read ahead already."""
    app = App(url)
    done: list[tuple[str, int]] = []
    failed: list[int] = []

    @app.on(
        "orders",
        group="billing",
        share="shards",
        concurrency=4,
        max_in_flight=40,
        retry=Retry(first=0.2, cap=0.2),
    )
    async def bill(event: Event[Order]) -> None:
        order = event.value
        await asyncio.sleep(0.005)
        if (order.customer, order.number) == ("bad", 0) and len(failed) < 2:
            failed.append(event.attempts)
            raise OSError("the line is busy")
        done.append((order.customer, order.number))

    async with connect(url) as client:
        stream = client.stream("orders", type=Order, shards=1)
        for number in range(6):
            for key in ("bad", "good"):
                await stream.append(Order(number, key), key=key)
        async with app:
            await soon(lambda: len(done) == 12, "all")
    assert failed == [0, 1]
    assert [number for key, number in done if key == "good"] == list(range(6))
    assert [number for key, number in done if key == "bad"] == list(range(6))
    assert done.index(("good", 5)) < done.index(("bad", 0))


async def test_what_waits_behind_slow_calls_is_neither_failed_nor_passed(memory: str) -> None:
    """It is in nobody's hand: `hold` is for calls. Nor is it passed by one that came later."""
    app, calls = App(memory), list[tuple[int, int]]()

    @app.on("orders", group="billing", share="shards", concurrency=4, hold=1.2)
    async def bill(event: Event[Order]) -> None:
        await asyncio.sleep(0.35)
        calls.append((event.value.number, event.attempts))

    async with app:
        stream = app.client.stream("orders", type=Order)
        for number in range(6):
            await stream.append(Order(number), key="k")
        await soon(lambda: len(calls) == 6, "all")
        assert app.statistics()["bill"].group.expired == 0
    assert calls == [(number, 0) for number in range(6)]


async def test_a_key_is_not_stuck_behind_a_thread_that_hangs(memory: str) -> None:
    """Its event is tried again after `hold`, those behind it after it, none of them failed."""
    app, calls, release = App(memory, drain_timeout=0.1), list[tuple[int, int]](), threading.Event()

    @app.on(
        "orders",
        group="billing",
        share="shards",
        concurrency=2,
        hold=0.5,
        retry=Retry(first=0.05, cap=0.05),
    )
    def bill(event: Event[Order]) -> None:
        if (event.value.number, event.attempts) == (0, 0):
            release.wait(30.0)
            return
        calls.append((event.value.number, event.attempts))

    try:
        async with app:
            stream = app.client.stream("orders", type=Order)
            for number in range(3):
                await stream.append(Order(number), key="k")
            await soon(lambda: len(calls) == 3, "all")
            release.set()
            await soon(lambda: not app.statistics()["bill"].running, "the one that was too late")
            await stream.append(Order(3), key="k")
            await soon(lambda: len(calls) == 4, "the next")
    finally:
        release.set()
    assert calls == [(0, 1), (1, 0), (2, 0), (3, 0)]
