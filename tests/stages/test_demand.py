"""Demand between two stages: how events are cut into calls, what is asked for, and when."""

from __future__ import annotations

import asyncio
import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import ConfigError, DemandExceeded
from penstock.stages import StageHandle, SubscribeOptions, Subscription, To, Topology
from penstock.stages.protocol import Ask, Cancel, Events, Subscribe
from stages.fixtures import (
    Counter,
    Forwarder,
    Silent,
    Sleeper,
    Stranger,
    quiet,
    watched,
)


async def first_batches(count: int, **options: Any) -> list[list[int]]:
    """The first *count* lists that a consumer of a counter is called with."""
    async with Topology() as topology:
        counter = topology.start(Counter())
        topology.start(forwarder := Forwarder(), subscribe_to=counter.with_options(**options))
        await forwarder.batches.reach(count)
    return list(forwarder.batches[:count])


def numbers(*bounds: int) -> list[list[int]]:
    """The ranges between *bounds*."""
    return [list(range(*pair)) for pair in pairwise(bounds)]


# --- how events are cut ----------------------------------------------------------------------


@pytest.mark.conformance("GS-001")
async def test_by_default_a_consumer_is_called_with_500_events() -> None:
    assert await first_batches(3) == numbers(0, 500, 1000, 1500)


@pytest.mark.conformance("GS-002")
async def test_a_high_min_demand_makes_small_batches_and_the_stream_goes_on() -> None:
    batches = await first_batches(60, max_demand=100, min_demand=80)
    assert batches == numbers(*range(0, 1201, 20))


@pytest.mark.conformance("GS-003")
async def test_a_low_min_demand_makes_large_batches_cut_where_a_message_ends() -> None:
    batches = await first_batches(5, max_demand=100, min_demand=20)
    assert batches == numbers(0, 80, 100, 180, 260, 280)


@pytest.mark.conformance("GS-004")
async def test_a_max_demand_of_1_gives_one_event_a_call_in_order() -> None:
    assert await first_batches(100, max_demand=1, min_demand=0) == [[n] for n in range(100)]


# --- what is asked for, and when -------------------------------------------------------------


class Logger(Forwarder):
    """Writes the end of each call into the log that a `Mouth` writes asks into."""

    def __init__(self, log: list[tuple[str, int]], **attributes: Any) -> None:
        super().__init__(**attributes)
        self.log = log

    async def handle_events(self, events: list[Any], source: Subscription) -> None:
        super().handle_events(events, source)
        await asyncio.sleep(0)
        self.log.append(("handled", len(events)))


class Mouth(Stranger):
    """A producer by hand that writes asks into a log."""

    def __init__(self, log: list[tuple[str, int]]) -> None:
        super().__init__()
        self.log = log

    def send(self, message: Any) -> None:
        super().send(message)
        if isinstance(message, Ask):
            self.log.append(("asked", message.demand))


def as_it_should_be(
    received: int, least: int, most: int, pending: int
) -> tuple[list[tuple[str, int]], int]:
    """What a consumer does with a message within its demand, and what is pending afterwards."""
    steps: list[tuple[str, int]] = []
    while received:
        size = min(received, most - least)
        received -= size
        steps.append(("handled", size))
        pending -= size
        if pending <= least:
            steps.append(("asked", most - pending))
            pending = most
        # What is asked for within a message is granted, and not part of this message.
    return steps, pending


async def steps_of(most: int, least: int, messages: list[int]) -> list[list[tuple[str, int]]]:
    """What a consumer does with each of *messages*, of so many events."""
    log: list[tuple[str, int]] = []
    mouth = Mouth(log)
    found = []
    async with Topology() as topology:
        logger = Logger(log)
        topology.start(logger, subscribe_to=mouth.to(max_demand=most, min_demand=least))
        await mouth.first(Ask)
        for count in messages:
            log.clear()
            tag = mouth.of(Subscribe)[0].tag
            tag.consumer.send(Events(tag, [None] * count))
            await quiet(topology, log)
            found.append(list(log))
    return found


@pytest.mark.conformance("GS-005")
@pytest.mark.parametrize(
    ("least", "most", "messages", "steps"),
    [
        (500, 1000, [1000], [(500, 500), (500, 500)]),
        (80, 100, [100], [(20, 20)] * 5),
        (20, 100, [100], [(80, 80), (20, 0)]),
        (5, 10, [7], [(5, 5), (2, 0)]),
        (5, 10, [3], [(3, 0)]),
        (0, 10, [10], [(10, 10)]),
        (0, 10, [5], [(5, 0)]),
        (750, 1000, [200, 100], [(200, 0), (100, 300)]),
    ],
)
async def test_slices_and_asks_are_those_of_the_table(
    least: int, most: int, messages: list[int], steps: list[tuple[int, int]]
) -> None:
    done = [step for one in await steps_of(most, least, messages) for step in one]
    wanted = [("handled", size) for size, _ in steps], [("asked", ask) for _, ask in steps if ask]
    assert [step for step in done if step[0] == "handled"] == wanted[0]
    assert [step for step in done if step[0] == "asked"] == wanted[1]


@pytest.mark.conformance("GS-005", "GS-006")
@given(data=st.data())
def test_slices_and_asks_are_those_of_the_arithmetic_whatever_comes(data: st.DataObject) -> None:
    most = data.draw(st.integers(1, 12), "max_demand")
    least = data.draw(st.integers(0, most - 1), "min_demand")
    pending, messages, wanted = most, [], []
    for _ in range(data.draw(st.integers(1, 5))):
        messages.append(data.draw(st.integers(1, pending), "message"))
        steps, pending = as_it_should_be(messages[-1], least, most, pending)
        wanted.append(steps)
    found = asyncio.run(steps_of(most, least, messages))
    assert found == wanted
    granted = most
    for kind, count in (step for one in found for step in one):
        granted += count if kind == "asked" else -count
        assert 0 <= granted <= most


@pytest.mark.conformance("GS-007")
async def test_the_ask_for_a_slice_is_sent_when_its_call_has_returned() -> None:
    mouth = Stranger()
    async with Topology() as topology:
        sleeper = Sleeper()
        topology.start(sleeper, subscribe_to=mouth.to(max_demand=4, min_demand=2))
        tag = (await mouth.first(Subscribe)).tag
        tag.consumer.send(Events(tag, [1, 2, 3, 4]))
        await sleeper.batches.reach(1)
        await quiet(topology, mouth.messages)
        assert [ask.demand for ask in mouth.of(Ask)] == [4]
        sleeper.wake.set()
        await mouth.messages.until(lambda _: len(mouth.of(Ask)) == 3)
    assert sleeper.batches == [[1, 2], [3, 4]]


@pytest.mark.conformance("GS-008")
async def test_events_beyond_demand_are_handled_not_asked_for_again_and_end_the_subscription() -> (
    None
):
    topology, signals = watched()
    mouth = Stranger("mouth")
    async with topology:
        forwarder = Forwarder()
        to = mouth.to(max_demand=10, min_demand=5, cancel="temporary")
        topology.start(forwarder, subscribe_to=to)
        tag = (await mouth.first(Subscribe)).tag
        tag.consumer.send(Events(tag, list(range(30))))
        cancel = await mouth.first(Cancel)
    assert forwarder.events == list(range(30))
    assert [ask.demand for ask in mouth.of(Ask)] == [10, 5, 5]
    assert isinstance(cancel.reason.error, DemandExceeded)
    assert "mouth sent 20 events more to Forwarder than were asked for" in str(cancel.reason.error)
    assert [(one.kind, one.count) for one in signals] == [("protocol-error", 20)]


class Stopper(Forwarder):
    """Stops in its first call."""

    error: Exception | None = None

    def handle_events(self, events: list[Any], source: Subscription) -> None:
        super().handle_events(events, source)
        if self.error:
            raise self.error
        self.stop()


@pytest.mark.conformance("GS-009")
@pytest.mark.parametrize("error", [None, ValueError("broken")])
@pytest.mark.parametrize("count", [5, 10], ids=["in one call", "in two calls"])
async def test_a_call_that_ends_the_stage_leads_to_no_ask(
    error: Exception | None, count: int
) -> None:
    topology, signals = watched()
    mouth = Stranger()
    async with topology:
        stopper = Stopper(error=error)
        to = mouth.to(max_demand=10, min_demand=5)
        handle = topology.start(stopper, subscribe_to=to, restart="temporary")
        tag = (await mouth.first(Subscribe)).tag
        tag.consumer.send(Events(tag, list(range(count))))
        await handle.wait()
    assert stopper.batches == [list(range(5))]
    assert [type(message) for message in mouth.messages] == [Subscribe, Ask, Cancel]
    lost = [one.count for one in signals if one.kind == "events-dropped"]
    assert lost == ([5] if count == 10 else [])


@pytest.mark.conformance("GS-010")
async def test_demand_is_granted_to_each_producer_apart() -> None:
    async with Topology() as topology:
        left, right = Silent(), Silent()
        handles = [topology.start(left), topology.start(right)]
        sleeper = Sleeper()
        topology.start(sleeper, subscribe_to=[h.with_options(max_demand=7) for h in handles])
        await left.asked.reach(1)
        await right.asked.reach(1)
        handles[0].cast(lambda stage: stage.emit([1, 2, 3, 4, 5, 6, 7]))
        await sleeper.batches.reach(1)
        sleeper.wake.set()
        await left.asked.until(lambda asked: sum(asked) == 11)
        await quiet(topology)
    assert right.asked == [7]


# --- bounds ----------------------------------------------------------------------------------

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"max_demand": 0}, "max_demand .* at least 1; got 0"),
    ({"min_demand": 2000}, "from 0 to 999 .*; got 2000"),
    ({"min_demand": -1}, "min_demand .*; got -1"),
    ({"max_demand": 1, "min_demand": 1}, "from 0 to 0 .*; got 1"),
    *(
        ({"max_demand": value}, "max_demand must be a whole number of events")
        for value in (math.inf, 1.5, "10", None, True)
    ),
    (
        {"cancel": "sometimes"},
        "cancel must be one of permanent, transient, temporary; got 'sometimes'",
    ),
]


@pytest.mark.conformance("GS-011", "GS-012", "GS-013", "GS-014", "GS-015")
@pytest.mark.parametrize(("options", "message"), WRONG)
async def test_options_that_make_no_sense_are_refused_where_they_are_given(
    options: dict[str, Any], message: str
) -> None:
    async with Topology() as topology:
        counter = topology.start(Silent())
        handle = topology.start(forwarder := Forwarder())
        with pytest.raises(ConfigError, match=message):
            counter.with_options(**options)
        await refused_at_the_caller(
            topology, handle, To(counter, SubscribeOptions(**options)), message
        )
        assert not forwarder.subscribed


@pytest.mark.parametrize("by", ["name", "peer"])
@pytest.mark.parametrize(("options", "message"), [WRONG[0], WRONG[1], WRONG[-1]])
async def test_bounds_are_refused_where_they_are_given_also_for_names_and_foreign_peers(
    options: dict[str, Any], message: str, by: str
) -> None:
    async with Topology() as topology:
        topology.start(Silent(), name="silent")
        handle = topology.start(forwarder := Forwarder())
        to = To("silent" if by == "name" else Stranger(), SubscribeOptions(**options))
        await refused_at_the_caller(topology, handle, to, message)
        assert not forwarder.subscribed


async def refused_at_the_caller(
    topology: Topology, handle: StageHandle[Any], to: To, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        await handle.subscribe(to)
    with pytest.raises(ConfigError, match=message):
        topology.start(Forwarder(), subscribe_to=to)
    await quiet(topology)
    assert handle.alive
