"""The dispatchers that give an event to one consumer: by demand, and in turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import ConfigError
from penstock.rules.buffer import Buffer
from penstock.rules.dispatch import DemandDispatcher
from penstock.rules.outlet import Outlet
from penstock.rules.trace import Fresh
from unit.dispatching import DISPATCHERS, Tag, given_out, model_of, shared, tags

few = st.integers(1, 9)


def sent(deliveries: Sequence[Any]) -> list[tuple[int, list[Any]]]:
    return [(tag.number, events) for tag, events, _ in deliveries]


# --- all of them -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DISPATCHERS)
def test_a_fresh_dispatcher_has_the_options_and_nothing_of_the_old_one(name: str) -> None:
    """One instance serves one run; a restart begins anew."""
    dispatcher, model = DISPATCHERS[name](), model_of(name)
    options, tag = model.options(1, 10), Tag(1)
    assert options is not None
    dispatcher.subscribe(tag, options)
    dispatcher.ask(tag, 5)
    assert dispatcher.room == 5
    fresh = dispatcher.fresh()
    assert type(fresh) is type(dispatcher)
    assert (fresh.room, dispatcher.room) == (0, 5)
    fresh.subscribe(tag, options)


@pytest.mark.conformance("GS-077")
@pytest.mark.parametrize("name", ["demand", "round robin"])
def test_an_option_that_nobody_knows_is_refused(name: str) -> None:
    """The error names it."""
    with pytest.raises(ConfigError, match="partition"):
        DISPATCHERS[name]().check({"partition": 1})
    DISPATCHERS[name]().check({})


# --- by demand ---------------------------------------------------------------------------------


@pytest.mark.conformance("GS-112")
def test_subscribing_and_leaving_is_no_demand() -> None:
    """The producer is asked for nothing."""
    outlet, tag = Outlet(DemandDispatcher(), Buffer()), Tag(1)
    outlet.subscribe(tag, {})
    assert outlet.wanted() == 0
    assert not outlet.cancel(tag)
    assert outlet.wanted() == 0


@pytest.mark.conformance("GS-113")
def test_what_a_leaver_had_asked_for_is_for_its_successors() -> None:
    """The producer owes it already; it is asked only for what is more."""
    outlet, (leaver, second, third) = Outlet(DemandDispatcher(), Buffer()), tags(3)
    outlet.subscribe(leaver, {})
    outlet.ask(leaver, 10)
    assert outlet.wanted() == 10
    outlet.cancel(leaver)
    outlet.subscribe(second, {})
    outlet.ask(second, 5)
    assert outlet.wanted() == 0
    outlet.cancel(second)
    outlet.subscribe(third, {})
    outlet.ask(third, 12)
    assert outlet.wanted() == 2


@pytest.mark.conformance("GS-114")
def test_emissions_without_consumers_are_kept_and_pay_off_what_was_asked_for() -> None:
    """Three of ten that a leaver had asked for are kept; seven are still to come."""
    outlet, (leaver, other) = Outlet(DemandDispatcher(), Buffer()), tags(2)
    outlet.subscribe(leaver, {})
    outlet.ask(leaver, 10)
    assert outlet.wanted() == 10
    outlet.cancel(leaver)
    assert not outlet.emit([1, 2, 3])
    assert (outlet.outstanding, outlet.waiting) == (7, 3)
    outlet.emit(list(range(4, 14)))
    assert (outlet.outstanding, outlet.waiting) == (0, 13)
    outlet.subscribe(other, {})
    assert sent(outlet.ask(other, 14)) == [(2, list(range(1, 14)))]
    assert outlet.wanted() == 1


@pytest.mark.conformance("GS-124")
def test_after_a_leaver_a_newcomer_with_less_demand_gets_the_buffer_in_order() -> None:
    """What was kept is not stuck behind what is still owed."""
    outlet, (leaver, newcomer) = Outlet(DemandDispatcher(), Buffer()), tags(2)
    outlet.subscribe(leaver, {})
    outlet.ask(leaver, 10)
    assert outlet.wanted() == 10
    outlet.cancel(leaver)
    outlet.emit([1, 2, 3])
    outlet.subscribe(newcomer, {})
    assert sent(outlet.ask(newcomer, 2)) == [(2, [1, 2])]
    assert not outlet.emit([4, 5])
    assert sent(outlet.ask(newcomer, 3)) == [(2, [3, 4, 5])]


@pytest.mark.conformance("GS-115")
def test_two_subscriptions_of_one_consumer_are_apart() -> None:
    """One ends; the other keeps its demand."""
    dispatcher = DemandDispatcher()
    one, other = Tag(1, "me"), Tag(2, "me")
    dispatcher.subscribe(one, {})
    dispatcher.subscribe(other, {})
    dispatcher.ask(one, 4)
    dispatcher.ask(other, 3)
    dispatcher.cancel(one)
    assert dispatcher.room == 3
    assert given_out(dispatcher, 5) == ([(2, [0, 1, 2])], 2)


@pytest.mark.conformance("GS-116")
def test_what_was_not_used_stays_open_and_asks_add_up() -> None:
    """Five asked, three used: two and three are five again; what is over comes back."""
    dispatcher = DemandDispatcher()
    (tag,) = shared(dispatcher, 5)
    assert given_out(dispatcher, 3) == ([(1, [0, 1, 2])], 0)
    assert dispatcher.open_demand() == [2]
    dispatcher.ask(tag, 3)
    assert dispatcher.open_demand() == [5]
    assert given_out(dispatcher, 9) == ([(1, [0, 1, 2, 3, 4])], 4)
    assert given_out(dispatcher, 2) == ([], 2)


@pytest.mark.conformance("GS-117")
def test_consumers_are_served_in_the_order_of_their_open_demand() -> None:
    """Sorted anew at each ask."""
    dispatcher = DemandDispatcher()
    _, second, third = shared(dispatcher, 4, 2, 3)
    assert dispatcher.open_demand() == [4, 3, 2]
    dispatcher.ask(third, 2)
    assert dispatcher.open_demand() == [5, 4, 2]
    dispatcher.ask(second, 4)
    assert dispatcher.open_demand() == [6, 5, 4]
    assert [number for number, _ in given_out(dispatcher, 15)[0]] == [2, 3, 1]


@pytest.mark.conformance("GS-118")
def test_a_batch_is_split_along_the_open_demands() -> None:
    """In their order; then nothing goes any more."""
    dispatcher = DemandDispatcher()
    shared(dispatcher, 3, 2)
    assert given_out(dispatcher, 5) == ([(1, [0, 1, 2]), (2, [3, 4])], 0)
    assert given_out(dispatcher, 2) == ([], 2)


@pytest.mark.conformance("GS-119")
def test_equal_demands_take_turns() -> None:
    """Who has just been served comes after who has as much."""
    dispatcher = DemandDispatcher()
    shared(dispatcher, 3, 3)
    assert given_out(dispatcher, 2) == ([(1, [0, 1])], 0)
    assert given_out(dispatcher, 2) == ([(2, [0, 1])], 0)
    assert given_out(dispatcher, 3) == ([(1, [0]), (2, [1])], 1)


@pytest.mark.conformance("GS-119")
@pytest.mark.parametrize("consumers", [2, 3, 5])
def test_single_events_go_round(consumers: int) -> None:
    """Each of them is served once before any is served twice."""
    dispatcher = DemandDispatcher()
    shared(dispatcher, *[4] * consumers)
    order = [given_out(dispatcher, 1)[0][0][0] for _ in range(4 * consumers)]
    assert order == list(range(1, consumers + 1)) * 4


@pytest.mark.conformance("GS-123")
def test_an_emission_within_the_largest_demand_goes_to_one_consumer() -> None:
    """It is not spread."""
    dispatcher = DemandDispatcher()
    shared(dispatcher, 10, 10, 10)
    assert given_out(dispatcher, 6) == ([(1, [0, 1, 2, 3, 4, 5])], 0)


@pytest.mark.conformance("GS-120")
def test_shuffling_changes_the_first_order_and_no_demand() -> None:
    """Once: afterwards it is as without. Producers differ, runs do not."""
    orders: set[tuple[int, ...]] = set()
    for start in range(0, 80, 8):
        served: list[tuple[int, ...]] = []
        for _ in range(2):
            dispatcher = DemandDispatcher(shuffle=True)
            for tag in [Tag(start + n) for n in range(8)]:
                dispatcher.subscribe(tag, {})
                dispatcher.ask(tag, 2)
            deliveries, left = given_out(dispatcher, 8)
            assert (left, dispatcher.room) == (0, 8)
            served.append(tuple(number - start for number, _ in deliveries))
            rest = tuple(number - start for number, _ in given_out(dispatcher, 8)[0])
            assert sorted([*served[-1], *rest]) == list(range(8))
        assert served[0] == served[1]
        orders.add(served[0])
    assert len(orders) > 3
    assert any(order != tuple(sorted(order)) for order in orders)


@pytest.mark.conformance("GS-120")
def test_shuffling_happens_once() -> None:
    """The next equal demands take turns in the order in which they came."""
    dispatcher = DemandDispatcher(shuffle=True)
    made = shared(dispatcher, *[1] * 8)
    assert given_out(dispatcher, 8)[1] == 0
    for tag in made:
        dispatcher.ask(tag, 1)
    assert [number for number, _ in given_out(dispatcher, 8)[0]] == list(range(1, 9))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8).filter(any))
def test_shuffling_keeps_the_largest_demand_first(asks: list[int]) -> None:
    """Only equal ones change places."""
    dispatcher = DemandDispatcher(shuffle=True)
    shared(dispatcher, *asks)
    deliveries, left = given_out(dispatcher, sum(asks))
    sizes = [len(events) for _, events in deliveries]
    assert sizes == sorted([ask for ask in asks if ask], reverse=True)
    assert left == 0
    assert all(asks[number - 1] == len(part) for number, part in deliveries)


@pytest.mark.conformance("GS-121", "GS-134")
@pytest.mark.parametrize("name", ["demand", "round robin", "broadcast"])
def test_infos_are_never_held(name: str) -> None:
    """Nothing is held back that they could wait for; demand stays as it is."""
    dispatcher = DISPATCHERS[name]()
    shared(dispatcher, 3)
    assert not dispatcher.pin("info")
    assert (dispatcher.room, list(dispatcher.released())) == (3, [])


@pytest.mark.conformance("GS-122")
def test_an_ask_above_the_first_one_is_warned_of() -> None:
    """Once each, with the maximum; it is served all the same."""
    dispatcher = DemandDispatcher()
    first, greedy = shared(dispatcher, 10, 11)
    assert dispatcher.warned
    (warning,) = dispatcher.warnings()
    assert "11" in warning
    assert "maximum of 10" in warning
    assert not dispatcher.warned
    assert not dispatcher.warnings()
    dispatcher.ask(first, 10)
    assert not dispatcher.warnings()
    assert dispatcher.room == 31
    dispatcher.ask(greedy, 12)
    assert len(dispatcher.warnings()) == 1


@pytest.mark.conformance("GS-122")
def test_the_maximum_can_be_given() -> None:
    """Then the first ask decides nothing."""
    dispatcher = DemandDispatcher(max_demand=20)
    shared(dispatcher, 10, 20)
    assert not dispatcher.warnings()
    shared(dispatcher, 21)
    assert "maximum of 20" in dispatcher.warnings()[0]
    assert len(shared(fresh := dispatcher.fresh(), 20, 21)) == 2
    assert len(fresh.warnings()) == 1


@pytest.mark.conformance("GS-122")
def test_an_outlet_says_that_there_is_a_warning() -> None:
    """So that whoever runs it need not look each time."""
    outlet, (first, greedy) = Outlet(DemandDispatcher(), Buffer()), tags(2)
    outlet.subscribe(first, {})
    outlet.subscribe(greedy, {})
    outlet.ask(first, 3)
    assert not outlet.rare
    outlet.ask(greedy, 4)
    assert outlet.rare


@pytest.mark.parametrize("name", ["demand", "round robin", "partition"])
def test_the_carrier_goes_with_every_part(name: str) -> None:
    """What follows an event's outcome, follows it to whoever gets it."""
    dispatcher, model, carrier = DISPATCHERS[name](), model_of(name), Fresh(lambda *_: None)
    for tag in tags(3):
        dispatcher.subscribe(tag, model.options(tag.number, 5) or {})
        dispatcher.ask(tag, 2)
    deliveries = dispatcher.dispatch([0, 1, 2, 4, 5, 6], carrier)[0]
    assert [found for _, _, found in deliveries] == [carrier] * 3
