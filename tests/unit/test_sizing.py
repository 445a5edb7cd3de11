"""The size of a fetch: within events and bytes, small at first, never stuck."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.rules.sizing import FIRST, PAGE, FetchSizer


def test_the_first_fetch_is_small() -> None:
    """Nothing is known yet of the entries; later ones are whole pages."""
    sizer = FetchSizer(10_000, 1 << 26)
    assert sizer.next(0, 0) == FIRST

    sizer.seen(0, 0, 0)
    assert sizer.next(0, 0) == FIRST
    sizer.seen(FIRST, 640, 10)
    assert sizer.next(0, 0) == PAGE


def test_the_room_in_events_is_what_is_left_of_them() -> None:
    """And none below zero."""
    sizer = FetchSizer(100, 1 << 26)
    assert [sizer.next(held, 0) for held in (0, 50, 99, 100, 150)] == [FIRST, 50, 1, 0, 0]
    sizer.seen(1, 10, 10)
    assert [sizer.next(held, held * 10) for held in (0, 50, 99, 100, 150)] == [100, 50, 1, 0, 0]


def test_the_room_in_bytes_goes_by_the_largest_entry_seen() -> None:
    """So that a page of large entries does not burst the budget."""
    sizer = FetchSizer(10_000, 1000)
    sizer.seen(5, 150, 100)

    assert sizer.next(0, 0) == 10
    assert sizer.next(5, 350) == 6
    assert sizer.next(9, 950) == 0


def test_a_large_entry_is_forgotten_slowly() -> None:
    """One monster does not make all later fetches small."""
    sizer = FetchSizer(10_000, 1000)
    sizer.seen(1, 1000, 1000)
    assert sizer.next(0, 0) == 1
    found = []
    for _ in range(80):
        sizer.seen(1, 1, 1)
        found.append(sizer.next(0, 0))

    assert found == sorted(found)
    assert found[5] == 1  # half after seven fetches
    assert found[6] == 2
    assert found[-1] == PAGE


@given(
    st.integers(1, 5000),
    st.integers(1, 100_000),
    st.lists(st.lists(st.integers(0, 5000), min_size=1, max_size=5), max_size=20),
)
def test_what_is_in_flight_is_at_most_the_budget_and_one_fetch(
    max_events: int, max_bytes: int, fetches: list[list[int]]
) -> None:
    """As long as entries are no larger than those seen; and one is always allowed."""
    sizer = FetchSizer(max_events, max_bytes)
    largest = 0
    for sizes in fetches:
        sizer.seen(len(sizes), sum(sizes), max(sizes))
        largest = max(sizes[-1], *sizes)
        assert sizer.next(0, 0) >= 1
        held = held_bytes = 0
        while count := sizer.next(held, held_bytes):
            assert count <= PAGE
            held, held_bytes = held + count, held_bytes + count * largest
            assert held <= max_events
            assert held_bytes <= max_bytes or held == 1
            if not largest and held >= max_events:
                break
        assert sizer.next(max_events, 0) == 0
