"""What the tests of the embedded server need: processes by mark, deadlines, and plain words."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PATIENCE = 40.0  # seconds for what should take a few tenths of one


def until(condition: Callable[[], object], what: str) -> None:
    """Return as soon as *condition* holds; fail, saying *what*, after PATIENCE."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE} s: {what}"
        time.sleep(0.01)


def talk(path: str, words: str) -> str:
    """The reply of the server on *path* to one inline command."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(path)
        connection.sendall(words.encode() + b"\r\n")
        return connection.recv(65536).decode()


def runs(pid: int) -> bool:
    """Whether the process lives; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        if Path("/proc/self").exists():
            return False
        words = ["ps", "-o", "stat=", "-p", str(pid)]
        state = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    return state[:1] not in ("", "Z", "X")


def marked(mark: str) -> dict[int, str]:
    """The processes, other than this one, that carry *mark* in command line or environment."""
    found: dict[int, str] = {}
    if not Path("/proc/self").exists():
        words = ["ps", "-axwwE", "-o", "pid=,command="]
        listing = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        rows = [row.split(None, 1) for row in listing.splitlines()]
        return {int(pid): words for pid, words in rows if mark in words and int(pid) != os.getpid()}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (
                (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            )
            environ = (folder / "environ").read_bytes().decode(errors="replace")
            where = f"{command} {environ} {(folder / 'cwd').readlink()}"
        except OSError:
            continue
        if mark in where and runs(int(folder.name)) and int(folder.name) != os.getpid():
            found[int(folder.name)] = command
    return found


def names(directory: Path) -> list[str]:
    """What is in *directory*."""
    return sorted(path.name for path in directory.iterdir())


def stat_mode(path: Path) -> int:
    """The rights on *path*."""
    return path.stat().st_mode & 0o777


class Holder:
    """A user in a process of its own."""

    def __init__(self, directory: Path | str, *extra: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "holder.py"), str(directory), *extra],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the holder ended before it held anything"
        self.facts: dict[str, Any] = json.loads(line)

    def end(self) -> int:
        """Close its streams and wait for its end."""
        self.process.communicate(timeout=PATIENCE)
        return self.process.returncode
