"""Dispatchers in running stages: who gets what, who is refused, and what is never lost."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.errors import ConfigError
from penstock.stages import (
    BroadcastDispatcher,
    DemandDispatcher,
    PartitionDispatcher,
    RoundRobinDispatcher,
    StageHandle,
    SubscribeOptions,
    To,
    Topology,
)
from stages.fixtures import (
    Counter,
    Doubler,
    Forwarder,
    Silent,
    Sleeper,
    emit,
    kinds,
    quiet,
    watched,
)

ALL = [
    DemandDispatcher(),
    RoundRobinDispatcher(),
    BroadcastDispatcher(),
    PartitionDispatcher(1),
]
EVERY = pytest.mark.parametrize("dispatcher", ALL, ids=lambda one: type(one).__name__)


def joining(dispatcher: Any, **options: Any) -> dict[str, Any]:
    """Options of a subscription that *dispatcher* takes."""
    return options | ({"partition": 0} if isinstance(dispatcher, PartitionDispatcher) else {})


async def manual(topology: Topology, to: Any) -> Forwarder:
    """A consumer that asks when the test does, subscribed to *to*."""
    forwarder = Forwarder(mode="manual")
    topology.start(forwarder, subscribe_to=to, restart="temporary")
    await forwarder.subscribed.reach(1)
    return forwarder


# --- every dispatcher -------------------------------------------------------------------------


@EVERY
async def test_what_was_buffered_goes_first_whoever_comes_or_goes(dispatcher: Any) -> None:
    """The demand of one that left, a smaller ask of the next, and events in between."""
    topology, _ = watched()
    async with topology:
        producer = topology.start(Silent(), dispatcher=dispatcher)
        to = producer.with_options(**joining(dispatcher, cancel="temporary"))
        leaves = await manual(topology, to)
        leaves.subscribed[0].ask(10)
        leaves.subscribed[0].cancel()
        await leaves.cancelled.reach(1)
        await emit(producer, [1, 2, 3])
        heir = await manual(topology, to)
        heir.subscribed[0].ask(2)
        await quiet(topology)
        assert heir.events == [1, 2]
        await emit(producer, [4, 5])
        await quiet(topology)
        assert heir.events == [1, 2], "it has not asked for more"
        heir.subscribed[0].ask(10)
        assert await heir.reach(5) == [1, 2, 3, 4, 5]


@EVERY
async def test_an_instance_serves_several_stages_as_a_pattern(dispatcher: Any) -> None:
    """Each stage, and each run of it, has one of its own."""
    topology, _ = watched()
    async with topology:
        takers = []
        for first in (0, 100):
            producer = topology.start(Counter(first), dispatcher=dispatcher)
            sleeper = Sleeper()
            topology.start(sleeper, subscribe_to=producer.with_options(**joining(dispatcher)))
            takers.append(sleeper)
        for first, sleeper in zip((0, 100), takers, strict=True):
            await sleeper.reach(1)
            assert sleeper.events[0] == first
            sleeper.wake.set()


# --- demand and turns -------------------------------------------------------------------------


async def test_an_emission_goes_to_the_one_that_asked_for_most() -> None:
    topology, _ = watched()
    async with topology:
        producer = topology.start(Silent())
        small, large = await manual(topology, producer), await manual(topology, producer)
        small.subscribed[0].ask(5)
        large.subscribed[0].ask(10)
        await emit(producer, range(6))
        await emit(producer, range(6, 12))
        assert await large.reach(7) == [0, 1, 2, 3, 4, 5, 11]
        assert await small.reach(5) == [6, 7, 8, 9, 10]


async def test_by_turns_each_gets_a_few_events_of_one_emission() -> None:
    topology, _ = watched()
    async with topology:
        producer = topology.start(Silent(), dispatcher=RoundRobinDispatcher(per_turn=2))
        one, two = await manual(topology, producer), await manual(topology, producer)
        one.subscribed[0].ask(10)
        two.subscribed[0].ask(3)
        await emit(producer, range(8))
        assert await one.reach(5) == [0, 1, 4, 5, 7]
        assert await two.reach(3) == [2, 3, 6]


async def test_who_asks_for_more_than_the_others_at_once_is_signalled() -> None:
    topology, signals = watched()
    async with topology:
        producer = topology.start(Silent(), name="spring")
        for ask in (10, 10, 11):
            forwarder = await manual(topology, producer)
            forwarder.subscribed[0].ask(ask)
        await quiet(topology)
        assert kinds(signals) == ["greedy-consumer"]
        assert "spring" in signals[0].message
        assert "11" in signals[0].message


# --- broadcast --------------------------------------------------------------------------------


def broadcasting(topology: Topology, stage: Any, **options: Any) -> StageHandle[Any]:
    """*stage*, started so that it begins when the test says."""
    return topology.start(stage, dispatcher=BroadcastDispatcher(), **options)


@pytest.mark.conformance("GS-136")
async def test_consumers_of_a_broadcast_get_the_same_batches_in_step() -> None:
    topology, _ = watched()
    async with topology:
        producer = broadcasting(topology, Counter(), demand="accumulate")
        takers = [Forwarder(), Forwarder()]
        for taker, most in zip(takers, (10, 20), strict=True):
            to = producer.with_options(max_demand=most, min_demand=0)
            topology.start(taker, subscribe_to=to)
            await taker.subscribed.reach(1)
        producer.demand("forward")
        for taker in takers:
            await taker.reach(60)
            assert taker.batches[:6] == [list(range(n, n + 10)) for n in range(0, 60, 10)]


@pytest.mark.conformance("GS-137")
async def test_a_subscriber_that_never_asks_holds_all_up_until_it_leaves() -> None:
    topology, _ = watched()
    async with topology:
        silent = Silent()
        producer = broadcasting(topology, silent)
        idle = await manual(topology, producer.with_options(cancel="temporary"))
        eager = await manual(topology, producer)
        eager.subscribed[0].ask(10)
        await emit(producer, [1, 2])
        await quiet(topology)
        assert (silent.asked, eager.events, idle.events) == ([], [], [])
        idle.subscribed[0].cancel()
        assert await eager.reach(2) == [1, 2]
        assert idle.events == []
        await silent.asked.reach(1)
        assert silent.asked == [8], "what it had asked for, but for what was there"


@pytest.mark.conformance("GS-138")
async def test_a_broadcast_is_asked_once_for_what_several_want() -> None:
    topology, _ = watched()
    async with topology:
        counter = Counter()
        producer = broadcasting(topology, counter, demand="accumulate")
        takers = [Sleeper(), Sleeper()]
        for taker, most in zip(takers, (10, 20), strict=True):
            topology.start(taker, subscribe_to=producer.with_options(max_demand=most))
            await taker.subscribed.reach(1)
        producer.demand("forward")
        await quiet(topology)
        assert counter.asked == [10]
        for taker in takers:
            assert taker.events[:5] == [0, 1, 2, 3, 4]
            taker.wake.set()


@pytest.mark.conformance("GS-139")
async def test_a_middle_stage_broadcasts_what_it_makes() -> None:
    topology, _ = watched()
    async with topology:
        counter, takers = Counter(), [Sleeper(), Sleeper()]
        source = topology.start(counter)
        doubler = Doubler()
        middle = broadcasting(
            topology, doubler, subscribe_to=source.with_options(max_demand=10, min_demand=0)
        )
        first = await manual(topology, middle.with_options(cancel="temporary"))
        for taker, most in zip(takers, (10, 20), strict=True):
            topology.start(taker, subscribe_to=middle.with_options(max_demand=most, min_demand=0))
            await taker.subscribed.reach(1)
        await quiet(topology)
        first.subscribed[0].cancel()
        await quiet(topology)
        assert doubler.batches == [list(range(10))]
        assert counter.asked == [10, 10], "the second: after what came was handled"
        for taker in takers:
            assert taker.events == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
            taker.wake.set()


@pytest.mark.conformance("GS-140")
async def test_what_was_buffered_while_one_joined_is_delivered_first_to_both() -> None:
    topology, _ = watched()
    async with topology:
        producer = broadcasting(topology, Silent())
        one = await manual(topology, producer)
        one.subscribed[0].ask(10)
        two = await manual(topology, producer)
        await emit(producer, [1, 2])
        await quiet(topology)
        assert one.events == []
        two.subscribed[0].ask(5)
        for taker in (one, two):
            assert await taker.reach(2) == [1, 2]
        await emit(producer, [3])
        for taker in (one, two):
            assert await taker.reach(3) == [1, 2, 3]


async def test_each_consumer_gets_what_its_selector_wants() -> None:
    """What it does not want costs it no demand."""
    topology, _ = watched()
    async with topology:
        producer = broadcasting(topology, Silent())
        even = await manual(topology, producer.with_options(selector=lambda n: n % 2 == 0))
        every = await manual(topology, producer)
        even.subscribed[0].ask(3)
        every.subscribed[0].ask(6)
        await emit(producer, range(6))
        assert await every.reach(6) == [0, 1, 2, 3, 4, 5]
        assert await even.reach(3) == [0, 2, 4]


@pytest.mark.conformance("GS-141")
async def test_a_selector_that_is_no_function_is_refused() -> None:
    """At the caller, or by the producer where it is found by its name; which lives."""
    topology, signals = watched()
    async with topology:
        producer = broadcasting(topology, Silent(), name="spring")
        with pytest.raises(ConfigError, match="selector must be"):
            producer.with_options(selector="even")
        good = await manual(topology, producer)
        bad = await manual(topology, To("spring", SubscribeOptions(extra={"selector": "even"})))
        reason, _ = (await bad.cancelled.reach(1))[0]
        assert (reason.kind, reason.down) == ("failed", False)
        assert isinstance(reason.error, ConfigError)
        assert kinds(signals)[0] == "subscription-refused"
        good.subscribed[0].ask(1)
        await emit(producer, [1])
        assert await good.reach(1) == [1]


@pytest.mark.conformance("GS-141")
async def test_a_selector_that_raises_ends_its_own_subscription_alone() -> None:
    topology, signals = watched()
    async with topology:
        producer = broadcasting(topology, Silent())
        good = await manual(topology, producer)
        to = producer.with_options(selector=lambda n: 1 / n > 0, cancel="temporary")
        bad = await manual(topology, to)
        for taker in (good, bad):
            taker.subscribed[0].ask(10)
        await emit(producer, [1])
        await emit(producer, [2, 0, 3])
        assert await good.reach(4) == [1, 2, 0, 3]
        reason, _ = (await bad.cancelled.reach(1))[0]
        assert isinstance(reason.error, Exception)
        assert isinstance(reason.error.__cause__, ZeroDivisionError)
        assert bad.events[:1] == [1]
        await emit(producer, [4])
        assert await good.reach(5) == [1, 2, 0, 3, 4], "nobody waits for one that is gone"
        assert kinds(signals) == ["subscription-refused"]


# --- partitions -------------------------------------------------------------------------------


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
        producer = parted(topology, hash=lambda n: "even")
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
