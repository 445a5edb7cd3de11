"""Receipts: the outcome of work that goes on after its call."""

from __future__ import annotations

from typing import Any

from penstock.stages import (
    Topology,
)
from stages.fixtures import (
    Forwarder,
    quiet,
    watched,
)
from stages.tracing import Keeper, Source, Stepper, all_are, sourced


async def kept(topology: Topology, then: Any = None) -> tuple[Source, Keeper, Any]:
    """A source whose events a `Keeper` has kept."""
    source, handle = sourced(topology)
    keeper = Keeper()
    middle = topology.start(keeper, subscribe_to=handle.with_options(max_demand=2, min_demand=0))
    topology.start(then or Forwarder(), subscribe_to=middle)
    await quiet(topology)
    source.give("ab")
    await quiet(topology)
    assert len(keeper.receipts) == 1
    return source, keeper, middle


async def test_what_is_kept_is_done_when_its_receipt_says_so() -> None:
    topology, _ = watched()
    async with topology:
        source, keeper, _handle = await kept(topology)
        assert source.heard() == {}
        keeper.receipts[0].done()
        keeper.receipts[0].done()
        keeper.receipts[0].failed(OSError("too late"))
        await quiet(topology)
        assert source.heard() == all_are("done", "ab")


async def test_what_is_kept_fails_when_its_receipt_says_so() -> None:
    topology, _ = watched()
    error = OSError("no")
    async with topology:
        source, keeper, _handle = await kept(topology)
        keeper.receipts[0].failed(error)
        keeper.receipts[0].done()
        await quiet(topology)
        assert source.heard() == all_are("failed", "ab")
        assert source.errors == [error]


async def test_what_is_emitted_of_a_receipt_counts_for_the_events_it_was_made_of() -> None:
    topology, _ = watched()
    stepper = Stepper()
    async with topology:
        source, keeper, middle = await kept(topology, stepper)
        receipt = keeper.receipts[0]
        middle.cast(lambda stage: stage.emit(["late"], of=receipt))
        await stepper.reach(1)
        receipt.done()
        await quiet(topology)
        assert source.heard() == {}
        stepper.step()
        await quiet(topology)
        assert source.heard() == all_are("done", "ab")


async def test_what_is_emitted_without_a_receipt_counts_for_nothing() -> None:
    """Also while another call is under way elsewhere; and a receipt of untraced events is idle."""
    topology, _ = watched()
    stepper = Stepper()
    async with topology:
        source, keeper, middle = await kept(topology, stepper)
        middle.cast(lambda stage: stage.emit(["own"]))
        await stepper.reach(1)
        keeper.receipts[0].done()
        await quiet(topology)
        assert source.heard() == all_are("done", "ab")
        source.emit(["c", "d"])
        stepper.step()
        await quiet(topology)
        assert keeper.receipts[1].trace is None
        keeper.receipts[1].done()
        assert source.heard() == all_are("done", "ab")


async def test_a_receipt_that_is_never_done_is_returned_with_its_stage() -> None:
    """Nobody waits for ever."""
    topology, _ = watched()
    async with topology:
        source, _, _ = await kept(topology)
    assert source.heard() == all_are("returned", "ab")
