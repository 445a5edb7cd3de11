"""What reviewers have found: outcomes that were lost, wrong, or told too early."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from penstock import ConfigError
from penstock.ports import Outcome
from penstock.stages import (
    BroadcastDispatcher,
    Kept,
    PartitionDispatcher,
    Route,
    SourceStage,
    StageHandle,
    Subscription,
    Topology,
)
from stages.fixtures import Forwarder, Middle, in_stage, kinds, quiet, watched, within
from stages.tracing import Keeper, Source, Stepper, all_are, sourced


class Port:
    """A source that gives some events, then none, and writes down what it hears of them."""

    def __init__(self, events: Sequence[Any]) -> None:
        self._events = list(events)
        self.outcomes: list[tuple[Any, str]] = []

    async def fetch(self, demand: int) -> list[Any]:
        found, self._events = self._events[:demand], self._events[demand:]
        return found

    def settle(self, outcomes: Sequence[Outcome[Any]]) -> None:
        self.outcomes.extend((outcome.event, outcome.kind) for outcome in outcomes)


# --- dispatching -------------------------------------------------------------------------------


def picky(event: str) -> bool:
    if event == "b":
        raise ValueError("of b it knows nothing")
    return True


async def test_what_a_selector_raised_at_is_not_done_though_others_have_handled_it() -> None:
    topology, _ = watched()
    async with topology:
        source, handle = sourced(topology, dispatcher=BroadcastDispatcher())
        choosing, taking = Forwarder(), Forwarder()
        to = handle.with_options(selector=picky, cancel="temporary")
        topology.start(choosing, subscribe_to=to)
        topology.start(taking, subscribe_to=handle)
        await quiet(topology)
        source.give("abc")
        await quiet(topology)
        assert taking.events == ["a", "b", "c"]
        assert choosing.events == []
        assert set(source.heard()) == set("abc")
        assert "done" not in source.heard().values()


async def test_what_the_only_selector_raised_at_stays_buffered() -> None:
    topology, signals = watched()
    async with topology:
        source, handle = sourced(topology, dispatcher=BroadcastDispatcher())
        to = handle.with_options(selector=picky, cancel="temporary")
        topology.start(choosing := Forwarder(), subscribe_to=to)
        await quiet(topology)
        source.give("abc")
        await quiet(topology)
        assert source.heard() == {}
        assert handle.statistics().buffered == 3
        topology.start(taking := Forwarder(), subscribe_to=handle)
        await quiet(topology)
        assert (choosing.events, taking.events) == ([], ["a", "b", "c"])
        assert source.heard() == all_are("done", "abc")
    assert kinds(signals) == ["subscription-refused"]


async def test_where_an_event_is_routed_as_another_the_original_is_settled() -> None:
    def route(event: str) -> Route:
        return Route(event.upper(), 0)

    port = Port("abc")
    async with Topology() as topology:
        handle = topology.start(SourceStage(port), dispatcher=PartitionDispatcher(1, hash=route))
        to = handle.with_options(partition=0)
        topology.start(forwarder := Forwarder(), subscribe_to=to)
        await within(topology)
    assert forwarder.events == ["A", "B", "C"]
    assert sorted(port.outcomes) == [("a", "done"), ("b", "done"), ("c", "done")]


async def test_where_handle_discarded_raises_everything_is_settled_all_the_same() -> None:
    class Touchy(Source):
        def handle_discarded(self, count: int) -> None:
            raise ValueError("dropped")

    def give(stage: Any) -> None:
        stage.give([1, 2])
        stage.give([3, 4])

    topology, _ = watched()
    async with topology:
        source = Touchy()
        handle = topology.start(source, buffer_size=1, restart="temporary")
        await quiet(topology)
        handle.cast(give)
        reason = await handle.wait()
        assert "handle_discarded raised ValueError: dropped" in str(reason.error)
        assert source.heard() == all_are("returned", [1, 2, 3, 4])


# --- what is kept, event by event --------------------------------------------------------------


class Each(Forwarder):
    """Keeps some of its events apart; what is to be done with them then, `act` says."""

    act: Any = None
    count: int | None = None

    def handle_events(self, events: list[Any], source: Subscription) -> None:
        super().handle_events(events, source)
        self.kept = self.keep_each(events[: self.count])
        if self.act is not None:
            self.act(self.kept)


async def test_where_a_call_raises_what_it_kept_apart_has_failed_but_for_what_was_done() -> None:
    def act(kept: list[Kept]) -> None:
        kept[0].done()
        raise ValueError("now")

    topology, _ = watched()
    async with topology:
        source, handle = sourced(topology)
        to = handle.with_options(cancel="temporary")
        topology.start(Each(act=act), subscribe_to=to, restart="temporary")
        await quiet(topology)
        source.give("abc")
        await quiet(topology)
        assert source.heard() == {"a": "done", "b": "failed", "c": "failed"}


async def test_to_keep_another_number_of_events_apart_lets_them_share_the_outcome() -> None:
    topology, _ = watched()
    async with topology:
        source, handle = sourced(topology)
        topology.start(each := Each(count=2), subscribe_to=handle)
        await quiet(topology)
        source.give("abc")
        await each.reach(3)
        for kept in each.kept:
            await quiet(topology)
            assert source.heard() == {}
            kept.done()
        assert len(each.kept) == 2
        assert source.heard() == all_are("done", "abc")


async def test_a_stage_between_keeps_each_event_apart() -> None:
    class Between(Middle):
        def handle_events(self, events: list[Any], source: Subscription) -> None:
            for event, kept in zip(events, self.keep_each(events), strict=True):
                if event == "b":
                    kept.failed(ValueError("b"))
                    continue
                self.emit([event.upper()], of=kept)
                kept.done()

    topology, _ = watched()
    async with topology:
        source, handle = sourced(topology)
        between = topology.start(Between(), subscribe_to=handle)
        stepper = Stepper()
        topology.start(stepper, subscribe_to=between.with_options(max_demand=1))
        await quiet(topology)
        source.give("abc")
        await quiet(topology)
        assert source.heard() == {"b": "failed"}
        stepper.step()
        await quiet(topology)
        assert source.heard() == {"a": "done", "b": "failed"}
        stepper.step()
        await quiet(topology)
        assert source.heard() == {"a": "done", "b": "failed", "c": "done"}
        assert stepper.events == ["A", "C"]


# --- what is made of several calls -------------------------------------------------------------


async def gathered(topology: Topology) -> tuple[Source, Keeper, Stepper, StageHandle[Any]]:
    """Two events, kept in a call each, and what was made of both, which is being handled."""
    source, handle = sourced(topology)
    keeper = Keeper()
    middle = topology.start(keeper, subscribe_to=handle.with_options(max_demand=1))
    stepper = Stepper()
    topology.start(
        stepper, subscribe_to=middle.with_options(cancel="temporary"), restart="temporary"
    )
    await quiet(topology)
    source.give("ab")
    await keeper.batches.reach(2)
    await in_stage(middle, lambda stage: stage.emit(["ab"], of=stage.receipts))
    await stepper.reach(1)
    return source, keeper, stepper, middle


async def test_what_was_made_of_several_calls_fails_all_of_them() -> None:
    topology, _ = watched()
    async with topology:
        source, keeper, stepper, _ = await gathered(topology)
        keeper.receipts[1].done()
        stepper.fail(ValueError("ab"))
        await quiet(topology)
        assert source.heard() == all_are("failed", "ab")
        keeper.receipts[0].done()
        assert source.heard() == all_are("failed", "ab")


async def test_when_it_is_done_each_call_is_done_as_soon_as_that_was_said_of_it() -> None:
    topology, _ = watched()
    async with topology:
        source, keeper, stepper, _ = await gathered(topology)
        stepper.step()
        await quiet(topology)
        assert source.heard() == {}
        keeper.receipts[1].done()
        assert source.heard() == {"b": "done"}
        keeper.receipts[0].done()
        assert source.heard() == all_are("done", "ab")


async def test_what_was_made_of_several_calls_holds_the_outcome_of_each_though_that_is_done() -> (
    None
):
    topology, _ = watched()
    async with topology:
        source, keeper, stepper, _ = await gathered(topology)
        for kept in keeper.receipts:
            kept.done()
        await quiet(topology)
        assert source.heard() == {}
        stepper.step()
        await quiet(topology)
        assert source.heard() == all_are("done", "ab")


@pytest.mark.parametrize("wrong", ["x", ["x"], 5, True, [None]])
async def test_to_emit_of_anything_else_is_an_error_that_says_so(wrong: Any) -> None:
    topology, _ = watched()
    async with topology:
        source, keeper, stepper, middle = await gathered(topology)

        def attempt(stage: Any) -> None:
            for of in (wrong, [*stage.receipts, wrong]):
                with pytest.raises(ConfigError, match=r"of= takes what keep\(\) returned"):
                    stage.emit(["c"], of=of)

        await in_stage(middle, attempt)
        stepper.step()
        for kept in keeper.receipts:
            kept.done()
        await quiet(topology)
        assert stepper.events == ["ab"]
        assert source.heard() == all_are("done", "ab")


# --- the end of a source -----------------------------------------------------------------------


@pytest.mark.parametrize("failing", [0, 1, 2])
async def test_a_source_that_ends_well_says_how_many_outcomes_were_not_done(failing: int) -> None:
    def act(kept: list[Kept]) -> None:
        for one in kept[:failing]:
            one.failed(ValueError("not this one"))
        for one in kept[failing:]:
            one.done()

    topology, signals = watched()
    port = Port("abc")
    async with topology:
        handle = topology.start(SourceStage(port), name="source")
        topology.start(Each(act=act), subscribe_to=handle)
        await within(topology)
    assert [kind for _, kind in port.outcomes].count("failed") == failing
    said = [(one.stage, one.count) for one in signals if one.kind == "events-returned"]
    assert said == ([("source", failing)] if failing else [])


async def test_what_a_full_buffer_gives_back_to_its_source_is_not_called_lost() -> None:
    topology, signals = watched()
    async with topology:
        handle = topology.start(source := Source(), buffer_size=2)
        await quiet(topology)
        source.give("abc")
        await quiet(topology)
        assert [(one.kind, one.count) for one in signals] == [("events-returned", 1)]
        assert source.heard() == {"a": "returned"}
        assert handle.statistics().discarded == 1
