"""Dispatchers in running stages: who gets what, who is refused, and what is never lost."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from penstock.errors import ConfigError
from penstock.stages import (
    BroadcastDispatcher,
    DemandDispatcher,
    PartitionDispatcher,
    Producer,
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


class Known(DemandDispatcher):
    """Understands one option, and writes down what it was given."""

    known = frozenset({"colour"})
    given: ClassVar[list[dict[str, Any]]] = []

    def fresh(self) -> Known:
        return Known()

    def subscribe(self, tag: Any, options: Any) -> None:
        self.given.append(dict(options))
        super().subscribe(tag, options)


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


# --- options of a subscription ----------------------------------------------------------------


@pytest.mark.conformance("GS-077")
async def test_other_options_reach_the_producer_and_its_dispatcher() -> None:
    topology, _ = watched()
    Known.given.clear()
    async with topology:
        silent = Silent()
        producer = topology.start(silent, dispatcher=Known())
        topology.start(Forwarder(), subscribe_to=producer.with_options(colour="red", max_demand=7))
        await silent.subscribed.reach(1)
        assert silent.subscribed[0].options.extra == {"colour": "red"}
        await quiet(topology)
    assert Known.given == [{"max_demand": 7, "colour": "red"}]


@pytest.mark.conformance("GS-077")
async def test_an_option_that_nobody_understands_is_refused_at_the_caller() -> None:
    """A producer with a `handle_subscribe` of its own may understand any."""

    class Plain(Producer[int]):
        def handle_demand(self, demand: int) -> None:
            pass

    topology, _ = watched()
    async with topology:
        plain = topology.start(Plain())
        with pytest.raises(ConfigError, match="colour"):
            plain.with_options(colour="red")
        silent = Silent()
        topology.start(Forwarder(), subscribe_to=topology.start(silent).with_options(size="big"))
        await silent.subscribed.reach(1)
        assert silent.subscribed[0].options.extra == {"size": "big"}


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


async def test_what_a_selector_leaves_out_costs_no_demand_and_holds_nothing_up() -> None:
    """Of one emission as of several."""
    topology, _ = watched()
    async with topology:
        producer = broadcasting(topology, Silent())
        even = await manual(topology, producer.with_options(selector=lambda n: n % 2 == 0))
        every = await manual(topology, producer)
        even.subscribed[0].ask(3)
        every.subscribed[0].ask(6)
        await emit(producer, range(6))
        assert await every.reach(5) == [0, 1, 2, 3, 4]
        assert await even.reach(3) == [0, 2, 4]
        assert producer.estimate_buffered_count() == 1  # it has had what it asked for
        even.subscribed[0].ask(1)
        assert await every.reach(6) == [0, 1, 2, 3, 4, 5]


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
