"""Sources and targets: entered and left, asked, and told what became of each event, once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Self

import pytest

from penstock import ConfigError, StageError
from penstock.ports import Outcome
from penstock.stages import (
    BroadcastDispatcher,
    Call,
    SourceStage,
    Subscription,
    TargetStage,
    Topology,
)
from stages.fixtures import (
    Discarder,
    Doubler,
    Forwarder,
    Middle,
    Seen,
    Stranger,
    kinds,
    quiet,
    watched,
    within,
)
from stages.tracing import Keeper, Stepper, all_are

BROKEN = OSError("broken")


class Feed:
    """A source of what a test gives it.

    Attributes:
        asked: the demands that it was called with.
        outcomes: ``(event, kind)`` in the order in which they were heard.
        errors: why events failed.
        log: what was done with it.
        broken: the names of methods that raise BROKEN.
    """

    def __init__(self, events: Sequence[Any] = (), *, more: bool = False, broken: str = "") -> None:
        self.events, self.more, self.broken = list(events), more, broken
        self.asked: Seen[int] = Seen()
        self.outcomes: Seen[tuple[Any, str]] = Seen()
        self.errors: list[BaseException | None] = []
        self.log: list[str] = []
        self._changed = asyncio.Event()

    def give(self, events: Sequence[Any], *, more: bool = True) -> None:
        self.events.extend(events)
        self.more = more
        self._changed.set()

    async def fetch(self, demand: int) -> list[Any]:
        assert "left" not in self.log
        self.asked.append(demand)
        while not self.events and self.more:
            self._changed.clear()
            await self._changed.wait()
        self._do("fetch")
        given, self.events = self.events[:demand], self.events[demand:]
        return given

    def settle(self, outcomes: Sequence[Outcome]) -> None:
        assert "left" not in self.log, "settled after it was left"
        for event, kind, error in outcomes:
            self.outcomes.append((event, kind))
            self.errors.append(error)
        self._do("settle")

    def heard(self) -> dict[Any, str]:
        """What became of each event that is over; each was heard of once."""
        outcomes = dict(self.outcomes)
        assert len(outcomes) == len(self.outcomes), "something was settled twice"
        return outcomes

    def _do(self, what: str) -> None:
        if what in self.broken:
            raise BROKEN


class Entered(Feed):
    """The same, to be entered and left."""

    async def __aenter__(self) -> Self:
        self._do("enter")
        self.log.append("entered")
        return self

    async def __aexit__(self, *error: object) -> None:
        await asyncio.sleep(0)
        self.log.append("left")
        self._do("leave")

    @property
    def opened(self) -> bool:
        return "entered" in self.log


class Store:
    """A target that keeps what was written, once it may.

    Attributes:
        stored: what was written.
        begun: batches whose writing has begun.
        may: whether writing goes on.
    """

    def __init__(self, broken: str = "", *, may: bool = True) -> None:
        self.stored: Seen[Any] = Seen()
        self.begun: Seen[list[Any]] = Seen()
        self.broken, self.log, self.opened = broken, list[str](), False
        self.may = asyncio.Event()
        if may:
            self.may.set()

    async def __aenter__(self) -> Self:
        if "enter" in self.broken:
            raise BROKEN
        self.log.append("entered")
        return self

    async def __aexit__(self, *error: object) -> None:
        self.log.append("left")
        if "leave" in self.broken:
            raise BROKEN

    async def write(self, batch: Sequence[Any]) -> None:
        assert self.opened or self.log == ["entered"]
        self.begun.append(list(batch))
        await self.may.wait()
        if "write" in self.broken:
            raise BROKEN
        for event in batch:
            self.stored.append(event)


# --- entering and leaving ----------------------------------------------------------------------


async def test_both_are_entered_first_and_left_last_and_all_is_done_between() -> None:
    source, store = Entered("abc"), Store()
    async with Topology() as topology:
        handle = topology.start(SourceStage(source))
        topology.start(TargetStage(store), subscribe_to=handle)
        await within(topology)
        assert (source.log, store.log) == (["entered", "left"], ["entered", "left"])
    assert store.stored == ["a", "b", "c"]
    assert source.heard() == all_are("done", "abc")


async def test_what_is_open_already_is_left_open_and_what_cannot_be_entered_is_not() -> None:
    opened, plain, store = Entered("ab"), Feed("cd"), Store()
    store.opened = True
    async with opened, Topology() as topology:
        one, two = topology.start(SourceStage(opened)), topology.start(SourceStage(plain))
        topology.start(TargetStage(store), subscribe_to=[one, two])
        await within(topology)
        assert opened.log == ["entered"]
    assert store.log == []
    assert opened.heard() | plain.heard() == all_are("done", "abcd")


async def test_a_source_is_left_only_after_the_last_outcome() -> None:
    """And the topology is not done before."""
    source, store = Entered("ab"), Store(may=False)
    async with Topology() as topology:
        handle = topology.start(SourceStage(source))
        topology.start(TargetStage(store), subscribe_to=handle)
        await store.begun.reach(1)
        waiting = asyncio.create_task(within(topology))
        await quiet(topology)
        assert source.log == ["entered"]
        assert not waiting.done()
        store.may.set()
        await waiting
        assert source.log == ["entered", "left"]
    assert source.heard() == all_are("done", "ab")


@pytest.mark.parametrize(
    "make", [lambda: SourceStage(Store()), lambda: TargetStage(Feed()), lambda: SourceStage(None)]
)
async def test_what_does_not_keep_to_the_port_is_refused(make: Any) -> None:
    with pytest.raises(ConfigError, match=r"has no (fetch|write)"):
        make()


@pytest.mark.parametrize("shutdown", [0, 5.0])
async def test_both_are_left_however_short_the_time_for_it(shutdown: float) -> None:
    source, store = Entered("ab", more=True), Store()
    async with Topology() as topology:
        handle = topology.start(SourceStage(source), shutdown=shutdown)
        topology.start(TargetStage(store), subscribe_to=handle, shutdown=shutdown)
        await store.stored.reach(2)
        await quiet(topology)
    assert (source.log, store.log) == (["entered", "left"], ["entered", "left"])


# --- asking ------------------------------------------------------------------------------------


class Answering(SourceStage[Any]):
    """Answers calls."""

    def handle_call(self, request: Any, call: Call) -> Any:
        return request


async def test_a_source_that_waits_holds_up_nothing() -> None:
    source = Entered(more=True)
    async with Topology() as topology:
        handle = topology.start(Answering(source))
        topology.start(forwarder := Forwarder(), subscribe_to=handle)
        await source.asked.reach(1)
        assert await handle.call("there?") == "there?"
        source.give("a")
        await forwarder.reach(1)
        handle.stop()
        await handle.wait()
    assert source.log == ["entered", "left"]


async def test_what_consumers_have_asked_for_is_fetched_and_no_more() -> None:
    source = Feed(more=True)
    async with Topology() as topology:
        handle = topology.start(SourceStage(source))
        await quiet(topology)
        assert source.asked == []
        peer = Stranger()
        peer.subscribe(handle, ask=3)
        await source.asked.reach(1)
        source.give("ab")
        await source.asked.reach(2)
        peer.subscribe(handle, ask=4)
        source.give("cdefghij")
        await quiet(topology)
        assert source.asked == [3, 1, 4]
        assert peer.events == list("abcdefg")


# --- done --------------------------------------------------------------------------------------


@pytest.mark.parametrize("between", [Discarder, Middle, Doubler])
async def test_an_event_is_done_when_all_that_came_of_it_is_stored(between: type[Middle]) -> None:
    source, store = Entered("ab", more=True), Store(may=False)
    async with Topology() as topology:
        handle = topology.start(SourceStage(source))
        middle = topology.start(between(), subscribe_to=handle.with_options(max_demand=1))
        topology.start(TargetStage(store), subscribe_to=middle.with_options(max_demand=1))
        await quiet(topology)
        assert source.heard() == (all_are("done", "ab") if between is Discarder else {})
        store.may.set()
        await quiet(topology)
        assert source.heard() == all_are("done", "ab")


async def test_an_event_that_is_kept_is_done_with_its_receipt() -> None:
    source, keeper = Entered("ab"), Keeper()
    async with Topology() as topology:
        handle = topology.start(SourceStage(source))
        middle = topology.start(keeper, subscribe_to=handle.with_options(max_demand=1))
        topology.start(Forwarder(), subscribe_to=middle)
        await keeper.batches.reach(2)
        keeper.receipts[1].done()
        await quiet(topology)
        assert source.heard() == all_are("done", "b")
        assert source.log == ["entered"]
        keeper.receipts[0].failed(BROKEN)
        await within(topology)
    assert source.heard() == {"a": "failed", "b": "done"}


async def test_an_event_for_two_targets_is_done_once_when_both_have_stored_it() -> None:
    source, quick, slow = Entered("abc"), Store(), Store(may=False)
    async with Topology() as topology:
        handle = topology.start(SourceStage(source), dispatcher=BroadcastDispatcher())
        for store in (quick, slow):
            topology.start(TargetStage(store), subscribe_to=handle)
        await quick.stored.reach(3)
        await quiet(topology)
        assert source.heard() == {}
        slow.may.set()
        await within(topology)
    assert source.heard() == all_are("done", "abc")


async def test_a_drained_topology_has_settled_what_it_fetched_and_fetches_no_more() -> None:
    source, store = Entered("abcd", more=True), Store(may=False)
    async with Topology() as topology:
        handle = topology.start(SourceStage(source))
        middle = topology.start(Middle(), subscribe_to=handle)
        topology.start(TargetStage(store), subscribe_to=middle)
        await store.begun.reach(1)
        draining = asyncio.create_task(topology.drain())
        await quiet(topology)
        source.give("efg")
        store.may.set()
        await draining
    assert source.heard() == all_are("done", "abcd")
    assert source.events == list("efg")
    assert source.log == ["entered", "left"]


class Renaming(Middle):
    """Gives other events out than it got."""

    def handle_events(self, events: list[Any], source: Subscription) -> list[Any]:
        super().handle_events(events, source)
        return [event.upper() for event in events]


async def test_outcomes_are_of_the_events_that_were_fetched_not_of_what_came_of_them() -> None:
    source, store = Entered("abc"), Store()
    async with Topology() as topology:
        handle = topology.start(SourceStage(source))
        middle = topology.start(Renaming(), subscribe_to=handle)
        topology.start(TargetStage(store), subscribe_to=middle)
        await within(topology)
    assert store.stored == ["A", "B", "C"]
    assert source.heard() == all_are("done", "abc")


# --- failed and returned -----------------------------------------------------------------------


async def test_a_consumer_that_crashes_fails_its_events_and_the_source_goes_on() -> None:
    topology, signals = watched()
    source, store = Entered("abcd", more=True), Store("write", may=False)
    async with topology:
        handle = topology.start(SourceStage(source))
        to = handle.with_options(max_demand=4, min_demand=2)
        topology.start(TargetStage(store), subscribe_to=to, restart="temporary")
        await store.begun.reach(1)
        store.may.set()
        await quiet(topology, source.outcomes)
        assert source.heard() == all_are("failed", "ab") | all_are("returned", "cd")
        assert source.errors[:2] == [BROKEN, BROKEN]
        assert (store.log, source.log) == (["entered", "left"], ["entered"])
        topology.start(TargetStage(other := Store()), subscribe_to=handle)
        source.give("xyz", more=False)
        await within(topology)
        assert other.stored == ["x", "y", "z"]
    assert source.heard().items() >= all_are("done", "xyz").items()
    assert kinds(signals).count("stage-failed") == 1


async def test_a_consumer_that_fails_the_topology_fails_its_events_and_the_source_is_left() -> None:
    topology, _ = watched()
    source = Entered("abcdef", more=True)
    handle = topology.start(SourceStage(source))
    to = handle.with_options(max_demand=4, min_demand=2)
    topology.start(TargetStage(Store("write")), subscribe_to=to)
    with pytest.raises(StageError, match="broken") as caught:
        await topology.run()
    assert caught.value.__cause__ is BROKEN
    assert source.heard() == all_are("failed", "ab") | all_are("returned", "cd")
    assert source.log == ["entered", "left"]


@pytest.mark.parametrize("end", ["closed", "cancelled"])
async def test_what_was_not_handled_is_returned_where_all_ends_in_the_middle(end: str) -> None:
    """In the stage between, in the source's buffer, and on the way."""
    topology, _ = watched()
    source, stepper = Entered("abcdefgh", more=True), Stepper()
    handle = topology.start(SourceStage(source))
    middle = topology.start(Middle(), subscribe_to=handle.with_options(max_demand=2))
    to = middle.with_options(max_demand=2, min_demand=1)
    topology.start(stepper, subscribe_to=to, shutdown=0)
    running = asyncio.create_task(topology.run())
    await stepper.batches.reach(1)
    stepper.step()
    await stepper.batches.reach(2)
    await quiet(topology)
    if end == "cancelled":
        running.cancel()
    else:
        await topology.aclose()
    await asyncio.gather(running, return_exceptions=True)
    heard = source.heard()
    assert heard.pop("a") == "done"
    assert set(heard.values()) == {"returned"}
    assert sorted(heard) == [event for event in "bcdefgh" if event not in source.events]
    assert source.log == ["entered", "left"]
