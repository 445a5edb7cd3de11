"""Retry: delays that double, are capped, and are spread."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import ConfigError, Retry


def test_delays_double_up_to_the_cap() -> None:
    """The first failure waits for the first delay."""
    retry = Retry(first=1.0, cap=10.0, jitter=0.0)

    assert [retry.delay(failures, 0.9) for failures in (1, 2, 3, 4, 5, 6, 1000)] == [
        *(1.0, 2.0, 4.0, 8.0),
        *(10.0, 10.0, 10.0),
    ]


def test_jitter_takes_away_up_to_its_share() -> None:
    """So that what failed together does not come back together."""
    assert Retry(first=8.0, jitter=0.5).delay(1, 0.0) == 8.0
    assert Retry(first=8.0, jitter=0.5).delay(1, 1.0) == 4.0
    assert Retry(first=8.0, jitter=1.0).delay(1, 1.0) == 0.0


@given(
    st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1), st.integers(1, 10_000), st.floats(0, 1)
)
def test_a_delay_is_never_negative_nor_above_the_cap(
    first: float, more: float, jitter: float, failures: int, spread: float
) -> None:
    """Nor does it overflow, however often an event failed."""
    retry = Retry(first=first, cap=first + more, jitter=jitter)
    assert 0 <= retry.delay(failures, spread) <= retry.cap


def test_the_defaults_are_the_documented_ones() -> None:
    """Five attempts, one second to a minute, half of it random."""
    assert Retry() == Retry(attempts=5, first=1.0, cap=60.0, jitter=0.5)


@pytest.mark.parametrize(
    "options",
    [
        {"attempts": 0},
        {"first": -1.0},
        {"first": 61.0},
        {"cap": 0.5},
        {"jitter": -0.1},
        {"jitter": 1.1},
        {"first": float("nan")},
        {"jitter": float("nan")},
    ],
    ids=str,
)
def test_what_is_out_of_range_is_refused(options: dict[str, Any]) -> None:
    """With what must hold and what was given."""
    with pytest.raises(ConfigError, match="attempts >= 1, 0 <= first <= cap") as error:
        Retry(**options)
    assert "=".join(map(str, *options.items())) in str(error.value)
