"""The dispatcher that gives every event to everybody: in step, in order, and asked for once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from penstock.errors import ConfigError
from penstock.rules.broadcast import BroadcastDispatcher
from penstock.rules.buffer import Buffer
from penstock.rules.dispatch import AlreadySubscribed
from penstock.rules.outlet import Outlet
from penstock.rules.trace import Fresh
from unit.dispatching import Tag, tags


def made(*, consumers: int = 0) -> tuple[Outlet, list[Tag]]:
    """An outlet that broadcasts, with so many consumers that have not asked."""
    outlet, subscribed = Outlet(BroadcastDispatcher(), Buffer()), tags(consumers)
    for tag in subscribed:
        outlet.subscribe(tag, {})
    return outlet, subscribed


def sent(deliveries: Sequence[Any]) -> dict[int, list[Any]]:
    """Who got what, by number; a consumer gets one message a step here."""
    return {tag.number: events for tag, events, _ in deliveries}


def numbers(first: int, last: int) -> list[int]:
    return list(range(first, last + 1))


# --- demand ------------------------------------------------------------------------------------


@pytest.mark.conformance("GS-125")
def test_what_the_only_consumer_asked_for_stays_asked_for_when_it_leaves() -> None:
    """Emissions wait for the next one; nobody is there to take them."""
    outlet, (tag,) = made(consumers=1)
    outlet.ask(tag, 10)
    assert outlet.wanted() == 10
    outlet.cancel(tag)
    assert (outlet.outstanding, outlet.dispatcher.room) == (10, 0)
    assert not outlet.emit([1, 2, 3])
    assert outlet.waiting == 3


@pytest.mark.conformance("GS-126")
def test_a_newcomer_is_served_by_what_a_leaver_had_asked_for() -> None:
    """While it has not asked there is no room; then nothing new is asked of the producer."""
    outlet, (first,) = made(consumers=1)
    outlet.ask(first, 10)
    assert outlet.wanted() == 10
    second = Tag(2)
    outlet.subscribe(second, {})
    assert outlet.dispatcher.room == 0
    outlet.cancel(first)
    outlet.ask(second, 10)
    assert outlet.wanted() == 0
    assert sent(outlet.emit(numbers(1, 10))) == {2: numbers(1, 10)}


@pytest.mark.conformance("GS-127")
def test_one_that_has_not_asked_holds_all_up_until_it_leaves() -> None:
    """Then what the other has asked for counts."""
    outlet, (first, second) = made(consumers=2)
    outlet.ask(first, 10)
    assert outlet.wanted() == 0
    outlet.cancel(second)
    assert outlet.wanted() == 10
    outlet.ask(first, 10)
    assert outlet.wanted() == 10


@pytest.mark.conformance("GS-128", "GS-138")
def test_the_smallest_demand_is_asked_for_once_and_given_to_all() -> None:
    """Of three and two: two; what the fast one has left over is used next."""
    outlet, (first, second) = made(consumers=2)
    outlet.ask(first, 3)
    outlet.ask(second, 2)
    assert outlet.wanted() == 2
    assert outlet.wanted() == 0
    assert sent(outlet.emit([1, 2])) == {1: [1, 2], 2: [1, 2]}
    outlet.ask(second, 2)
    assert outlet.wanted() == 1
    assert sent(outlet.emit([3, 4])) == {1: [3], 2: [3]}
    assert outlet.waiting == 1


@pytest.mark.conformance("GS-129")
def test_a_late_third_consumer_holds_up_until_all_have_asked() -> None:
    """Then they are even, and go on together."""
    outlet, (first, second) = made(consumers=2)
    outlet.ask(first, 3)
    outlet.ask(second, 2)
    assert outlet.wanted() == 2
    third = Tag(3)
    outlet.subscribe(third, {})
    assert not outlet.emit([1, 2])
    assert not outlet.ask(first, 2)
    assert not outlet.ask(second, 2)
    assert outlet.wanted() == 0
    assert sent(outlet.ask(third, 3)) == {1: [1, 2], 2: [1, 2], 3: [1, 2]}
    assert outlet.wanted() == 1
    assert sent(outlet.emit([3])) == {1: [3], 2: [3], 3: [3]}


@pytest.mark.conformance("GS-130")
def test_one_that_joins_in_mid_stream_shares_what_is_outstanding() -> None:
    """Of ten that were asked for three have come: both get the other seven."""
    outlet, (first,) = made(consumers=1)
    outlet.ask(first, 10)
    assert outlet.wanted() == 10
    assert sent(outlet.emit([1, 2, 3])) == {1: [1, 2, 3]}
    second = Tag(2)
    outlet.subscribe(second, {})
    outlet.ask(second, 20)
    assert outlet.wanted() == 0
    seven = numbers(4, 10)
    assert sent(outlet.emit(seven)) == {1: seven, 2: seven}
    outlet.ask(first, 13)
    assert outlet.wanted() == 13


@pytest.mark.conformance("GS-131")
def test_the_demand_of_a_leaver_is_paid_to_its_successor() -> None:
    """Of ten, five are wanted now; three come, seven are still owed."""
    outlet, (first,) = made(consumers=1)
    outlet.ask(first, 10)
    assert outlet.wanted() == 10
    outlet.cancel(first)
    second = Tag(2)
    outlet.subscribe(second, {})
    outlet.ask(second, 5)
    assert outlet.wanted() == 0
    assert sent(outlet.emit([1, 2, 3])) == {2: [1, 2, 3]}
    assert (outlet.outstanding, outlet.dispatcher.room) == (7, 2)


@pytest.mark.conformance("GS-132", "GS-137")
def test_when_the_blocking_one_leaves_only_what_is_new_is_asked_for() -> None:
    """Ten were asked for before it came, fifteen are open when it goes."""
    outlet, (first,) = made(consumers=1)
    outlet.ask(first, 10)
    assert outlet.wanted() == 10
    blocking = Tag(2)
    outlet.subscribe(blocking, {})
    outlet.ask(first, 5)
    assert outlet.wanted() == 0
    outlet.cancel(blocking)
    assert outlet.wanted() == 5


@pytest.mark.conformance("GS-137")
def test_what_the_blocking_one_held_up_goes_when_it_leaves() -> None:
    """At that moment: nobody need ask again."""
    outlet, (first, blocking) = made(consumers=2)
    outlet.ask(first, 5)
    assert not outlet.emit([1, 2])
    assert sent(outlet.cancel(blocking)) == {1: [1, 2]}


@pytest.mark.conformance("GS-140", "GS-051")
def test_what_was_buffered_while_one_joined_goes_first_and_is_not_held_back() -> None:
    """The newcomer asks for five: it gets the two that wait, at once, and newer ones after them."""
    outlet, (first,) = made(consumers=1)
    outlet.ask(first, 10)
    assert outlet.wanted() == 10
    second = Tag(2)
    outlet.subscribe(second, {})
    assert not outlet.emit([1, 2])
    assert sent(outlet.ask(second, 5)) == {1: [1, 2], 2: [1, 2]}
    assert sent(outlet.emit([3])) == {1: [3], 2: [3]}


def test_each_consumer_has_a_list_of_its_own() -> None:
    """The list is the receiver's: what one does to it, the others do not see."""
    outlet, (first, second) = made(consumers=2)
    outlet.ask(first, 5)
    outlet.ask(second, 5)
    emitted = [1, 2]
    lists = [events for _, events, _ in outlet.emit(emitted)]
    for events in lists:
        events.append("mine")
    assert lists == [[1, 2, "mine"], [1, 2, "mine"]]
    assert emitted == [1, 2]


# --- refusing ----------------------------------------------------------------------------------


@pytest.mark.conformance("GS-135", "GS-067", "GS-068")
def test_a_consumer_that_is_subscribed_is_refused_each_time() -> None:
    """The second and the third attempt change nothing; when it has left, it may come again."""
    outlet, (tag,) = made(consumers=1)
    outlet.ask(tag, 5)
    for number in (2, 3, 4):
        with pytest.raises(AlreadySubscribed, match="every event twice"):
            outlet.subscribe(Tag(number, tag.consumer), {})
    assert sent(outlet.emit([1])) == {1: [1]}
    assert outlet.dispatcher.room == 4
    outlet.cancel(tag)
    outlet.subscribe(Tag(5, tag.consumer), {})


@pytest.mark.conformance("GS-141")
@pytest.mark.parametrize("selector", ["even", 3, [len]])
def test_a_selector_that_is_no_function_is_refused(selector: Any) -> None:
    """Where it is given, and again where it arrives."""
    with pytest.raises(ConfigError, match="selector must be a function"):
        BroadcastDispatcher().check({"selector": selector})


@pytest.mark.conformance("GS-141")
def test_a_selector_that_is_no_function_is_refused_by_the_producer() -> None:
    """Whoever subscribes unchecked is refused, and the others go on."""
    outlet, (tag,) = made(consumers=1)
    outlet.ask(tag, 5)
    with pytest.raises(ConfigError, match="selector must be a function"):
        outlet.subscribe(Tag(2), {"max_demand": 10, "selector": "even"})
    assert sent(outlet.emit([1])) == {1: [1]}


@pytest.mark.conformance("GS-141")
def test_a_selector_that_raises_ends_its_own_subscription() -> None:
    """It is told of; the others get what they should, in the same step."""
    outlet, (tag,) = made(consumers=1)
    bad, error = Tag(2), ValueError("no such field")

    def selector(event: int) -> bool:
        if event == 2:
            raise error
        return True

    outlet.subscribe(bad, {"selector": selector})
    outlet.ask(tag, 5)
    outlet.ask(bad, 5)
    assert sent(outlet.emit([1, 2, 3])) == {1: [1, 2, 3]}
    assert outlet.rare
    assert outlet.broken == [(bad, error)]
    outlet.cancel(bad)
    assert sent(outlet.emit([4])) == {1: [4]}


def test_an_unknown_option_is_refused() -> None:
    """The error names what there is."""
    with pytest.raises(ConfigError, match=r"knows no option partition .*selector"):
        BroadcastDispatcher().check({"partition": 0})
    BroadcastDispatcher().check({"selector": bool})
    BroadcastDispatcher().check({"selector": None})


# --- selectors ---------------------------------------------------------------------------------


@pytest.mark.conformance("GS-133")
def test_selectors_leave_events_out_at_no_cost() -> None:
    """Each gets its own; what it left out, it can still get."""
    outlet, _ = made()
    first, second = tags(2)
    outlet.subscribe(first, {"selector": lambda event: event.startswith("a")})
    outlet.subscribe(second, {"selector": lambda event: event.startswith(("b", "ab"))})
    outlet.ask(first, 3)
    outlet.ask(second, 3)
    assert outlet.wanted() == 3
    assert sent(outlet.emit(["a1", "ab", "b1"])) == {1: ["a1", "ab"], 2: ["ab", "b1"]}
    assert outlet.dispatcher.room == 1
    assert outlet.wanted() == 1
    assert sent(outlet.emit(["a2"])) == {1: ["a2"]}
    assert outlet.dispatcher.room == 0
    outlet.ask(first, 3)
    assert outlet.wanted() == 1


@pytest.mark.conformance("GS-133")
def test_what_nobody_wants_goes_to_nobody() -> None:
    """No empty messages; the demand is still there, and asked for again."""
    outlet, _ = made()
    outlet.subscribe(tag := Tag(1), {"selector": lambda _: False})
    outlet.ask(tag, 2)
    for event in range(5):
        assert outlet.wanted() == (2 if event == 0 else 1)
        assert not outlet.emit([event])
    assert outlet.waiting == 0


@pytest.mark.conformance("GS-133")
def test_an_emission_beyond_demand_goes_on_where_selectors_left_room() -> None:
    """What was left out makes room for more of the same emission: nobody waits beside a buffer."""
    outlet, (every,) = made(consumers=1)
    odd = Tag(2)
    outlet.subscribe(odd, {"selector": lambda event: event % 2})
    outlet.ask(every, 3)
    outlet.ask(odd, 2)
    got: dict[int, list[int]] = {1: [], 2: []}
    for tag, events, _ in outlet.emit([2, 3, 4]):
        got[tag.number] += events
    assert got == {1: [2, 3, 4], 2: [3]}
    assert outlet.waiting == 0


# --- outcomes ----------------------------------------------------------------------------------


def test_an_event_is_done_when_all_have_done_with_it() -> None:
    """Or have left it out."""
    settled: list[Any] = []
    outlet, (first, second) = made(consumers=2)
    third = Tag(3)
    outlet.subscribe(third, {"selector": lambda event: event == 1})
    for tag in (first, second, third):
        outlet.ask(tag, 5)
    carrier = Fresh(lambda events, kind, error: settled.append((list(events), kind, error)))
    deliveries = outlet.emit([1, 2], carrier)
    assert [len(events) for _, events, _ in deliveries] == [2, 2, 1]
    for _, events, carried in deliveries:
        assert not settled
        assert carried
        carried.finish(events)
    assert settled == [([1, 2], "done", None)]


def test_an_event_that_all_selectors_leave_out_is_done() -> None:
    """Nobody is left who could say so."""
    settled: list[Any] = []
    outlet, _ = made()
    outlet.subscribe(tag := Tag(1), {"selector": lambda _: False})
    outlet.ask(tag, 5)
    outlet.emit([1], Fresh(lambda events, kind, _: settled.append((list(events), kind))))
    assert settled == [([1], "done")]
