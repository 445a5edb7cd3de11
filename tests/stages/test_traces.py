"""Outcomes travel back: a source hears once of each event, and only when all of it is over."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.stages import (
    BroadcastDispatcher,
    PartitionDispatcher,
    Subscription,
)
from stages.fixtures import (
    Discarder,
    Doubler,
    Forwarder,
    Middle,
    Sleeper,
    quiet,
    watched,
)
from stages.tracing import Stepper, all_are, sourced

# --- done -------------------------------------------------------------------------------------


async def test_an_event_is_done_when_the_last_stage_has_handled_all_that_came_of_it() -> None:
    topology, _ = watched()
    async with topology:
        source, handle = sourced(topology)
        doubler = topology.start(Doubler(), subscribe_to=handle)
        stepper = Stepper()
        topology.start(stepper, subscribe_to=doubler.with_options(max_demand=1))
        await quiet(topology)
        source.give("ab")
        await quiet(topology)
        for _ in range(4):
            assert source.heard() == {}
            stepper.step()
            await quiet(topology)
        assert source.heard() == all_are("done", "ab")


async def test_each_call_is_settled_apart() -> None:
    topology, _ = watched()
    async with topology:
        source, handle = sourced(topology)
        stepper = Stepper()
        topology.start(stepper, subscribe_to=handle.with_options(max_demand=4, min_demand=2))
        await quiet(topology)
        source.give("abcd")
        await stepper.reach(2)
        stepper.step()
        await stepper.reach(4)
        assert source.heard() == all_are("done", "ab")
        stepper.step()
        await quiet(topology)
        assert source.heard() == all_are("done", "abcd")


async def test_what_is_filtered_is_done() -> None:
    topology, _ = watched()
    async with topology:
        source, handle = sourced(topology)
        filtering = topology.start(Discarder(), subscribe_to=handle)
        topology.start(Forwarder(), subscribe_to=filtering)
        await quiet(topology)
        source.give("abc")
        await quiet(topology)
        assert source.heard() == all_are("done", "abc")


async def test_an_event_waits_for_its_outcome_as_long_as_it_waits_for_demand() -> None:
    """In the source's buffer, and in the queue of a stage between."""
    topology, _ = watched()
    async with topology:
        source, handle = sourced(topology)
        middle = topology.start(Middle(), subscribe_to=handle.with_options(max_demand=2))
        await quiet(topology)
        source.give("abcdef")
        await quiet(topology)
        assert source.heard() == {}
        topology.start(Forwarder(), subscribe_to=middle)
        await quiet(topology)
        assert source.heard() == all_are("done", "abcdef")


async def test_a_consumer_may_do_with_its_list_what_it_likes() -> None:
    """Its length is not asked for afterwards."""

    class Clearing(Forwarder):
        def handle_events(self, events: list[Any], source: Subscription) -> None:
            super().handle_events(events, source)
            events.clear()

    topology, _ = watched()
    async with topology:
        source, handle = sourced(topology)
        clearing = topology.start(Clearing(), subscribe_to=handle)
        await quiet(topology)
        source.give("abc")
        await quiet(topology)
        assert source.heard() == all_are("done", "abc")
        assert clearing.statistics().handled == 3


# --- failed and returned ----------------------------------------------------------------------


@pytest.mark.parametrize("between", [True, False], ids=["three stages", "two stages"])
async def test_a_failing_call_fails_its_events_and_what_was_not_handled_is_returned(
    between: bool,
) -> None:
    topology, signals = watched()
    error = LookupError("no such thing")
    async with topology:
        source, handle = sourced(topology)
        to = handle.with_options(max_demand=4, min_demand=2, cancel="temporary")
        if between:
            middle = topology.start(Middle(), subscribe_to=to)
            to = middle.with_options(max_demand=4, min_demand=2, cancel="temporary")
        stepper = Stepper()
        consumer = topology.start(stepper, subscribe_to=to, restart="temporary")
        await quiet(topology)
        source.give("abcdef")
        await stepper.reach(2)
        stepper.fail(error)
        await consumer.wait()
        await quiet(topology)
        assert source.heard() == all_are("failed", "ab") | all_are("returned", "cd")
        assert error in source.errors
        lost = [
            signal.count
            for signal in signals
            if signal.kind in {"events-dropped", "events-returned"}
        ]
        assert lost == [2], "those that it never saw"


async def test_a_failing_stage_between_fails_its_call_and_returns_its_queue() -> None:
    class Breaking(Middle):
        def handle_events(self, events: list[Any], source: Subscription) -> Any:
            super().handle_events(events, source)
            if "c" in events:
                raise LookupError
            return events

    topology, _ = watched()
    async with topology:
        source, handle = sourced(topology)
        to = handle.with_options(max_demand=6, min_demand=4, cancel="temporary")
        middle = topology.start(Breaking(), subscribe_to=to, restart="temporary")
        sleeper = Sleeper()
        topology.start(sleeper, subscribe_to=middle.with_options(cancel="temporary"))
        await quiet(topology)
        source.give("abcdef")
        await middle.wait()
        sleeper.wake.set()
        await quiet(topology)
        expected = all_are("done", "ab") | all_are("failed", "cd") | all_are("returned", "ef")
        assert source.heard() == expected


@pytest.mark.parametrize("keep", ["first", "last"])
async def test_what_a_full_buffer_drops_is_returned(keep: Any) -> None:
    topology, signals = watched()
    async with topology:
        source, handle = sourced(topology, buffer_size=2, buffer_keep=keep)
        source.give("abc")
        source.give("de")
        handle.info("look")
        await quiet(topology)
        assert source.heard() == all_are("returned", "cde" if keep == "first" else "abc")
        assert sum(signal.count or 0 for signal in signals) == 3


async def test_what_lies_about_when_the_topology_closes_is_returned_once() -> None:
    """In a callback that is cancelled, an inbox, a queue, a buffer."""
    topology, _ = watched()
    async with topology:
        source, handle = sourced(topology)
        middle = topology.start(Middle(), subscribe_to=handle.with_options(max_demand=4))
        sleeper = Sleeper()
        to = middle.with_options(max_demand=1)
        topology.start(sleeper, subscribe_to=to, shutdown=0.001)
        await quiet(topology)
        source.give("abcdefgh")
        await sleeper.reach(1)
        await quiet(topology)
        assert source.heard() == {}
    assert source.heard() == all_are("returned", "abcdefgh")


async def test_a_call_that_is_under_way_at_the_end_may_still_be_done() -> None:
    topology, _ = watched()
    async with topology:
        source, handle = sourced(topology)
        sleeper = Sleeper()
        to = handle.with_options(max_demand=4, min_demand=2)
        consumer = topology.start(sleeper, subscribe_to=to, restart="temporary")
        await quiet(topology)
        source.give("abcd")
        await sleeper.reach(2)
        consumer.stop()
        sleeper.wake.set()
        await consumer.wait()
        assert source.heard() == all_are("done", "ab") | all_are("returned", "cd")


async def test_events_on_their_way_to_a_stage_that_has_ended_are_returned() -> None:
    topology, _ = watched()
    async with topology:
        source, handle = sourced(topology)
        consumer = topology.start(Forwarder(), subscribe_to=handle)
        await quiet(topology)
        consumer.stop()
        source.give("ab")
        await consumer.wait()
        assert source.heard() == all_are("returned", "ab")


# --- broadcast and partitions -----------------------------------------------------------------


async def test_a_broadcast_event_is_done_once_when_all_have_handled_it() -> None:
    topology, _ = watched()
    async with topology:
        source, handle = sourced(topology, dispatcher=BroadcastDispatcher())
        first, last = Stepper(), Stepper()
        for stepper in (first, last):
            topology.start(stepper, subscribe_to=handle)
        await quiet(topology)
        source.give("ab")
        first.step()
        await quiet(topology)
        assert source.heard() == {}
        last.step()
        await quiet(topology)
        assert source.heard() == all_are("done", "ab")


async def test_a_stage_between_may_broadcast_and_all_copies_count() -> None:
    topology, _ = watched()
    async with topology:
        source, handle = sourced(topology)
        middle = topology.start(Doubler(), subscribe_to=handle, dispatcher=BroadcastDispatcher())
        steppers = [Stepper(), Stepper(), Stepper()]
        for stepper in steppers:
            topology.start(stepper, subscribe_to=middle)
        await quiet(topology)
        source.give("ab")
        for stepper in steppers:
            await quiet(topology)
            assert source.heard() == {}
            stepper.step()
        await quiet(topology)
        assert source.heard() == all_are("done", "ab")


async def test_a_broadcast_event_waits_for_those_alone_who_want_it() -> None:
    topology, _ = watched()
    async with topology:
        source, handle = sourced(topology, dispatcher=BroadcastDispatcher())
        for wanted in ("ab", "b"):
            to = handle.with_options(selector=lambda event, wanted=wanted: event in wanted)
            topology.start(Forwarder(), subscribe_to=to)
        await quiet(topology)
        for event in "abc":
            source.give(event)
            await quiet(topology)
            assert source.heard()[event] == "done"


async def test_a_broadcast_event_that_fails_for_one_has_failed_once() -> None:
    topology, _ = watched()
    async with topology:
        source, handle = sourced(topology, dispatcher=BroadcastDispatcher())
        good, bad = Stepper(), Stepper()
        for stepper in (good, bad):
            topology.start(stepper, subscribe_to=handle, restart="temporary")
        await quiet(topology)
        source.give("ab")
        bad.fail(LookupError("no"))
        await quiet(topology)
        assert source.heard() == all_are("failed", "ab")
        good.step()
        await quiet(topology)
        assert source.heard() == all_are("failed", "ab")


async def test_what_a_partition_dispatcher_discards_is_done() -> None:
    """What it holds for somebody waits."""
    topology, _ = watched()
    async with topology:
        partitions = PartitionDispatcher("xy", hash=lambda n: None if n == 0 else "xy"[n % 2])
        source, handle = sourced(topology, dispatcher=partitions)
        topology.start(Forwarder(), subscribe_to=handle.with_options(partition="x"))
        await quiet(topology)
        source.give([0, 1, 2])
        await quiet(topology)
        handle.info("look")
        await quiet(topology)
        assert source.heard() == {0: "done", 2: "done"}
        topology.start(Forwarder(), subscribe_to=handle.with_options(partition="y"))
        await quiet(topology)
        assert source.heard() == {0: "done", 2: "done", 1: "done"}
