"""The end of workers, and of their producers: who waits for whom, and what is cancelled."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock import ConfigError
from penstock.stages import Subscription, Topology
from penstock.stages.protocol import (
    NORMAL,
    SHUTDOWN,
    Cancel,
    Reason,
)
from penstock.stages.workers import Workers
from stages.fixtures import Counter, kinds, watched
from stages.test_workers import Bench, Shop, turns_until


@pytest.mark.conformance("GS-160")
async def test_shutdown_0_cancels_children_at_once_and_returns_their_events() -> None:
    topology, signals = watched()
    async with topology:
        shop = await Shop(topology, shutdown=0).open(max_demand=2)
        shop.give("a", "b")
        await shop.bench.started.reach(2)
    assert sorted(shop.bench.stopped) == ["a", "b"]
    assert shop.outcomes == [([name], "returned", None) for name in ("a", "b")]
    assert [(one.kind, one.count) for one in signals] == [("events-returned", 2)]


@pytest.mark.conformance("GS-160")
async def test_shutdown_none_waits_for_children_as_long_as_they_take() -> None:
    topology, signals = watched()
    async with topology:
        shop = await Shop(topology, shutdown=None).open(max_demand=2, shutdown=None)
        shop.give("a", "b")
        await shop.bench.started.reach(2)
        closing = asyncio.ensure_future(topology.aclose())
        for _ in range(30):
            await asyncio.sleep(0)
        assert not closing.done()
        shop.bench.finish("a", "b")
        await closing
    assert shop.bench.stopped == []
    assert shop.outcomes == [([name], "done", None) for name in ("a", "b")]
    assert signals == []


@pytest.mark.conformance("GS-160")
async def test_shutdown_n_waits_so_long_and_cancels_what_is_left() -> None:
    topology, _ = watched()
    async with topology:
        shop = await Shop(topology, shutdown=0.05).open(max_demand=2)
        shop.give("a", "b")
        await shop.bench.started.reach(2)
        closing = asyncio.ensure_future(topology.aclose())
        for _ in range(5):
            await asyncio.sleep(0)
        assert shop.bench.stopped == []
        shop.bench.finish("a")
        await closing
    assert shop.bench.stopped == ["b"]
    assert shop.workers.count() == (0, 2, 1, 0, 1, 0)


@pytest.mark.conformance("GS-160")
async def test_a_closing_that_is_cancelled_cancels_the_children_and_waits_for_their_end() -> None:
    topology, _ = watched()
    async with topology:
        # The topology's patience ends first: it cancels the stage while that waits.
        shop = await Shop(topology, shutdown=None).open(max_demand=1, shutdown=0)
        shop.give("a")
        await shop.bench.started.reach(1)
    assert shop.bench.stopped == ["a"]
    assert shop.outcomes == [(["a"], "returned", None)]


@pytest.mark.conformance("GS-160")
async def test_a_program_that_is_cancelled_leaves_no_child_behind() -> None:
    shop: Shop | None = None

    async def program() -> None:
        nonlocal shop
        async with Topology(observer=lambda _: None) as topology:
            shop = await Shop(topology).open(max_demand=1)
            shop.give("a")
            await topology.wait()

    task = asyncio.ensure_future(program())
    await turns_until(lambda: shop is not None and bool(shop.bench.started))
    assert shop is not None
    task.cancel()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert shop.bench.stopped == ["a"]


@pytest.mark.conformance("GS-160")
async def test_a_cancellation_of_the_closing_is_passed_on_when_the_children_have_ended() -> None:
    topology, _ = watched()
    async with topology:
        shop = await Shop(topology, shutdown=None).open(max_demand=1)
        shop.give("a")
        await shop.bench.started.reach(1)
        closing = asyncio.ensure_future(shop.workers.handle_close(SHUTDOWN))
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert shop.bench.stopped == ["a"]


@pytest.mark.conformance("GS-160")
async def test_a_terminated_child_that_raises_something_else_is_neither_failed_nor_restarted() -> (
    None
):
    class Sore(Bench):
        async def __call__(self, event: Any) -> Any:
            try:
                await super().__call__(event)
            except asyncio.CancelledError:
                raise ValueError("while tidying up") from None

    topology, signals = watched()
    async with topology:
        shop = await Shop(topology, work=Sore(), restart="transient").open(max_demand=1)
        shop.give("a")
        await shop.bench.started.reach(1)
        (child,) = shop.workers.children
        shop.workers.terminate(child)
        await shop.settled()
        assert child.state == "terminated"
        assert shop.bench.started == ["a"]
        assert signals == []


@pytest.mark.conformance("GS-160", "GS-165")
async def test_one_child_can_be_terminated_and_makes_room() -> None:
    topology, _ = watched()
    async with topology:
        shop = await Shop(topology).open(max_demand=1)
        shop.give("a")
        await shop.bench.started.reach(1)
        shop.workers.terminate(shop.workers.children[0])
        await shop.source.messages.until(lambda _: shop.asks == [1, 1])
        assert shop.bench.stopped == ["a"]
        ((events, kind, error),) = shop.outcomes
        assert (events, kind) == (["a"], "failed")
        assert "terminated" in str(error)


# --- subscribing -----------------------------------------------------------------------------


@pytest.mark.conformance("GS-162")
@pytest.mark.parametrize(
    ("reason", "mode", "lives"),
    [
        (NORMAL, "permanent", False),
        (NORMAL, "transient", True),
        (SHUTDOWN, "permanent", False),
        (SHUTDOWN, "temporary", True),
        (Reason("failed", ValueError("gone")), "permanent", False),
        (Reason("failed", ValueError("gone")), "transient", False),
        (Reason("failed", ValueError("gone")), "temporary", True),
    ],
)
async def test_the_end_of_a_producer_means_what_it_means_for_a_consumer(
    reason: Reason, mode: str, lives: bool
) -> None:
    topology, _ = watched()
    async with topology:
        shop = await Shop(topology).open(restart="temporary", cancel=mode)
        shop.end(reason)
        await shop.settled()
        assert shop.handle is not None
        assert shop.handle.alive == lives


@pytest.mark.conformance("GS-162")
async def test_bad_options_are_refused_and_workers_subscribe_late_as_consumers_do() -> None:
    async with Topology() as topology:
        numbers = topology.start(Counter())
        workers = Workers(Bench(), shutdown=0)
        handle = topology.start(workers)
        with pytest.raises(ConfigError, match="max_demand"):
            numbers.with_options(max_demand=0)
        with pytest.raises(ConfigError, match="consumer"):
            topology.start(Workers(Bench(), shutdown=0), subscribe_to=handle)
        subscription = await handle.subscribe(numbers.with_options(max_demand=2))
        assert isinstance(subscription, Subscription)
        await turns_until(lambda: len(workers.children) == 2)
        subscription.cancel()


async def test_more_events_than_asked_for_are_worked_on_and_end_the_subscription() -> None:
    topology, signals = watched()
    async with topology:
        shop = await Shop(topology).open(max_demand=1, cancel="temporary")
        shop.give("a", "b")
        await shop.bench.started.reach(2)
        await shop.source.first(Cancel)
        assert kinds(signals) == ["protocol-error"]
        shop.bench.finish("a", "b")
