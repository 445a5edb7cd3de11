"""The demo's accounting, without a process: what it must never get wrong."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.cli.demo_lines import End, Report, Taken, from_member, from_parent, to_line
from penstock.cli.demo_producer import Pace
from penstock.cli.demo_rules import NUMBERS, Account, Number, Part, Seen, Window, partition_table


@pytest.mark.parametrize("partitions", [1, 2, 3, 7, 8, 12, 16])
def test_every_partition_has_its_share_and_the_average_of_all(partitions: int) -> None:
    """Else the averages of the lines would say more about the hash than about the numbers."""
    table = partition_table(partitions)
    shares = [[n for n in range(NUMBERS) if table[n] == at] for at in range(partitions)]
    assert sum(map(len, shares)) == NUMBERS
    for share in shares:
        assert len(share) == pytest.approx(NUMBERS / partitions, rel=0.1)
        assert sum(share) / len(share) == pytest.approx(4999.5, abs=75)


def test_a_window_sums_up_by_partition_and_keeps_runs() -> None:
    window = Window([0, 1] * 5000, 2)
    window.add([Number(4, 100, 7), Number(2, 101, 8), Number(3, 102, 9)])
    window.add([Number(5, 103, 10), Number(6, 104, 20), Number(6, 105, 20)])

    assert len(window) == 6
    assert window.parts() == [Part(0, 4, 4.5, 105), Part(1, 2, 4.0, 103)]
    assert window.runs() == [(7, 10), (20, 20), (20, 20)]


def test_an_empty_partition_has_no_average_and_no_last_event() -> None:
    assert Window([0] * NUMBERS, 1).parts() == [Part(0, 0, None, None)]
    assert Window([0] * NUMBERS, 1).runs() == []


def test_the_first_sequence_number_of_all_begins_a_run() -> None:
    window = Window([0] * NUMBERS, 1)
    window.add([Number(1, 1, 0), Number(1, 1, 1)])
    assert window.runs() == [(0, 1)]


def test_numbers_out_of_range_are_undecodable() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"number": 10000, "at": 1, "seq": 1}', type=Number)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"number": 1, "at": 1, "seq": -1}', type=Number)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 8)), max_size=20))
def test_seen_is_a_set_of_numbers(runs: list[tuple[int, int]]) -> None:
    """Against the obvious implementation: in any order, overlapping, touching, repeated."""
    seen, plain = Seen(), set[int]()
    for first, more in runs:
        numbers = set(range(first, first + more + 1))
        assert seen.add(first, first + more) == len(numbers & plain)
        plain |= numbers
    missing = [n for first, last in seen.gaps(2, 25) for n in range(first, last + 1)]
    assert missing == [n for n in range(2, 26) if n not in plain]
    assert seen.missing(2, 25) == len(missing)


def test_runs_that_touch_become_one() -> None:
    """Memory grows with the gaps, not with the events."""
    seen = Seen()
    for first in (20, 0, 10, 30):
        assert seen.add(first, first + 9) == 0
    assert repr(list(seen.gaps(0, 39))) == "[]"
    assert len(seen) == 1


def test_a_run_must_go_up() -> None:
    with pytest.raises(ValueError, match="a run must go up from 0 or more, got 3 to 2"):
        Seen().add(3, 2)
    with pytest.raises(ValueError, match="got -1 to 2"):
        Seen().add(-1, 2)


def account(produced: int, first: int = 0) -> Account:
    made = Account(first, ["alfred", "bob"])
    made.produced = produced
    return made


def test_a_gap_is_lost_although_the_totals_agree() -> None:
    """One lost and one twice: a difference of totals would say that nothing happened."""
    made = account(10)
    made.take("alfred", [(0, 4)])
    made.take("bob", [(6, 9), (9, 9)])
    assert sum(made.consumed.values()) == made.produced
    assert (made.lost(), made.duplicated) == (1, 1)


def test_a_duplicate_counts_across_members_and_each_time() -> None:
    made = account(10)
    made.take("alfred", [(0, 9)])
    made.take("bob", [(3, 4)])
    made.take("alfred", [(4, 4)])
    assert (made.lost(), made.duplicated) == (0, 3)
    assert made.consumed == {"alfred": 11, "bob": 2}


def test_runs_out_of_order_are_neither_lost_nor_double() -> None:
    made = account(10)
    made.take("bob", [(8, 9), (0, 1)])
    assert made.lost() == 6
    made.take("alfred", [(5, 7), (2, 4)])
    assert (made.lost(), made.duplicated) == (0, 0)


def test_the_first_and_the_last_event_count() -> None:
    made = account(5, first=100)
    made.take("alfred", [(101, 103)])
    assert made.lost() == 2
    made.take("alfred", [(100, 100), (104, 104)])
    assert made.lost() == 0


def test_nothing_produced_is_nothing_lost() -> None:
    assert account(0, first=7).lost() == 0


def test_what_an_earlier_run_left_is_counted_apart() -> None:
    made = account(5, first=100)
    made.take("alfred", [(90, 95), (98, 104)])
    assert (made.left_over, made.consumed["alfred"]) == (8, 5)
    assert (made.lost(), made.duplicated) == (0, 0)


def test_lines_come_back_as_they_went() -> None:
    report = Report(3, 3.01, [Part(0, 2, 1.5, 9), Part(1, 0, None, None)], [(1, 2), (5, 5)])
    assert from_member(to_line(report)) == report
    assert from_parent(to_line(Taken(3))) == Taken(3)
    assert from_parent(to_line(End())) == End()
    assert to_line(report).count(b"\n") == 1


def test_pace_gives_whole_events_and_loses_no_fraction() -> None:
    pace = Pace(2.5, 100.0)
    assert pace.due(100.3) == 0
    assert pace.due(100.4) == 1
    pace.sent(1)
    assert pace.due(100.5) == 0
    assert pace.due(100.9) == 1


def test_pace_does_not_catch_up_beyond_a_second() -> None:
    assert Pace(10.0, 0.0).due(3600.0) == 10
    assert Pace(0.1, 0.0).due(3600.0) == 1
