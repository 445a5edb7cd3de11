"""All dispatchers beside plain lists: what each of them must keep to, and who is next."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)

from penstock.rules.buffer import Buffer
from penstock.rules.dispatch import DemandDispatcher
from penstock.rules.outlet import Outlet
from penstock.rules.routing import PartitionDispatcher
from penstock.rules.trace import Fresh
from unit.dispatching import DISPATCHERS, Tag, given_out, lane_of, model_of

few = st.integers(1, 9)


class DispatcherMachine(RuleBasedStateMachine):
    """A dispatcher without an outlet: what it takes is what there is room for."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.dispatcher = DISPATCHERS[name]()
        self.model = model_of(name)
        self.events = self.numbers = 0
        self.skips = name == "partition"

    @rule(size=few)
    def subscribe(self, size: int) -> None:
        self.numbers += 1
        options = self.model.options(self.numbers, size)
        if options is not None:
            tag = Tag(self.numbers)
            self.dispatcher.subscribe(tag, options)
            self.model.subscribe(tag, options)

    @precondition(lambda self: self.model.open)
    @rule(demand=few, data=st.data())
    def ask(self, demand: int, data: st.DataObject) -> None:
        tag = data.draw(st.sampled_from(list(self.model.open)))
        self.model.ask(tag, demand)
        self.model.step([], self.dispatcher.ask(tag, demand))

    @precondition(lambda self: self.model.open)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        tag = data.draw(st.sampled_from(list(self.model.open)))
        self.model.cancel(tag)
        assert not self.dispatcher.cancel(tag)

    @rule(count=st.integers(1, 20))
    def dispatch(self, count: int) -> None:
        events = list(range(self.events, self.events + count))
        room = self.model.room
        assert max(0, self.dispatcher.room) == room
        deliveries, taken, skipped, broken = self.dispatcher.dispatch(events, None)
        assert not broken
        assert taken - len(skipped) == min(room, count - len(skipped))
        assert list(skipped) == [e for e in events[:taken] if self.skips and e % 4 == 3]
        self.model.step(events[:taken], deliveries)
        self.events += taken

    def teardown(self) -> None:
        assert self.dispatcher.backlog == len(self.model.held)
        left = [event for piece in self.dispatcher.clear() for event in piece.events]
        assert left == self.model.held
        assert self.dispatcher.backlog == 0


@pytest.mark.conformance("GS-115", "GS-116", "GS-128", "GS-133", "GS-144", "GS-147", "GS-154")
@pytest.mark.parametrize("name", DISPATCHERS)
def test_nobody_gets_more_than_it_asked_for_and_nothing_is_lost_or_doubled(name: str) -> None:
    """What was taken is delivered, held or discarded, each event once, in order."""
    run_state_machine_as_test(lambda: DispatcherMachine(name))


class DemandMachine(RuleBasedStateMachine):
    """Who is served, beside the plainest list: the first of those with the largest demand."""

    def __init__(self) -> None:
        super().__init__()
        self.dispatcher = DemandDispatcher()
        self.order: list[list[Any]] = []  # [demand, tag], in the order of their last change
        self.numbers = 0

    @rule()
    def subscribe(self) -> None:
        self.numbers += 1
        tag = Tag(self.numbers)
        self.dispatcher.subscribe(tag, {})
        self.order.append([0, tag])

    @precondition(lambda self: self.order)
    @rule(demand=few, data=st.data())
    def ask(self, demand: int, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.order))
        self.dispatcher.ask(entry[1], demand)
        self.change(entry, demand)

    @precondition(lambda self: self.order)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.order))
        self.dispatcher.cancel(entry[1])
        self.order.remove(entry)

    @rule(count=st.integers(1, 25))
    def dispatch(self, count: int) -> None:
        expected: list[tuple[int, list[int]]] = []
        done = 0
        while done < count and any(demand for demand, _ in self.order):
            entry = max(self.order, key=lambda entry: entry[0])  # the first of equal ones
            size = min(entry[0], count - done)
            expected.append((entry[1].number, list(range(done, done + size))))
            self.change(entry, -size)
            done += size
        assert given_out(self.dispatcher, count) == (expected, count - done)

    def change(self, entry: list[Any], by: int) -> None:
        self.order.remove(entry)
        entry[0] += by
        self.order.append(entry)

    def teardown(self) -> None:
        assert self.dispatcher.open_demand() == sorted((d for d, _ in self.order), reverse=True)


@pytest.mark.conformance("GS-117", "GS-118", "GS-119")
def test_demand_decides_as_the_plainest_list_would() -> None:
    """The largest demand first; of equal ones, the one that has had its place longest."""
    run_state_machine_as_test(DemandMachine)


# --- the end -----------------------------------------------------------------------------------


def test_what_is_left_at_the_end_can_be_returned_to_its_source() -> None:
    """Buffered and held, each with what follows its outcome."""
    carrier = Fresh(lambda *_: None)
    outlet = Outlet(PartitionDispatcher(3, hash=lane_of), Buffer())
    outlet.subscribe(tag := Tag(1), {"partition": 0, "max_demand": 5})
    outlet.ask(tag, 3)
    outlet.emit([1, 0, 2], carrier)
    outlet.emit([4, 8, 12], carrier)
    left = outlet.clear()
    assert sorted(event for piece in left for event in piece.events) == [1, 2, 12]
    assert all(piece.carrier is carrier for piece in left)
    assert outlet.waiting == 0
