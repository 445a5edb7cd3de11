"""Iterating over stages: what comes, when more is asked for, how it ends, what is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from penstock import ClosedError, ConfigError, StageError
from penstock.errors import SubscriptionCancelled
from penstock.stages import (
    EventIterator,
    IterableStage,
    PartitionDispatcher,
    Producer,
    SubscribeOptions,
    To,
    Topology,
    iterate,
)
from penstock.stages.protocol import Ask, Cancel, Events, Message, Subscribe
from stages.fixtures import (
    PATIENCE,
    Counter,
    Forwarder,
    Middle,
    Silent,
    Stranger,
    emit,
    quiet,
    watched,
)


class Prompt(Stranger):
    """A producer that answers each ask before `send` returns, with the next numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.next = 0

    def send(self, message: Message) -> None:
        super().send(message)
        if isinstance(message, Ask):
            first, self.next = self.next, self.next + message.demand
            message.tag.consumer.send(Events(message.tag, list(range(first, self.next))))


async def take(events: EventIterator[Any], count: int) -> list[Any]:
    """The next *count* events."""
    async with asyncio.timeout(PATIENCE):
        return [await anext(events) for _ in range(count)]


async def rest(events: EventIterator[Any]) -> list[Any]:
    """All events to the end."""
    async with asyncio.timeout(PATIENCE):
        return [event async for event in events]


# --- GenStage's lines --------------------------------------------------------------------------


@pytest.mark.conformance("GS-171")
async def test_ten_events_of_an_endless_producer_leave_nothing_behind() -> None:
    topology, signals = watched()
    async with topology:
        handle = topology.start(counter := Counter())
        found = []
        async for event in handle.events():
            found.append(event)
            if len(found) == 10:
                break
        assert found == list(range(10))
        [(reason, _)] = await counter.cancelled.reach(1)
        assert (reason.kind, reason.down) == ("normal", True)
        assert list(handle.statistics().subscriptions) == []
        assert handle.alive
    assert signals == []


@pytest.mark.conformance("GS-172")
async def test_300_events_are_iterated_over_with_a_max_demand_of_100() -> None:
    async with Topology() as topology:
        handle = topology.start(IterableStage(range(300)))
        assert await rest(handle.events(max_demand=100)) == list(range(300))


def unknown(_: Topology, options: SubscribeOptions) -> To:
    return To("nobody", options)


def ended(topology: Topology, options: SubscribeOptions) -> To:
    handle = topology.start(Counter(), restart="temporary")
    handle.stop(LookupError("broken"))
    return To(handle, options)


def refusing(topology: Topology, options: SubscribeOptions) -> To:
    handle = topology.start(Silent(), dispatcher=PartitionDispatcher(1))
    topology.start(Forwarder(), subscribe_to=handle.with_options(partition=0))
    extra = {"partition": 0}
    return To(handle, SubscribeOptions(options.max_demand, None, options.cancel, extra))


@pytest.mark.conformance("GS-174")
@pytest.mark.parametrize("producer", [unknown, ended, refusing])
@pytest.mark.parametrize("mode", ["permanent", "transient", "temporary"])
async def test_a_producer_that_is_not_there_or_refuses_raises_unless_it_is_temporary(
    producer: Any, mode: Any
) -> None:
    topology, _ = watched()
    async with topology:
        events = iterate(producer(topology, SubscribeOptions(cancel=mode)))
        await quiet(topology)
        if mode == "temporary":
            assert await rest(events) == []
        else:
            with pytest.raises(SubscriptionCancelled) as caught:
                await rest(events)
            assert caught.value.__cause__ is not None


@pytest.mark.conformance("GS-175")
async def test_transient_iteration_ends_with_its_producer_and_cancels_an_endless_one() -> None:
    async with Topology() as topology:
        finite = topology.start(IterableStage(range(7)))
        assert await rest(finite.events(cancel="transient")) == list(range(7))
        assert (await finite.wait()).kind == "normal"
        endless = topology.start(counter := Counter())
        async with endless.events(cancel="transient") as events:
            assert await take(events, 3) == [0, 1, 2]
        await counter.cancelled.reach(1)
        assert endless.alive


class Plain(Producer[int]):
    """A producer that knows no options of its own."""


@pytest.mark.conformance("GS-176")
@pytest.mark.parametrize(
    "options",
    [{"max_demand": 0}, {"max_demand": 2, "min_demand": 2}, {"cancel": "never"}, {"color": 1}],
)
async def test_bad_options_raise_where_the_iterator_is_made(options: dict[str, Any]) -> None:
    handle = Topology().start(Plain())
    with pytest.raises(ConfigError, match=str(next(reversed(options)))):
        handle.events(**options)


@pytest.mark.conformance("GS-176")
@pytest.mark.parametrize("options", [{"max_demand": 0}, {"color": 1}])
async def test_what_is_said_of_bad_options_names_the_producer(options: dict[str, Any]) -> None:
    handle = Topology().start(Plain(), name="numbers")
    with pytest.raises(ConfigError, match="numbers"):
        handle.events(**options)


@pytest.mark.conformance("GS-176")
async def test_what_gives_no_events_cannot_be_iterated_over() -> None:
    consumer = Topology().start(Forwarder(), name="sink")
    with pytest.raises(ConfigError, match="sink is a consumer"):
        consumer.events()
    with pytest.raises(ConfigError, match="sink is a consumer"):
        iterate([consumer])
    with pytest.raises(ConfigError, match="a producer must be"):
        iterate(5)  # type: ignore[arg-type]


@pytest.mark.conformance("GS-177")
async def test_an_iterator_asks_as_its_events_are_taken() -> None:
    """What was taken counts when the next event is asked for."""
    async with Topology() as topology:
        handle = topology.start(counter := Counter())
        events = handle.events(max_demand=4, min_demand=2)
        for taken, asked in [(1, [4]), (1, [4]), (1, [4, 2]), (1, [4, 2]), (3, [4, 2, 2, 2])]:
            await take(events, taken)
            await quiet(topology)
            assert counter.asked == asked
        await events.aclose()


# --- when it begins, and when it is left -------------------------------------------------------


async def test_it_subscribes_at_the_first_step_and_can_be_made_before_the_topology_runs() -> None:
    topology = Topology()
    handle = topology.start(counter := Counter())
    events = handle.events()
    async with topology:
        await quiet(topology)
        assert counter.subscribed == []
        assert await take(events, 2) == [0, 1]
        assert len(counter.subscribed) == 1
        await events.aclose()


async def test_a_loop_that_is_left_cancels_at_once() -> None:
    """It is forgotten then: nobody has to wait for a garbage collector."""
    peer = Prompt()
    async for event in iterate(peer):
        if event == 5:
            break
    assert [message.reason.kind for message in peer.of(Cancel)] == ["normal"]


async def test_a_loop_that_raises_cancels_in_its_block() -> None:
    peer = Prompt()

    async def raising() -> None:
        async with iterate(peer) as events:
            async for _ in events:
                raise LookupError

    with pytest.raises(LookupError):
        await raising()
    assert len(peer.of(Cancel)) == 1


async def test_it_can_be_closed_twice_and_gives_nothing_afterwards() -> None:
    peer = Prompt()
    events = iterate(peer)
    await take(events, 1)
    await events.aclose()
    await events.aclose()
    assert len(peer.of(Cancel)) == 1
    assert await rest(events) == []
    with pytest.raises(ClosedError):
        events.subscribe(peer)
    assert len(peer.of(Subscribe)) == 1


async def test_closing_it_ends_a_step_that_waits() -> None:
    peer = Stranger()
    events = iterate(peer)
    step = asyncio.create_task(rest(events))
    await peer.first(Ask)
    await events.aclose()
    assert await step == []


async def test_one_that_is_closed_before_it_began_never_begins() -> None:
    async with Topology() as topology:
        handle = topology.start(counter := Counter(), demand="accumulate")
        events = handle.events()
        await events.aclose()
        assert await rest(events) == []
        await quiet(topology)
        assert counter.subscribed == []
        assert handle.demand() == "accumulate"


async def test_cancelling_a_step_skips_nothing() -> None:
    """Wherever it waits: for the first event, between two, and where others get their turn."""
    events = iterate(Prompt(), forward=())
    found: list[int] = []
    cancelled = 0
    while len(found) < 600:
        step = asyncio.create_task(anext(events))
        await asyncio.sleep(0)
        step.cancel()
        [result] = await asyncio.gather(step, return_exceptions=True)
        if isinstance(result, int):
            found.append(result)
        else:
            cancelled += 1
    assert found == list(range(600))
    assert cancelled >= 2
    await events.aclose()


async def test_cancelling_a_step_that_has_just_got_its_event_skips_nothing() -> None:
    peer = Stranger()
    events = iterate(peer)
    step = asyncio.create_task(anext(events))
    tag = (await peer.first(Ask)).tag
    tag.consumer.send(Events(tag, [1, 2]))
    step.cancel()
    await asyncio.gather(step, return_exceptions=True)
    assert step.cancelled()
    assert await take(events, 2) == [1, 2]
    await events.aclose()


async def test_two_steps_at_a_time_leave_nobody_waiting_for_ever() -> None:
    async with Topology() as topology:
        handle = topology.start(Silent())
        events = handle.events()
        steps = [asyncio.create_task(anext(events)) for _ in range(2)]
        await quiet(topology)
        await emit(handle, [1, 2])
        await quiet(topology)
        over = [step.done() for step in steps]
        for step in steps:
            step.cancel()
        await asyncio.gather(*steps, return_exceptions=True)
        await events.aclose()
        assert over == [True, True]


async def test_what_is_not_started_is_said_at_the_first_step() -> None:
    handle = Topology().start(Counter(), name="numbers")
    with pytest.raises(StageError, match="numbers has not been started"):
        await anext(handle.events())


# --- several producers -------------------------------------------------------------------------


async def test_several_producers_come_each_in_its_order_until_all_have_ended() -> None:
    async with Topology() as topology:
        low = topology.start(IterableStage(range(2000)))
        high = topology.start(IterableStage(range(5000, 6000)))
        found = await rest(iterate([low, high.with_options(max_demand=10)]))
    assert [event for event in found if event < 5000] == list(range(2000))
    assert [event for event in found if event >= 5000] == list(range(5000, 6000))


async def test_a_producer_can_be_added_before_it_begins_and_while_it_waits() -> None:
    async with Topology() as topology:
        one = topology.start(first := Silent())
        two = topology.start(second := Silent())
        three = topology.start(third := Silent())
        events = iterate(one)
        events.subscribe(two)
        step = asyncio.create_task(anext(events))
        await first.asked.reach(1)
        await second.asked.reach(1)
        with pytest.raises(ConfigError):
            events.subscribe(To(three, SubscribeOptions(max_demand=0)))
        events.subscribe(three.with_options(max_demand=3))
        await third.asked.reach(1)
        assert third.asked == [3]
        await emit(three, ["c"])
        assert await step == "c"
        await events.aclose()
        await quiet(topology)
        assert [len(stage.cancelled) for stage in (first, second, third)] == [1, 1, 1]


async def test_a_loop_that_always_finds_events_lets_others_have_their_turns() -> None:
    turns = 0

    async def turning() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(turning())
    async with iterate(Prompt(), forward=()) as events:
        await take(events, 10_000)
    other.cancel()
    await asyncio.gather(other, return_exceptions=True)
    assert turns >= 30


# --- accumulate and forward --------------------------------------------------------------------


class Noting(Counter):
    """Notes how many consumers it had, when it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.had: list[int] = []

    def handle_demand(self, demand: int) -> Sequence[int]:
        self.had.append(len(self.subscribed))
        return super().handle_demand(demand)


async def test_producers_forward_when_all_subscriptions_have_been_made() -> None:
    async with Topology() as topology:
        handle = topology.start(noting := Noting(), demand="accumulate")
        async with iterate([handle, handle, handle]) as events:
            await take(events, 1)
        assert noting.had[0] == 3
        assert handle.demand() == "forward"


async def test_those_forward_that_are_named_instead() -> None:
    """Or none: then somebody else tells them."""
    async with Topology() as topology:
        source = topology.start(Counter(), demand="accumulate")
        async with iterate(source, forward=[]) as events:
            step = asyncio.create_task(anext(events))
            await quiet(topology)
            assert not step.done()
            middle = topology.start(Middle(), subscribe_to=source.with_options(max_demand=1))
            async with iterate(middle, forward=[source]) as others:
                assert await take(others, 1) == [1000]
            assert await step == 0
