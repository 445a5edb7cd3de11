"""Journals: what every process of the lab writes down, one line a write.

Does        append JSON lines that survive ``kill -9`` of the writer; read them back.
Does not    know what is written: `history.py` does.
Invariants  1. a line is one `write` on a file opened with O_APPEND: lines never mix.
            2. times are CLOCK_MONOTONIC of the machine, one clock for all processes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TICK = 0.025
"""Seconds between looks at whether the machine stands still."""
STILL = 0.05
"""Seconds late that are worth a line."""


class Journal:
    """The journal of one process, which is named in each line."""

    def __init__(self, folder: str | Path, who: str) -> None:
        path = Path(folder) / f"{who}.jsonl"
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._who = who

    def __call__(self, what: str, **about: Any) -> None:
        """Write one line down."""
        line = {"t": time.monotonic(), "who": self._who, "what": what, **about}
        os.write(self._file, json.dumps(line, separators=(",", ":")).encode() + b"\n")

    def close(self) -> None:
        """Write nothing more."""
        os.close(self._file)


class JournalReader:
    """All journals of a folder, from where the last reading ended."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}

    def new_lines(self) -> Iterator[dict[str, Any]]:
        """What was written since; a line that has no end yet comes next time."""
        for path in sorted(self._folder.glob("*.jsonl")):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                whole, newline, _ = file.read().rpartition(b"\n")
            self._read[path] = self._read.get(path, 0) + len(whole) + len(newline)
            yield from map(json.loads, whole.splitlines())
