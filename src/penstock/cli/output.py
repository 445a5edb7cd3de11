"""Output: bytes onto standard output, without holding up the event loop.

Does        write all of it before it returns; notice when whoever reads has gone.
Does not    buffer: callers write in large pieces.
"""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress


class Output:
    """Standard output."""

    def __init__(self) -> None:
        self._fd = sys.stdout.fileno()

    async def write(self, data: bytes) -> None:
        """Write *data*, waiting for whoever reads; the event loop goes on meanwhile.

        Raises:
            BrokenPipeError: nobody reads any more.
        """
        if data:
            await asyncio.to_thread(_write_all, self._fd, data)

    def on_closed(self, call: Callable[[], object]) -> None:
        """Call *call* when the reading end of a pipe goes away, even while nothing is written."""
        if stat.S_ISFIFO(os.fstat(self._fd).st_mode):
            # Nothing can ever be read from this end: it becomes "readable" by its error alone.
            asyncio.get_running_loop().add_reader(self._fd, self._on_event, call)

    def forget(self) -> None:
        """Watch the pipe no longer."""
        with suppress(OSError):
            asyncio.get_running_loop().remove_reader(self._fd)

    def _on_event(self, call: Callable[[], object]) -> None:
        self.forget()
        call()


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
