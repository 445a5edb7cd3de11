"""Stopping: what SIGTERM and SIGINT mean to an App that runs.

Does        drain at the first, wait no more at the second, and be gone at the third.
Does not    drain or cut anything itself.
Invariants  1. handlers are taken back when the run is over; a third signal finds the system's own.
            2. a handler that blocks the event loop hides nothing from the third: signals are
               counted as they come, not as the loop gets to them.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import count
from types import FrameType
from typing import Final

from penstock.errors import ConfigError

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

MOST: Final = 2
"""Signals that are heard; the next one kills."""


@contextmanager
def on_signals(first: Callable[[], None], second: Callable[[], None]) -> Generator[None]:
    """Call *first*, then *second*, as signals come.

    Raises:
        ConfigError: not in the main thread, or an event loop that takes no signals (Windows).
    """
    loop = asyncio.get_running_loop()
    left, came = [second, first], count(1)

    def on_signal() -> None:
        if left:
            left.pop()()

    def at_once(number: int, _frame: FrameType | None) -> None:
        if next(came) > MOST:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    try:
        for number in SIGNALS:
            loop.add_signal_handler(number, on_signal)
            signal.signal(number, at_once)  # beside the loop's, which hears of it by a descriptor
    except (NotImplementedError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"signals=True needs the main thread and an event loop that takes signals: {error}; "
            f"call app.drain() from your own handler instead"
        ) from error
    try:
        yield
    finally:
        _take_back(loop)


def _take_back(loop: asyncio.AbstractEventLoop) -> None:
    for number in SIGNALS:
        loop.remove_signal_handler(number)
