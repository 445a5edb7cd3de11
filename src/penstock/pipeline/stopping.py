"""Stopping: what SIGTERM and SIGINT mean to an App that runs.

Does        drain at the first, wait no more at the second, and be gone at the third.
Does not    drain or cut anything itself.
Invariants  1. handlers are taken back when the run is over; a third signal finds the system's own.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

from penstock.errors import ConfigError

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def on_signals(first: Callable[[], None], second: Callable[[], None]) -> Generator[None]:
    """Call *first*, then *second*, as signals come.

    Raises:
        ConfigError: not in the main thread, or an event loop that takes no signals (Windows).
    """
    loop = asyncio.get_running_loop()
    left = [second, first]

    def on_signal() -> None:
        call = left.pop()
        if not left:
            _take_back(loop)
        call()

    try:
        for number in SIGNALS:
            loop.add_signal_handler(number, on_signal)
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
