"""Handlers that do what no handler should: whatever it is, it is a failure of their event alone."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest

from penstock import App, Client, ClosedError, ConfigError, Event, Reject, Retry, connect
from penstock.info import DeadLetter
from pipeline.helping import Order, orders, pending, soon

pytestmark = pytest.mark.one_loop

QUICK = Retry(attempts=2, first=0.01, cap=0.02)


class Halt(BaseException):
    """What trio, pytest and others derive from BaseException, so that nobody catches it."""


async def halts(order: Order) -> None:
    """Raises what `except Exception` does not catch."""
    if order.number == 1:
        raise Halt("stop it all")


def halts_in_a_thread(order: Order) -> None:
    """The same in a thread."""
    if order.number == 1:
        raise Halt("stop it all")


async def exits(order: Order) -> None:
    """Calls something that is a program of its own."""
    if order.number == 1:
        sys.exit("usage: billing")


def exits_in_a_thread(order: Order) -> None:
    """The same in a thread."""
    if order.number == 1:
        sys.exit("usage: billing")


async def closes(order: Order) -> None:
    """Raises what ends coroutines."""
    if order.number == 1:
        raise GeneratorExit


def interrupts(order: Order) -> None:
    """Raises what Ctrl-C raises, in a thread, where it cannot have come from there."""
    if order.number == 1:
        raise KeyboardInterrupt


async def cancels_itself(order: Order) -> None:
    """As time limits of old libraries do, which do not take it back."""
    if order.number == 1:
        this = asyncio.current_task()
        assert this is not None
        this.cancel()
        await asyncio.sleep(0)


async def cancels_itself_and_returns(order: Order) -> None:
    """The cancellation comes at the next wait, which would be ours."""
    if order.number == 1:
        this = asyncio.current_task()
        assert this is not None
        this.cancel()


def is_cancelled_in_a_thread(order: Order) -> None:
    """A loop of its own, in which something was cancelled."""
    if order.number == 1:
        raise asyncio.CancelledError


async def uses_what_is_closed(order: Order) -> None:
    """A client of the handler's own; the App's is open."""
    if order.number == 1:
        raise ClosedError("a writer must not be used after its block")


HOSTILE: dict[Callable[[Order], Any], str] = {
    halts: "Halt",
    halts_in_a_thread: "Halt",
    exits: "SystemExit",
    exits_in_a_thread: "SystemExit",
    closes: "RuntimeError",
    interrupts: "RuntimeError",
    cancels_itself: "CancelledError",
    cancels_itself_and_returns: "CancelledError",
    is_cancelled_in_a_thread: "CancelledError",
    uses_what_is_closed: "ClosedError",
}


async def letters(client: Client, group: str) -> list[DeadLetter]:
    """The dead letters of a group on orders."""
    return [letter async for letter in client.stream("orders").dead_letters(group)]


@pytest.mark.parametrize("handler", HOSTILE, ids=lambda handler: handler.__name__)
async def test_whatever_is_raised_is_the_failure_of_one_event(
    memory: str, handler: Callable[[Order], Any]
) -> None:
    """It is tried again, it is a dead letter, and the others are handled; the App runs on."""
    app = App(memory)
    app.on("orders", group="billing", retry=QUICK)(handler)
    async with app:
        await orders(app.client, 4)
        name = handler.__name__
        await soon(lambda: app.statistics()[name].handled == 3, "the others")
        await soon(lambda: letters(app.client, "billing"), "a dead letter")
        (letter,) = await letters(app.client, "billing")
        statistics = app.statistics()[name]
        assert app.running
        assert await pending(app.client, "orders", "billing") == 0
    assert (letter.error, letter.attempts) == (HOSTILE[handler], 2)
    assert (statistics.failed, statistics.lost, statistics.abandoned) == (2, 0, 0)


async def work(order: Order) -> None:
    """What is to be done."""


def steps(order: Order) -> Any:
    """What is to be done, lazily."""
    yield order.number


@functools.wraps(steps)
def wraps_a_generator(order: Order) -> object:
    """What it wraps is not run by calling it."""
    return steps(order)


async def forgets_to_await(order: Order) -> object:
    """Nobody would."""
    return work(order)


async def leaves_a_task(order: Order) -> object:
    """The event would be acked before it has ended."""
    return asyncio.ensure_future(work(order))


@pytest.mark.parametrize("handler", [wraps_a_generator, forgets_to_await, leaves_a_task])
@pytest.mark.parametrize("into", [None, "invoices"])
async def test_work_that_nobody_has_done_is_not_acked(
    memory: str, handler: Callable[[Order], Any], into: str | None
) -> None:
    """A generator, a coroutine, a task: it fails, and says what is to be written instead."""
    app = App(memory)
    app.on("orders", group="billing", into=into, retry=Retry(attempts=1))(handler)
    async with app:
        await orders(app.client, 1)
        await soon(lambda: letters(app.client, "billing"), "a dead letter")
        (letter,) = await letters(app.client, "billing")
    assert "returned work that is not done" in letter.reason


async def test_calls_have_a_context_of_their_own(memory: str) -> None:
    """What one binds, as loggers do, is not there in the next."""
    app, bound = App(memory), ContextVar("bound", default=-1)
    seen: list[int] = []

    @app.on("orders", group="billing")
    async def bill(order: Order) -> None:
        seen.append(bound.get())
        bound.set(order.number)

    async with app:
        await orders(app.client, 3)
        await soon(lambda: len(seen) == 3, "three calls")
    assert seen == [-1, -1, -1]


async def test_a_batch_that_is_rejected_comes_again_in_halves(url: str) -> None:
    """Only what is rejected alone becomes a dead letter."""
    app, done = App(url), set[int]()

    @app.on_batch("orders", group="audit", size=4, within=0.3, retry=QUICK)
    async def store(some: list[Order]) -> None:
        if any(order.number == 2 for order in some):
            raise Reject("two is too many")
        done.update(order.number for order in some)

    async with app:
        await orders(app.client, 4)
        await soon(lambda: len(done) == 3, "the others")
        await soon(lambda: letters(app.client, "audit"), "a dead letter")
        found = [letter.reason for letter in await letters(app.client, "audit")]
        assert app.statistics()["store"].rejected == 1
    assert found == ["two is too many"]


@pytest.mark.parametrize("share", ["events", "shards"])
async def test_those_beside_an_undecodable_event_have_not_failed(memory: str, share: str) -> None:
    """A handler of events finds it by itself; the others of the list come again uncounted."""
    app = App(memory)
    attempts: dict[str, list[int]] = {}

    @app.on_batch("orders", group="audit", size=8, within=0.2, share=share, retry=QUICK)
    async def store(events: list[Event[Order]]) -> None:
        for event in events:
            attempts.setdefault(event.topic, []).append(event.attempts)
        for event in events:
            assert event.value.number >= 0

    async with connect(memory) as client:
        plain = client.stream("orders", codec="json")
        await client.stream("orders", type=Order).append(Order(0), topic="first")
        for _ in range(3):
            await plain.append({"colour": "red"}, topic="bad")
        await client.stream("orders", type=Order).append(Order(1), topic="last")
        async with app:
            await soon(lambda: app.statistics()["store"].handled == 2, "the good ones")
            await soon(lambda: _has(client, 3), "three letters")
            assert app.statistics()["store"].failed == 0
    assert set(attempts["first"] + attempts["last"]) == {0}


async def _has(client: Client, count: int) -> bool:
    return len(await letters(client, "audit")) == count


async def test_a_handler_cannot_wait_for_its_own_end(memory: str) -> None:
    """Draining from within is said, with how it goes; beside the call it works."""
    app = App(memory)
    said: list[str] = []
    draining: list[asyncio.Task[None]] = []

    @app.on("orders", group="billing")
    async def bill(_: Order) -> None:
        try:
            await app.drain()
        except ConfigError as error:
            said.append(str(error))
        draining.append(asyncio.create_task(app.drain()))

    async with app:
        await orders(app.client, 1)
        await asyncio.wait_for(app.wait(), 10.0)
        await draining[0]
    assert "asyncio.create_task(app.drain())" in said[0]
