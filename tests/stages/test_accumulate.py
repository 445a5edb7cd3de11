"""Accumulate and forward: asks and events wait until all consumers are there."""

from __future__ import annotations

from typing import Any

import pytest

from penstock import ConfigError
from penstock.stages import BroadcastDispatcher, StageHandle, Topology
from penstock.stages.protocol import Ask
from stages.fixtures import (
    Counter,
    Forwarder,
    Middle,
    Silent,
    Stranger,
    emit,
    kinds,
    quiet,
    watched,
)


@pytest.mark.conformance("GS-027")
async def test_a_producer_that_accumulates_gives_nothing_until_forward() -> None:
    counter, forwarder = Counter(), Forwarder()
    async with Topology() as topology:
        handle = topology.start(counter, demand="accumulate")
        topology.start(forwarder, subscribe_to=handle.with_options(max_demand=4, min_demand=0))
        await quiet(topology)
        assert handle.demand() == "accumulate"
        assert (forwarder.batches, counter.asked) == ([], [])
        handle.demand("forward")
        await forwarder.batches.reach(1)
        assert handle.demand() == "forward"
    assert forwarder.batches[0] == [0, 1, 2, 3]


@pytest.mark.conformance("GS-027")
async def test_accumulating_may_be_said_in_the_class() -> None:
    class Patient(Counter):
        demand = "accumulate"

    async with Topology() as topology:
        handle = topology.start(patient := Patient())
        topology.start(forwarder := Forwarder(), subscribe_to=handle)
        await quiet(topology)
        assert handle.demand() == "accumulate"
        assert patient.asked == []
        handle.demand("forward")
        assert await forwarder.reach(4) == [0, 1, 2, 3]


@pytest.mark.conformance("GS-028")
async def test_a_running_producer_can_be_told_to_accumulate() -> None:
    counter, forwarder = Counter(), Forwarder()
    async with Topology() as topology:
        handle = topology.start(counter)
        assert handle.demand() == "forward"
        handle.demand("accumulate")
        topology.start(forwarder, subscribe_to=handle)
        await quiet(topology)
        assert handle.demand() == "accumulate"
        assert (forwarder.batches, counter.asked) == ([], [])
        handle.demand("forward")
        await forwarder.reach(1)


@pytest.mark.conformance("GS-029")
async def test_forward_before_anybody_subscribes_changes_nothing() -> None:
    counter, forwarder = Counter(), Forwarder()
    async with Topology() as topology:
        handle = topology.start(counter, demand="accumulate")
        handle.demand("forward")
        handle.demand("forward")
        await quiet(topology)
        assert counter.asked == []
        topology.start(forwarder, subscribe_to=handle)
        assert await forwarder.reach(100) == list(range(100))


@pytest.mark.conformance("GS-030")
async def test_accumulating_twice_loses_nothing() -> None:
    counter, mouth = Counter(), Stranger()
    async with Topology() as topology:
        handle = topology.start(counter, demand="accumulate")
        await emit(handle, ["a", "b"])
        tag = mouth.subscribe(handle, ask=2)
        await quiet(topology)
        handle.demand("accumulate")
        handle.send(Ask(tag, 2))
        await quiet(topology)
        assert (mouth.messages, counter.asked) == ([], [])
        handle.demand("forward")
        assert await mouth.reach(4) == ["a", "b", 0, 1]


@pytest.mark.conformance("GS-031")
async def test_asks_are_replayed_one_by_one() -> None:
    counter, mouth = Counter(), Stranger()
    async with Topology() as topology:
        handle = topology.start(counter, demand="accumulate")
        tag = mouth.subscribe(handle, ask=2)
        handle.send(Ask(tag, 2))
        await quiet(topology)
        handle.demand("forward")
        await mouth.reach(4)
        handle.send(Ask(tag, 1))
        assert await mouth.reach(5) == [0, 1, 2, 3, 4]
    assert counter.asked == [2, 2, 1]


@pytest.mark.conformance("GS-031")
async def test_all_asks_are_replayed_also_where_the_first_is_not_served() -> None:
    silent, mouth = Silent(), Stranger()
    async with Topology() as topology:
        handle = topology.start(silent, demand="accumulate")
        tag = mouth.subscribe(handle, ask=2)
        handle.send(Ask(tag, 3))
        await quiet(topology)
        handle.demand("forward")
        await quiet(topology)
        assert silent.asked == [2, 3]


@pytest.mark.conformance("GS-032")
async def test_emissions_are_replayed_one_by_one_to_all_consumers_of_a_broadcast() -> None:
    forwarders = [Forwarder(), Forwarder()]
    async with Topology() as topology:
        handle = topology.start(Silent(), demand="accumulate", dispatcher=BroadcastDispatcher())
        for forwarder in forwarders:
            topology.start(forwarder, subscribe_to=handle)
        for emission in (["a", "b"], ["c"], ["d", "e", "f"]):
            await emit(handle, emission)
        await quiet(topology)
        assert [forwarder.batches for forwarder in forwarders] == [[], []]
        handle.demand("forward")
        await emit(handle, ["g"])
        for forwarder in forwarders:
            await forwarder.reach(7)
            assert forwarder.batches == [["a", "b"], ["c"], ["d", "e", "f"], ["g"]]
        assert handle.estimate_buffered_count() == 0


@pytest.mark.conformance("GS-033")
@pytest.mark.parametrize("mode", ["forward", "accumulate", None])
async def test_a_consumer_has_no_mode_and_its_caller_is_told(mode: Any) -> None:
    async with Topology() as topology:
        handle = topology.start(Forwarder())
        with pytest.raises(ConfigError, match="Forwarder is a consumer: it has no demand mode"):
            handle.demand(mode)
        await quiet(topology)
        assert handle.alive


@pytest.mark.conformance("GS-034", "GS-035")
async def test_a_stage_between_always_forwards() -> None:
    topology, signals = watched()
    mouth = Stranger()
    async with topology:
        counter = topology.start(Counter())
        handle = topology.start(Middle(), subscribe_to=counter.with_options(max_demand=4))
        assert handle.demand() == "forward"
        assert handle.demand("forward") == "forward"
        with pytest.raises(ConfigError, match="Middle takes events too: it cannot accumulate"):
            handle.demand("accumulate")
        mouth.subscribe(handle, ask=3)
        assert await mouth.reach(3) == [0, 1, 2]
        assert handle.demand() == "forward"
        assert kinds(signals) == []


async def test_an_unknown_mode_is_refused() -> None:
    async with Topology() as topology:
        handle = topology.start(Counter())
        with pytest.raises(ConfigError, match="must be 'forward' or 'accumulate'; got 'sometimes'"):
            handle.demand("sometimes")  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="must be 'forward' or 'accumulate'; got 'sometimes'"):
            topology.start(Counter(), demand="sometimes")  # type: ignore[call-overload]
        with pytest.raises(ConfigError, match="Middle has no option demand"):
            topology.start(Middle(), demand="accumulate")


@pytest.mark.conformance("GS-036")
async def test_accumulated_events_are_counted_and_bounded() -> None:
    topology, signals = watched()
    silent, forwarder = Silent(), Forwarder()
    async with topology:
        handle = topology.start(silent, demand="accumulate", buffer_size=5)
        topology.start(forwarder, subscribe_to=handle)
        await emit(handle, [1, 2, 3])
        assert handle.estimate_buffered_count() == 3
        assert handle.statistics().buffered == 3
        await emit(handle, [4, 5, 6, 7])
        assert handle.estimate_buffered_count() == 5
        await silent.discarded.reach(1)
        handle.demand("forward")
        assert await forwarder.reach(5) == [3, 4, 5, 6, 7]
        await quiet(topology)
        assert handle.estimate_buffered_count() == 0
    assert silent.discarded == [2]
    assert [(one.kind, one.count) for one in signals] == [("events-dropped", 2)]


@pytest.mark.conformance("GS-037")
async def test_an_info_comes_behind_accumulated_events() -> None:
    silent, mouth = Silent(), Stranger()
    async with Topology() as topology:
        handle: StageHandle[Any] = topology.start(silent, demand="accumulate")
        mouth.subscribe(handle, ask=10)
        await emit(handle, [1, 2])
        handle.info("behind")
        await emit(handle, [3])
        await quiet(topology)
        assert (silent.infos, mouth.messages) == ([], [])
        handle.demand("forward")
        await silent.infos.reach(1)
        assert [message.events for message in mouth.messages] == [[1, 2], [3]]
    assert silent.infos == ["behind"]
