"""Runs the real command in processes of its own, as a shell would."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

PATIENCE = 60.0
"""Seconds that a command may take on a machine that does other things too."""


class Done(NamedTuple):
    """A command that has ended."""

    code: int
    out: bytes
    err: str


class Shell:
    """Runs ``penstock`` with $PENSTOCK_URL set to *url*."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __call__(self, *arguments: str, stdin: bytes = b"") -> Done:
        """Run to the end; whatever happens, no traceback and no password is shown."""
        done = subprocess.run(
            _command(arguments),
            input=stdin,
            capture_output=True,
            env=environment(self.url),
            timeout=PATIENCE,
            check=False,
        )
        found = Done(done.returncode, done.stdout, done.stderr.decode())
        assert "Traceback" not in found.err, found.err
        return found

    @contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run beside the test, with pipes; ended when the block is left."""
        process = subprocess.Popen(
            _command(arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(self.url),
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


def environment(url: str) -> dict[str, str]:
    """This process's, with the URL of the test, and without what would colour the output."""
    kept = {name: value for name, value in os.environ.items() if name != "PENSTOCK_URL"}
    return {**kept, **({"PENSTOCK_URL": url} if url else {}), "NO_COLOR": "1"}


def wait_until(condition: Callable[[], bool], *, never: bool = False) -> None:
    """Return as soon as *condition* holds, or no longer does; fail if it takes too long."""
    deadline = time.monotonic() + PATIENCE
    while condition() == never:
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def _command(arguments: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-m", "penstock", *arguments]
