"""The system's redis-server with any arguments: sentinels, replicas, servers with TLS."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from pathlib import Path

import redis

from faults.machinery import asked
from support.servers import WATCHER, redis_binary

_WATCH = '"$@" & server=$!; read -r _; kill -9 $server 2>/dev/null; wait $server 2>/dev/null'


class Node:
    """A server or a sentinel, in a folder of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder / name
        self.folder.mkdir()
        self.port, self.second_port = _free_ports()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._watcher: subprocess.Popen[bytes] | None = None

    def start(self, *words: str) -> None:
        """Start it, and return when it answers."""
        own = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder))
        files = ("--pidfile", str(self.folder / "pid"), "--logfile", str(self.folder / "log"))
        self._watcher = subprocess.Popen(
            ["sh", "-c", _WATCH, WATCHER, str(redis_binary()), *words, *own, *files],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(redis.RedisError):
                if asked(self.url, "PING"):
                    return
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.02)

    def signal(self, number: int) -> None:
        """As ``kill -number``."""
        os.kill(int((self.folder / "pid").read_text()), number)

    def stop(self) -> None:
        """End it."""
        if self._watcher is not None and self._watcher.stdin is not None:
            self._watcher.stdin.close()
            self._watcher.wait(20)


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1]), int(two.getsockname()[1])
