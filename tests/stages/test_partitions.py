"""Partitions in running stages: held for whom they are, refused where wrong, and never lost."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.errors import ConfigError
from penstock.stages import PartitionDispatcher, StageHandle, SubscribeOptions, To, Topology
from stages.fixtures import Forwarder, Silent, emit, kinds, quiet, watched


async def manual(topology: Topology, to: Any) -> Forwarder:
    """A consumer that asks when the test does, subscribed to *to*."""
    forwarder = Forwarder(mode="manual")
    topology.start(forwarder, subscribe_to=to, restart="temporary")
    await forwarder.subscribed.reach(1)
    return forwarder


def parted(topology: Topology, stage: Any = None, **options: Any) -> StageHandle[Any]:
    """A producer that sends even numbers to the one, odd ones to the other."""
    options.setdefault("hash", lambda n: "odd" if n % 2 else "even")
    dispatcher = PartitionDispatcher(["even", "odd"], **options)
    return topology.start(stage or Silent(), name="spring", dispatcher=dispatcher)


@pytest.mark.conformance("GS-146")
async def test_events_of_a_partition_without_a_consumer_wait_for_it() -> None:
    topology, _ = watched()
    async with topology:
        producer = parted(topology)
        even = await manual(topology, producer.with_options(partition="even"))
        even.subscribed[0].ask(10)
        await emit(producer, range(6))
        assert await even.reach(3) == [0, 2, 4]
        assert producer.estimate_buffered_count() == 3
        odd = await manual(topology, producer.with_options(partition="odd"))
        odd.subscribed[0].ask(2)
        assert await odd.reach(2) == [1, 3]
        odd.subscribed[0].ask(2)
        assert await odd.reach(3) == [1, 3, 5]


WRONG = {
    "missing": ({}, "must say which partition="),
    "unknown": ({"partition": "third"}, "partition must be one of 'even', 'odd'"),
    "no name": ({"partition": []}, "partition must be one of 'even', 'odd'"),
    "taken": ({"partition": "even"}, "taken by"),
}


@pytest.mark.conformance("GS-153")
@pytest.mark.parametrize("wrong", WRONG)
async def test_a_consumer_of_a_wrong_partition_is_refused_and_harms_nobody(wrong: str) -> None:
    extra, text = WRONG[wrong]
    topology, signals = watched()
    async with topology:
        silent = Silent()
        producer = parted(topology, silent)
        even = await manual(topology, producer.with_options(partition="even"))
        bad = await manual(topology, To("spring", SubscribeOptions(extra=extra)))
        reason, _ = (await bad.cancelled.reach(1))[0]
        assert (reason.kind, reason.down) == ("failed", False)
        assert isinstance(reason.error, ConfigError)
        assert text in str(reason.error)
        assert kinds(signals)[0] == "subscription-refused"
        assert [one.tag for one in silent.subscriptions] == [even.subscribed[0].tag]
        even.subscribed[0].ask(1)
        await emit(producer, [2])
        assert await even.reach(1) == [2]


@pytest.mark.conformance("GS-153")
@pytest.mark.parametrize("wrong", ["missing", "unknown", "no name"])
async def test_a_wrong_partition_is_refused_at_the_caller_where_it_can_be_known(
    wrong: str,
) -> None:
    extra, text = WRONG[wrong]
    topology, _ = watched()
    async with topology:
        producer = parted(topology)
        with pytest.raises(ConfigError, match=text):
            producer.with_options(**extra)


@pytest.mark.conformance("GS-153")
async def test_a_partition_is_free_again_when_its_consumer_has_left() -> None:
    topology, _ = watched()
    async with topology:
        producer = parted(topology)
        even = producer.with_options(partition="even", cancel="temporary")
        for number in (2, 4):
            taker = await manual(topology, even)
            taker.subscribed[0].ask(1)
            await emit(producer, [number])
            assert await taker.reach(1) == [number]
            taker.subscribed[0].cancel()
            await taker.cancelled.reach(1)


@pytest.mark.conformance("GS-154")
async def test_what_is_held_for_a_consumer_that_leaves_is_there_for_the_next() -> None:
    """In order, before anything newer; and no other gets it."""
    topology, signals = watched()
    async with topology:
        producer = parted(topology)
        odd = await manual(topology, producer.with_options(partition="odd"))
        even = await manual(topology, producer.with_options(partition="even", cancel="temporary"))
        odd.subscribed[0].ask(100)
        even.subscribed[0].ask(1)
        await emit(producer, [0, 2, 1, 4, 3])
        assert await even.reach(1) == [0]
        even.subscribed[0].cancel()
        await even.cancelled.reach(1)
        await emit(producer, [6, 8])
        heir = await manual(topology, producer.with_options(partition="even"))
        heir.subscribed[0].ask(10)
        assert await heir.reach(4) == [2, 4, 6, 8]
        assert odd.events == [1, 3]
        assert not signals


async def test_a_full_partition_holds_up_its_producer_and_no_more_than_max_demand_waits() -> None:
    topology, _ = watched()
    async with topology:
        producer = parted(topology, hash=lambda _: "even")
        even = await manual(topology, producer.with_options(partition="even", max_demand=4))
        odd = await manual(topology, producer.with_options(partition="odd", max_demand=4))
        odd.subscribed[0].ask(100)
        await emit(producer, range(50))
        await quiet(topology)
        figures = producer.statistics()
        assert (figures.delivered, figures.buffered) == (0, 50), "none lost, none handed out"
        dispatcher = producer.runner.giving.outlet.dispatcher  # type: ignore[union-attr]
        assert dispatcher.backlog == 4
        even.subscribed[0].ask(50)
        assert await even.reach(50) == list(range(50))
        assert producer.statistics().delivered == 50, "each counts once"


async def test_a_partition_with_demand_is_served_past_events_that_are_held_for_others() -> None:
    """As long as these can be held: nothing lies in the buffer that could be handed out."""
    topology, _ = watched()
    async with topology:
        producer = parted(topology)
        even = await manual(topology, producer.with_options(partition="even"))
        even.subscribed[0].ask(2)
        await emit(producer, [1, 3, 5, 2, 4])
        assert await even.reach(2) == [2, 4]


async def test_a_discarded_event_costs_no_demand() -> None:
    topology, _ = watched()
    async with topology:
        silent = Silent()
        producer = parted(topology, silent, hash=lambda n: None if n % 3 == 0 else "even")
        even = await manual(topology, producer.with_options(partition="even"))
        even.subscribed[0].ask(4)
        await emit(producer, range(6))
        assert await even.reach(4) == [1, 2, 4, 5]
        assert producer.statistics().delivered == 4
        assert silent.asked == [4]
