"""Which stages start again when one ends, and when it is enough."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import ConfigError
from penstock.rules.restarts import (
    RESTARTS,
    STRATEGIES,
    Restart,
    RestartLimit,
    Strategy,
    affected,
    restarts,
)


@pytest.mark.parametrize(
    ("restart", "failed", "ended"),
    [
        ("permanent", True, True),
        ("transient", True, False),
        ("temporary", False, False),
        ("never", False, False),
    ],
)
def test_a_stage_starts_again_as_its_restart_says(
    restart: Restart, failed: bool, ended: bool
) -> None:
    """Always, after a failure, or never."""
    assert restarts(restart, failed=True) == failed
    assert restarts(restart, failed=False) == ended
    assert restart in RESTARTS


@pytest.mark.parametrize(
    ("strategy", "again"),
    [("one_for_one", "b"), ("rest_for_one", "bcd"), ("one_for_all", "abcd")],
)
def test_a_strategy_says_who_starts_again_with_it(strategy: Strategy, again: str) -> None:
    """In the order of their start."""
    assert affected(strategy, list("abcd"), "b") == list(again)
    assert strategy in STRATEGIES


def test_the_last_and_the_first_have_their_rest() -> None:
    """The last one alone, or all from the first on."""
    assert affected("rest_for_one", list("abc"), "c") == ["c"]
    assert affected("rest_for_one", list("abc"), "a") == list("abc")


def test_one_restart_too_many_within_the_time_is_refused() -> None:
    """Three are allowed in five seconds, not four; later it is as at first."""
    limit = RestartLimit(3, 5.0)
    assert [limit.allows(now) for now in (10.0, 11.0, 12.0, 13.0)] == [True, True, True, False]
    assert limit.allows(18.0)


def test_a_restart_is_forgotten_when_its_time_is_over() -> None:
    """At that very moment."""
    limit = RestartLimit(1, 5.0)
    assert limit.allows(0.0)
    assert not limit.allows(4.999)
    limit = RestartLimit(1, 5.0)
    assert limit.allows(0.0)
    assert limit.allows(5.0)


def test_no_restart_may_be_allowed() -> None:
    """Then the first is too many."""
    assert not RestartLimit(0, 5.0).allows(1.0)


@given(st.integers(0, 4), st.integers(1, 20), st.lists(st.integers(0, 10), min_size=1, max_size=30))
def test_restarts_are_counted_over_the_last_seconds(
    most: int, seconds: int, waits: list[int]
) -> None:
    """As counting all of them anew each time would."""
    limit, now, times = RestartLimit(most, seconds), 0, []
    for wait in waits:
        now += wait
        times.append(now)
        assert limit.allows(now) == (sum(now - time < seconds for time in times) <= most)


@pytest.mark.parametrize(
    ("count", "seconds"),
    [(-1, 5.0), (1.5, 5.0), (True, 5.0), (3, 0), (3, -1.0), (3, float("nan"))],
)
def test_a_limit_that_makes_no_sense_is_refused(count: Any, seconds: float) -> None:
    """The error says what was given."""
    with pytest.raises(ConfigError, match=r"max_restarts must be 0 or more.*got"):
        RestartLimit(count, seconds)
