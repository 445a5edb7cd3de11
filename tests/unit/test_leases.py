"""The rule of leases: the dead are found, and nobody living is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.rules.leases import STRUCK, BeatGuard, LeaseWatch


def test_a_value_that_stands_for_one_lease_is_a_death() -> None:
    """Dead from exactly one lease on, with the value that was seen."""
    watch = LeaseWatch(10.0)

    assert watch.observe(0.0, {"a": "1"}) == []
    assert watch.observe(9.9, {"a": "1"}) == []
    assert watch.observe(10.0, {"a": "1"}) == [("a", "1")]


def test_a_new_value_counts_anew() -> None:
    """It is the standing still that kills, not the age."""
    watch = LeaseWatch(10.0)

    for now in range(0, 100, 9):
        assert watch.observe(float(now), {"a": str(now)}) == []


def test_a_member_that_came_back_counts_anew() -> None:
    """Who vanishes is forgotten, together with what was counted."""
    watch = LeaseWatch(10.0)
    watch.observe(0.0, {"a": "1"})
    watch.observe(5.0, {})

    assert watch.observe(10.0, {"a": "1"}) == []
    assert watch.observe(20.0, {"a": "1"}) == [("a", "1")]


def test_a_struck_heartbeat_is_dead_at_once() -> None:
    """Another watcher has judged already."""
    assert LeaseWatch(10.0).observe(0.0, {"a": STRUCK, "b": "1"}) == [("a", STRUCK)]


def test_the_dead_are_reported_until_they_are_gone() -> None:
    """A take-over that failed is tried again."""
    watch = LeaseWatch(1.0)
    watch.observe(0.0, {"a": "1"})

    assert watch.observe(1.0, {"a": "1"}) == watch.observe(1.1, {"a": "1"}) == [("a", "1")]


def test_after_a_reconnect_everything_counts_anew() -> None:
    """Beats that were missed while away are not held against anyone."""
    watch = LeaseWatch(10.0)
    watch.observe(0.0, {"a": "1"})
    watch.reset()

    assert watch.observe(10.0, {"a": "1"}) == []


def test_due_is_when_the_next_one_would_be_dead() -> None:
    """So that a watcher need not look in vain; those already dead are not awaited."""
    watch = LeaseWatch(10.0)
    assert watch.due(0.0) is None
    watch.observe(0.0, {"a": "1", "c": STRUCK})
    watch.observe(3.0, {"a": "1", "b": "1", "c": STRUCK})

    assert watch.due(3.0) == 10.0
    assert watch.due(10.0) == 13.0
    assert watch.due(13.0) is None


@given(st.lists(st.floats(0.01, 2.49), min_size=1, max_size=50), st.floats(0, 1e9))
def test_who_beats_is_never_dead(gaps: list[float], now: float) -> None:
    """At any rhythm of looks, as long as a beat lies between looks a lease apart."""
    watch = LeaseWatch(10.0)
    for beat, gap in enumerate(gaps):
        assert watch.observe(now, {"a": str(beat // 3)}) == []
        now += gap


def test_a_guard_lapses_later_than_one_lease_after_its_last_beat_was_sent() -> None:
    """Counted from sending, not from the confirmation, which came later."""
    guard = BeatGuard(10.0)
    guard.sent(0.0)
    guard.confirmed(0.0)

    assert not guard.lapsed(10.0)
    assert guard.lapsed(10.1)


def test_only_confirmed_beats_count() -> None:
    """A beat that was sent and never confirmed may not have arrived."""
    guard = BeatGuard(10.0)
    guard.sent(0.0)
    guard.confirmed(0.0)
    guard.sent(5.0)

    assert guard.lapsed(10.1)
    guard.confirmed(5.0)
    assert not guard.lapsed(15.0)


def test_a_first_beat_that_is_never_confirmed_lapses_too() -> None:
    """There is no lease that nobody can lose."""
    guard = BeatGuard(10.0)
    assert not guard.lapsed(1e9)
    guard.sent(0.0)
    guard.sent(9.0)

    assert guard.lapsed(10.1)


def test_a_late_confirmation_of_an_older_beat_changes_nothing() -> None:
    """Replies may be handled out of order."""
    guard = BeatGuard(10.0)
    guard.sent(5.0)
    guard.confirmed(5.0)
    guard.confirmed(0.0)

    assert not guard.lapsed(15.0)


def test_a_new_incarnation_begins_with_nothing() -> None:
    """What the old one missed is not held against the new one."""
    guard = BeatGuard(10.0)
    guard.sent(0.0)
    guard.reset()

    assert not guard.lapsed(100.0)


@given(st.floats(0, 1e6), st.floats(0, 20))
def test_a_member_knows_of_its_lapse_no_later_than_any_watcher(sent: float, gap: float) -> None:
    """Whoever is dead to a watcher that saw its beat has lapsed by its own count, or just does."""
    guard, watch = BeatGuard(10.0), LeaseWatch(10.0)
    guard.sent(sent)
    guard.confirmed(sent)
    watch.observe(sent, {"a": "1"})

    if watch.observe(sent + gap, {"a": "1"}):
        assert guard.lapsed(sent + gap + 1e-3)
