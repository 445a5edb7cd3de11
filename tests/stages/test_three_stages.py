"""A stage between two others: it asks ahead, works only on demand, and keeps what is over."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.stages import StageHandle, Subscription, Topology
from penstock.stages.protocol import Ask
from stages.fixtures import (
    Counter,
    Discarder,
    Doubler,
    Forwarder,
    Middle,
    Postponer,
    Seen,
    Silent,
    Sleeper,
    Stranger,
    emit,
    kinds,
    quiet,
    watched,
)


def doubled(first: int, last: int) -> list[int]:
    """Each number from *first* to *last* twice."""
    return [number for number in range(first, last + 1) for _ in range(2)]


async def chain(
    topology: Topology, doubler: Doubler, forwarder: Forwarder, least: int, *, late: bool
) -> None:
    """Counter → doubler (100/*least*) → forwarder (100/50); *late*: joined from the end."""
    counter = topology.start(Counter())
    above = counter.with_options(max_demand=100, min_demand=least)
    middle = topology.start(doubler, subscribe_to=() if late else above)
    below = middle.with_options(max_demand=100, min_demand=50)
    last = topology.start(forwarder)
    await last.subscribe(below)
    if late:
        await quiet(topology)
        await middle.subscribe(above)


# --- how events are cut ----------------------------------------------------------------------


@pytest.mark.conformance("GS-016", "GS-018")
@pytest.mark.parametrize("late", [False, True], ids=["downwards", "upwards"])
async def test_small_slices_go_through_a_doubling_stage(late: bool) -> None:
    doubler, forwarder = Doubler(), Forwarder()
    async with Topology() as topology:
        await chain(topology, doubler, forwarder, 80, late=late)
        await forwarder.reach(1000)
    assert doubler.batches[0] == list(range(20))
    assert forwarder.batches[:2] == [doubled(0, 19), doubled(20, 39)]
    assert forwarder.events[:1000] == doubled(0, 499)
    # A message that crosses the border of what was asked for is cut there.
    assert {len(batch) for batch in doubler.batches} == {20}
    assert any(len(batch) < 40 for batch in forwarder.batches)
    assert max(len(batch) for batch in forwarder.batches) <= 50


@pytest.mark.conformance("GS-017", "GS-018")
@pytest.mark.parametrize("late", [False, True], ids=["downwards", "upwards"])
async def test_large_slices_are_cut_by_the_consumer_behind_a_doubling_stage(late: bool) -> None:
    doubler, forwarder = Doubler(), Forwarder()
    async with Topology() as topology:
        await chain(topology, doubler, forwarder, 20, late=late)
        await forwarder.reach(1000)
    assert doubler.batches[:2] == [list(range(80)), list(range(80, 100))]
    assert forwarder.batches[:3] == [doubled(0, 24), doubled(25, 49), doubled(50, 74)]
    assert forwarder.events[:1000] == doubled(0, 499)


# --- when a stage between works --------------------------------------------------------------


@pytest.mark.conformance("GS-019")
async def test_a_stage_that_emits_later_stops_when_its_consumer_sleeps() -> None:
    postponer, sleeper = Postponer(), Sleeper()
    async with Topology() as topology:
        counter = topology.start(Counter())
        options = {"max_demand": 10, "min_demand": 8}
        middle = topology.start(postponer, subscribe_to=counter.with_options(**options))
        topology.start(sleeper, subscribe_to=middle.with_options(**options))
        await sleeper.batches.reach(1)
        await quiet(topology)
        assert postponer.events == list(range(10))
        assert sleeper.events == [0, 1]
        sleeper.wake.set()
        assert await sleeper.reach(30) == list(range(30))


@pytest.mark.conformance("GS-020")
async def test_a_stage_that_gives_nothing_keeps_receiving() -> None:
    discarder, forwarder = Discarder(), Forwarder()
    async with Topology() as topology:
        counter = topology.start(Counter())
        middle = topology.start(discarder, subscribe_to=counter.with_options(max_demand=10))
        topology.start(forwarder, subscribe_to=middle.with_options(max_demand=10))
        await discarder.batches.reach(100)
    assert discarder.events[:500] == list(range(500))
    assert forwarder.batches == []


@pytest.mark.conformance("GS-021")
async def test_a_message_from_above_is_handled_as_a_whole_and_what_is_over_is_buffered() -> None:
    async with Topology() as topology:
        _, middle, handle, mouth, tag = await one_asked_of_ten(topology)
        assert middle.batches == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
        assert mouth.events == [0]
        assert handle.estimate_buffered_count() == 9
        assert handle.statistics().queued > 0
        assert tag in [one.tag for one in middle.subscriptions]


@pytest.mark.conformance("GS-025")
async def test_what_is_buffered_goes_before_what_waits_from_above() -> None:
    async with Topology() as topology:
        _, middle, handle, mouth, tag = await one_asked_of_ten(topology)
        handle.send(Ask(tag, 9))
        await mouth.reach(10)
        await quiet(topology)
        assert len(middle.batches) == 2
        assert handle.estimate_buffered_count() == 0
        handle.send(Ask(tag, 1))
        assert await mouth.reach(11) == list(range(11))
        assert middle.batches[2] == [10, 11, 12, 13, 14]


async def one_asked_of_ten(
    topology: Topology, **options: Any
) -> tuple[Counter, Middle, StageHandle[Any], Stranger, Any]:
    """A middle stage that got ten events, and was asked for one."""
    counter, middle, mouth = Counter(), Middle(), Stranger()
    above = topology.start(counter).with_options(max_demand=10, min_demand=5)
    handle = topology.start(middle, subscribe_to=above, **options)
    await quiet(topology)
    tag = mouth.subscribe(handle, ask=1)
    await mouth.reach(1)
    await quiet(topology, mouth.messages)
    return counter, middle, handle, mouth, tag


@pytest.mark.conformance("GS-022", "GS-023")
async def test_without_consumers_a_stage_asks_above_and_does_not_work() -> None:
    counter, middle = Counter(), Middle()
    async with Topology() as topology:
        handle = topology.start(middle, subscribe_to=topology.start(counter))
        await counter.asked.reach(1)
        await quiet(topology)
        assert counter.asked == [1000]
        assert middle.batches == []
        assert handle.statistics().queued == 1000
        assert handle.estimate_buffered_count() == 0


@pytest.mark.conformance("GS-023")
async def test_a_consumer_that_asks_for_nothing_makes_no_work() -> None:
    middle, mouth = Middle(), Stranger()
    async with Topology() as topology:
        handle = topology.start(middle, subscribe_to=topology.start(Counter()))
        tag = mouth.subscribe(handle)
        await quiet(topology, mouth.messages)
        assert middle.batches == []
        handle.send(Ask(tag, 1))
        assert await mouth.reach(1) == [0]


class Teller(Middle):
    """Writes events and the ends of subscriptions into one list."""

    def __init__(self) -> None:
        super().__init__()
        self.story: Seen[Any] = Seen()

    def handle_events(self, events: list[Any], source: Subscription) -> list[Any]:
        self.story.append(list(events))
        return events

    def handle_cancel(self, reason: Any, subscription: Subscription) -> None:
        if subscription.peer_is == "producer":
            self.story.append(reason.kind)


@pytest.mark.conformance("GS-024", "GS-093")
@pytest.mark.parametrize("end", ["cancel", "stop"])
async def test_queued_events_of_a_producer_that_is_gone_are_handled_before_its_end(
    end: str,
) -> None:
    source, teller, forwarder = Silent(), Teller(), Forwarder()
    async with Topology() as topology:
        above = topology.start(source)
        to = above.with_options(cancel="temporary", max_demand=4)
        middle = topology.start(teller, subscribe_to=to)
        await source.asked.reach(1)
        await emit(above, [1, 2, 3])
        if end == "cancel":
            await middle.call(lambda stage: stage.subscriptions[0].cancel())
        else:
            above.stop()
        await quiet(topology)
        assert teller.story == []
        assert middle.statistics().queued == 3
        topology.start(forwarder, subscribe_to=middle)
        await teller.story.reach(3)
        assert await forwarder.reach(3) == [1, 2, 3]
    assert teller.story == [[1, 2], [3], "normal"]


# --- its buffer ------------------------------------------------------------------------------


@pytest.mark.conformance("GS-026")
async def test_the_buffer_of_a_stage_between_has_no_bound_by_default() -> None:
    topology, signals = watched()
    async with topology:
        handle = topology.start(Middle())
        await emit(handle, range(30_000))
        assert handle.estimate_buffered_count() == 30_000
        assert kinds(signals) == []


@pytest.mark.conformance("GS-026")
@pytest.mark.parametrize(("keep", "kept"), [("first", [1, 2, 3]), ("last", [7, 8, 9])])
async def test_a_bounded_buffer_of_a_stage_between_keeps_the_end_that_it_is_told_to(
    keep: str, kept: list[int]
) -> None:
    topology, signals = watched()
    async with topology:
        _, middle, handle, mouth, tag = await one_asked_of_ten(
            topology, buffer_size=3, buffer_keep=keep
        )
        assert handle.estimate_buffered_count() == 3
        handle.send(Ask(tag, 3))
        assert await mouth.reach(4) == [0, *kept]
        assert sum(middle.discarded) == 6
    dropped = [one for one in signals if one.kind == "events-dropped"]
    assert sum(one.count or 0 for one in dropped[: len(middle.discarded)]) == 6
