"""How iterations end, what becomes of their events, and what they say to their producers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock.errors import DemandExceeded, SubscriptionCancelled
from penstock.rules.trace import Fresh
from penstock.stages import BroadcastDispatcher, IterableStage, Topology, iterate
from penstock.stages.protocol import Ask, Cancel, Cancelled, Events, Reason, Tag
from stages.fixtures import (
    Counter,
    Doubler,
    Silent,
    Stranger,
    emit,
    in_stage,
    quiet,
    watched,
)
from stages.test_iterating import rest, take
from stages.tracing import all_are, sourced

# --- ends -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "raising"),
    [
        (None, set()),
        ("shutdown", {"permanent"}),
        (LookupError("broken"), {"permanent", "transient"}),
    ],
    ids=["normal", "shutdown", "failed"],
)
@pytest.mark.parametrize("mode", ["permanent", "transient", "temporary"])
async def test_a_cancelled_subscription_ends_it_or_raises_as_the_reason_and_the_mode_say(
    reason: Any, raising: set[str], mode: Any
) -> None:
    """In any case behind all events that came before."""
    async with Topology() as topology:
        handle = topology.start(silent := Silent())
        events = handle.events(cancel=mode)
        first = asyncio.create_task(anext(events))
        await silent.asked.reach(1)
        await emit(handle, [1])
        await emit(handle, [2])
        await in_stage(handle, lambda stage: stage.subscribed[0].cancel(reason))
        await silent.cancelled.reach(1)
        assert [await first, await anext(events)] == [1, 2]
        if mode in raising:
            with pytest.raises(SubscriptionCancelled, match="Silent"):
                await rest(events)
        else:
            assert await rest(events) == []
        assert handle.alive


@pytest.mark.parametrize("mode", ["permanent", "transient"])
async def test_a_topology_that_is_closed_shuts_iterations_down(mode: Any) -> None:
    async with Topology() as topology:
        handle = topology.start(silent := Silent())
        waiting = asyncio.create_task(rest(handle.events(cancel=mode)))
        await silent.asked.reach(1)
        await topology.aclose()
        if mode == "permanent":
            with pytest.raises(SubscriptionCancelled, match="ended: shutdown"):
                await waiting
        else:
            assert await waiting == []


async def test_it_goes_on_after_a_temporary_producer_has_failed() -> None:
    topology, _ = watched()
    async with topology:
        fails = topology.start(failing := Silent(), restart="temporary")
        other = topology.start(silent := Silent())
        events = iterate([fails.with_options(cancel="temporary"), other])
        first = asyncio.create_task(anext(events))
        await failing.asked.reach(1)
        await silent.asked.reach(1)
        fails.stop(LookupError("broken"))
        await fails.wait()
        await emit(other, [1, 2])
        assert [await first, *await take(events, 1)] == [1, 2]
        other.finish()
        assert await rest(events) == []


async def test_a_second_subscription_to_a_broadcasting_producer_is_refused_and_harmless() -> None:
    async with Topology() as topology:
        handle = topology.start(IterableStage(range(10)), dispatcher=BroadcastDispatcher())
        assert await rest(iterate([handle, handle])) == list(range(10))


async def test_a_failure_is_raised_however_busy_the_other_producers_are() -> None:
    topology, _ = watched()
    async with topology:
        fails = topology.start(Silent(), restart="temporary")
        endless = topology.start(Counter())
        events = iterate([fails, endless])
        await take(events, 1)
        fails.stop(LookupError("broken"))
        await fails.wait()
        with pytest.raises(SubscriptionCancelled, match="broken"):
            await take(events, 20_000)
        await events.aclose()


# --- outcomes, and the protocol ----------------------------------------------------------------


async def test_events_are_done_when_the_next_slice_is_asked_for_and_the_others_returned() -> None:
    async with Topology() as topology:
        source, handle = sourced(topology)
        events = handle.events(max_demand=8, min_demand=6)
        step = asyncio.create_task(anext(events))
        await source.asked.reach(1)
        source.give("abcde")
        source.give("fg")
        assert [await step, *await take(events, 1)] == ["a", "b"]
        assert source.heard() == {}
        assert await take(events, 1) == ["c"]
        assert source.heard() == all_are("done", "ab")
        await events.aclose()
        assert source.heard() == all_are("done", "ab") | all_are("returned", "cdefg")


async def test_an_event_is_done_when_all_that_came_of_it_was_taken() -> None:
    async with Topology() as topology:
        source, handle = sourced(topology)
        doubler = topology.start(Doubler(), subscribe_to=handle)
        events = doubler.events(max_demand=1)
        step = asyncio.create_task(anext(events))
        await source.asked.reach(1)
        source.give("a")
        assert [await step, *await take(events, 1)] == ["a", "a"]
        await quiet(topology)
        assert source.heard() == {}
        step = asyncio.create_task(anext(events))
        await source.outcomes.reach(1)
        assert source.heard() == all_are("done", "a")
        source.give("b")
        assert await step == "b"
        await events.aclose()
        await quiet(topology)
        assert source.heard() == {"a": "done", "b": "returned"}


async def test_events_are_done_when_the_loop_has_come_to_its_end() -> None:
    async with Topology() as topology:
        source, handle = sourced(topology)
        running = asyncio.create_task(rest(handle.events()))
        await source.asked.reach(1)
        source.give("abc")
        handle.finish()
        assert await running == ["a", "b", "c"]
        assert source.heard() == all_are("done", "abc")


async def test_events_that_come_when_it_is_closed_are_returned() -> None:
    peer = Stranger()
    told: list[Any] = []
    events = iterate(peer)
    step = asyncio.create_task(anext(events))
    tag = (await peer.first(Ask)).tag
    step.cancel()
    await asyncio.gather(step, return_exceptions=True)
    await events.aclose()
    tag.consumer.send(Events(tag, ["a"], Fresh(lambda *outcome: told.append(outcome))))
    assert told == [(["a"], "returned", None)]


async def test_events_of_an_unknown_tag_are_returned_and_answered_with_cancel() -> None:
    peer = Stranger()
    told: list[Any] = []
    events = iterate(peer)
    step = asyncio.create_task(anext(events))
    tag = (await peer.first(Ask)).tag
    strange = Tag(tag.consumer, peer)
    tag.consumer.send(Events(strange, ["a"], Fresh(lambda *outcome: told.append(outcome))))
    tag.consumer.send(Events(tag, ["b"]))
    assert await step == "b"
    assert told == [(["a"], "returned", None)]
    assert [message.tag for message in peer.of(Cancel)] == [strange]
    await events.aclose()


async def test_events_beyond_demand_are_taken_then_the_subscription_is_cancelled() -> None:
    peer = Stranger()
    events = iterate(peer.to(max_demand=2))
    step = asyncio.create_task(anext(events))
    tag = (await peer.first(Ask)).tag
    tag.consumer.send(Events(tag, [1, 2, 3]))
    assert [await step, *await take(events, 2)] == [1, 2, 3]
    step = asyncio.create_task(anext(events))
    await asyncio.sleep(0)
    said = [message.reason.error for message in peer.of(Cancel)]
    step.cancel()
    await asyncio.gather(step, return_exceptions=True)
    await events.aclose()
    assert [type(error) for error in said] == [DemandExceeded]


async def test_a_reason_is_named_in_what_is_raised() -> None:
    """With who ended, and why."""
    peer = Stranger("somewhere")
    events = iterate(peer)
    step = asyncio.create_task(anext(events))
    tag = (await peer.first(Ask)).tag
    error = LookupError("broken")
    tag.consumer.send(Cancelled(tag, Reason("failed", error)))
    with pytest.raises(SubscriptionCancelled, match=r"somewhere .*cancelled: failed: broken") as it:
        await step
    assert it.value.__cause__ is error
    assert peer.of(Cancel) == []
