"""What becomes of an event that failed: another try, a smaller batch, the dead letters."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from penstock import Retry
from penstock.rules.fates import Failure, Fate, fate

RETRY = Retry(attempts=3, first=1.0, cap=8.0, jitter=0.0)


def end(failure: Failure, attempts: int = 0, company: int = 0, **options: Any) -> Fate:
    """The fate, where there are dead letters."""
    return fate(RETRY, failure, attempts, company, 0.0, **{"letters": True, **options})


def test_alone_it_is_tried_so_often_and_then_given_up() -> None:
    """After delays that double."""
    fates = [end(Failure(1), attempts) for attempts in range(4)]
    assert [(f.given_up, f.delay) for f in fates] == [
        (False, 1.0),
        (False, 2.0),
        (True, 0.0),
        (True, 0.0),
    ]
    assert [f.company for f in fates[:2]] == [1, 1]


def test_without_dead_letters_it_is_never_given_up() -> None:
    """Not when no try can mend it either."""
    assert end(Failure(1), 50, letters=False) == Fate(False, 8.0, 1)
    assert end(Failure(1, final=True), letters=False) == Fate(False, 1.0, 1)


def test_what_no_try_can_mend_is_given_up_at_once_if_it_was_alone() -> None:
    """Of a batch, nobody knows which it was."""
    assert end(Failure(1, final=True)).given_up
    assert end(Failure(8, final=True)) == Fate(False, 1.0, 4)


def test_a_delay_that_was_asked_for_is_kept() -> None:
    """Also for a batch."""
    assert end(Failure(1, delay=42.0)).delay == 42.0
    assert end(Failure(2, delay=42.0)).delay == 42.0


def test_while_the_breaker_is_open_nothing_counts() -> None:
    """And nothing is given up, undecodable or not."""
    assert end(Failure(1, open=True), 9) == Fate(False, 8.0, None)
    assert end(Failure(5, open=True), 0).company is None


@given(together=st.integers(1, 5000), attempts=st.integers(0, 20))
def test_a_batch_is_alone_after_its_halves(together: int, attempts: int) -> None:
    """In as many rounds as it can be halved, and no event of it is given up before."""
    rounds, company = 0, 0
    size = together
    while size > 1:
        result = end(Failure(size), attempts + rounds, company)
        assert not result.given_up
        assert result.company == (size + 1) // 2
        size = company = result.company
        rounds += 1
    assert rounds <= together.bit_length()


def test_a_smaller_batch_does_not_widen_its_company() -> None:
    """What may only go in twos does not come in more because more failed together."""
    assert end(Failure(100), 3, company=2).company == 1
