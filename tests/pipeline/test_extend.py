"""`penstock.extend`: a handler that takes longer than `hold`, and says so."""

from __future__ import annotations

import asyncio
import time

import pytest

import penstock
from penstock import App, ConfigError, LeaseLost, Retry
from pipeline.helping import Order, orders, soon

pytestmark = pytest.mark.one_loop

HOLD = 0.5
ONCE = Retry(attempts=1)


async def test_a_coroutine_that_extends_is_neither_cancelled_nor_robbed(url: str) -> None:
    """Two holds, one call, no failure; from a task of the handler too."""
    app = App(url)
    calls: list[int] = []

    @app.on("orders", group="billing", hold=HOLD, retry=ONCE)
    async def bill(order: Order) -> None:
        calls.append(order.number)
        for _ in range(4):
            await asyncio.sleep(HOLD / 2)
            await asyncio.create_task(_extending())

    async with app:
        await orders(app.client, 1)
        await soon(lambda: app.statistics()["bill"].handled == 1, "handled")
        statistics = app.statistics()["bill"]
    assert (calls, statistics.failed, statistics.lost) == ([0], 0, 0)


async def _extending() -> None:
    penstock.extend()


async def test_a_thread_that_extends_keeps_its_event(memory: str) -> None:
    """As a coroutine does; without it the event would have failed after the first hold."""
    app = App(memory)
    calls: list[int] = []

    @app.on("orders", group="billing", hold=HOLD, retry=ONCE)
    def bill(order: Order) -> None:
        calls.append(order.number)
        for _ in range(4):
            time.sleep(HOLD / 2)
            penstock.extend()

    async with app:
        await orders(app.client, 1)
        await soon(lambda: app.statistics()["bill"].handled == 1, "handled")
        statistics = app.statistics()["bill"]
    assert (calls, statistics.failed, statistics.lost) == ([0], 0, 0)


async def test_a_batch_is_extended_as_a_whole(memory: str) -> None:
    """All of its events are held as long as the call takes."""
    app = App(memory)
    sizes: list[int] = []

    @app.on_batch("orders", group="audit", size=3, within=5.0, hold=HOLD, retry=ONCE)
    async def store(batch: list[Order]) -> None:
        sizes.append(len(batch))
        for _ in range(4):
            await asyncio.sleep(HOLD / 2)
            penstock.extend()

    async with app:
        await orders(app.client, 3)
        await soon(lambda: app.statistics()["store"].handled == 3, "handled")
    assert sizes == [3]


async def test_one_who_extends_too_late_hears_that_it_is_lost(memory: str) -> None:
    """In a thread, which nothing can cancel: it can stop by itself."""
    app = App(memory)
    heard: list[BaseException] = []

    @app.on("orders", group="billing", hold=0.3, retry=ONCE)
    def bill(_order: Order) -> None:
        time.sleep(0.9)
        try:
            penstock.extend()
        except LeaseLost as error:
            heard.append(error)
            raise

    async with app:
        await orders(app.client, 1)
        await soon(lambda: app.statistics()["bill"].lost == 1, "the call has ended")
    assert len(heard) == 1


async def test_it_works_in_tests_of_apps_and_nowhere_else() -> None:
    """Outside of a call there is nothing to extend, and that is said."""
    app = App("memory://")

    @app.on("orders", group="billing")
    async def bill(_order: Order) -> None:
        await asyncio.to_thread(penstock.extend)

    async with app.test() as test:
        assert (await test.send("orders", Order(1))).status == "acked"
    with pytest.raises(ConfigError, match=r"app\.test\(\)"):
        penstock.extend()
