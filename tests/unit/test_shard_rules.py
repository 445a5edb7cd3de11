"""The rules of groups that share shards: marks, lanes, hands, what was lost unread."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.event import Event, Meta, Position
from penstock.rules.hands import Hands
from penstock.rules.lanes import Lanes
from penstock.rules.low_water import Hole, LowWater, Notes, before
from penstock.rules.unread import NOWHERE, Unread

pytestmark = pytest.mark.one_loop

IDS = [b"1-%d" % n for n in range(10)]


def page(first: int, count: int) -> list[bytes]:
    """A page of entries."""
    return [at(n).raw for n in range(first, first + count)]


def at(n: int) -> Position:
    return Position((1, n))


class Keyed:
    """An origin whose events hold their key."""

    stream, shard = "s", 0
    layout: Any

    def __init__(self) -> None:
        self.layout = self

    def meta(self, raw: Any) -> Meta:
        return Meta(key=raw[0].decode() or None)


ORIGIN: Any = Keyed()


def event(n: int, key: str = "") -> Event[Any]:
    return Event(ORIGIN, b"1-%d" % n, [key.encode()], 1, 0, 10)


def ids(events: Any) -> list[bytes]:
    return [one.entry_id for one in events]


def test_the_mark_is_behind_everything_that_is_done() -> None:
    """Whatever the order; notes name what is open before the last one that is done."""
    water: LowWater[int] = LowWater(b"0-5")
    assert water.mark() == b"0-5"
    water.fetched(IDS, dict.fromkeys(IDS, 0))
    assert water.beyond() == (b"", [])
    for done in (IDS[4], IDS[1]):
        del water.open[done]
    assert Position.of(water.mark()) < at(0)
    assert water.beyond() == (IDS[4], [IDS[0], IDS[2], IDS[3]])
    del water.open[IDS[0]]
    assert water.mark() == before(IDS[2]) == b"1-1"
    water.open.clear()
    assert water.mark() == IDS[9]
    assert water.beyond() == (b"", [])


def test_a_long_wait_keeps_little() -> None:
    """One open event, a hundred thousand done behind it: their ids are not kept."""
    water: LowWater[int] = LowWater(b"0-0")
    water.fetched([b"1-0"], {b"1-0": 0})
    for first in range(1, 100_001, 1000):
        many = [b"2-%d" % n for n in range(first, first + 1000)]
        water.fetched(many, dict.fromkeys(many, 0))
        for one in many:
            del water.open[one]
        assert water.beyond() == (many[-1], [b"1-0"])
    assert len(water._order) < 3000


def test_the_place_before_an_event() -> None:
    assert before(b"5-3") == b"5-2"
    assert before(b"5-0") == b"4-%d" % ((1 << 64) - 1)
    assert before(b"0-0") == b"0-0"


def test_notes_are_read_back() -> None:
    notes = Notes(b"1-4", (Hole(b"1-2", 1, 2, 0, 1.5),), (Hole(b"9-9"),))
    assert Notes.of(notes.packed()) == notes
    assert Notes().packed() == b""


def test_a_failed_key_waits_and_others_flow() -> None:
    """It comes alone when it is due; what waits behind it when it is done."""
    lanes = Lanes()
    lanes.park(event(0, "a"), due=5.0)
    assert ids(lanes.admit([event(1, "a"), event(2, "b"), event(3), event(4, "a")])) == ids(
        [event(2), event(3)]
    )
    assert lanes.parked == 3
    assert lanes.due(4.9) == []
    assert lanes.next_due() == 5.0
    assert ids(one.event for one in lanes.due(5.0)) == [b"1-0"]
    assert lanes.due(100.0) == []
    lanes.done(b"1-0")
    assert ids(one.event for one in lanes.due(100.0)) == [b"1-1", b"1-4"]
    lanes.done(b"1-1")
    assert ids(lanes.admit([event(5, "a")])) == []
    lanes.done(b"1-4")
    assert ids(one.event for one in lanes.due(100.0)) == [b"1-5"]
    lanes.done(b"1-5")
    assert lanes.due(100.0) == []
    assert not lanes
    assert (lanes.parked, lanes.bytes) == (0, 0)


def test_two_of_a_key_that_failed_come_in_order() -> None:
    """The earlier one first, although it is due later."""
    lanes = Lanes()
    lanes.park(event(3, "a"), due=1.0)
    lanes.park(event(2, "a"), due=2.0)
    assert lanes.due(1.5) == []
    assert ids(one.event for one in lanes.due(2.0)) == [b"1-2"]
    lanes.done(b"1-2")
    assert ids(one.event for one in lanes.due(2.0)) == [b"1-3"]


def test_hands_count_from_the_last_word() -> None:
    """Handed out, or extended; what is settled meanwhile is not late."""
    held = {0, 1, 2}
    hands = Hands(10.0, lambda events: [e for e in events if int(e.entry_id[2:]) in held])
    events = [event(n) for n in range(3)]
    hands.handed(events, 0.0)
    hands.extend(events[1], 5.0)
    held.remove(2)
    assert hands.late(9.9) == []
    assert hands.late(10.0) == [events[0]]
    assert hands.late(15.0) == [events[1]]


def test_what_was_trimmed_unread_is_counted_exactly() -> None:
    """Behind the place, also when single entries were removed; and at the end."""
    unread = Unread(NOWHERE, NOWHERE, NOWHERE, 0)
    unread.read(page(0, 10))
    assert unread.lost(at(5), at(99), 100, 95) == 0  # five that were read are gone
    assert unread.lost(at(30), at(99), 100, 70) == 20
    assert unread.lost(at(30), at(99), 100, 70) == 0
    unread.read(page(30, 10))
    unread.read(page(50, 50))  # ten were trimmed between two looks
    assert unread.lost(at(99), at(99), 100, 1) == 10
    assert unread.kept(at(99)) == (at(99), 100)


def test_how_many_came_is_known_within_a_page() -> None:
    """So the lag is known whatever is committed; between two entries too, and after a hand-over."""
    unread = Unread(at(3), at(9), at(3), 40)
    unread.read(page(4, 6))
    unread.read(page(20, 5))
    assert unread.kept(at(3)) == (at(3), 40)
    assert unread.kept(at(6)) == (at(6), 43)
    assert unread.kept(at(9)) == (at(9), 46)
    assert unread.kept(at(15)) == (at(15), 46)
    assert unread.kept(at(23)) == (at(23), 50)
    assert unread.kept(at(24)) == (at(24), 51)
    uncounted = Unread(at(3), at(9), None, 0)
    uncounted.read(page(4, 6))
    assert uncounted.kept(at(6)) is None
    assert uncounted.lost(None, at(9), 60, 0) == 0
    uncounted.read(page(10, 4))
    assert uncounted.kept(at(8)) is None, "before it was counted"
    assert uncounted.kept(at(11)) == (at(11), 62)


def test_another_log_is_noticed() -> None:
    """It ends before what was read, or has had fewer entries."""
    unread = Unread(at(5), at(7), at(5), 6)
    assert unread.is_other(at(6), 100)
    assert unread.is_other(at(50), 5)
    assert not unread.is_other(at(7), 8)
