"""Complaints: what handlers raise, in the log, with its traceback.

Does        log the first failure of a kind at once, and then how many more there were.
Does not    decide what becomes of the event, or log what it holds.
Invariants  1. of one handler and one class of error, at most one traceback every `EVERY` seconds:
               a handler that always fails does not fill the disk.
"""

from __future__ import annotations

import logging
from typing import Final

from penstock.clock import Clock

EVERY: Final = 5.0
"""Seconds between two tracebacks of the same kind."""

_log = logging.getLogger("penstock.app")


class Complaints:
    """Logs the failures of one handler, which is called *name*."""

    def __init__(self, name: str, clock: Clock) -> None:
        self._name = name
        self._clock = clock
        self._told: dict[type[BaseException], float] = {}
        self._untold: dict[type[BaseException], int] = {}

    def failed(self, error: BaseException, events: int) -> None:
        """A call with so many *events* ended with *error*."""
        kind, now = type(error), self._clock.monotonic()
        if now - self._told.get(kind, -EVERY) < EVERY:
            self._untold[kind] = self._untold.get(kind, 0) + 1
            return
        self._told[kind] = now
        more = self._untold.pop(kind, 0)
        _log.warning(
            "handler %s failed with %s: %s%s",
            *(self._name, kind.__name__, error),
            f" (and {more} times more since the last traceback)" if more else "",
            exc_info=error,
            extra={"handler": self._name, "events": events},
        )
