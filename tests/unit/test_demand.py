"""The consumer's side of demand: how messages are cut, and what is asked for after each slice."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import ConfigError
from penstock.rules.demand import DEFAULT_MAX_DEMAND, Demand, check_bounds
from penstock.stages.protocol import CANCEL_MODES, SubscribeOptions

# received, min, max, granted before: slices with their asks, granted after
TABLE = [
    (1000, 500, 1000, 1000, [(500, 500), (500, 500)], 1000),
    (100, 80, 100, 100, [(20, 20)] * 5, 100),
    (100, 20, 100, 100, [(80, 80), (20, 0)], 80),
    (7, 5, 10, 10, [(5, 5), (2, 0)], 8),
    (3, 5, 10, 10, [(3, 0)], 7),
    (10, 0, 10, 10, [(10, 10)], 10),
    (5, 0, 10, 10, [(5, 0)], 5),
    (100, 750, 1000, 800, [(100, 300)], 1000),
    (30, 5, 10, 10, [(5, 5), (5, 5), (5, 0), (5, 0), (5, 0), (5, 0)], 10),
]


@st.composite
def bounds(draw: st.DrawFn) -> tuple[int, int]:
    """A max_demand, and a min_demand that fits."""
    most = draw(st.integers(1, 30))
    return most, draw(st.integers(0, most - 1))


def subscribed(most: int, least: int | None = None) -> Demand:
    """As after subscribing: max_demand has been asked for."""
    demand = Demand(most, least)
    demand.grant(most)
    return demand


def expected(
    granted: int, least: int, most: int, received: int
) -> tuple[list[tuple[int, int]], int, int]:
    """The arithmetic in its plainest form: event by event, without any shortcut.

    Returns the slices, what is granted afterwards, and how many events were too many.
    """
    promised = granted  # what the producer might still send when it sent this message
    slices: list[tuple[int, int]] = []
    too_many = 0
    while received > 0:
        size = 0
        while received > 0 and size < most - least:
            received, size = received - 1, size + 1
            if promised > 0:
                promised, granted = promised - 1, granted - 1
            else:
                too_many += 1
        ask = 0
        while granted + ask < most and granted <= least:
            ask += 1
        granted += ask
        slices.append((size, ask))
    return slices, granted, too_many


# --- automatic ---------------------------------------------------------------------------------


@pytest.mark.conformance("GS-005")
@pytest.mark.parametrize(("received", "least", "most", "before", "slices", "after"), TABLE)
def test_messages_are_cut_and_answered_as_in_the_table(
    received: int, least: int, most: int, before: int, slices: list[tuple[int, int]], after: int
) -> None:
    """Worked examples, with sizes and asks."""
    demand = Demand(most, least)
    demand.grant(before)
    assert demand.received(received) == slices
    assert demand.pending == after


@pytest.mark.conformance("GS-005")
@given(bounds(), st.lists(st.integers(1, 80), max_size=8))
def test_slices_and_asks_follow_the_plain_arithmetic(
    bound: tuple[int, int], messages: list[int]
) -> None:
    """Whatever comes, also beyond demand: message after message as the plain model has it."""
    most, least = bound
    demand, granted, excess = subscribed(most, least), most, 0
    for received in messages:
        slices, granted, too_many = expected(granted, least, most, received)
        excess += too_many
        assert demand.received(received) == slices
        assert (demand.pending, demand.excess) == (granted, excess)


@pytest.mark.conformance("GS-006")
@given(bounds(), st.data())
def test_what_is_granted_and_unhandled_is_never_above_the_maximum(
    bound: tuple[int, int], data: st.DataObject
) -> None:
    """Counted outside: asks of finished slices, less the events that were handled."""
    most, least = bound
    demand, asked, handled = subscribed(most, least), most, 0
    for _ in range(6):
        for size, ask in demand.received(data.draw(st.integers(1, asked - handled))):
            handled += size
            asked += ask
            assert 0 <= asked - handled <= most
        assert demand.pending == asked - handled
    assert demand.excess == 0


@given(bounds(), st.lists(st.integers(1, 50), max_size=8))
def test_a_producer_can_always_go_on(bound: tuple[int, int], messages: list[int]) -> None:
    """After each message more than min_demand is granted: no subscription runs dry."""
    most, least = bound
    demand = subscribed(most, least)
    for received in messages:
        slices = demand.received(received)
        assert least < demand.pending <= most
        assert sum(size for size, _ in slices) == received
        assert all(0 < size <= most - least for size, _ in slices)


@pytest.mark.conformance("GS-008")
def test_events_beyond_demand_are_handed_on_and_counted_and_lead_to_no_ask() -> None:
    """All are in slices; what was asked for alone is asked for again."""
    demand = subscribed(10, 5)
    slices = demand.received(30)
    assert sum(size for size, _ in slices) == 30
    assert sum(ask for _, ask in slices) == 10
    assert demand.excess == 20


@pytest.mark.conformance("GS-008")
def test_events_without_any_demand_lead_to_no_ask() -> None:
    """A producer that sends too much twice gains nothing by it."""
    demand = subscribed(4, 0)
    demand.received(3)
    assert demand.received(2) == [(2, 4)]
    assert demand.received(9) == [(4, 4), (4, 0), (1, 0)]
    assert demand.excess == 6


@pytest.mark.conformance("GS-010")
def test_two_subscriptions_have_ledgers_of_their_own() -> None:
    """What comes by one changes nothing of the other."""
    one, other = subscribed(10), subscribed(10)
    assert one.received(10) == [(5, 5), (5, 5)]
    assert one.received(3) == [(3, 0)]
    assert (one.pending, other.pending) == (7, 10)
    assert other.received(10) == [(5, 5), (5, 5)]


@given(bounds(), st.lists(st.integers(1, 40), max_size=8), st.booleans())
def test_the_short_way_says_the_same(
    bound: tuple[int, int], messages: list[int], manual: bool
) -> None:
    """`whole` is `received` where that is one slice within demand; else it changes nothing."""
    short, long = Demand(*bound, manual=manual), Demand(*bound, manual=manual)
    short.grant(bound[0])
    long.grant(bound[0])
    for received in messages:
        fits = not manual and received <= min(long.pending, long.chunk)
        ask = short.whole(received)
        if fits:
            assert [(received, ask)] == long.received(received)
        else:
            assert ask == -1
            assert short.received(received) == long.received(received)
        assert (short.pending, short.excess) == (long.pending, long.excess)


# --- manual ------------------------------------------------------------------------------------


@given(bounds(), st.lists(st.integers(1, 50), max_size=8), st.integers(0, 100))
def test_manual_demand_cuts_nothing_and_asks_for_nothing(
    bound: tuple[int, int], messages: list[int], granted: int
) -> None:
    """A message is one slice; the ledger only counts."""
    demand = Demand(*bound, manual=True)
    demand.grant(granted)
    for received in messages:
        before = demand.pending
        assert demand.received(received) == [(received, 0)]
        assert demand.pending == max(0, before - received)
    assert demand.excess == max(0, sum(messages) - granted)


# --- bounds ------------------------------------------------------------------------------------


def test_the_defaults_are_a_thousand_and_half_of_it() -> None:
    """min_demand is half of max_demand, downwards."""
    assert (Demand().max, Demand().min) == (DEFAULT_MAX_DEMAND, 500) == (1000, 500)
    assert check_bounds(7, None) == (7, 3)
    assert check_bounds(1, None) == (1, 0)


@pytest.mark.conformance("GS-011")
@pytest.mark.parametrize("value", [0, -1])
def test_a_max_demand_below_one_is_refused(value: int) -> None:
    """The error says the bound, and what was given."""
    with pytest.raises(ConfigError, match=rf"max_demand.*at least 1; got {value}$"):
        Demand(value)


@pytest.mark.conformance("GS-012")
def test_a_min_demand_that_does_not_fit_is_refused() -> None:
    """The error names the largest that does; max_demand itself is too much."""
    with pytest.raises(ConfigError, match=r"min_demand.*from 0 to 999 .*got 2000$"):
        Demand(min_demand=2000)
    with pytest.raises(ConfigError, match=r"from 0 to 9 .*got 10$"):
        Demand(10, 10)
    with pytest.raises(ConfigError, match=r"from 0 to 9 .*got -1$"):
        Demand(10, -1)
    assert check_bounds(10, 9) == (10, 9)


@pytest.mark.conformance("GS-013")
def test_one_event_at_a_time_has_no_min_demand_of_one() -> None:
    """It would ask before anything was handled."""
    with pytest.raises(ConfigError, match=r"min_demand.*from 0 to 0 .*got 1$"):
        Demand(1, 1)


@pytest.mark.conformance("GS-014")
@pytest.mark.parametrize("value", [1.0, float("inf"), True, None, "10", "infinity"])
def test_a_max_demand_that_is_no_whole_number_is_refused(value: Any) -> None:
    """Infinity would be no back-pressure at all."""
    with pytest.raises(ConfigError, match="max_demand must be a whole number"):
        Demand(value)
    with pytest.raises(ConfigError, match="max_demand must be a whole number"):
        SubscribeOptions(max_demand=value).check()


@pytest.mark.parametrize("value", [1.0, True, "1"])
def test_a_min_demand_that_is_no_whole_number_is_refused(value: Any) -> None:
    """As for max_demand."""
    with pytest.raises(ConfigError, match="min_demand must be a whole number"):
        Demand(10, value)


@pytest.mark.conformance("GS-011", "GS-012", "GS-013")
@pytest.mark.parametrize(("most", "least"), [(0, None), (1000, 2000), (1, 1)])
def test_subscription_options_keep_to_the_same_bounds(most: int, least: int | None) -> None:
    """What a ledger refuses, is refused where somebody subscribes."""
    with pytest.raises(ConfigError):
        SubscribeOptions(max_demand=most, min_demand=least).check()


@pytest.mark.conformance("GS-015")
@pytest.mark.parametrize("mode", ["always", "", None, "Permanent", True])
def test_an_unknown_cancel_mode_is_refused(mode: Any) -> None:
    """The error names those that there are."""
    with pytest.raises(ConfigError, match="permanent, transient, temporary; got"):
        SubscribeOptions(cancel=mode).check()
    for known in CANCEL_MODES:
        SubscribeOptions(cancel=known).check()
