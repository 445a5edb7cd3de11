"""Orphans: no server outlives its keeper, however that died.

Does        ask the kernel to kill the server with the keeper (Linux), or run a guard that does
            (elsewhere); end an earlier server that slipped through both.
Does not    start servers (`server_process`), or import anything but the standard library.
Invariants  1. it kills nothing but a process of the keeper's own session, or what listens on
               a socket in a private directory of this user.
Used by     backends.server_process, backends.keeper.
Source      prctl(2) PR_SET_PDEATHSIG, unix(7) SO_PEERCRED; LOCAL_PEERPID on macOS.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import struct
import sys
import time
from collections.abc import Callable

GRACE = 5.0  # seconds from SIGTERM to SIGKILL; storing a full AOF buffer takes tens of ms

# Runs one of our modules without executing the packages' __init__: 20 ms instead of 100.
_BOOT = """import sys, types
for name, folder in (("penstock", sys.argv[1]), ("penstock.backends", sys.argv[1] + "/backends")):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [folder]
from penstock.backends import keeper
keeper.main(sys.argv[2:])
"""


class Guard:
    """A process that kills the server when the keeper is gone, where the kernel does not.

    It is told pids through a pipe whose only other end is the keeper's, and sees its end.
    """

    def __init__(self) -> None:
        self._pid: int | None = None
        self._pipe = -1

    def ensure(self, watched: int | None = None) -> None:
        """Start a guard if there is none (any more), and tell it what it watches."""
        if self._pid is not None and os.waitpid(self._pid, os.WNOHANG)[0] == 0:
            return
        self.close(reap=False)
        read, self._pipe = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.dup2(read, 0)
                os.execv(sys.executable, command("guard"))
            finally:
                os._exit(127)
        os.close(read)
        if watched is not None:
            self.watch(watched)

    def watch(self, pid: int) -> None:
        """Kill *pid* when the keeper is gone."""
        os.write(self._pipe, b"+%d\n" % pid)

    def forget(self, pid: int) -> None:
        """Leave *pid* alone: it has ended."""
        with contextlib.suppress(
            BrokenPipeError
        ):  # that guard is gone; the next one never hears of this pid
            os.write(self._pipe, b"-%d\n" % pid)

    def close(self, reap: bool = True) -> None:
        """End the guard, and wait for its end."""
        if self._pipe != -1:
            os.close(self._pipe)
            self._pipe = -1
        if reap and self._pid is not None:
            os.waitpid(self._pid, 0)
        self._pid = None


def command(*arguments: str) -> list[str]:
    """The command line of a process of ours: isolated, and quick to start."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return [sys.executable, "-I", "-S", "-c", _BOOT, root, *arguments]


def guard_main() -> None:
    """The guard: read pids until the keeper's end of the pipe is gone, then kill what is left.

    A pid that was given to another process meanwhile is in another session, and left alone:
    the session is the keeper's own.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    watched: set[int] = set()
    for word in sys.stdin.buffer:
        (watched.add if word[:1] == b"+" else watched.discard)(int(word[1:]))
    for pid in watched:
        _end(pid)


def privacy(directory: str) -> str | None:
    """Why nobody should trust sockets in *directory*; None where it is ours alone."""
    try:
        status = os.lstat(directory)
    except FileNotFoundError:
        return "it is not there"
    if not stat.S_ISDIR(status.st_mode):
        return "it is not a directory"
    if status.st_uid != os.geteuid():
        return f"it belongs to user {status.st_uid}"
    if status.st_mode & 0o077:
        return f"others may enter it (mode {stat.S_IMODE(status.st_mode):o})"
    return None


def parent_death_signal() -> Callable[[], object] | None:
    """What asks the kernel to end this process with its parent; None where it cannot."""
    if sys.platform != "linux":
        return None
    try:
        import ctypes

        prctl = ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return None
    # 1: PR_SET_PDEATHSIG, which outlives exec. Not SIGKILL: a server may acknowledge what it has
    # not yet written to its log, while an fsync is under way, and SIGTERM lets it write that.
    return lambda: prctl(1, signal.SIGTERM, 0, 0, 0)


def _end(pid: int) -> None:
    """SIGTERM, and SIGKILL after GRACE, to a process of this session."""
    deadline = time.monotonic() + GRACE
    with contextlib.suppress(ProcessLookupError):
        while os.getsid(pid) == os.getsid(0):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                return
            os.kill(pid, signal.SIGTERM)
            time.sleep(0.05)


def ask(path: str, request: bytes, patience: float) -> bytes:
    """The beginning of what answers on *path*; ``b""`` where nothing does."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(patience)
        try:
            connection.connect(path)
            connection.sendall(request)
            return connection.recv(4096)
        except OSError:
            return b""


def evict(path: str) -> None:
    """End a server that lost its keeper: it answers on a socket that only we can have made."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1.0)
        pid = 0
        try:
            connection.connect(path)
            pid = _peer(connection)
            connection.sendall(b"SHUTDOWN NOSAVE NOW FORCE\r\n")
            stuck = connection.recv(4096) != b""  # it answers only to refuse
        except TimeoutError:
            stuck = True
        except OSError:
            return
        if stuck and pid > 1:  # the connection stands, so the pid is still the listener's
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _peer(connection: socket.socket) -> int:
    """The pid of the process that listens at the other end; 0 where the system does not say."""
    if sys.platform == "linux":
        answer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    elif sys.platform == "darwin":
        answer = connection.getsockopt(0, 2, 4)  # SOL_LOCAL, LOCAL_PEERPID
    else:
        return 0
    return int(struct.unpack_from("i", answer)[0])
