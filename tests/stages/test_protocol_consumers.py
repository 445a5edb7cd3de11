"""Every MUST of a consumer, shown by a producer that speaks the protocol by hand."""

from __future__ import annotations

from typing import Any

import pytest

from penstock import DemandExceeded, StageError
from penstock.stages import Topology
from penstock.stages.protocol import NORMAL, Ask, Cancel, Cancelled, Events, Subscribe, Tag
from stages.fixtures import Sleeper, Stranger, kinds, quiet, watched
from stages.strangers import consuming, takers, typed


@takers
@pytest.mark.parametrize("hasty", [False, True])
async def test_must_subscribe_before_asking(taker: type[Any], hasty: bool) -> None:
    """*hasty*: the program cancels while it is told of the subscription."""

    class Hasty(taker):  # type: ignore[misc]
        def handle_subscribe(self, subscription: Any) -> None:
            super().handle_subscribe(subscription)
            subscription.cancel()

    mouth = Stranger()
    async with Topology() as topology:
        kind = Hasty if hasty else taker
        topology.start(kind(), subscribe_to=mouth.to(max_demand=4, cancel="temporary"))
        await quiet(topology, mouth.messages)
        assert typed(mouth) == ["Subscribe", "Cancel" if hasty else "Ask"]
        assert mouth.messages[0].tag is mouth.messages[1].tag


@takers
async def test_must_use_a_new_tag(taker: type[Any]) -> None:
    mouth = Stranger()
    async with Topology() as topology:
        stage, handle, first = await consuming(topology, taker, mouth)
        await handle.subscribe(mouth.to())
        await handle.resubscribe(first, mouth.to())
        tags = [message.tag for message in mouth.of(Subscribe)]
        assert len({tag.number for tag in tags}) == len(set(tags)) == 3
        assert all(tag.consumer.name == handle.name and tag.producer is mouth for tag in tags)
        assert [one.tag for one in stage.subscribed if one.peer_is == "producer"] == tags


@takers
@pytest.mark.parametrize("stops", [False, True])
async def test_must_take_what_it_asked_for(taker: type[Any], stops: bool) -> None:
    topology, signals = watched()
    mouth = Stranger()
    async with topology:
        stage, handle, tag = await consuming(topology, taker, mouth)
        if stops:
            handle.send(Events(tag, [1]))
            await stage.batches.reach(1)
            handle.stop()
        handle.send(Events(tag, [1]))
        handle.send(Events(tag, [2, 3]))
        await quiet(topology, stage.batches)
    lost = sum(one.count or 0 for one in signals if one.kind == "events-dropped")
    assert (stage.events, lost) == (([1], 3) if stops else ([1, 2, 3], 0))


async def test_must_ask_after_handling() -> None:
    mouth = Stranger()
    async with Topology() as topology:
        sleeper, handle, tag = await consuming(topology, Sleeper, mouth)
        handle.send(Events(tag, [1, 2]))
        handle.send(Events(tag, [3, 4]))
        await sleeper.batches.reach(1)
        await quiet(topology, mouth.messages)
        assert [ask.demand for ask in mouth.of(Ask)] == [4]
        sleeper.wake.set()
        await mouth.messages.until(lambda _: len(mouth.of(Ask)) == 3)
        assert [ask.demand for ask in mouth.of(Ask)] == [4, 2, 2]


@takers
@pytest.mark.conformance("GS-008")
async def test_must_refuse_what_it_did_not_ask_for(taker: type[Any]) -> None:
    topology, signals = watched()
    mouth = Stranger("mouth")
    async with topology:
        stage, handle, tag = await consuming(topology, taker, mouth)
        handle.send(Events(tag, [1, 2, 3, 4, 5, 6, 7]))
        cancel = await mouth.first(Cancel)
        assert (cancel.tag, cancel.reason.kind, cancel.reason.down) == (tag, "failed", False)
        assert isinstance(cancel.reason.error, DemandExceeded)
        assert f"mouth sent 3 events more to {handle.name} than" in str(cancel.reason.error)
        assert stage.events == [1, 2, 3, 4, 5, 6, 7]
        asked = len(mouth.of(Ask))
        handle.send(Cancelled(tag, cancel.reason))
        await quiet(topology)
        assert (handle.alive, len(mouth.of(Ask)), len(stage.cancelled)) == (True, asked, 1)
    assert [(one.kind, one.count) for one in signals] == [("protocol-error", 3)]


@takers
@pytest.mark.conformance("GS-097")
@pytest.mark.parametrize("which", ["never made", "over"])
async def test_must_answer_events_of_an_unknown_tag(taker: type[Any], which: str) -> None:
    topology, signals = watched()
    mouth = Stranger()
    async with topology:
        stage, handle, tag = await consuming(topology, taker, mouth)
        if which == "over":
            handle.send(Cancelled(tag, NORMAL))
        else:
            tag = Tag(handle, mouth)
        handle.send(Events(tag, [1, 2]))
        cancel = await mouth.first(Cancel)
        await quiet(topology)
        assert handle.alive
    assert cancel.tag is tag
    assert (cancel.reason.kind, type(cancel.reason.error)) == ("failed", StageError)
    assert "2 events were dropped" in str(cancel.reason.error)
    assert stage.batches == []
    assert [(one.kind, one.count) for one in signals] == [("events-dropped", 2)]


@takers
async def test_an_empty_list_of_events_means_nothing(taker: type[Any]) -> None:
    topology, signals = watched()
    mouth = Stranger()
    async with topology:
        stage, handle, tag = await consuming(topology, taker, mouth)
        for events in ([], [1], []):
            handle.send(Events(tag, events))
        await stage.batches.reach(1)
        await quiet(topology, stage.batches, mouth.messages)
        assert stage.batches == [[1]]
        assert [ask.demand for ask in mouth.of(Ask)] == [4]
        assert kinds(signals) == []
