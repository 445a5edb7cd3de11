"""What a test left running: tasks of its event loop, and processes that it started."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from support.servers import WATCHER

GRACE = 15.0
"""Seconds that what is already ending gets to end; spent only if something is left at all."""


async def leaked_tasks() -> list[str]:
    """The tasks that still run in this event loop, beside the caller's own."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=GRACE)
    return sorted(repr(task) for task in left)


def leaked_children(before: set[int]) -> list[str]:
    """The living child processes that were not there *before*, as ``pid: command``."""
    deadline = time.monotonic() + GRACE
    while (left := children() - before) and time.monotonic() < deadline:
        time.sleep(0.01)
    return [f"{pid}: {command(pid)}" for pid in sorted(left)]


def children() -> set[int]:
    """The living child processes. Empty where the kernel does not list them (macOS)."""
    files = Path("/proc/self/task").glob("*/children")
    return {int(pid) for file in files for pid in _read(file).split() if _counts(int(pid))}


def command(pid: int) -> str:
    """The command line of a process; empty if it has ended."""
    return _read(Path(f"/proc/{pid}/cmdline")).replace("\0", " ").strip()


def _counts(pid: int) -> bool:
    """Whether a child may be a leak: ended ones have no command line, some stay on purpose."""
    line = command(pid)
    return bool(line) and WATCHER not in line and "resource_tracker" not in line


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:  # it ended meanwhile
        return ""
