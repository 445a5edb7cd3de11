"""Which stages start again when one ends, and when it is enough.

Does        decide, by strategy and by the stage's own `restart`.
Does not    stop or start anything; look at a clock: times are handed in.
Source      OTP supervisors: one_for_one, rest_for_one, one_for_all; restart intensity.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, Literal, TypeVar

from penstock.errors import ConfigError

Strategy = Literal["one_for_one", "rest_for_one", "one_for_all"]
STRATEGIES: Final = ("one_for_one", "rest_for_one", "one_for_all")

Restart = Literal["permanent", "transient", "temporary", "never"]
"""Whether a stage that ended starts again: always; if it failed; never, and its failure is
signalled; never, and its failure fails the topology."""
RESTARTS: Final = ("permanent", "transient", "temporary", "never")

T = TypeVar("T")


def restarts(restart: Restart, *, failed: bool) -> bool:
    """Whether a stage with this `restart` starts again."""
    return restart == "permanent" or (restart == "transient" and failed)


def affected(strategy: Strategy, stages: Sequence[T], ended: T) -> list[T]:
    """Which of *stages*, in the order of their start, start again with *ended*."""
    if strategy == "one_for_one":
        return [ended]
    if strategy == "one_for_all":
        return list(stages)
    return list(stages[stages.index(ended) :])


class RestartLimit:
    """How many restarts are too many.

    Args:
        max_restarts: restarts that are allowed within `max_seconds`; 0: none.
        max_seconds: seconds.

    Raises:
        ConfigError: a negative count, or no time.
    """

    def __init__(self, max_restarts: int, max_seconds: float) -> None:
        if type(max_restarts) is not int or max_restarts < 0 or not max_seconds > 0:
            raise ConfigError(
                f"max_restarts must be 0 or more, and max_seconds above 0; "
                f"got {max_restarts!r} and {max_seconds!r}"
            )
        self.max_restarts = max_restarts
        self.max_seconds = max_seconds
        self._times: deque[float] = deque()

    def allows(self, now: float) -> bool:
        """Count a restart at *now*, in monotonic seconds; False: that is one too many."""
        self._times.append(now)
        while self._times[0] <= now - self.max_seconds:
            self._times.popleft()
        return len(self._times) <= self.max_restarts
