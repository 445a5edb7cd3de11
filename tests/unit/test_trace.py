"""Outcomes: told once, when all that an event led to is over, and at once when it is lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.rules.trace import Fresh, Kind, Trace


class Source:
    """Where events came from: what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[list[Any], Kind, BaseException | None]] = []
        self.carrier = Fresh(self.settle)

    def settle(self, events: Sequence[Any], kind: Kind, error: BaseException | None) -> None:
        self.told.append((list(events), kind, error))


@pytest.fixture
def source() -> Source:
    return Source()


ERROR = ValueError("no")


# --- before anybody was called -----------------------------------------------------------------


def test_events_that_were_left_out_are_done(source: Source) -> None:
    """Filtered on their way: nobody has to handle them."""
    source.carrier.finish([1, 2])
    assert source.told == [([1, 2], "done", None)]


def test_events_that_were_dropped_are_returned_and_lost_ones_have_failed(source: Source) -> None:
    """Without an error nothing went wrong with them, and it does not count."""
    source.carrier.fail([1], None)
    source.carrier.fail([2], ERROR)
    assert source.told == [([1], "returned", None), ([2], "failed", ERROR)]


# --- calls -------------------------------------------------------------------------------------


def test_each_call_is_settled_apart(source: Source) -> None:
    """The second call's events do not wait for those of the first."""
    first, second = source.carrier.begin([1, 2]), source.carrier.begin([3])
    second.finish([3])
    assert source.told == [([3], "done", None)]
    assert second.settled
    assert not first.settled
    first.fail([1, 2], ERROR)
    assert source.told[1:] == [([1, 2], "failed", ERROR)]


def test_inputs_are_done_when_all_outputs_are(source: Source) -> None:
    """In parts, in whatever stage they end."""
    trace = source.carrier.begin([1, 2])
    trace.add(3)
    trace.close(2)
    later = trace.begin(["a", "b"])
    assert later is trace
    later.add(1)
    later.finish(["a", "b"])
    assert not source.told
    later.finish(["c"])
    assert not source.told
    trace.finish(["d"])
    assert source.told == [([1, 2], "done", None)]


def test_a_lost_output_fails_the_inputs_at_once(source: Source) -> None:
    """Whatever becomes of the rest, they are told of once."""
    trace = source.carrier.begin([1])
    trace.add(2)
    trace.close(1)
    trace.fail(["a"], ERROR)
    assert source.told == [([1], "failed", ERROR)]
    trace.finish(["b"])
    trace.fail(["b"], None)
    trace.close(9)
    assert len(source.told) == 1
    assert trace.settled


def test_an_output_that_was_dropped_returns_the_inputs(source: Source) -> None:
    """Nobody has failed."""
    trace = source.carrier.begin([1])
    trace.fail([], None)
    assert source.told == [([1], "returned", None)]


def test_inputs_that_are_done_cannot_fail_any_more(source: Source) -> None:
    """Once is once."""
    trace = source.carrier.begin([1])
    trace.finish([1])
    trace.fail([1], ERROR)
    assert source.told == [([1], "done", None)]


# --- copies ------------------------------------------------------------------------------------


@given(st.integers(1, 4), st.integers(1, 5))
def test_copies_are_done_when_the_last_of_them_is(events: int, copies: int) -> None:
    """As they come from the source."""
    source, given_out = Source(), list(range(events))
    trace = source.carrier.share(given_out, copies)
    for _ in range(copies):
        assert not source.told
        trace.finish(given_out)
    assert source.told == [(given_out, "done", None)]


@given(st.integers(1, 4), st.integers(1, 5))
def test_copies_of_outputs_are_as_many_more(events: int, copies: int) -> None:
    """The inputs wait for all of them."""
    source = Source()
    trace = source.carrier.begin(["in"])
    trace.add(events)
    trace.close(1)
    outputs = list(range(events))
    assert trace.share(outputs, copies) is trace
    for _ in range(copies):
        assert not source.told
        trace.finish(outputs)
    assert source.told == [(["in"], "done", None)]


@given(st.data())
def test_any_tree_of_outputs_settles_its_inputs_once(data: st.DataObject) -> None:
    """Events that lead to events: done with the last of them, or failed with the first."""
    source = Source()
    trace: Trace = source.carrier.begin(["in"])
    alive, lost = 1, False
    for _ in range(data.draw(st.integers(0, 25))):
        if not alive:
            break
        outputs = data.draw(st.integers(0, 3))
        if data.draw(st.integers(0, 9)) == 9:
            trace.fail(["x"], ERROR)
            lost = True
        trace.add(outputs)
        trace.finish(["x"])
        alive += outputs - 1
        assert trace.settled == (lost or not alive)
    trace.close(alive)
    assert source.told == [(["in"], "failed" if lost else "done", ERROR if lost else None)]


def test_the_trace_of_the_inputs_themselves_can_be_split() -> None:
    """Each part is settled alone; the whole then has nothing of its own."""
    said: list[tuple[list[str], str]] = []

    def settle(events: Sequence[Any], kind: Kind, _: BaseException | None) -> None:
        said.append((list(events), kind))

    whole = Fresh(settle).begin(["a", "b", "c"])
    parts = whole.split(3)
    assert parts is not None
    for part in parts:
        part.add(1)
    whole.close(3)
    assert not said
    parts[1].fail((), OSError("no"))
    parts[0].close(1)
    parts[2].close(1)
    assert said == [(["b"], "failed"), (["a"], "done"), (["c"], "done")]
    assert whole.split(2) is None


def test_what_was_made_of_inputs_shares_their_outcome() -> None:
    """A second call, copies, and what is on its way already: no part of these is an input."""
    fresh = Fresh(lambda *_: None)
    first = fresh.begin(["a", "b"])
    assert first.begin(["A", "B"]).split(2) is None
    assert fresh.share(["a", "b"], 2).begin(["a", "b"]).split(2) is None
    begun = fresh.begin(["a", "b"])
    begun.add(1)
    assert begun.split(2) is None
