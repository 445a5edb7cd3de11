"""Infos: a stage gets them after everything that was there before."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.stages import StageHandle, Topology
from penstock.stages.protocol import NORMAL, Ask, Events
from stages.fixtures import (
    Counter,
    Forwarder,
    Middle,
    Seen,
    Silent,
    Stranger,
    Watcher,
    emit,
    in_stage,
    kinds,
    quiet,
    watched,
    within,
)


def diary(stage: Watcher, mouth: Stranger) -> Seen[Any]:
    """One list of what *mouth* is sent (lists of events) and of the infos of *stage*."""
    story: Seen[Any] = Seen()

    def send(message: Any) -> None:
        if isinstance(message, Events):
            story.append(message.events)

    mouth.send = send  # type: ignore[method-assign]
    stage.infos = story
    return story


# --- at once ---------------------------------------------------------------------------------


@pytest.mark.conformance("GS-052", "GS-053", "GS-055")
@pytest.mark.parametrize("kind", [Forwarder, Middle, Silent])
async def test_where_nothing_waits_an_info_comes_at_once(kind: type[Watcher]) -> None:
    async with Topology() as topology:
        handle = topology.start(stage := kind())
        handle.info("hello")
        await in_stage(handle, lambda stage: stage.info("to myself"))
        await stage.infos.reach(2)
    assert stage.infos == ["hello", "to myself"]


@pytest.mark.conformance("GS-052")
async def test_a_consumer_gets_an_info_behind_the_events_that_were_sent_before() -> None:
    story: Seen[Any] = Seen()
    mouth = Stranger()
    async with Topology() as topology:
        forwarder = Forwarder(batches=story, infos=story)
        handle = topology.start(forwarder, subscribe_to=mouth.to(max_demand=4))
        tag = (await mouth.first(Ask)).tag
        handle.send(Events(tag, [1, 2]))
        handle.info("between")
        handle.send(Events(tag, [3]))
        await story.reach(3)
    assert story == [[1, 2], "between", [3]]


# --- behind what waits -----------------------------------------------------------------------


@pytest.mark.conformance("GS-054")
async def test_a_stage_between_gets_an_info_when_what_came_before_has_been_handled() -> None:
    story: Seen[Any] = Seen()
    async with Topology() as topology:
        source, middle, mouth = Silent(), Middle(batches=story, infos=story), Stranger()
        above = topology.start(source)
        handle = topology.start(middle, subscribe_to=above.with_options(max_demand=4))
        await source.asked.reach(1)
        await emit(above, [1, 2])
        await quiet(topology)
        handle.info("behind two")
        await quiet(topology)
        await emit(above, [3])
        await quiet(topology)
        assert story == []
        mouth.subscribe(handle, ask=10)
        await story.reach(3)
    assert story == [[1, 2], "behind two", [3]]


@pytest.mark.conformance("GS-054", "GS-056")
async def test_an_info_of_a_stage_between_also_waits_for_what_that_has_to_give() -> None:
    async with Topology() as topology:
        source, middle, mouth = Silent(), Middle(), Stranger()
        above = topology.start(source)
        handle = topology.start(middle, subscribe_to=above.with_options(max_demand=4, min_demand=0))
        await source.asked.reach(1)
        await emit(above, [1, 2, 3])
        await quiet(topology)
        handle.info("behind three")
        tag = mouth.subscribe(handle, ask=1)
        await mouth.reach(1)
        await quiet(topology)
        assert (middle.events, middle.infos) == ([1, 2, 3], [])
        handle.send(Ask(tag, 1))
        await mouth.reach(2)
        await quiet(topology)
        assert middle.infos == []
        handle.send(Ask(tag, 1))
        await middle.infos.reach(1)
        assert mouth.events == [1, 2, 3]


@pytest.mark.conformance("GS-056")
@pytest.mark.parametrize("size", [None, 3])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("kind", [Silent, Middle])
async def test_an_info_waits_for_all_that_is_buffered(
    kind: type[Any], size: int | None, count: int
) -> None:
    async with Topology() as topology:
        stage, mouth = kind(), Stranger()
        handle = topology.start(stage, buffer_size=size)
        await emit(handle, range(count))
        handle.info("behind")
        tag = mouth.subscribe(handle)
        for number in range(count):
            await quiet(topology)
            assert stage.infos == []
            handle.send(Ask(tag, 1))
            await mouth.reach(number + 1)
        await stage.infos.reach(1)
    assert mouth.events == list(range(count))
    assert stage.infos == ["behind"]


@pytest.mark.conformance("GS-057")
async def test_infos_keep_their_places_while_the_buffer_moves() -> None:
    async with Topology() as topology:
        silent, mouth = Silent(), Stranger()
        story = diary(silent, mouth)
        handle: StageHandle[Any] = topology.start(silent)
        await emit(handle, ["a", "b", "c"])
        handle.info("info 1")
        tag = mouth.subscribe(handle, ask=2)
        await story.reach(1)
        await emit(handle, ["d", "e"])
        handle.info("info 2")
        await quiet(topology)
        assert story == [["a", "b"]]
        handle.send(Ask(tag, 1))
        await story.reach(3)
        handle.send(Ask(tag, 1))
        await story.reach(4)
        await quiet(topology)
        assert story == [["a", "b"], ["c"], "info 1", ["d"]]
        handle.send(Ask(tag, 5))
        await story.reach(6)
    assert story == [["a", "b"], ["c"], "info 1", ["d"], ["e"], "info 2"]


@pytest.mark.conformance("GS-058")
async def test_an_info_behind_dropped_events_comes_when_they_are_dropped() -> None:
    topology, signals = watched()
    silent = Silent()
    async with topology:
        handle = topology.start(silent, buffer_size=5, buffer_keep="last")
        await emit(handle, [1, 2])
        handle.info("behind 2")
        await emit(handle, [3, 4])
        handle.info("behind 4")
        await emit(handle, [5])
        await quiet(topology)
        assert silent.infos == []
        await emit(handle, [6])
        await quiet(topology)
        assert silent.infos == []
        await emit(handle, [7])
        await silent.infos.reach(1)
        await quiet(topology)
        assert silent.infos == ["behind 2"]
        assert handle.estimate_buffered_count() == 5
    assert kinds(signals)[:2] == ["events-dropped"] * 2


@pytest.mark.conformance("GS-059", "GS-048")
async def test_infos_cut_what_is_given_and_come_in_order() -> None:
    async with Topology() as topology:
        silent, forwarder = Silent(), Forwarder()
        handle = topology.start(silent)
        await emit(handle, ["a", "b"])
        await emit(handle, ["c"])
        for info in "def":
            handle.info(info)
        await emit(handle, ["g", "h"])
        handle.info("i")
        await quiet(topology)
        assert silent.infos == []
        topology.start(forwarder, subscribe_to=handle)
        await silent.infos.reach(4)
        await forwarder.reach(5)
    assert forwarder.batches == [["a", "b", "c"], ["g", "h"]]
    assert silent.infos == ["d", "e", "f", "i"]


class Finite(Counter):
    """Gives ten events, however few are asked for, and stops by an info when all have left."""

    def handle_demand(self, demand: int) -> list[int]:
        super().handle_demand(demand)
        if self.next > demand:
            return []
        self.info("stop")
        return list(range(10))

    def handle_info(self, message: Any) -> None:
        super().handle_info(message)
        self.stop()


@pytest.mark.conformance("GS-060")
async def test_a_stage_that_stops_by_an_info_has_given_all_that_it_emitted_before() -> None:
    topology, signals = watched()
    finite, forwarder = Finite(), Forwarder()
    async with topology:
        handle = topology.start(finite)
        below = handle.with_options(max_demand=3, min_demand=1)
        topology.start(forwarder, subscribe_to=below)
        await within(topology)
        assert handle.ended == NORMAL
    assert forwarder.events == list(range(10))
    assert finite.infos == ["stop"]
    assert kinds(signals) == []


@pytest.mark.conformance("GS-054")
async def test_any_number_of_infos_may_wait_behind_one_event() -> None:
    """Thousands of them: they are handled one by one, not one within the other."""
    async with Topology() as topology:
        source, middle, mouth = Silent(), Middle(), Stranger()
        above = topology.start(source)
        handle = topology.start(middle, subscribe_to=above)
        await source.asked.reach(1)
        await emit(above, ["event"])
        await quiet(topology)
        for number in range(3000):
            handle.info(number)
        mouth.subscribe(handle, ask=1)
        await middle.infos.reach(3000)
    assert middle.infos == list(range(3000))
    assert mouth.events == ["event"]
