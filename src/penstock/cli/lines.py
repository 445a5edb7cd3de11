r"""Lines: files and pipes, cut into numbered lines.

Does        read in large pieces, as they come; cut at ``\n`` alone; say which line is which.
Does not    know what a line means.
Invariants  1. a line is at hand as soon as its ``\n`` has arrived, or the end of its file.
            2. what is held is one piece and one unfinished line, of at most `longest` bytes.
"""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

from penstock import PenstockError

PIECE: Final = 256 * 1024
"""Bytes that are read at once: four pipes full."""


class Lines(NamedTuple):
    """Lines that came together: `first` is the number of the first, from 1; no line has its end."""

    file: str
    first: int
    lines: Sequence[bytes]
    size: int


class InputError(PenstockError):
    """A line that cannot be taken; says which, and why."""


async def read_lines(files: Sequence[str], longest: int) -> AsyncIterator[Lines]:
    """The lines of *files* in order; of standard input where there are none, or for ``-``.

    Raises:
        InputError: a line of more than *longest* bytes; the lines before it were handed out.
        OSError: a file cannot be read.
    """
    for file in files or ("-",):
        if file == "-":
            async for lines in _cut("standard input", sys.stdin.fileno(), longest):
                yield lines
            continue
        with closing(_Opened(file)) as opened:
            async for lines in _cut(file, opened.fd, longest):
                yield lines


def total_size(files: Sequence[str]) -> int | None:
    """How many bytes there are to read; None where nobody knows, as for a pipe."""
    if not files or "-" in files:
        found = os.fstat(sys.stdin.fileno())
        if len(files) > 1 or not stat.S_ISREG(found.st_mode):
            return None
        return found.st_size
    sizes = [Path(file).stat() for file in files]
    return (
        sum(one.st_size for one in sizes) if all(stat.S_ISREG(s.st_mode) for s in sizes) else None
    )


class _Opened:
    """A file, for `closing`."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDONLY)

    def close(self) -> None:
        os.close(self.fd)


async def _cut(file: str, fd: int, longest: int) -> AsyncIterator[Lines]:
    number, rest = 1, b""
    async for piece in _pieces(fd):
        *lines, rest = (rest + piece).split(b"\n")
        if lines:
            yield Lines(file, number, lines, len(piece))
            number += len(lines)
        if len(rest) > longest:
            raise InputError(
                f"line {number} of {file} must be at most {longest} bytes, and is longer"
            )
    if rest:
        yield Lines(file, number, [rest], 0)


async def _pieces(fd: int) -> AsyncIterator[bytes]:
    while True:
        await _readable(fd)
        piece = os.read(fd, PIECE)
        if not piece:
            return
        yield piece


async def _readable(fd: int) -> None:
    """Wait until a read does not wait. Regular files are always ready, and cannot be watched."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(fd, ready.set)
    except OSError:
        await asyncio.sleep(0)
        return
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)
