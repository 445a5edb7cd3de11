"""The breaker opens when everything fails, and closes with the first success."""

from __future__ import annotations

from penstock.rules.breaker import Breaker


def broken(limit: int = 3) -> Breaker:
    """One that has just opened, at 10.0."""
    breaker = Breaker(limit, 1.0, 4.0)
    assert [breaker.failed(n, 10.0) for n in range(limit)] == [False] * (limit - 1) + [True]
    return breaker


def test_it_opens_when_so_many_different_events_failed_in_a_row() -> None:
    """The same event again is none more."""
    breaker = Breaker(2, 1.0, 4.0)
    assert not breaker.failed("a", 1.0)
    assert not breaker.failed("a", 2.0)
    assert (breaker.failing, breaker.open) == (1, False)
    assert breaker.failed("b", 3.0)
    assert breaker.open


def test_a_success_between_begins_anew() -> None:
    """What failed before it does not count any more."""
    breaker = Breaker(2, 1.0, 4.0)
    breaker.failed("a", 1.0)
    assert not breaker.succeeded()
    assert not breaker.failed("b", 2.0)
    assert not breaker.open


def test_events_are_tried_one_by_one_after_pauses_that_grow_to_a_cap() -> None:
    """And not before the one before has failed."""
    breaker, now, pauses = broken(), 10.0, []
    for _ in range(4):
        pauses.append(breaker.try_at - now)
        assert not breaker.may_try(breaker.try_at - 0.01)
        now = breaker.try_at
        assert breaker.may_try(now)
        breaker.trying = True
        assert not breaker.may_try(now + 100)
        assert not breaker.failed("x", now)
    assert pauses == [1.0, 2.0, 4.0, 4.0]


def test_one_that_says_nothing_is_followed_by_another_at_once() -> None:
    """Handed back, or lost: nobody knows how it would have gone."""
    breaker = broken()
    breaker.trying = True
    breaker.undecided(12.0)
    assert breaker.open
    assert breaker.may_try(12.0)


def test_it_closes_with_a_success() -> None:
    """And its pauses begin anew."""
    breaker = broken()
    breaker.failed("x", 20.0)
    assert breaker.succeeded()
    assert not breaker.open
    assert [breaker.failed(n, 30.0) for n in range(3)] == [False, False, True]
    assert breaker.try_at == 31.0


def test_a_limit_of_0_never_opens() -> None:
    """Whatever fails."""
    breaker = Breaker(0, 1.0, 4.0)
    assert not any(breaker.failed(n, 1.0) for n in range(100))
    assert not breaker.open
