"""Manual demand: the program asks, and nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from penstock import ConfigError, StageError
from penstock.stages import Subscription, Topology
from penstock.stages.protocol import Subscribe
from stages.fixtures import Counter, Forwarder, Seen, Silent, Stranger, kinds, quiet, watched


@pytest.mark.conformance("GS-078")
async def test_with_manual_demand_nothing_comes_but_what_the_program_asks_for() -> None:
    async with Topology() as topology:
        counter = topology.start(Counter())
        handle = topology.start(forwarder := Forwarder(mode="manual"))
        subscription = await handle.subscribe(counter)
        await quiet(topology)
        assert forwarder.batches == []
        await fifty_and_fifty(forwarder, subscription, topology)


@pytest.mark.conformance("GS-079")
async def test_manual_demand_is_the_same_for_what_a_stage_subscribes_to_at_its_start() -> None:
    async with Topology() as topology:
        counter = topology.start(Counter())
        topology.start(forwarder := Forwarder(mode="manual"), subscribe_to=counter)
        [subscription] = await forwarder.subscribed.reach(1)
        await quiet(topology)
        assert forwarder.batches == []
        await fifty_and_fifty(forwarder, subscription, topology)


async def fifty_and_fifty(
    forwarder: Forwarder, subscription: Subscription, topology: Topology
) -> None:
    subscription.ask(50)
    await forwarder.batches.reach(1)
    await quiet(topology)
    assert forwarder.batches == [list(range(50))]
    subscription.ask(50)
    await forwarder.batches.reach(2)
    await quiet(topology)
    assert forwarder.batches == [list(range(50)), list(range(50, 100))]


class Manual(Silent):
    """A producer that returns what only consumers may."""

    def handle_subscribe(self, subscription: Subscription) -> Any:
        return "manual"


@pytest.mark.conformance("GS-080")
async def test_a_producer_that_returns_manual_ends_with_an_error_that_says_so() -> None:
    async with Topology() as topology:
        handle = topology.start(Manual(), restart="temporary", name="manual")
        forwarder = Forwarder()
        topology.start(forwarder, subscribe_to=handle.with_options(cancel="temporary"))
        reason = await handle.wait()
        [(cancelled, _)] = await forwarder.cancelled.reach(1)
    assert isinstance(reason.error, StageError)
    assert str(reason.error) == (
        "manual: handle_subscribe on a producer's side must return None or 'automatic'; "
        "it returned 'manual'"
    )
    assert (cancelled.kind, cancelled.down) == ("failed", True)


@pytest.mark.conformance("GS-081")
@pytest.mark.parametrize("mode", ["sometimes", 5, True])
async def test_an_unknown_mode_of_demand_ends_the_consumer(mode: Any) -> None:
    async with Topology() as topology:
        counter = topology.start(Counter())
        consumer = topology.start(
            Forwarder(mode=mode), subscribe_to=counter, restart="temporary", name="consumer"
        )
        reason = await consumer.wait()
        await quiet(topology)
        assert counter.alive
    assert isinstance(reason.error, StageError)
    assert "consumer: handle_subscribe must return 'automatic', 'manual'" in str(reason.error)
    assert f"it returned {mode!r}" in str(reason.error)


@pytest.mark.conformance("GS-082")
async def test_asking_for_nothing_does_nothing_and_other_asks_are_refused() -> None:
    topology, signals = watched()
    mouth = Stranger()
    async with topology:
        handle = topology.start(Forwarder(mode="manual"))
        subscription = await handle.subscribe(mouth)
        subscription.ask(0)
        for wrong in (-1, 1.5, "1", None, True):
            with pytest.raises(ConfigError, match="a whole number of events, 0 or more; got"):
                subscription.ask(wrong)  # type: ignore[arg-type]
        await quiet(topology, mouth.messages)
        assert [type(message) for message in mouth.messages] == [Subscribe]
    assert kinds(signals) == []


@pytest.mark.conformance("GS-082")
async def test_only_the_consumer_asks_and_only_where_it_said_so() -> None:
    async with Topology() as topology:
        counter = Silent()
        producer = topology.start(counter)
        handle = topology.start(Forwarder(mode="automatic"))
        ours = await handle.subscribe(producer)
        theirs: Seen[Subscription] = await counter.subscribed.reach(1)
        for subscription in (ours, *theirs):
            with pytest.raises(ConfigError, match="only a consumer asks, and only where its"):
                subscription.ask(1)
