"""Opening: how one user comes to hold an embedded server.

Does        join the keeper of a directory, or start one with this user as its first; again and
            again until one says ``ready``, one says why not, or the caller's time is up.
Does not    use the server (`embedded`), or run it (`keeper`).
Invariants  1. nobody counts on having looked before: a keeper that says ``busy``, or ends before
               it said anything, means that another one is there or just went: try again.
            2. whatever happens, cancellation too, no hold is left behind but the one returned.
            3. a child that is forked does not inherit a hold.
Used by     backends.embedded.
Source      unix(7): a socket's path has 104 bytes on macOS, 108 on Linux.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import subprocess
import sys
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from penstock.backends.server_binary import require_server
from penstock.clock import Backoff
from penstock.errors import BackendUnavailable, ConfigError

LONGEST_SOCKET = 103  # bytes without the closing zero, macOS; Linux has four more

_holds: weakref.WeakSet[socket.socket] = weakref.WeakSet()


class Held(NamedTuple):
    """The connection that holds the server, and what the keeper said of it."""

    connection: socket.socket
    facts: Mapping[str, Any]


class Opening:
    """What one `open` asks for, and how it gets it. `directory` None: a temporary server."""

    def __init__(self, directory: Path | None, port: int | None) -> None:
        self.temporary = directory is None
        self.port = port
        self._busy = False
        if directory is None:
            self.directory = self.runtime = _runtime("t" + os.urandom(8).hex())
        else:
            self.directory = _real_directory(directory)
            digest = hashlib.sha256(os.fsencode(self.directory)).hexdigest()
            self.runtime = _runtime(digest[:16])

    async def hold(self) -> Held:
        """Try to join a keeper and to start one, in turn, until either works."""
        pauses = Backoff(first=0.02, cap=0.25)
        while True:
            held = await self._join() or await self._start()
            if held is not None:
                return held
            await asyncio.sleep(pauses.next())

    def complain(self, timeout: float) -> NoReturn:
        """Say what was seen of a server that did not answer in time."""
        seen = "give it a longer timeout if it still loads its data"
        if self._busy:
            seen = "another program's keeper has it and is ending, stuck, or out of reach from here"
        try:
            last = Path(self.directory, "server.log").read_text(errors="replace").splitlines()[-3:]
        except OSError:
            last = []
        raise BackendUnavailable(
            f"the embedded server of {self.directory!r} must answer within {timeout} s, but it "
            f"did not; its log ends: {' / '.join(last)!r}; {seen}",
            backend="embedded",
            verb="open",
        ) from None

    async def _join(self) -> Held | None:
        """Connect to the keeper that the directory names; None where none is there."""
        if self.temporary:
            return None
        hold = self._connect()
        return None if hold is None else await self._handshake(hold)

    def _connect(self) -> socket.socket | None:
        from penstock.backends.keeper import read_runtime, refusal
        from penstock.backends.orphans import privacy

        runtime = read_runtime(self.directory)
        if runtime is None or not os.path.lexists(runtime):
            return None
        if distrust := privacy(runtime):
            raise ConfigError(refusal(runtime, distrust))
        hold = _new_hold(socket.socket(socket.AF_UNIX))
        try:
            hold.connect(os.path.join(runtime, "keeper.sock"))  # local: now, or not at all
        except OSError:
            hold.close()
            return None
        return hold

    async def _start(self) -> Held | None:
        """Start a keeper, with ourselves as its first user; None where another one was first."""
        ours, theirs = socket.socketpair()
        hold = _new_hold(ours)
        try:
            await asyncio.to_thread(self._launch, theirs)
        except BaseException:
            hold.close()
            raise
        return await self._handshake(hold)

    def _launch(self, theirs: socket.socket) -> None:
        """In a thread: find the server, and start a keeper. Returns when that stands by itself."""
        from penstock.backends.orphans import command
        from penstock.backends.server_process import Plan

        with theirs:
            binary = require_server()
            plan = Plan(
                directory=self.directory,
                runtime=self.runtime,
                temporary=self.temporary,
                port=self.port,
                binary=str(binary.path),
                server=binary.version,
                hold=theirs.fileno(),
                guard="PENSTOCK_TEST_GUARD" in os.environ,
                debug="PENSTOCK_TEST_DEBUG_COMMAND" in os.environ,
            )
            _run(command(json.dumps(vars(plan))), theirs.fileno())

    async def _handshake(self, hold: socket.socket) -> Held | None:
        """Wait for the keeper's word; None where it is busy, or ended before it said any."""
        heard = b""
        loop = asyncio.get_running_loop()
        try:
            while not heard.endswith(b"\n"):
                more = await loop.sock_recv(hold, 65536)
                if not more:
                    break
                heard += more
        except OSError:
            heard = b""
        except BaseException:
            hold.close()
            raise
        facts = json.loads(heard.splitlines()[-1]) if heard.endswith(b"\n") else {"state": "gone"}
        if facts["state"] == "ready" and facts["version"] == 1:
            return Held(hold, facts)
        hold.close()
        self._busy = facts["state"] == "busy"
        _judge(facts, self.directory)
        return None


def _judge(facts: Mapping[str, Any], directory: str) -> None:
    """Raise what a keeper's word means, unless it means: try again."""
    if facts.get("version", 1) != 1:
        raise ConfigError(
            f"one version of penstock must be used in all programs that share {directory!r}, but "
            f"its keeper speaks version {facts['version']!r} and this program 1; end the others"
        )
    if facts["state"] == "failed":
        if facts["kind"] == "config":
            raise ConfigError(facts["message"])
        raise BackendUnavailable(facts["message"], backend="embedded", verb="open")


def _run(command: list[str], hold: int) -> None:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(hold,),
            start_new_session=True,  # Ctrl-C in this terminal is not meant for the server
            cwd="/",
            check=False,
        )
    except OSError as error:
        raise ConfigError(
            f"embedded:// needs to start Python as {sys.executable!r}, but: {error.strerror}; "
            f"run this program with a Python that can be started by its path"
        ) from error
    if done.returncode != 0:
        raise BackendUnavailable(
            f"the keeper of an embedded server must start, but {command[0]!r} ended with code "
            f"{done.returncode}: {done.stderr.decode(errors='replace')[-500:]!r}",
            backend="embedded",
            verb="open",
        )


def _real_directory(directory: Path) -> str:
    """The real path of the data directory: every way to write it means the same server."""
    chosen = os.path.realpath(directory)
    try:
        os.makedirs(chosen, mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the embedded server needs a directory for its data, but {chosen!r} cannot be made: "
            f"{error.strerror}; name another: embedded:///path"
        ) from error
    return chosen


def _runtime(name: str) -> str:
    """A short path for sockets, the same in all programs of this user with the same *name*."""
    own = os.environ.get("XDG_RUNTIME_DIR", "")
    leaf = f"penstock-{os.geteuid()}-{name}"
    if os.path.isabs(own) and os.path.isdir(own) and os.stat(own).st_uid == os.geteuid():
        path = os.path.join(own, leaf)
        if len(os.fsencode(os.path.join(path, "keeper.sock"))) <= LONGEST_SOCKET:
            return path
    return os.path.join("/tmp", leaf)  # noqa: S108 - made with mode 0700, and its owner is checked


def _new_hold(hold: socket.socket) -> socket.socket:
    hold.setblocking(False)
    _holds.add(hold)
    return hold


def _release_after_fork() -> None:
    for hold in list(_holds):
        hold.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_after_fork)
