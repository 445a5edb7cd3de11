"""Fates: what becomes of an event that failed.

Does        decide between another try, a smaller batch, and the dead letters.
Does not    draw random numbers, or move anything.
Invariants  1. only an event that failed by itself is given up: one of a batch comes again in a
               batch half as large, at last alone.
            2. without dead letters nothing is given up, ever.
            3. while the breaker is open nothing is counted, and nothing given up, but for what its
               own handler rejected.
"""

from __future__ import annotations

from typing import NamedTuple

from penstock.errors import DecodeError, Reject
from penstock.rules.retry import Retry


class Fate(NamedTuple):
    """`given_up`: to the dead letters. Else it is due after `delay` s, in `company` at most.

    `company` None: no failure is counted.
    """

    given_up: bool
    delay: float
    company: int | None


class Failure(NamedTuple):
    """How events failed: `together` of them, in one call or one batch.

    `final`: no other try can mend it. `delay`: as the program said, None: by `Retry`.
    """

    together: int
    final: bool = False
    delay: float | None = None
    open: bool = False


def fate(
    retry: Retry, failure: Failure, attempts: int, company: int, spread: float, *, letters: bool
) -> Fate:
    """What becomes of an event that failed *attempts* times before, and was let out in *company*.

    *spread* is random, from 0 to 1; *letters*: whether there are dead letters.
    """
    alone = failure.together == 1
    if letters and alone and failure.final:
        return Fate(True, 0.0, None)
    delay = retry.delay(attempts + 1, spread) if failure.delay is None else failure.delay
    if failure.open:
        return Fate(False, max(delay, retry.first), None)
    if letters and alone and attempts + 1 >= retry.attempts:
        return Fate(True, 0.0, None)
    if alone:
        return Fate(False, delay, 1)
    most = min(failure.together, company or failure.together)
    if failure.delay is None:  # which of them it was is to be known soon
        delay = retry.delay(1, spread)
    return Fate(False, delay, (most + 1) // 2)


def name_of(error: BaseException | None) -> str:
    """The name of an error's class; ``""`` for none."""
    return "" if error is None else type(error).__name__


def reason_of(error: BaseException) -> str:
    """What an error says."""
    return error.reason if isinstance(error, Reject) else str(error)


def is_about(error: BaseException | None, stream: str, position: str) -> bool:
    """Whether *error* says that just this event cannot be decoded."""
    return isinstance(error, DecodeError) and error.stream == stream and error.position == position
