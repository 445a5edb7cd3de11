"""The dispatcher whose consumers take turns."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import ConfigError
from penstock.rules.dispatch import RoundRobinDispatcher
from unit.dispatching import given_out, shared

few = st.integers(1, 9)


def test_turns_go_round_whatever_the_demand() -> None:
    """The one that asks for most gets no more than the others."""
    dispatcher = RoundRobinDispatcher()
    shared(dispatcher, 100, 2, 3)
    assert given_out(dispatcher, 7) == ([(1, [0, 3, 6]), (2, [1, 4]), (3, [2, 5])], 0)


def test_a_turn_is_so_many_events() -> None:
    """As many as were said, or as were asked for."""
    dispatcher = RoundRobinDispatcher(per_turn=3)
    shared(dispatcher, 10, 2, 10)
    assert given_out(dispatcher, 10) == (
        [(1, [0, 1, 2, 8, 9]), (2, [3, 4]), (3, [5, 6, 7])],
        0,
    )


def test_turns_go_on_from_one_emission_to_the_next() -> None:
    """Single events are spread as well as large emissions."""
    dispatcher = RoundRobinDispatcher()
    shared(dispatcher, 2, 2, 2)
    assert [given_out(dispatcher, 1)[0][0][0] for _ in range(6)] == [1, 2, 3, 1, 2, 3]
    assert given_out(dispatcher, 1) == ([], 1)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), few)
def test_nobody_has_a_second_turn_before_all_had_a_first(asks: list[int], emission: int) -> None:
    """Counted over many emissions: those that still wait have had as many turns, or one fewer."""
    dispatcher = RoundRobinDispatcher()
    shared(dispatcher, *asks)
    got = dict.fromkeys(range(1, len(asks) + 1), 0)
    while dispatcher.room:
        for number, events in given_out(dispatcher, emission)[0]:
            got[number] += len(events)
        waiting = [got[number] for number, ask in enumerate(asks, 1) if got[number] < ask]
        assert not waiting or max(waiting) - min(waiting) <= 1
    assert list(got.values()) == asks


@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_a_turn_has_at_least_one_event(value: Any) -> None:
    """And a whole number of them."""
    with pytest.raises(ConfigError, match=f"per_turn must be at least 1 event; got {value!r}"):
        RoundRobinDispatcher(per_turn=value)
