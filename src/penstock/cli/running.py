"""Running: one coroutine from the command line, with its signals.

Does        cancel the command at the first SIGINT or SIGTERM, so that it ends in order; end the
            process at the second.
Does not    decide what ending in order means: each command does, where it is cancelled.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, NoReturn


def run(command: Coroutine[Any, Any, int]) -> int:
    """Run *command*; its exit code, or 128 and the signal that cancelled it."""
    with asyncio.Runner() as runner:
        return runner.run(_with_signals(command))


async def _with_signals(command: Coroutine[Any, Any, int]) -> int:
    task = asyncio.ensure_future(command)
    caught: list[int] = []

    def on_signal(number: int) -> None:
        if caught:
            os._exit(128 + number)
        caught.append(number)
        task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows: Ctrl-C is a KeyboardInterrupt there
            loop.add_signal_handler(number, on_signal, int(number))
    try:
        return await task
    except asyncio.CancelledError:
        if not caught:
            raise
        _leave(128 + caught[0])


def _leave(code: int) -> NoReturn:
    """End here: a thread that waits for a full pipe cannot be ended otherwise."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)
