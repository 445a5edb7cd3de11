"""Gaps: what was lost is told once, and counted only where the count is certain."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest

from penstock import NEWEST, OLDEST, Position, after, at
from penstock.event import Shard
from penstock.rules.gaps import ZERO, LogState, Place, before_time, position_lost

pytestmark = pytest.mark.one_loop


class Log:
    """A log as Redis keeps it: what is there, what was ever added, what was removed by name."""

    def __init__(self, count: int = 0) -> None:
        self.ids: list[int] = []
        self.added = self.removed = 0
        self.newest = 0
        self.add(count)

    def add(self, count: int) -> None:
        self.ids += range(self.newest + 1, self.newest + count + 1)
        self.newest += count
        self.added += count

    def trim(self, left: int) -> None:
        del self.ids[: max(0, len(self.ids) - left)]

    def remove(self, one: int) -> None:
        self.ids.remove(one)
        self.removed = max(self.removed, one)

    def read(self, place: Place, count: int) -> list[int]:
        found = [one for one in self.ids if position(one) > place.after][:count]
        if found:
            place.read(len(found), position(found[0]), position(found[-1]))
        return found

    @property
    def state(self) -> LogState:
        oldest = position(self.ids[0]) if self.ids else None
        newest, removed = position(self.newest), position(self.removed)
        return LogState(self.added, len(self.ids), oldest, newest, removed)


def position(number: int) -> Position:
    return Position((number, 0))


def test_what_was_trimmed_before_it_was_read_is_counted_once() -> None:
    log = Log(20)
    place = Place.at(OLDEST, log.state)
    log.read(place, 5)
    assert place.judge(log.state) is None
    log.trim(8)
    gap = place.judge(log.state)
    assert gap == (position(5), position(13), 7, False)
    assert place.judge(log.state) is None
    assert log.read(place, 100) == list(range(13, 21))


def test_nothing_is_lost_where_all_that_was_trimmed_had_been_read() -> None:
    log = Log(20)
    place = Place.at(OLDEST, log.state)
    log.read(place, 12)
    log.trim(8)
    assert place.judge(log.state) is None
    log.trim(7)
    assert place.judge(log.state) == (position(12), position(14), 1, False)


def test_a_log_that_was_emptied_before_it_was_read() -> None:
    log = Log(20)
    place = Place.at(NEWEST, log.state)
    log.add(3)
    log.trim(0)
    assert place.judge(log.state) == (position(20), None, 3, False)
    log.add(2)
    assert place.judge(log.state) is None
    assert log.read(place, 9) == [24, 25]


def test_a_reader_that_came_before_the_log_loses_what_it_never_saw() -> None:
    place = Place.at(OLDEST, None)
    log = Log(10)
    log.trim(4)
    assert place.judge(log.state) == (ZERO, position(7), 6, False)
    late = Place.at(OLDEST, log.state)
    assert late.judge(log.state) is None


def test_what_came_and_went_behind_a_waiting_reader_is_seen_at_the_end() -> None:
    """Several events, appended and trimmed in one step of the server, while a read blocked."""
    log = Log(5)
    place = Place.at(NEWEST, log.state)
    log.add(10)
    log.trim(2)
    assert log.read(place, 9) == [14, 15]  # the blocked read gets what is left
    assert place.judge(log.state) == (position(15), position(14), 8, False)
    assert place.judge(log.state) is None


def test_a_log_that_cannot_have_had_what_was_read_is_another_one() -> None:
    """Though its end is behind our place, and it has had more events than were read."""
    log = Log(20)
    place = Place.at(OLDEST, log.state)
    log.read(place, 8)
    other = Log()
    other.newest = 100
    other.add(15)
    assert place.judge(other.state) == (position(8), position(101), None, True)
    assert place.judge(other.state) is None
    assert other.read(place, 99) == list(range(101, 116))


def test_who_began_behind_no_event_takes_no_log_for_another() -> None:
    """A position may be any: that nothing stood there says nothing."""
    log = Log()
    log.newest = 100
    log.add(15)
    place = Place.at(after(position(8)), log.state)
    assert place.judge(log.state) is None
    log.trim(10)
    assert place.judge(log.state) == (position(8), position(106), 5, False)


def test_who_goes_on_from_a_time_has_lost_nothing_that_came_before_it() -> None:
    """A position that was saved before anything was read is that bound, and no event's."""
    log = Log(20)
    early = Place.at(at(datetime.fromtimestamp(0.018, UTC)), log.state)
    assert early.position is not None
    log.trim(3)
    late = Place.at(after(early.position), log.state)
    assert late.judge(log.state) is None
    assert log.read(late, 9) == [18, 19, 20]
    assert late.judge(log.state) is None


def test_removing_by_name_makes_counts_uncertain() -> None:
    log = Log(20)
    place = Place.at(OLDEST, log.state)
    log.read(place, 5)
    log.remove(9)
    log.trim(8)
    gap = place.judge(log.state)
    assert gap is not None
    assert gap.lost is None


def test_removing_what_was_read_loses_nothing() -> None:
    log = Log(20)
    place = Place.at(OLDEST, log.state)
    for _ in range(4):
        for one in log.read(place, 5):
            log.remove(one)
        assert place.judge(log.state) is None


def test_a_position_whose_event_alone_is_gone() -> None:
    log = Log(3)
    log.remove(1)
    assert Place.at(after(position(1)), log.state).judge(log.state) is None
    log.remove(2)
    gap = Place.at(after(position(1)), log.state).judge(log.state)
    assert gap == (position(1), position(3), None, False)


def test_a_log_made_anew_begins_at_its_oldest() -> None:
    log = Log(20)
    place = Place.at(NEWEST, log.state)
    gap = place.judge(Log(3).state)
    assert gap == (position(20), position(1), None, True)
    assert place.position is None
    assert place.judge(Log(3).state) is None


def test_a_log_that_was_away_is_another_one_however_many_it_holds() -> None:
    place = Place.at(NEWEST, Log(3).state)
    assert place.judge(None) is None
    gap = place.judge(Log(30).state)
    assert gap is not None
    assert gap.anew


def test_what_was_read_of_a_log_made_anew_before_it_was_noticed_does_not_come_again() -> None:
    place = Place.at(NEWEST, Log(20).state)
    log = Log()
    log.newest = 30
    log.add(5)
    assert log.read(place, 3) == [31, 32, 33]
    assert place.judge(log.state) == (position(33), position(31), None, True)
    assert log.read(place, 9) == [34, 35]
    assert place.judge(log.state) is None
    log.add(4)
    log.trim(1)
    assert place.judge(log.state) == (position(35), position(39), 3, False)


def test_a_time_is_no_position() -> None:
    """Not before the log, not behind it, whatever was trimmed; before a page came."""
    log = Log(20)
    log.trim(5)
    for seconds in (0.0, 0.003, 5e9):
        place = Place.at(at(datetime.fromtimestamp(seconds, UTC)), log.state)
        assert place.judge(log.state) is None
        assert place.judge(None) is None
        assert place.judge(log.state) is None


@pytest.mark.conformance("PU-018")
def test_a_time_includes_its_millisecond() -> None:
    assert before_time(1.5) == (1499, (1 << 64) - 1)
    assert before_time(1700000000.123) == (1700000000122, (1 << 64) - 1)
    assert before_time(1700000000.1239) == (1700000000122, (1 << 64) - 1)
    assert before_time(0.0) == ZERO


def test_the_error_says_what_where_and_how_many() -> None:
    log = Log(20)
    place = Place.at(OLDEST, log.state)
    log.read(place, 5)
    log.trim(8)
    gap = place.judge(log.state)
    assert gap is not None
    error = position_lost(gap, Shard("orders", 2, 4))
    assert (error.wanted, error.oldest, error.lost) == ("5-0", "13-0", 7)
    assert (error.stream, error.shard) == ("orders", 2)
    assert "7 events behind 5-0" in str(error)
    assert "shard 2" in str(error)


@pytest.mark.parametrize("seed", range(30))
def test_reads_and_losses_together_are_all_events(seed: int) -> None:
    """Whatever is appended, read and trimmed in whatever order; judged before each read."""
    chance = random.Random(seed)
    log = Log(chance.randrange(30))
    place = Place.at(chance.choice([OLDEST, NEWEST]), log.state)
    first = 0 if place.position is None else log.newest
    found: list[int] = []
    lost = 0
    for _ in range(200):
        match chance.randrange(4):
            case 0:
                log.add(chance.randrange(8))
            case 1:
                log.trim(chance.randrange(12))
            case _:
                gap = place.judge(log.state)
                lost += (gap.lost or 0) if gap else 0
                found += log.read(place, chance.randrange(1, 6))
    gap = place.judge(log.state)
    lost += (gap.lost or 0) if gap else 0
    found += log.read(place, 10_000)
    assert found == sorted(set(found))
    assert len(found) + lost == log.newest - first
