"""A demo under test: a process of its own, its lines as they come, and whatever it left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, Self

from embedded.machinery import marked

PATIENCE = 90.0  # seconds for anything that is waited for; spent only on a failure

Line = dict[str, Any]


class Running:
    """A demo that runs; use it with ``with``, which ends it, and sees that nothing is left."""

    def __init__(self, *options: str, json_lines: bool = True) -> None:
        self.mark = f"penstock-demo-{uuid.uuid4().hex}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "penstock.cli.demo", *options, *["--json"][: int(json_lines)]],
            env={**os.environ, "PENSTOCK_TEST_MARK": self.mark},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self.errors = ""
        self._readers = [threading.Thread(target=read) for read in (self._read, self._read_errors)]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.process.kill()
            self.process.wait(PATIENCE)
            self.nothing_left()
        finally:
            for pid in marked(self.mark):  # only after a failure
                os.kill(pid, signal.SIGKILL)
            for reader in self._readers:
                reader.join(PATIENCE)
            assert self.process.stdout is not None
            assert self.process.stderr is not None
            self.process.stdout.close()
            self.process.stderr.close()

    def end(self) -> int:
        """Wait for its own end; its exit code."""
        code = self.process.wait(PATIENCE)
        for reader in self._readers:
            reader.join(PATIENCE)
        return code

    def nothing_left(self) -> None:
        """No member, no keeper, no server."""
        self.until(lambda: not marked(self.mark), "every process of the demo has ended")

    def said(self, kind: str) -> list[Line]:
        """The objects of one type so far."""
        found = [json.loads(line) for line in list(self.lines)]
        return [line for line in found if line["type"] == kind]

    def summary(self) -> Line:
        """The last line."""
        line: Line = json.loads(self.lines[-1])
        assert line["type"] == "summary", (line, self.errors)
        return line

    def started(self) -> dict[str, int]:
        """The members' process ids, when all have joined."""
        self.until(lambda: self.said("start"), "the members have joined")
        return dict(self.said("start")[0]["members"])

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Return as soon as *condition* holds; fail, saying *what*."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"not within {PATIENCE} s: {what}; {self.errors}"
            time.sleep(0.02)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self.errors = self.process.stderr.read()


def windows(running: Running, member: str | None = None) -> list[Line]:
    """The partition lines, of one member or of all."""
    return [line for line in running.said("window") if member in (None, line["member"])]
