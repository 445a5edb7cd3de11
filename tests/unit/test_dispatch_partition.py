"""The dispatcher with partitions: who gets what, what is held for whom, and the hash for ever."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from penstock.errors import ConfigError
from penstock.rules.buffer import Buffer
from penstock.rules.outlet import Outlet
from penstock.rules.partition import partition_of
from penstock.rules.routing import PartitionDispatcher, Route
from unit.dispatching import Tag, tags


def made(partitions: int = 2, **options: Any) -> Outlet:
    """An outlet with partitions; an event goes to that of its remainder, unless said otherwise."""
    options.setdefault("hash", lambda event: event % partitions)
    return Outlet(PartitionDispatcher(partitions, **options), Buffer())


def joined(outlet: Outlet, tag: Tag, partition: Any, *, ask: int = 0, size: int = 1000) -> Any:
    """Subscribe, and ask."""
    outlet.subscribe(tag, {"partition": partition, "max_demand": size})
    return sent(outlet.ask(tag, ask)) if ask else {}


def sent(deliveries: Sequence[Any]) -> dict[int, list[Any]]:
    """Who got what, by number."""
    got: dict[int, list[Any]] = {}
    for tag, events, _ in deliveries:
        got.setdefault(tag.number, []).extend(events)
    return got


# --- demand ------------------------------------------------------------------------------------


@pytest.mark.conformance("GS-142")
def test_what_a_leaver_had_asked_for_is_not_asked_for_again() -> None:
    """Not for another partition either: the producer owes it already."""
    outlet, (first, second) = made(), tags(2)
    joined(outlet, first, 0, ask=10)
    assert outlet.wanted() == 10
    outlet.cancel(first)
    joined(outlet, second, 1, ask=5)
    assert outlet.wanted() == 0
    outlet.ask(second, 7)
    assert outlet.wanted() == 2


@pytest.mark.conformance("GS-143")
def test_without_demand_emissions_are_kept_unhashed() -> None:
    """They are in the producer's buffer, and were not looked at."""
    hashed: list[int] = []
    outlet = made(hash=lambda event: hashed.append(event) or event % 2)
    joined(outlet, Tag(1), 0)
    assert not outlet.emit([1, 2, 3])
    assert (outlet.waiting, outlet.dispatcher.backlog, hashed) == (3, 0, [])


@pytest.mark.conformance("GS-144", "GS-155")
def test_what_was_not_asked_for_comes_back_unhashed_and_in_order() -> None:
    """Three and three asked, one and seven emitted: five now, two later."""
    hashed: list[int] = []
    outlet, tag = made(1, hash=lambda event: hashed.append(event) or 0), Tag(1)
    joined(outlet, tag, 0, ask=3)
    assert sent(outlet.emit([1])) == {1: [1]}
    outlet.ask(tag, 3)
    assert sent(outlet.emit([2, 3, 4, 5, 6, 7, 8])) == {1: [2, 3, 4, 5, 6]}
    assert hashed == [1, 2, 3, 4, 5, 6]
    assert sent(outlet.ask(tag, 3)) == {1: [7, 8]}
    assert hashed == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.conformance("GS-145")
def test_names_are_given_by_a_hash_and_discarded_events_cost_nothing() -> None:
    """Of twelve every third is discarded; four and four are asked for."""

    def parity(event: int) -> str | None:
        return None if event % 3 == 0 else ("odd" if event % 2 else "even")

    outlet = Outlet(PartitionDispatcher(["odd", "even"], hash=parity), Buffer())
    odd, even = tags(2)
    joined(outlet, odd, "odd", ask=4)
    joined(outlet, even, "even", ask=4)
    assert sent(outlet.emit(list(range(1, 13)))) == {1: [1, 5, 7, 11], 2: [2, 4, 8, 10]}
    skipped = [event for piece in outlet.skipped for event in piece.events]
    assert skipped == [3, 6, 9]
    assert outlet.waiting == 1
    assert outlet.delivered == 8


@pytest.mark.conformance("GS-145")
def test_an_emission_that_is_discarded_leaves_its_demand_open() -> None:
    """The producer is asked again."""
    outlet, tag = made(hash=lambda _: None), Tag(1)
    joined(outlet, tag, 0, ask=3)
    assert outlet.wanted() == 3
    outlet.emit([1, 2, 3])
    assert outlet.rare
    assert outlet.wanted() == 3


@pytest.mark.conformance("GS-146")
def test_events_of_a_partition_without_consumer_wait_for_its_first_ask() -> None:
    """Nobody else gets them."""
    outlet, (first, second) = made(), tags(2)
    joined(outlet, first, 0, ask=5)
    assert sent(outlet.emit([1, 2, 3])) == {1: [2]}
    assert joined(outlet, second, 1) == {}
    assert sent(outlet.ask(second, 1)) == {2: [1]}
    assert sent(outlet.ask(second, 1)) == {2: [3]}


@pytest.mark.conformance("GS-147")
def test_a_partition_holds_what_it_has_not_asked_for_up_to_its_max_demand() -> None:
    """Then nothing more is taken, for nobody, until it asks: what is over is in the buffer."""
    outlet, (first, slow) = made(), tags(2)
    joined(outlet, first, 0, ask=100)
    joined(outlet, slow, 1, size=3)
    assert sent(outlet.emit([1, 3, 2, 5, 7, 4])) == {1: [2]}
    assert outlet.dispatcher.backlog == 3
    assert outlet.buffer.count == 2
    assert outlet.wanted() == 0
    assert sent(outlet.ask(slow, 2)) == {1: [4], 2: [1, 3]}
    assert sent(outlet.ask(slow, 3)) == {2: [5, 7]}
    assert outlet.waiting == 0


@pytest.mark.conformance("GS-147")
def test_what_is_held_of_several_emissions_is_served_in_order() -> None:
    """Also where an ask takes a part of one of them."""
    outlet, (first, slow) = made(), tags(2)
    joined(outlet, first, 0, ask=100)
    joined(outlet, slow, 1)
    outlet.emit([1, 3, 5])
    outlet.emit([7, 9])
    got = [sent(outlet.ask(slow, demand)) for demand in (1, 3, 1)]
    assert got == [{2: [1]}, {2: [3, 5, 7]}, {2: [9]}]


@pytest.mark.conformance("GS-051", "GS-147")
def test_an_emission_beyond_demand_goes_on_as_long_as_somebody_can_take_of_it() -> None:
    """The small partition bounds each look at it, not what the large one gets."""
    outlet, (large, small) = made(), tags(2)
    joined(outlet, large, 0, ask=10, size=10)
    joined(outlet, small, 1, ask=1, size=1)
    assert sent(outlet.emit([0, 2, 4, 6])) == {1: [0, 2, 4, 6]}
    assert outlet.waiting == 0


# --- leaving -----------------------------------------------------------------------------------


@pytest.mark.conformance("GS-148", "GS-154")
def test_what_is_held_for_a_leaver_is_there_for_its_successor() -> None:
    """In order, and before anything newer; its own open demand is gone."""
    outlet, (other, leaver, successor) = made(), tags(3)
    joined(outlet, other, 0, ask=10)
    joined(outlet, leaver, 1, ask=1)
    assert sent(outlet.emit([1, 3, 5])) == {2: [1]}
    outlet.cancel(leaver)
    assert outlet.waiting == 2
    assert sent(outlet.emit([7])) == {}
    assert joined(outlet, successor, 1, ask=10) == {3: [3, 5, 7]}
    assert sent(outlet.emit([9])) == {3: [9]}


@pytest.mark.conformance("GS-148")
def test_an_info_that_waited_for_a_leaver_comes_out() -> None:
    """Nobody knows when, or whether, there will be a successor."""
    outlet, (other, leaver) = made(), tags(2)
    joined(outlet, other, 0, ask=10)
    joined(outlet, leaver, 1)
    outlet.emit([1])
    assert outlet.info("info")
    assert not outlet.infos
    outlet.cancel(leaver)
    assert outlet.infos == ["info"]


# --- infos -------------------------------------------------------------------------------------


@pytest.mark.conformance("GS-149")
def test_an_info_is_due_where_nothing_is_held() -> None:
    """Demand or none."""
    outlet = made()
    assert not outlet.info("info")
    joined(outlet, Tag(1), 0, ask=5)
    assert not outlet.info("info")


@pytest.mark.conformance("GS-149")
def test_an_info_waits_for_every_partition_that_holds_something() -> None:
    """For the last of them; one comes out once."""
    outlet, (asking, first, second) = made(3), tags(3)
    for tag, partition in ((asking, 0), (first, 1), (second, 2)):
        joined(outlet, tag, partition)
    outlet.ask(asking, 10)
    outlet.emit([1, 4, 2])
    assert outlet.info("one")
    assert outlet.info("two")
    outlet.ask(second, 5)
    outlet.ask(first, 1)
    assert not outlet.infos
    outlet.ask(first, 1)
    assert outlet.infos == ["one", "two"]
    assert outlet.rare
    outlet.ask(first, 1)
    assert outlet.infos == ["one", "two"]


@pytest.mark.conformance("GS-149")
def test_an_info_does_not_wait_for_a_partition_without_consumer() -> None:
    """There may never be one."""
    outlet = made()
    joined(outlet, Tag(1), 0, ask=10)
    outlet.emit([1])
    assert outlet.dispatcher.backlog == 1
    assert not outlet.info("info")


@pytest.mark.conformance("GS-149", "GS-060")
def test_an_info_waits_in_the_buffer_and_then_for_the_partitions() -> None:
    """What was emitted before it goes first, all the way."""
    outlet, (first, second) = made(), tags(2)
    joined(outlet, first, 0)
    joined(outlet, second, 1)
    outlet.emit([1, 2])
    assert outlet.info("info")
    assert sent(outlet.ask(first, 2)) == {1: [2]}
    assert not outlet.infos
    assert sent(outlet.ask(second, 1)) == {2: [1]}
    assert outlet.infos == ["info"]


# --- hashes ------------------------------------------------------------------------------------


@pytest.mark.conformance("GS-155")
def test_a_route_hands_another_event_on_once() -> None:
    """Not what is left over: that is routed when its turn comes."""
    outlet = made(hash=lambda event: Route(event + 100, event % 2))
    tag = Tag(1)
    joined(outlet, tag, 0, ask=2)
    assert sent(outlet.emit([0, 2, 4])) == {1: [100, 102]}
    assert sent(outlet.ask(tag, 1)) == {1: [104]}
    joined(outlet, Tag(2), 1)
    outlet.ask(tag, 1)
    outlet.emit([1])
    assert outlet.dispatcher.backlog == 1
    assert [event for piece in outlet.clear() for event in piece.events] == [101]


@pytest.mark.conformance("GS-150")
@pytest.mark.parametrize("wrong", [7, "0", (1, 0), [0], Route(1, 9)])
def test_a_hash_that_returns_no_partition_is_named(wrong: Any) -> None:
    """The error says what there is, and what came."""
    outlet = made(hash=lambda _: wrong)
    joined(outlet, Tag(1), 0, ask=5)
    with pytest.raises(ConfigError, match=r"one of 0, 1, None to discard.*Route.*returned another"):
        outlet.emit([1])


def picky(event: int) -> int:
    """A hash with a fault."""
    if event == 3:
        raise ValueError(event)
    return event % 2


@pytest.mark.conformance("GS-150")
def test_a_hash_that_raises_loses_nothing_of_an_emission() -> None:
    """What was emitted is there to be returned when the stage ends of it; each event once."""
    outlet, (first, second) = made(hash=picky), tags(2)
    joined(outlet, first, 0, ask=10)
    joined(outlet, second, 1)
    assert sent(outlet.emit([2, 1])) == {1: [2]}
    with pytest.raises(ValueError, match="3"):
        outlet.emit([5, 4, 3, 6])
    left = [event for piece in outlet.clear() for event in piece.events]
    assert sorted(left) == [1, 3, 4, 5, 6]


@pytest.mark.conformance("GS-150")
def test_a_hash_that_raises_loses_nothing_of_the_buffer() -> None:
    """What was served before it goes out; the failure is found behind it."""
    outlet, tag = made(hash=picky), Tag(1)
    joined(outlet, tag, 0)
    outlet.emit([2, 4])
    outlet.info("info")
    outlet.emit([6, 3, 8])
    assert sent(outlet.ask(tag, 10)) == {1: [2, 4]}
    assert outlet.rare
    assert isinstance(outlet.failure, ValueError)
    left = [event for piece in outlet.clear() for event in piece.events]
    assert left == [6, 3, 8]


# --- options -----------------------------------------------------------------------------------


@pytest.mark.conformance("GS-151")
@pytest.mark.parametrize("partitions", [0, -1, [], ["a", "a"]])
def test_partitions_must_be_some_and_differ(partitions: Any) -> None:
    """A count, or names."""
    with pytest.raises(ConfigError, match="at least 1, or names that differ"):
        PartitionDispatcher(partitions, hash=lambda _: "a")


@pytest.mark.conformance("GS-151")
def test_names_need_a_hash() -> None:
    """There is none that could know them."""
    with pytest.raises(ConfigError, match=r"need hash=.*'odd', 'even'"):
        PartitionDispatcher(["odd", "even"])
    with pytest.raises(ConfigError, match="need hash="):
        PartitionDispatcher(["odd", "even"], key=str)
    PartitionDispatcher(["odd", "even"], hash=lambda _: "odd")


@pytest.mark.conformance("GS-151")
def test_partitions_are_required_and_one_function_at_most() -> None:
    """Which of two would decide?"""
    with pytest.raises(TypeError):
        PartitionDispatcher()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with pytest.raises(ConfigError, match="not both"):
        PartitionDispatcher(2, key=str, hash=lambda _: 0)


@pytest.mark.conformance("GS-152")
def test_a_consumer_must_say_a_partition_that_there_is() -> None:
    """Each error names those that there are."""
    dispatcher = PartitionDispatcher(2)
    with pytest.raises(ConfigError, match=r"must say which partition= .* 0, 1"):
        dispatcher.check({})
    for wrong in (2, "0", [0], None):
        with pytest.raises(ConfigError, match=r"one of 0, 1; got"):
            dispatcher.check({"partition": wrong})
    with pytest.raises(ConfigError, match="knows no option selector"):
        dispatcher.check({"partition": 0, "selector": bool})
    dispatcher.check({"partition": 1})


@pytest.mark.conformance("GS-152", "GS-153")
@pytest.mark.parametrize("options", [{}, {"partition": 9}, {"partition": [0]}, {"partition": 0}])
def test_a_consumer_that_cannot_be_served_is_refused_and_harms_nobody(
    options: dict[str, Any],
) -> None:
    """Without a partition, with an unknown one, with one that is taken: the others go on."""
    outlet, (owner, other) = made(), tags(2)
    joined(outlet, owner, 0, ask=5)
    with pytest.raises(ConfigError, match=r"partition"):
        outlet.subscribe(other, {"max_demand": 10, **options})
    assert sent(outlet.emit([2])) == {1: [2]}
    assert joined(outlet, other, 1, ask=5) == {}
    assert sent(outlet.emit([4, 1])) == {1: [4], 2: [1]}


@pytest.mark.conformance("GS-152")
def test_a_partition_is_free_again_when_its_consumer_has_left() -> None:
    """The error says who has it."""
    outlet, (owner, next_one) = made(), tags(2)
    joined(outlet, owner, 0)
    with pytest.raises(ConfigError, match=r"0 is taken by 'consumer 1'"):
        joined(outlet, next_one, 0)
    outlet.cancel(owner)
    joined(outlet, next_one, 0)


# --- the default hash --------------------------------------------------------------------------


def test_a_count_of_partitions_is_served_by_the_default_hash() -> None:
    """Of the event, or of what key= takes from it; evenly enough."""
    by_event, by_key = PartitionDispatcher(4), PartitionDispatcher(4, key=lambda event: event["id"])
    for dispatcher, events in (
        (by_event, list(range(400))),
        (by_key, [{"id": number, "noise": object()} for number in range(400)]),
    ):
        for number, tag in enumerate(tags(4)):
            dispatcher.subscribe(tag, {"partition": number})
            dispatcher.ask(tag, 1000)
        deliveries, taken, _, _ = dispatcher.dispatch(events, None)
        assert taken == 400
        counts = Counter({tag.number: len(part) for tag, part, _ in deliveries})
        assert all(60 < counts[number] < 140 for number in range(1, 5)), counts
        for tag, part, _ in deliveries:
            keys = [event["id"] if isinstance(event, dict) else event for event in part]
            assert {partition_of(key, 4) for key in keys} == {tag.number - 1}
            assert keys == sorted(keys)
