"""Complete strangers, written from the protocol alone, at work with our stages."""

from __future__ import annotations

import asyncio
from string import ascii_lowercase
from typing import Any

import pytest

from penstock import ConfigError, StageError
from penstock.stages import BroadcastDispatcher, Reason, SubscribeOptions, To, Topology
from penstock.stages.protocol import NORMAL, SHUTDOWN
from stages.fixtures import (
    PATIENCE,
    Counter,
    Doubler,
    Forwarder,
    Middle,
    Silent,
    Stranger,
    collected,
    emit,
    kinds,
    quiet,
    watched,
    within,
)
from stages.strangers import Letters, Total


async def over(total: Total) -> None:
    """Wait until all that it subscribed to is over."""
    async with asyncio.timeout(PATIENCE):
        await total.over.wait()


async def test_a_strangers_producer_feeds_our_consumer_and_its_end_is_ours() -> None:
    topology, signals = watched()
    letters = Letters(ascii_lowercase)
    async with topology:
        topology.start(Forwarder(), subscribe_to=To(letters, SubscribeOptions(max_demand=4)))
        assert await collected(topology) == list(ascii_lowercase)
    assert (kinds(signals), letters.notes) == ([], [])


async def test_a_strangers_producer_is_shared_by_several_of_ours() -> None:
    topology, signals = watched()
    letters = Letters(ascii_lowercase)
    async with topology:
        for _ in range(3):
            topology.start(Forwarder(), subscribe_to=To(letters, SubscribeOptions(max_demand=3)))
        assert sorted(await collected(topology)) == list(ascii_lowercase)
    assert (kinds(signals), letters.notes) == ([], [])


class UpTo(Counter):
    """Counts to a hundred, and ends when that has been given."""

    def handle_demand(self, demand: int) -> list[int]:
        events = [number for number in super().handle_demand(demand) if number < 100]
        if self.next >= 100:
            self.finish()
        return events


@pytest.mark.parametrize("ahead", [1, 7, 1000])
async def test_a_strangers_consumer_is_fed_by_our_producer_to_its_end(ahead: int) -> None:
    topology, signals = watched()
    total = Total(ahead)
    async with topology:
        total.subscribe(topology.start(UpTo()))
        await within(topology)
        await over(total)
    assert total.events == list(range(100))
    assert (total.reasons, total.notes, kinds(signals)) == ([NORMAL.as_down()], [], [])


async def test_strangers_stand_at_both_ends_of_our_stages() -> None:
    topology, signals = watched()
    letters, total = Letters("abcdefgh"), Total(3)
    async with topology:
        doubler = topology.start(
            Doubler(), subscribe_to=To(letters, SubscribeOptions(max_demand=2))
        )
        total.subscribe(doubler)
        await within(topology)
        await over(total)
    assert "".join(total.events) == "aabbccddeeffgghh"
    assert (total.reasons, total.notes, letters.notes) == ([NORMAL.as_down()], [], [])
    assert kinds(signals) == []


async def test_a_strangers_consumer_leaves_and_our_producer_goes_on_with_the_others() -> None:
    topology, signals = watched()
    leaver, stayer = Total(2), Total(5)
    async with topology:
        handle = topology.start(Silent(), dispatcher=BroadcastDispatcher())
        leaver.subscribe(handle)
        stayer.subscribe(handle, selector=lambda number: number % 2)
        await emit(handle, range(10))
        await quiet(topology, leaver.events, stayer.events)
        leaver.leave()
        await emit(handle, range(10, 20))
        await quiet(topology, leaver.events, stayer.events)
    assert leaver.events == list(range(10))
    assert stayer.events == list(range(1, 20, 2))
    assert stayer.reasons == [SHUTDOWN.as_down()]
    assert kinds(signals) == []


async def test_our_consumer_leaves_a_strangers_producer_and_comes_back() -> None:
    letters = Letters(ascii_lowercase)
    async with Topology() as topology:
        handle = topology.start(forwarder := Forwarder(mode="manual"))
        options = SubscribeOptions(cancel="temporary")
        first = await handle.subscribe(To(letters, options))
        first.ask(2)
        assert await forwarder.reach(2) == ["a", "b"]
        second = await handle.resubscribe(first, To(letters, options), reason="shutdown")
        second.ask(3)
        assert await forwarder.reach(5) == list("abcde")
        second.cancel()
        await forwarder.cancelled.reach(2)
        third = await handle.subscribe(To(letters, options))
        third.ask(1)
        assert await forwarder.reach(6) == list("abcdef")
    assert [reason for reason, _ in forwarder.cancelled] == [SHUTDOWN, NORMAL]
    assert letters.notes == []


# --- wrong inputs ----------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["broken", 5, ValueError, ["normal"]])
def test_a_reason_that_is_none_is_refused(wrong: Any) -> None:
    with pytest.raises(
        ConfigError, match="must be None, 'normal', 'shutdown' or an exception; got"
    ):
        Reason.of(wrong)


def test_a_reason_may_be_said_in_short() -> None:
    error = ValueError("it broke")
    assert Reason.of(None) == Reason.of("normal") == NORMAL
    assert Reason.of("shutdown") == SHUTDOWN
    assert Reason.of(error) == Reason("failed", error)
    assert Reason.of(SHUTDOWN) is SHUTDOWN


async def test_a_wrong_reason_of_a_cancel_is_refused_and_cancels_nothing() -> None:
    mouth = Stranger()
    async with Topology() as topology:
        handle = topology.start(Forwarder())
        subscription = await handle.subscribe(mouth)
        with pytest.raises(ConfigError, match="a reason must be"):
            subscription.cancel("broken")
        assert subscription.open
        await quiet(topology, mouth.messages)
        assert [type(one).__name__ for one in mouth.messages] == ["Subscribe", "Ask"]
        subscription.cancel()
        await mouth.messages.reach(3)


@pytest.mark.parametrize("wrong", ["text", b"bytes", 5, {1: 2}, {1, 2}, object()])
@pytest.mark.parametrize("kind", [Silent, Middle])
async def test_what_is_no_sequence_of_events_cannot_be_emitted(kind: type[Any], wrong: Any) -> None:
    async with Topology() as topology:
        handle = topology.start(kind(), name="stage", restart="temporary")
        with pytest.raises(StageError, match=f"stage: {kind.__name__}.emit must give a sequence"):
            await emit(handle, wrong)


async def test_a_stage_that_is_not_running_can_do_nothing() -> None:
    for act in (
        lambda: Silent().emit([1]),
        lambda: Silent().info("hello"),
        lambda: Silent().stop(),
        lambda: Silent().finish(),
        lambda: Silent().subscriptions,
    ):
        with pytest.raises(StageError, match="Silent is not running: start it with"):
            act()


async def test_a_handle_of_a_topology_that_is_not_entered_says_so() -> None:
    topology = Topology()
    handle = topology.start(Silent(), name="silent")
    for act in (
        lambda: handle.cast("hello"),
        lambda: handle.info("hello"),
        handle.stop,
        handle.statistics,
        handle.estimate_buffered_count,
        handle.demand,
    ):
        with pytest.raises(StageError, match="silent has not been started: enter its topology"):
            act()
    assert (handle.started, handle.alive, handle.ended) == (False, False, None)
