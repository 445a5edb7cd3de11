"""Embedded server: one user's hold on a server that Penstock starts itself.

Does        hold the server of a directory, or one of its own, until `aclose`, or until this
            process ends in whatever way.
Does not    find or start the server (`opening`), watch it (`keeper`), or speak Redis.
Invariants  1. the hold is one connection to the keeper; nothing else keeps the server alive.
            2. a temporary server and its directory are gone when `aclose` returns.
Used by     connect, for embedded:// URLs; the command line's server and demo.
Source      XDG base directories, for where the data is.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from penstock.backends.opening import Held, Opening
from penstock.backends.server_binary import platform_refusal
from penstock.errors import BackendUnavailable, ConfigError

CLOSING = 15.0  # seconds for a temporary server to end: it is killed after 5


class EmbeddedServer:
    """A hold on an embedded server, which runs as long as anybody holds it.

    Made by `open`; given back by `aclose`, by leaving ``async with``, and by the end of the
    process, even by SIGKILL. A server that dies is restarted by its keeper where it has data.
    """

    def __init__(self, opening: Opening, held: Held) -> None:
        self._opening = opening
        self._hold, self._facts = held
        self._rest = b""
        self._alive = True
        self._closing = asyncio.Lock()

    @classmethod
    async def open(
        cls,
        directory: Path | None,
        *,
        temporary: bool = False,
        port: int | None = None,
        timeout: float = 10.0,
    ) -> EmbeddedServer:
        """Hold the server of *directory*, started if it does not run.

        Waits until the server answers: 0.1 s as a rule, longer while it loads much data.

        Args:
            directory: where its data is, made if it is not there; None: `default_directory`.
            temporary: a fresh server without a log on disk, which goes with this hold.
            port: a TCP port on 127.0.0.1 that it is to listen on besides its socket.
            timeout: the longest wait, in seconds.

        Raises:
            ConfigError: no server binary, not this platform, the directory cannot be written,
                its log is corrupt, it belongs to another user, or its server has another port.
            BackendUnavailable: it did not answer in time, or could not start: port taken, disk
                full. Says the last lines of the server's log.

        Cancelled: nothing is held; a server that nobody else holds ends.
        """
        if port is not None and not 1 <= port <= 65535:
            raise ConfigError(f"port must be from 1 to 65535, got {port}; omit it for no TCP port")
        if temporary and directory is not None:
            raise ConfigError(
                f"a temporary server chooses its own directory, got {str(directory)!r}; "
                f"omit one of the two"
            )
        if refusal := platform_refusal():
            raise ConfigError(refusal)
        chosen = None if temporary else directory or default_directory()
        opening = Opening(chosen, port)
        try:
            async with asyncio.timeout(timeout):
                held = await opening.hold()
        except TimeoutError:
            opening.complain(timeout)
        server = cls(opening, held)
        if port is not None and server.port != port:
            await server.aclose()
            raise ConfigError(
                f"the server of {opening.directory!r} must listen on port {port}, but it runs "
                f"already, with port {server.port}; end the programs that use it, or omit the port"
            )
        return server

    @property
    def socket(self) -> str:
        """The path of the server's unix socket."""
        return str(self._facts["socket"])

    @property
    def pid(self) -> int:
        """The process id of the server: another one after a restart."""
        self._listen()
        return int(self._facts["pid"])

    @property
    def keeper_pid(self) -> int:
        """The process id of the keeper."""
        return int(self._facts["keeper"])

    @property
    def port(self) -> int | None:
        """The TCP port on 127.0.0.1, or None."""
        return self._facts["port"]

    @property
    def version(self) -> str:
        """Which server it is, e.g. ``"Valkey 9.1.2"``."""
        return str(self._facts["server"])

    @property
    def directory(self) -> Path:
        """Where the server has its data and its log."""
        return Path(self._opening.directory)

    @property
    def alive(self) -> bool:
        """Whether the keeper still holds the server for us; False: open anew."""
        self._listen()
        return self._alive

    async def aclose(self) -> None:
        """Give the server back. Calling it again does nothing.

        Returns when the hold is released; for a temporary server, when it is gone and its
        directory is removed. Cancelled: the hold is released all the same.

        Raises:
            BackendUnavailable: a temporary server was not gone within 15 s.
        """
        async with self._closing:
            if self._hold.fileno() == -1:
                return
            try:
                if self._opening.temporary:
                    await self._see_it_end()
            finally:
                self._hold.close()
                self._alive = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        state = "closed" if self._hold.fileno() == -1 else f"pid={self._facts['pid']}"
        return f"<EmbeddedServer {self._opening.directory!r} {self.version} {state}>"

    async def _see_it_end(self) -> None:
        try:
            async with asyncio.timeout(CLOSING):
                self._hold.shutdown(socket.SHUT_WR)
                while await asyncio.get_running_loop().sock_recv(self._hold, 4096):
                    pass
        except TimeoutError:
            raise BackendUnavailable(
                f"a temporary server must end within {CLOSING} s, but its keeper, process "
                f"{self.keeper_pid}, still runs; end that",
                backend="embedded",
                verb="close",
            ) from None
        except OSError:
            pass  # the keeper was killed, and the server with it
        await asyncio.to_thread(shutil.rmtree, self._opening.directory, ignore_errors=True)

    def _listen(self) -> None:
        """Take in what the keeper has said since; it speaks only after a restart."""
        if self._hold.fileno() == -1:
            return
        try:
            while heard := self._hold.recv(65536):
                self._rest += heard
            self._alive = False
        except BlockingIOError:
            pass
        except OSError:
            self._alive = False
        *lines, self._rest = self._rest.split(b"\n")
        for words in lines:
            facts = json.loads(words)
            if facts["state"] == "ready":
                self._facts = facts


def default_directory() -> Path:
    """Where the user's own server has its data; not made.

    Raises:
        ConfigError: the user has no home directory, and $XDG_DATA_HOME is not set.
    """
    named = os.environ.get("XDG_DATA_HOME", "")
    if Path(named).is_absolute():  # a relative one is to be ignored, says the specification
        return Path(named) / "penstock"
    try:
        home = Path.home()
    except RuntimeError as error:
        raise ConfigError(
            "embedded:// needs a home directory for its data, and this user has none; "
            "name a directory: embedded:///path"
        ) from error
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "penstock"
    return home / ".local" / "share" / "penstock"
