"""One life-cycle: entered, run, drained, left; in memory and on both servers."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from penstock import (
    END,
    App,
    BackendUnavailable,
    ClosedError,
    ConfigError,
    Event,
    Signal,
    connect,
)
from pipeline.helping import Invoice, Order, orders, pending, soon, stored


async def test_every_event_is_handled_and_what_is_returned_is_stored(url: str) -> None:
    """The first door: a handler, a URL, and a stream for the results; both kinds of function."""
    app = App(url)
    threads: set[str] = set()
    batches: list[list[Order]] = []

    @app.on("orders", group="billing", into="invoices", concurrency=4)
    async def bill(order: Order) -> Invoice | None:
        return Invoice(order.number) if order.number % 2 else None

    @app.on("orders", group="labels", into="labels", concurrency=2)
    def label(event: Event[Order]) -> list[dict[str, Any]]:
        threads.add(threading.current_thread().name)
        return [{"of": event.value.number, "copy": copy} for copy in (1, 2)]

    @app.on_batch("orders", group="audit", size=10, within=0.2)
    def store(all_orders: list[Order]) -> None:
        batches.append(all_orders)

    async with app:
        await orders(app.client, 20)
        stream = app.client.stream("orders")
        await soon(lambda: app.statistics()["label"].handled == 20, "labels")
        await soon(lambda: app.statistics()["store"].handled == 20, "audited")
        await soon(lambda: app.statistics()["bill"].written == 10, "invoices")

    async with connect(url) as client:
        if client.url.path or client.url.host:
            stream = client.stream("orders")
            invoices = await stored(client, "invoices", Invoice)
            assert sorted(event.value.number for event in invoices) == list(range(1, 20, 2))
            assert len({event.id for event in invoices}) == 10
            labels = await stored(client, "labels")
            assert len(labels) == 40
            assert all(event.id for event in labels)
            assert {info.lag for info in await stream.groups()} == {0}
            assert sum(info.pending for info in await stream.groups()) == 0
    assert max(map(len, batches)) <= 10
    assert all(name.startswith("penstock ") for name in threads)
    assert len(threads) <= 2


async def test_an_app_without_an_end_is_run_until_it_is_drained(url: str) -> None:
    """`run` enters and leaves; `drain` from elsewhere ends it."""
    app = App(url)
    seen: list[int] = []

    @app.on("orders", group="billing")
    async def bill(order: Order) -> None:
        seen.append(order.number)

    entered = asyncio.Event()
    running = asyncio.create_task(app.run(ready=entered.set))
    await entered.wait()
    assert app.running
    await orders(app.client, 3)
    await soon(lambda: len(seen) == 3, "handled")
    await app.drain(5.0)

    assert await running is True
    assert not app.running
    with pytest.raises(ClosedError):
        app.statistics()


async def test_an_app_whose_handlers_have_ends_ends(memory: str) -> None:
    """``until=END``: what there is is handled, and `run` returns."""
    app = App(memory)
    seen: list[int] = []

    @app.on("orders", group="billing", until=END)
    async def bill(order: Order) -> None:
        seen.append(order.number)

    async with connect(memory) as client:
        await orders(client, 5)
    assert await app.run() is True
    assert seen == [0, 1, 2, 3, 4]


async def test_draining_lets_calls_end_and_hands_back_what_nobody_began_with(url: str) -> None:
    """The event in hand is acked; those behind it go to another member at once, uncounted."""
    app, began, go_on = App(url, drain_timeout=2.0), asyncio.Event(), asyncio.Event()
    seen: list[int] = []

    @app.on("orders", group="billing")
    async def bill(order: Order) -> None:
        began.set()
        await go_on.wait()
        seen.append(order.number)

    async with app:
        client = app.client
        await orders(client, 5)
        await began.wait()
        draining = asyncio.create_task(app.drain(10.0))
        async with client.stream("orders", type=Order).group("billing") as other:
            taken = [await asyncio.wait_for(anext(other), 5.0) for _ in range(4)]
            assert not draining.done()
            go_on.set()
            await draining
            assert sorted(event.value.number for event in taken) == [1, 2, 3, 4]
            assert [event.attempts for event in taken] == [0, 0, 0, 0]
            other.ack(taken)
    assert seen == [0]


async def test_what_does_not_end_in_time_is_cut_and_comes_again_uncounted(
    url: str, signals: list[Signal]
) -> None:
    """Leaving waits `drain_timeout`, then cancels; nothing is lost, and no failure counted."""
    app = App(url, drain_timeout=0.2, observer=signals.append)
    cancelled: list[int] = []
    began = asyncio.Event()

    @app.on("orders", group="billing")
    async def bill(order: Order) -> None:
        began.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(order.number)
            raise

    async with connect(url) as client:
        async with app:
            await orders(client, 1)
            await began.wait()
            with pytest.raises(TimeoutError, match=r"1 calls of bill"):
                await app.drain(0.05)
            statistics = app.statistics()
        assert cancelled == [0]
        assert statistics["bill"].failed == 0
        async with client.stream("orders", type=Order).group("billing") as other:
            event = await asyncio.wait_for(anext(other), 5.0)
            assert (event.value.number, event.attempts) == (0, 0)
            other.ack(event)
    assert "drain-late" in [one.kind for one in signals]


@pytest.mark.one_loop
async def test_a_thread_that_hangs_does_not_hold_up_the_rest(
    memory: str, signals: list[Signal]
) -> None:
    """Its event is handed back, the thread is told of, and other handlers drain as they should."""
    app = App(memory, drain_timeout=0.5, observer=signals.append)
    release, seen = threading.Event(), list[int]()

    @app.on("orders", group="hanging")
    def hang(_: Order) -> None:
        release.wait(30.0)

    @app.on("orders", group="fine")
    async def fine(order: Order) -> None:
        await asyncio.sleep(0.2)
        seen.append(order.number)

    try:
        async with connect(memory) as client:
            async with app:
                await orders(client, 1)
                await soon(lambda: all(s.running for s in app.statistics().values()), "running")
            assert seen == [0]
            assert await pending(client, "orders", "fine") == 0
            async with client.stream("orders", type=Order).group("hanging") as other:
                event = await asyncio.wait_for(anext(other), 5.0)
                assert event.attempts == 0
    finally:
        release.set()
    assert [one.count for one in signals if one.kind == "handler-left"] == [1]


@pytest.mark.one_loop
async def test_threads_are_bounded_by_concurrency(memory: str) -> None:
    """Never more calls at once, and never more threads."""
    app = App(memory)
    running, most = 0, 0
    lock = threading.Lock()

    @app.on("orders", group="slow", concurrency=3)
    def slow(_: Order) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1

    async with app:
        before = threading.active_count()
        await orders(app.client, 30)
        await soon(lambda: app.statistics()["slow"].handled == 30, "handled")
        assert threading.active_count() - before <= 3
    assert most == 3


@pytest.mark.one_loop
async def test_what_is_in_flight_is_bounded(memory: str) -> None:
    """Back-pressure: a slow handler keeps a few, and leaves the rest to others."""
    app, hold = App(memory), asyncio.Event()

    @app.on("orders", group="billing", concurrency=2)
    async def bill(_: Order) -> None:
        await hold.wait()

    async with app:
        await orders(app.client, 1000)
        await soon(lambda: app.statistics()["bill"].running == 2, "two calls")
        await asyncio.sleep(0.1)
        statistics = app.statistics()["bill"]
        assert statistics.running == 2
        assert statistics.group.in_flight <= 8  # four, and one fetch
        hold.set()
        await soon(lambda: app.statistics()["bill"].handled == 1000, "the rest")


@pytest.mark.one_loop
async def test_an_app_needs_handlers_and_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are said before anything is connected."""
    monkeypatch.delenv("PENSTOCK_URL", raising=False)
    app = App()
    with pytest.raises(ConfigError, match="at least one handler"):
        await app.run()

    @app.on("orders", group="billing")
    async def bill(order: Order) -> None: ...

    with pytest.raises(ConfigError, match="embedded://"):
        await app.run()
    monkeypatch.setenv("PENSTOCK_URL", "memory://")
    async with app:
        with pytest.raises(ClosedError, match="runs already"):
            await app.__aenter__()
        with pytest.raises(ConfigError, match="no more handlers"):
            app.on("orders", group="late")(bill)


@pytest.mark.one_loop
async def test_a_server_that_is_away_is_said_at_the_start_and_nothing_is_left() -> None:
    """The first connection is the caller's business; later ones are mended."""
    app = App("redis://127.0.0.1:1", timeout=0.5)

    @app.on("orders", group="billing")
    async def bill(order: Order) -> None: ...

    with pytest.raises(BackendUnavailable):
        async with app:
            pass
    assert not app.running


async def test_what_the_streams_hold_is_checked_before_the_first_event(url: str) -> None:
    """A typed handler on plain fields, typed results into plain fields: with the handler's name."""
    async with connect(url) as client:
        await client.stream("orders").append({"number": 1})
        app = App(url)
        app.on("orders", group="billing")(_takes_order)
        with pytest.raises(ConfigError, match=r"handler _takes_order .*plain fields|layout"):
            await app.run()

        await client.stream("plain").append({"number": 1})
        await client.stream("typed", type=Order).append(Order(1))
        app = App(url)
        app.on("typed", group="billing", into="plain")(_gives_invoice)
        with pytest.raises(ConfigError, match="handler _gives_invoice"):
            await app.run()
        assert await client.stream("typed").groups() == []


def _takes_order(order: Order) -> None: ...


def _gives_invoice(order: Order) -> Invoice:
    return Invoice(order.number)


@pytest.mark.one_loop
async def test_a_handler_that_ends_by_itself_is_an_error_of_the_app(
    memory: str, signals: list[Signal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not silence: told at once, raised where the App is waited for, and when it is left."""
    app = App(memory, observer=signals.append, drain_timeout=0.1)

    @app.on("orders", group="billing")
    async def bill(order: Order) -> None: ...

    @app.on("other", group="fine")
    async def fine(order: Order) -> None: ...

    from penstock.pipeline.runner import Runner

    async def broken(self: Runner) -> None:
        if self.handler.group == "billing":
            raise RuntimeError("a bug of ours")
        await asyncio.Event().wait()

    monkeypatch.setattr(Runner, "_events", broken)
    await app.__aenter__()
    with pytest.raises(RuntimeError, match="a bug of ours"):
        await app.wait()
    assert not app.running
    with pytest.raises(RuntimeError, match="a bug of ours") as raised:
        await app.__aexit__(None, None, None)
    assert "bill" in raised.value.__notes__[0]
    assert [one.kind for one in signals if one.severity == "error"] == ["handler-ended"]


@pytest.mark.one_loop
async def test_an_app_lives_as_long_as_a_web_framework(memory: str) -> None:
    """``async with app`` in a lifespan: requests append, handlers work, and all ends with it."""
    app = App(memory)
    seen: list[str] = []

    @app.on("visits", group="log")
    async def log(visit: dict[str, str]) -> None:
        seen.append(visit["path"])

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        async with app:
            yield

    async def request(path: str) -> int:
        await app.client.stream("visits").append({"path": path})
        return 202

    for _ in range(2):  # a server that reloads starts it again
        seen.clear()
        async with lifespan(object()):
            assert [await request(path) for path in ("/", "/about")] == [202, 202]
            await soon(lambda: len(seen) >= 2, "both visits")
    assert {"/", "/about"} <= set(seen)


@pytest.mark.one_loop
async def test_one_function_on_many_streams_is_counted_for_each(memory: str) -> None:
    """None hides another, whatever they have in common."""
    app = App(memory)

    async def take(_: Order) -> None: ...

    for stream, group in (("a", "g"), ("b", "h"), ("c", "h"), ("d", "h")):
        app.on(stream, group=group)(take)
    async with app:
        assert list(app.statistics()) == ["take", "take (h)", "take (h on c)", "take (h on d)"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains(memory: str, number: int) -> None:
    """The call that runs ends, and so does the run."""
    app, began, go_on = App(memory), asyncio.Event(), asyncio.Event()
    seen: list[int] = []

    @app.on("orders", group="billing")
    async def bill(order: Order) -> None:
        began.set()
        await go_on.wait()
        seen.append(order.number)

    async with connect(memory) as client:
        await orders(client, 2)
        running = asyncio.create_task(app.run(signals=True))
        await began.wait()
        os.kill(os.getpid(), number)
        await asyncio.sleep(0.05)
        assert not running.done()
        go_on.set()
        assert await running is True
        assert seen == [0]
        async with client.stream("orders", type=Order).group("billing") as other:
            handed_back = await asyncio.wait_for(anext(other), 5.0)
            assert (handed_back.value.number, handed_back.attempts) == (1, 0)


async def test_a_second_signal_does_not_wait(memory: str) -> None:
    """It cuts what runs, also inside ``async with``."""
    app, began = App(memory), asyncio.Event()

    @app.on("orders", group="billing")
    async def bill(_: Order) -> None:
        began.set()
        await asyncio.sleep(60)

    async with connect(memory) as client:
        await orders(client, 1)
        for inside in (False, True):
            began.clear()
            running = asyncio.create_task(_run(app, inside=inside))
            await began.wait()
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)
                await asyncio.sleep(0.02)
            assert await asyncio.wait_for(running, 5.0) is False


async def _run(app: App, *, inside: bool) -> bool:
    if not inside:
        return await app.run(signals=True)
    async with app:
        return await app.run(signals=True)


@pytest.mark.one_loop
async def test_a_run_that_is_cancelled_drains(memory: str) -> None:
    """As Ctrl-C does under `asyncio.run`."""
    app, began, seen = App(memory), asyncio.Event(), list[int]()

    @app.on("orders", group="billing")
    async def bill(order: Order) -> None:
        began.set()
        await asyncio.sleep(0.1)
        seen.append(order.number)

    async with connect(memory) as client:
        await orders(client, 1)
        running = asyncio.create_task(app.run())
        await began.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert seen == [0]
        assert await pending(client, "orders", "billing") == 0
