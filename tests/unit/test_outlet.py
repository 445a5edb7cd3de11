"""The producing side: nothing stranded, buffered before newer, and asked for once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from penstock.rules.broadcast import BroadcastDispatcher
from penstock.rules.buffer import Buffer, Keep
from penstock.rules.dispatch import DemandDispatcher
from penstock.rules.outlet import Outlet
from unit.dispatching import DISPATCHERS, Tag, model_of, tags

few = st.integers(1, 7)


class OutletMachine(RuleBasedStateMachine):
    """An outlet, beside lists of what waits, who asked, and what was asked of the program."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.model = model_of(name)
        self.waiting: list[int] = []  # emitted and neither dropped nor taken by the dispatcher
        self.pins: list[tuple[int, int, int]] = []  # infos: number, what was there before it
        self.cuts: dict[int, int] = {}  # events emitted while accumulating: their emission
        self.emitted = self.asked = self.numbers = self.infos = 0

    @initialize(size=st.none() | st.integers(0, 8), keep=st.sampled_from(["first", "last"]))
    def made(self, size: int | None, keep: Keep) -> None:
        self.size, self.keep = size, keep
        self.outlet = Outlet(DISPATCHERS[self.name](), Buffer(size, keep))

    # --- what happens --------------------------------------------------------------------------

    @rule(size=few)
    def subscribe(self, size: int) -> None:
        self.numbers += 1
        options = self.model.options(self.numbers, size)
        if options is None:
            return
        tag = Tag(self.numbers)
        served = self.outlet.subscribe(tag, options)  # a longer queue of a partition makes room
        self.model.subscribe(tag, options)
        self.settle(served)

    @precondition(lambda self: self.model.open)
    @rule(demand=few, data=st.data())
    def ask(self, demand: int, data: st.DataObject) -> None:
        tag = data.draw(st.sampled_from(list(self.model.open)))
        self.model.ask(tag, demand)
        self.settle(self.outlet.ask(tag, demand))

    @precondition(lambda self: self.model.open)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        tag = data.draw(st.sampled_from(list(self.model.open)))
        self.model.cancel(tag)
        self.settle(self.outlet.cancel(tag))

    @rule(count=st.integers(1, 12))
    def emit(self, count: int) -> None:
        events = list(range(self.emitted, self.emitted + count))
        if self.outlet.accumulating:
            self.cuts |= dict.fromkeys(events, self.emitted)
        self.emitted += count
        self.asked = max(0, self.asked - count)
        self.waiting += events
        self.settle(self.outlet.emit(events))

    @precondition(lambda self: not self.outlet.accumulating)
    @rule()
    def produce(self) -> None:
        if wanted := self.wanted():
            self.emit(wanted)

    @precondition(lambda self: not self.outlet.accumulating)
    @rule()
    def accumulate(self) -> None:
        self.outlet.accumulating = True

    @precondition(lambda self: self.outlet.accumulating)
    @rule()
    def keep_asks_back(self) -> None:
        assert self.outlet.wanted() == 0

    @precondition(lambda self: self.outlet.accumulating)
    @rule()
    def forward(self) -> None:
        self.settle(self.outlet.forward())
        while self.wanted():
            pass

    @rule()
    def info(self) -> None:
        self.infos += 1
        self.pins.append((self.infos, self.emitted, self.numbers))
        if not self.outlet.info(self.infos):
            self.came_out([self.infos])
            assert not self.pins, "it overtook others"

    # --- what must hold ------------------------------------------------------------------------

    def settle(self, deliveries: Sequence[Any]) -> None:
        """One step is done: everything fits together."""
        outlet, model = self.outlet, self.model
        self.drop()
        left = len(self.waiting) - outlet.buffer.count
        assert left >= 0
        moved, self.waiting = self.waiting[:left], self.waiting[left:]
        assert not outlet.accumulating or not moved, "kept nothing back"
        for _, events, _ in deliveries:
            cuts = [self.cuts.get(event) for event in events]
            kept_back = [cut for cut in cuts if cut is not None]
            assert len(set(kept_back)) <= 1, "two emissions that were kept back in one message"
            assert not kept_back or cuts[-1] is not None, "joined with what came behind"
        model.step(moved, deliveries)
        assert not self.waiting or outlet.accumulating or not model.room, "stranded"
        assert outlet.dispatcher.backlog == len(model.held)
        assert outlet.waiting == len(self.waiting) + len(model.held)
        assert outlet.outstanding == self.asked
        if outlet.infos:
            released, outlet.infos = outlet.infos, []
            self.came_out(released)
        if not self.waiting and not model.pending:
            assert not self.pins, "infos wait for nothing"

    def drop(self) -> None:
        overflow, self.outlet.overflow = self.outlet.overflow, []
        dropped = [event for one in overflow for part in one.dropped for event in part.events]
        if dropped:
            assert self.outlet.buffer.count == self.size, "dropped though there was room"
            kept = [event for event in self.waiting if event not in set(dropped)]
            if self.keep == "first":
                assert dropped == self.waiting[-len(dropped) :]
            else:  # what was handed out went before
                gone = len(kept) - self.outlet.buffer.count
                assert kept[gone:] == self.waiting[len(self.waiting) - len(kept) + gone :]
                assert dropped == sorted(dropped)
            self.waiting = kept
        for one in overflow:
            self.came_out(one.infos, dropped=True)

    def came_out(self, infos: Sequence[int], *, dropped: bool = False) -> None:
        for number in infos:
            at = [pinned for pinned, _, _ in self.pins].index(number)
            assert at == 0 or dropped, "it overtook others"
            _, before, tags_before = self.pins.pop(at)
            assert all(event >= before for event in self.waiting), "it overtook events"
            for event, owner in () if dropped else self.model.pending:
                assert event >= before or owner.number > tags_before, "it overtook what is held"

    def wanted(self) -> int:
        """What the program is asked for: all that is missing, and nothing that is not."""
        missing = self.model.room - self.asked - len(self.waiting)
        wanted = self.outlet.wanted()
        assert (wanted > 0) == (missing > 0)
        assert wanted <= max(0, missing)
        self.asked += wanted
        return wanted

    def teardown(self) -> None:
        left = [event for piece in self.outlet.clear() for event in piece.events]
        assert sorted(left) == sorted(self.waiting + self.model.held)


@pytest.mark.conformance("GS-036", "GS-037", "GS-051", "GS-124", "GS-140", "GS-154")
@pytest.mark.parametrize("name", DISPATCHERS)
def test_nothing_is_stranded_lost_doubled_or_overtaken(name: str) -> None:
    """In every dispatcher, whoever joins, leaves, asks or emits, whatever is kept back."""
    run_state_machine_as_test(lambda: OutletMachine(name))


# --- asking the program ------------------------------------------------------------------------


def made(*, accumulate: bool = False, size: int | None = None, keep: Keep = "last") -> Outlet:
    """An outlet with the default dispatcher."""
    return Outlet(DemandDispatcher(), Buffer(size, keep), accumulate=accumulate)


def sent(deliveries: Sequence[Any]) -> list[list[Any]]:
    return [events for _, events, _ in deliveries]


def replayed(outlet: Outlet) -> list[int]:
    """What the program is asked for, until it is nothing."""
    asks: list[int] = []
    while wanted := outlet.wanted():
        asks.append(wanted)
    return asks


def test_the_program_is_asked_for_what_was_asked_for_and_once() -> None:
    """Asks add up; what comes is owed no more; what was too much is not asked for again."""
    outlet, tag = made(), Tag(1)
    outlet.subscribe(tag, {})
    outlet.ask(tag, 2)
    assert outlet.wanted() == 2
    outlet.ask(tag, 3)
    outlet.ask(tag, 1)
    assert outlet.wanted() == 4
    assert outlet.wanted() == 0
    assert sent(outlet.emit([1, 2, 3, 4, 5, 6, 7, 8])) == [[1, 2, 3, 4, 5, 6]]
    assert outlet.outstanding == 0
    assert sent(outlet.ask(tag, 5)) == [[7, 8]]
    assert outlet.wanted() == 3


@pytest.mark.conformance("GS-038")
def test_the_buffer_is_served_before_what_is_asked_of_the_program() -> None:
    """Five were emitted without demand: four, then the fifth, then new ones."""
    outlet, tag = made(), Tag(1)
    outlet.emit(list("abcde"))
    outlet.subscribe(tag, {})
    assert sent(outlet.ask(tag, 4)) == [list("abcd")]
    assert outlet.wanted() == 0
    assert sent(outlet.ask(tag, 3)) == [["e"]]
    assert outlet.wanted() == 2


def test_figures_follow_what_happens() -> None:
    """Asked, emitted, delivered: what statistics show."""
    outlet, (one, other) = made(size=2), tags(2)
    outlet.subscribe(one, {})
    outlet.subscribe(other, {})
    outlet.ask(one, 2)
    outlet.ask(other, 1)
    outlet.emit([1, 2, 3, 4, 5, 6])
    assert (outlet.asked, outlet.emitted, outlet.delivered, outlet.waiting) == (3, 6, 3, 2)
    outlet.ask(one, 1)
    assert (outlet.asked, outlet.emitted, outlet.delivered, outlet.waiting) == (4, 6, 4, 1)


@pytest.mark.conformance("GS-039", "GS-040")
@pytest.mark.parametrize(("keep", "dropped"), [("first", [4, 5, 6]), ("last", [2, 3, 4])])
def test_an_overflow_is_found_with_what_was_dropped(keep: Keep, dropped: list[int]) -> None:
    """Of what nobody had asked for; it is then asked for again, if anybody would take it."""
    outlet, tag = made(size=2, keep=keep), Tag(1)
    outlet.subscribe(tag, {})
    outlet.ask(tag, 1)
    outlet.emit([1, 2, 3, 4, 5, 6])
    assert outlet.rare
    (overflow,) = outlet.overflow
    assert [event for piece in overflow.dropped for event in piece.events] == dropped
    assert outlet.waiting == 2


# --- accumulating ------------------------------------------------------------------------------


@pytest.mark.conformance("GS-031")
def test_asks_that_were_kept_back_are_replayed_one_by_one() -> None:
    """Two, two and one, not five; then as usual."""
    outlet, tag = made(accumulate=True), Tag(1)
    outlet.subscribe(tag, {})
    for demand in (2, 2, 1):
        outlet.ask(tag, demand)
        assert outlet.wanted() == 0
    assert not outlet.forward()
    assert replayed(outlet) == [2, 2, 1]
    outlet.ask(tag, 4)
    assert replayed(outlet) == [4]


@pytest.mark.conformance("GS-031", "GS-028")
def test_asks_that_others_serve_meanwhile_are_not_replayed() -> None:
    """What was emitted while accumulating, and what a leaver had asked for, is not asked for."""
    outlet, (one, leaver) = made(accumulate=True), tags(2)
    outlet.subscribe(one, {})
    outlet.subscribe(leaver, {})
    outlet.ask(one, 3)
    outlet.wanted()
    outlet.ask(leaver, 4)
    outlet.wanted()
    outlet.emit([1, 2])
    outlet.cancel(leaver)
    assert sent(outlet.forward()) == [[1, 2]]
    assert replayed(outlet) == [1]


@pytest.mark.conformance("GS-031")
def test_asks_that_were_served_meanwhile_are_forgotten() -> None:
    """They do not cut what is asked for later."""
    outlet, tag = made(accumulate=True), Tag(1)
    outlet.subscribe(tag, {})
    outlet.ask(tag, 2)
    outlet.wanted()
    outlet.emit([1, 2])
    outlet.forward()
    assert replayed(outlet) == []
    outlet.ask(tag, 5)
    assert replayed(outlet) == [5]


@pytest.mark.conformance("GS-032", "GS-028")
def test_emissions_that_were_kept_back_come_one_by_one_to_all() -> None:
    """A message each, in order, for every consumer; the buffer is empty then."""
    outlet, both = Outlet(BroadcastDispatcher(), Buffer(), accumulate=True), tags(2)
    for tag in both:
        outlet.subscribe(tag, {})
        assert not outlet.ask(tag, 10)
    assert not outlet.emit([1, 2])
    assert not outlet.emit([3])
    assert [(tag.number, events) for tag, events, _ in outlet.forward()] == [
        *((1, [1, 2]), (2, [1, 2])),
        *((1, [3]), (2, [3])),
    ]
    assert outlet.waiting == 0


@pytest.mark.conformance("GS-036")
def test_emissions_that_are_kept_back_are_counted_and_bounded() -> None:
    """As any others that nobody has been given."""
    outlet = made(accumulate=True, size=3)
    outlet.emit([1, 2])
    assert outlet.waiting == 2
    outlet.emit([3, 4])
    assert outlet.waiting == 3
    assert [piece.events for piece in outlet.overflow[0].dropped] == [[1]]


@pytest.mark.conformance("GS-037")
def test_an_info_comes_behind_what_was_kept_back() -> None:
    """At forward, not before; what is emitted later comes after it."""
    outlet, tag = made(accumulate=True), Tag(1)
    outlet.subscribe(tag, {})
    outlet.ask(tag, 10)
    outlet.emit([1])
    assert outlet.info("info")
    outlet.emit([2])
    assert not outlet.infos
    assert sent(outlet.forward()) == [[1], [2]]
    assert outlet.infos == ["info"]


@pytest.mark.conformance("GS-028")
def test_what_a_leaver_frees_is_kept_back_too() -> None:
    """Nothing goes out while accumulating, whatever happens."""
    outlet, (one, blocking) = Outlet(BroadcastDispatcher(), Buffer()), tags(2)
    outlet.subscribe(one, {})
    outlet.subscribe(blocking, {})
    outlet.ask(one, 5)
    outlet.emit([1])
    outlet.accumulating = True
    assert not outlet.cancel(blocking)
    assert not outlet.ask(one, 1)
    assert sent(outlet.forward()) == [[1]]


# --- infos -------------------------------------------------------------------------------------


@pytest.mark.conformance("GS-055", "GS-056")
def test_an_info_waits_for_what_is_buffered_and_for_nothing_else() -> None:
    """Due at once where nothing is; else with the last event before it."""
    outlet, tag = made(), Tag(1)
    assert not outlet.info("at once")
    outlet.subscribe(tag, {})
    outlet.emit([1, 2, 3])
    assert outlet.info("later")
    outlet.ask(tag, 2)
    assert not outlet.infos
    outlet.ask(tag, 5)
    assert (outlet.infos, outlet.rare) == (["later"], True)
    assert not outlet.info("at once")


@pytest.mark.conformance("GS-058")
def test_an_overflow_lets_the_info_out_behind_what_it_drops() -> None:
    """It is found with the overflow."""
    outlet = made(size=2)
    outlet.emit([1, 2])
    outlet.info("info")
    outlet.emit([3])
    outlet.emit([4])
    assert [overflow.infos for overflow in outlet.overflow] == [[], ["info"]]
