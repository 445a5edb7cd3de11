"""Server process: the Redis or Valkey that a keeper runs, and what makes sure that it ends.

Does        start the server as a child, bound to the keeper's life; tell when it answers; end
            it; make a sentence of its log where it failed.
Does not    know the users (`keeper`), or import anything but the standard library.
Invariants  1. the server inherits a lock, held as long as any server lives on this log, with
               or without a keeper: never two of them on one log.
            2. the server ends with its keeper, however that died (`orphans`).
Used by     backends.keeper; backends.embedded for `Plan`.
Source      flock(2): a lock belongs to the open file, and an inherited one is the same file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import time
from collections.abc import Sequence

from penstock.backends.orphans import GRACE, Guard, ask, evict, parent_death_signal, privacy

KEEPER_SOCKET, SERVER_SOCKET = "keeper.sock", "server.sock"
LOCK, SERVER_LOCK, INFO, LOG = "penstock.lock", "server.lock", "penstock.json", "server.log"

EVICTION = 5.0  # seconds that an earlier server may take to end

_DISK = "free some space on that disk"
_WRITE = "make that directory writable, or name another"
_MEND = "mend the log with valkey-check-aof --fix or redis-check-aof --fix, or move it away"
# What a failed server's log says -> is it worth trying again, and what to do. First match wins.
_CAUSES = (
    ("Address already in use", "unavailable", "end the program that has the port, or use another"),
    ("No space left on device", "unavailable", _DISK),
    ("quota exceeded", "unavailable", _DISK),
    ("Permission denied", "config", _WRITE),
    ("Read-only file system", "config", _WRITE),
    ("RDB format version", "config", "run the newer server that wrote this, or move the data away"),
    ("append only file", "config", _MEND),
    ("AOF", "config", _MEND),
    ("cannot run", "config", "set PENSTOCK_REDIS_SERVER to a server that runs here"),
)


class Server:
    """The server as a child of this process; `pid` is None where there is none."""

    def __init__(self, plan: Plan, log: int, earlier: Sequence[str]) -> None:
        self.plan = plan
        self.pid: int | None = None
        self._log, self._log_start = log, 0
        self._earlier = {plan.path(SERVER_SOCKET), *earlier}
        self._bind = None if plan.guard else parent_death_signal()
        self._guard = Guard() if self._bind is None else None

    def start(self) -> None:
        """Start a server. An earlier one on this log is ended first; Failure if it does not end."""
        lock = self._lock()
        self._log_start = os.fstat(self._log).st_size
        remove(self.plan.path(SERVER_SOCKET))
        if self._guard is not None:
            self._guard.ensure()
        keeper = os.getpid()
        self.pid = os.fork()  # safe: this process has one thread, and the child only executes
        if self.pid == 0:
            self._become_server(keeper, lock)
        os.close(lock)

    def poll(self) -> int | None:
        """The exit code of a server that has just ended (negative: a signal); None otherwise."""
        if self.pid is None:
            return None
        if self._guard is not None:
            self._guard.ensure(self.pid)
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0:
            return None
        if self._guard is not None:
            self._guard.forget(pid)
        self.pid = None
        return os.waitstatus_to_exitcode(status)

    def answers(self) -> bool:
        """Whether the server takes commands; False while it starts and loads its data."""
        return ask(self.plan.path(SERVER_SOCKET), b"PING\r\n", 0.2).startswith(b"+PONG")

    def stop(self) -> None:
        """End the server: SIGTERM lets it store its buffers; after GRACE it is killed."""
        began = told = time.monotonic()
        if self.pid is not None:
            os.kill(self.pid, signal.SIGTERM)
        while self.poll() is None and self.pid is not None:
            now = time.monotonic()
            if now - told > 0.25:  # again: one that came between fork and exec was lost
                told = now
                os.kill(self.pid, signal.SIGTERM if now - began < GRACE else signal.SIGKILL)
            time.sleep(0.005)
        if self._guard is not None:
            self._guard.close()

    def explain(self, status: int) -> Failure:
        """Why the server ended, in a sentence for the user, with the last lines of its log."""
        size = os.fstat(self._log).st_size
        start = max(self._log_start, size - 8192)
        log = os.pread(self._log, size - start, start).decode(errors="replace")
        disk = os.statvfs(self.plan.directory)
        if disk.f_bavail * disk.f_frsize < 1 << 16:
            log += "\nNo space left on device"  # a full disk takes no log lines either
        kind, advice = "unavailable", f"read {self.plan.log}"
        for needle, its_kind, its_advice in _CAUSES:
            if needle.lower() in log.lower():
                kind, advice = its_kind, its_advice
                break
        lines = [_text(line) for line in log.splitlines() if line.strip()]
        ended = f"ended with code {status}" if status >= 0 else f"was killed by signal {-status}"
        return Failure(
            kind,
            f"the embedded server must run in {self.plan.directory!r}, but {self.plan.server} "
            f"{ended}, and its log ends: {' / '.join(lines[-4:])!r}; {advice}",
        )

    def _become_server(self, keeper: int, lock: int) -> None:
        """In the child: bind this process to the keeper's life, then become the server."""
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the keeper's handler would swallow it
            os.set_inheritable(lock, True)
            if self._guard is not None:
                self._guard.watch(os.getpid())  # before exec: no server that the guard misses
            if self._bind is not None:
                self._bind()
                if os.getppid() != keeper:  # it died before the kernel knew that we care
                    os._exit(1)
            # A locale that the system does not have would end the server at once.
            environ = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG"))}
            os.execve(self.plan.binary, self.plan.command(), environ)
        except BaseException as error:  # noqa: BLE001 - this copy of the keeper must not live on
            os.write(2, f"cannot run {self.plan.binary}: {error}\n".encode(errors="replace"))
        finally:
            os._exit(127)

    def _lock(self) -> int:
        """The lock that the server inherits; whoever has it now is a server without a keeper."""
        path = os.path.join(self.plan.directory, SERVER_LOCK)
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + EVICTION
        while not try_lock(lock):
            if time.monotonic() > deadline:
                os.close(lock)
                raise Failure(
                    "unavailable",
                    f"one server at a time may run in {self.plan.directory!r}, but an earlier one "
                    f"still holds {SERVER_LOCK} there; end it, and try again",
                )
            for server in self._earlier:
                if privacy(os.path.dirname(server)) is None:
                    evict(server)
            time.sleep(0.02)
        return lock


class Plan:
    """What a keeper is to run; it crosses to the keeper as one JSON argument."""

    def __init__(
        self, *, directory: str, runtime: str, temporary: bool, port: int | None, binary: str,
        server: str, hold: int, guard: bool = False, debug: bool = False,
    ) -> None:  # fmt: skip
        self.directory = directory
        self.runtime = runtime
        self.temporary = temporary
        self.port = port
        self.binary = binary
        self.server = server
        self.hold = hold
        self.guard = guard
        self.debug = debug

    def path(self, name: str) -> str:
        """The path of a socket in the runtime directory."""
        return os.path.join(self.runtime, name)

    @property
    def log(self) -> str:
        """The path of the server's log."""
        return os.path.join(self.directory, LOG)

    @property
    def info(self) -> str:
        """The path of the file that says where the keeper listens."""
        return os.path.join(self.directory, INFO)

    def command(self) -> list[str]:
        """The server's command line. Nothing is read from a configuration file."""
        options = {
            "port": str(self.port or 0),
            "bind": "127.0.0.1",
            "unixsocket": self.path(SERVER_SOCKET),
            "unixsocketperm": "700",
            "save": "",
            "appendonly": "no" if self.temporary else "yes",
            "appendfsync": "everysec",
            "dir": self.directory,
            "logfile": self.log,
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "enable-debug-command": "local" if self.debug else "no",
        }
        return [self.binary, *(word for name in options for word in (f"--{name}", options[name]))]


class Failure(Exception):
    """Why there is no server: `kind` is ``"config"`` or ``"unavailable"``."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    @classmethod
    def of(cls, error: OSError, directory: str) -> Failure:
        """The same for an error of the system on the keeper's own files."""
        wrong = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT, errno.EISDIR)
        full = (errno.ENOSPC, errno.EDQUOT)
        advice = _WRITE if error.errno in wrong else _DISK if error.errno in full else "try again"
        return cls(
            "config" if error.errno in wrong else "unavailable",
            f"the embedded server must be able to write in {directory!r}, "
            f"but {error.filename or 'a file there'!r}: {error.strerror}; {advice}",
        )


def try_lock(file: int) -> bool:
    """Take the lock of an open file, if nobody has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def remove(path: str) -> None:
    """Remove a file that may not be there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _text(line: str) -> str:
    """A line of the log without pid, date and level."""
    words = line.split(" ", 6)
    return words[6] if len(words) == 7 and words[5] in ("#", "*", "-", ".") else line
