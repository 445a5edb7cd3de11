"""What worker processes are given to do in tests: functions that can be imported."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import msgspec


class Point(msgspec.Struct):
    """A value with a type."""

    x: int
    y: int


def double(number: int) -> int:
    return number * 2


def pid(_: Any) -> int:
    return os.getpid()


def mirror(point: Point) -> Point:
    assert isinstance(point, Point)
    return Point(point.y, point.x)


def plain(event):  # type: ignore[no-untyped-def]
    return [type(event).__name__, event]


def noisy(text: str) -> str:
    """Print, read, and write to the descriptors themselves: the protocol must not see it."""
    print(text)
    os.write(1, b"\xff\xff\xff\xff")
    return text + sys.stdin.read()


def fails_at_three(number: int) -> int:
    if number == 3:
        raise ValueError("three is too many")
    return number


class Unspeakable(Exception):
    """An error that has no text."""

    def __str__(self) -> str:
        raise RuntimeError


def fails_oddly(number: int) -> None:
    """Fail with what is hard to tell: half a character, no text at all, too much of it."""
    raise [ValueError("\udc80"), Unspeakable(), ValueError("x" * 1_000_000)][number % 3]


def leaves(number: int) -> int:
    if number == 0:
        raise SystemExit(7)
    return number


def dies(number: int) -> int:
    if number == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def dies_once(file: str) -> str:
    """Kill the process at the first call for *file*; the next one returns."""
    try:
        with Path(file).open("x"):
            pass
    except FileExistsError:
        return "done"
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def longer(size: int) -> bytes:
    return bytes(size)


def never_ends(_: Any) -> None:
    """Say that it has begun, and work for ever."""
    os.write(2, b"began\n")
    while True:
        time.sleep(60)


def no_message(_: Any) -> Any:
    return object()


def wrongly_typed(_: Any) -> int:
    return "text"  # type: ignore[return-value]


def append_line(pair: list[str]) -> None:
    """Write ``pair[1]`` to the file ``pair[0]``."""
    with Path(pair[0]).open("a") as file:
        file.write(pair[1] + "\n")


async def awaits(event: Any) -> Any:
    return event


class Holder:
    """Something with a method."""

    def method(self, event: Any) -> Any:
        return event
