"""Sources and targets that fail: whose stage ends, with what error, and what is left behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock import StageError
from penstock.stages import SourceStage, TargetStage, Topology
from stages.fixtures import Forwarder, quiet, watched, within
from stages.test_sources import BROKEN, Entered, Feed, Store
from stages.tracing import Stepper, all_are


@pytest.mark.parametrize("broken", ["enter", "fetch"])
async def test_an_error_of_the_source_ends_its_stage_with_an_error_that_names_it(
    broken: str,
) -> None:
    source = Entered("abc", broken=broken)
    topology = Topology()
    handle = topology.start(SourceStage(source), name="orders")
    topology.start(Forwarder(), subscribe_to=handle)
    with pytest.raises(StageError, match=r"orders.*OSError: broken") as caught:
        await topology.run()
    assert caught.value.__cause__ is BROKEN
    assert source.log == (["entered", "left"] if broken == "fetch" else [])


async def test_what_is_done_after_its_source_had_failed_is_signalled_as_missed() -> None:
    topology, signals = watched()
    source, stepper = Entered("ab", more=True), Stepper()
    async with topology:
        handle = topology.start(SourceStage(source), restart="temporary")
        to = handle.with_options(max_demand=4, cancel="temporary")
        topology.start(stepper, subscribe_to=to)
        await stepper.batches.reach(1)
        source.broken = "fetch"
        source.give("c")
        await handle.wait()
        await quiet(topology)
        assert source.log == ["entered", "left"]
        stepper.step()
        await quiet(topology)
    assert source.heard() == {}
    assert [one.count for one in signals if one.kind == "acks-missed"] == [2]


async def test_an_error_at_leaving_a_source_is_signalled() -> None:
    topology, signals = watched()
    source = Entered("ab", broken="leave")
    async with topology:
        handle = topology.start(SourceStage(source))
        topology.start(Forwarder(), subscribe_to=handle)
        await within(topology)
    assert source.heard() == all_are("done", "ab")
    assert [(one.kind, one.stage) for one in signals] == [("stage-failed", "SourceStage")]


@pytest.mark.parametrize("broken", ["enter", "leave"])
async def test_an_error_at_entering_or_leaving_a_target_fails_its_stage(broken: str) -> None:
    source = Entered("ab")
    topology = Topology()
    handle = topology.start(SourceStage(source))
    topology.start(TargetStage(Store(broken)), subscribe_to=handle)
    with pytest.raises(StageError, match=r"TargetStage\.handle_.*broken"):
        await topology.run()
    assert source.log == ["entered", "left"]


async def test_an_error_in_settle_ends_the_source_s_stage_and_not_the_consumer() -> None:
    topology, _ = watched()
    source = Entered("ab", more=True, broken="settle")
    async with topology:
        handle = topology.start(SourceStage(source), name="orders", restart="temporary")
        to = handle.with_options(cancel="temporary")
        consumer = topology.start(Forwarder(), subscribe_to=to, restart="temporary")
        await source.outcomes.reach(2)
        await quiet(topology)
        assert consumer.alive
        assert "orders" in str(handle.ended)


async def test_an_error_in_settle_after_the_source_s_stage_has_ended_is_signalled() -> None:
    """It has given out all, and waits for the outcomes."""
    topology, signals = watched()
    source, stepper = Entered("ab", broken="settle"), Stepper()
    async with topology:
        handle = topology.start(SourceStage(source), name="orders")
        consumer = topology.start(stepper, subscribe_to=handle)
        await stepper.batches.reach(1)
        await handle.wait()
        stepper.step()
        await consumer.wait()
        await quiet(topology)
        assert source.log == ["entered", "left"]
    said = [one.message for one in signals if one.kind == "stage-failed"]
    assert len(said) == 1
    assert "orders" in said[0]
    assert "broken" in said[0]


async def test_a_source_that_waits_for_outcomes_does_not_hold_up_the_closing_of_who_owes_them() -> (
    None
):
    """Where the consumer was started first, it is closed last."""
    topology, _ = watched()
    source, stepper = Entered("ab"), Stepper()
    async with topology:
        consumer = topology.start(stepper, shutdown=0)
        handle = topology.start(SourceStage(source), shutdown=None)
        await consumer.subscribe(handle.with_options(cancel="temporary"))
        await stepper.batches.reach(1)
        await handle.wait()
        closing = asyncio.create_task(topology.aclose())
        await quiet(topology)
        closed = closing.done()
        stepper.step()
        await closing
        assert closed
    assert source.log == ["entered", "left"]


class Interrupted(Feed):
    """Its fetch ends as cancelled, though nobody cancelled it."""

    async def fetch(self, demand: int) -> list[Any]:
        self.asked.append(demand)
        raise asyncio.CancelledError


async def test_a_fetch_that_is_cancelled_from_within_ends_the_stage_as_failed() -> None:
    topology, _ = watched()
    source = Interrupted()
    async with topology:
        handle = topology.start(SourceStage(source), restart="temporary")
        topology.start(Forwarder(), subscribe_to=handle.with_options(cancel="temporary"))
        await source.asked.reach(1)
        await quiet(topology)
        assert not handle.alive
