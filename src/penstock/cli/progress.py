"""Progress: how far long work has come, on a terminal alone.

Does        show events, their rate, and how much is left where that is known; on stderr.
Does not    show anything for work that is done within half a second, or in a pipe.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

PATIENCE: Final = 0.5
"""Seconds that people wait without asking themselves whether anything happens."""

_EVERY: Final = 0.1  # seconds between two drawings


class Progress:
    """One piece of work. `total` is in whatever unit `advance` is given as *done*."""

    def __init__(self, verb: str, total: int | None) -> None:
        self.total = total
        self._verb = verb
        self._bar: Bar | None = None
        self._task: Any = None
        self._began = self._drawn = time.monotonic()
        self._events = self._done = 0

    def advance(self, events: int, done: int) -> None:
        """So many more events, and so much more of the total."""
        self._events += events
        self._done += done
        now = time.monotonic()
        if now - self._began < PATIENCE or now - self._drawn < _EVERY:
            return
        self._drawn = now
        if self._bar is None:
            self._bar = _make_bar()
            self._task = self._bar.add_task(self._verb, total=self.total, events="")
            self._bar.start()
        rate = self._events / (now - self._began)
        shown = f"{self._events:,} events  {rate:,.0f}/s"
        self._bar.update(self._task, completed=self._done, events=shown)
        self._bar.refresh()

    def end(self) -> None:
        """Take it off the screen."""
        if self._bar is not None:
            self._bar.stop()


class NoProgress(Progress):
    """For pipes: nothing."""

    def advance(self, events: int, done: int) -> None:
        """Nothing."""


@contextmanager
def progress(verb: str, total: int | None, *, shown: bool) -> Generator[Progress, None, None]:
    """Progress while the block runs, if *shown* and stderr is a terminal."""
    work = Progress(verb, total) if shown and sys.stderr.isatty() else NoProgress(verb, total)
    try:
        yield work
    finally:
        work.end()


def _make_bar() -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[events]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
    )
