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

from penstock.rules.buffer import Buffer, Keep
from penstock.rules.outlet import Outlet
from unit.dispatching import DISPATCHERS, Tag, model_of

few = st.integers(1, 7)


class OutletMachine(RuleBasedStateMachine):
    """An outlet, beside lists of what waits, who asked, and what was asked of the program."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.model = model_of(name)
        self.waiting: list[int] = []  # emitted and neither dropped nor taken by the dispatcher
        self.pins: list[tuple[int, int]] = []  # infos: what was emitted before, number
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
        self.outlet.subscribe(tag, options)
        self.model.subscribe(tag, options)
        self.settle(())

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
        self.pins.append((self.emitted, self.infos))
        if not self.outlet.info(self.infos):
            self.came_out([self.infos])
            assert not self.pins, "it overtook others"
        self.settle(())

    # --- what must hold ------------------------------------------------------------------------

    def settle(self, deliveries: Sequence[Any]) -> None:
        """One step is done: everything fits together."""
        outlet, model = self.outlet, self.model
        self.drop()
        left = len(self.waiting) - outlet.buffer.count
        assert left >= 0
        moved, self.waiting = self.waiting[:left], self.waiting[left:]
        assert not self.waiting or outlet.accumulating or not model.room, "stranded"
        assert not outlet.accumulating or not moved, "kept nothing back"
        for _, events, _ in deliveries:
            assert len({self.cuts.get(event) for event in events}) == 1, "two kept back in one"
        model.step(moved, deliveries)
        assert outlet.dispatcher.backlog == len(model.held)
        assert outlet.waiting == len(self.waiting) + len(model.held)
        assert outlet.outstanding == self.asked
        if outlet.infos:
            released, outlet.infos = outlet.infos, []
            self.came_out(released)
        held = model.pending
        if not self.waiting and not held:
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
            at = next(at for at, (_, pinned) in enumerate(self.pins) if pinned == number)
            assert at == 0 or dropped, "it overtook others"
            before, _ = self.pins.pop(at)
            assert all(event >= before for event in self.waiting), "before what it is behind"
            if not dropped:
                assert all(event >= before for event in self.model.pending)

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
