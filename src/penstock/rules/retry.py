"""Retry: how often, and after how long.

Does        give the delay after the n-th failure.
Does not    draw random numbers: the spread is handed in.
"""

from __future__ import annotations

import msgspec

from penstock.errors import ConfigError


class Retry(msgspec.Struct, frozen=True):
    """How an event that failed is tried again.

    Args:
        attempts: how often an event may fail before it goes to the dead letters; the last of
            those failures must have been its own, not that of a batch.
        first: the delay after the first failure, in seconds; it doubles with each further one.
        cap: the longest delay, in seconds.
        jitter: how much of a delay is random, from 0 (none) to 1 (all), so that events which
            failed together do not come back together.
        breaker: when so many different events have failed in a row, and none succeeded, the
            failing is not theirs: none goes to the dead letters, and they are tried one by one,
            with growing pauses, until one succeeds. 0: never.
    """

    attempts: int = 5
    first: float = 1.0
    cap: float = 60.0
    jitter: float = 0.5
    breaker: int = 20

    def __post_init__(self) -> None:
        if self.attempts < 1 or not 0 <= self.first <= self.cap or not 0 <= self.jitter <= 1:
            raise ConfigError(
                f"Retry needs attempts >= 1, 0 <= first <= cap (seconds) and jitter from 0 to 1, "
                f"got {self!r}"
            )
        if self.breaker < 0:
            raise ConfigError(f"Retry needs breaker >= 0 events (0: never), got {self.breaker!r}")

    def delay(self, failures: int, spread: float) -> float:
        """Seconds to wait after the *failures*-th failure; *spread* is random, from 0 to 1."""
        whole = min(self.cap, self.first * 2.0 ** min(failures - 1, 60))
        return whole * (1 - self.jitter * spread)
