"""Starts and ends that are broken off: at each moment, by signals, by a thread that may not."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Any

import pytest

from penstock import App, ClosedError, ConfigError, connect
from penstock.streams.group_reader import GroupReader
from pipeline.helping import Order, orders, pending, soon

pytestmark = pytest.mark.one_loop


async def test_a_run_can_be_cancelled_at_each_moment(memory: str) -> None:
    """After so many turns of the event loop: nothing is left, nothing is lost, nothing is twice."""
    app, seen = App(memory, drain_timeout=5.0), list[int]()

    @app.on("orders", group="billing", into="invoices", concurrency=2)
    async def bill(order: Order) -> dict[str, int]:
        await asyncio.sleep(0)
        seen.append(order.number)
        return {"n": order.number}

    async with connect(memory) as client:
        for turns in range(60):
            await orders(client, 1, first=turns)
            tasks = asyncio.all_tasks()
            running = asyncio.create_task(app.run())
            for _ in range(turns):
                await asyncio.sleep(0)
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            assert repr(app) == "<App idle: bill>", turns
            assert asyncio.all_tasks() <= tasks, turns
        async with app:
            await soon(lambda: len(set(seen)) == 60, "all of them")
        assert await pending(client, "orders", "billing") == 0
        assert await client.stream("invoices").length() == 60
    assert sorted(seen) == list(range(60))


async def test_a_signal_ends_a_start_that_takes_long() -> None:
    """A server that does not answer: nothing was begun, so nothing is waited for."""

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(never, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    app = App(f"redis://127.0.0.1:{port}?timeout=60")

    @app.on("orders", group="billing")
    async def bill(_: Order) -> None: ...

    async with server:
        running = asyncio.create_task(app.run(signals=True))
        await asyncio.sleep(0.1)
        assert not running.done()
        os.kill(os.getpid(), signal.SIGTERM)
        assert await asyncio.wait_for(running, 10.0) is True
        assert repr(app) == "<App idle: bill>"


async def test_signals_that_cannot_be_had_are_said_before_anything_is_open(memory: str) -> None:
    """In a thread: what has been opened would be nobody's."""
    app = App(memory)

    @app.on("orders", group="billing")
    async def bill(_: Order) -> None: ...

    with pytest.raises(ConfigError, match="main thread"):
        await asyncio.to_thread(lambda: asyncio.run(app.run(signals=True)))
    assert repr(app) == "<App idle: bill>"
    async with app:
        assert app.running


async def test_an_app_that_runs_is_not_run_by_another_too(memory: str) -> None:
    """Its handlers would be there twice, and what was opened first would be nobody's."""
    billing, shop = App(memory), App(memory)
    shop.include(billing)

    @billing.on("orders", group="billing")
    async def bill(_: Order) -> None: ...

    async with billing:
        with pytest.raises(ClosedError, match="one that it includes, <App running: bill>"):
            await shop.run()
        assert billing.running
    async with shop:
        with pytest.raises(ClosedError, match="this one"):
            await billing.__aenter__()


async def test_a_server_that_is_away_does_not_stretch_the_time_of_a_drain(
    memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Handing back is within it, and a second signal ends that too."""
    app = App(memory, drain_timeout=60.0)

    @app.on("orders", group="billing")
    async def bill(_: Order) -> None: ...

    async def stop(group: Any) -> None:
        group._work.opened().end()
        await asyncio.sleep(60.0)

    monkeypatch.setattr(GroupReader, "stop", stop)
    async with app:
        await asyncio.wait_for(app.drain(0.1), 10.0)
    running = asyncio.create_task(app.run(signals=True))
    await soon(lambda: app.running, "entered")
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.05)
    assert await asyncio.wait_for(running, 10.0) is True  # nothing was cut


BLOCKED = """
import asyncio, time, penstock
app = penstock.App("memory://")

@app.on("orders", group="billing")
async def bill(_):
    print("began", flush=True)
    time.sleep(600)

def ready():
    tasks.add(asyncio.create_task(app.client.stream("orders").append({"n": 1})))

tasks = set()
asyncio.run(app.run(signals=True, ready=ready))
"""


def test_a_third_signal_kills_also_where_a_handler_blocks_the_loop() -> None:
    """Else nothing but kill -9 would: the loop never gets to hear of it."""
    process = subprocess.Popen([sys.executable, "-c", BLOCKED], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == b"began\n"
        codes: list[int | None] = []
        while process.poll() is None and len(codes) < 30:
            codes.append(process.poll())
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.3)
        process.kill()
    assert process.returncode == -signal.SIGTERM
