"""Link: a wire that is made again when it breaks.

Does        connect, log in, load the scripts; back off while the server cannot be reached.
Does not    send anything again: who sent it knows what that would mean.
Invariants  1. one wire at a time; many that wait for it make one attempt together.
            2. delays are capped and spread; waiting is cancellable at once.
            3. a password is sent to the server, and nowhere else.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from penstock.backends.redis.control import Tls
from penstock.backends.redis.edge import (
    RETRY,
    ConnectionLost,
    ReplyError,
    mapped,
    refused,
    unavailable,
)
from penstock.backends.redis.script_list import ALL
from penstock.backends.redis.scripts import Script
from penstock.backends.redis.wire import Arg, Wire
from penstock.clock import Backoff, Clock
from penstock.errors import BackendUnavailable, ClosedError
from penstock.observers import Observers
from penstock.signals import Signal


class Address(msgspec.Struct, frozen=True):
    """Where the server is, and who we are there. `timeout` in seconds, for connecting."""

    host: str = "localhost"
    port: int = 6379
    path: str = ""
    user: str | None = None
    password: str | None = None
    db: int = 0
    client_name: str = "penstock"
    timeout: float = 5.0
    tls: Tls | None = None

    @property
    def place(self) -> str:
        """Host and port, or the socket's path: what errors name."""
        return self.path or f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"Address({self.place})"


class Link:
    """A connection that comes back.

    Args:
        address: where to.
        clock: for the delays between attempts.
        observers: told when the connection breaks and when it is back.
    """

    def __init__(self, address: Address, clock: Clock, observers: Observers) -> None:
        self.address = address
        self._clock = clock
        self._observers = observers
        self._wire: Wire | None = None
        self._lock = asyncio.Lock()
        self._backoff = Backoff()
        self._closed = False
        self._broken = False

    @property
    def now(self) -> Wire | None:
        """The wire, if there is one that lives."""
        return self._wire if self._wire is not None and self._wire.alive else None

    async def wire(self, timeout: float | None = None) -> Wire:
        """The living wire; made, if need be, within *timeout* seconds (None: the address's).

        Raises:
            BackendUnavailable: no connection in time.
            BackendRejected: wrong credentials or rights.
        """
        if self._closed:
            raise ClosedError(f"the connection to {self.address.place} was closed")
        if (wire := self.now) is not None:
            return wire
        limit = self.address.timeout if timeout is None else timeout
        last: BaseException = TimeoutError()
        try:
            async with asyncio.timeout(limit), self._lock:
                while self.now is None:
                    try:
                        await self._connect()
                    except BackendUnavailable as error:
                        last = error.__cause__ or error
                        await self._clock.sleep(self._backoff.next())
        except TimeoutError:
            raise unavailable(last, self.address.place, verb="connect") from last
        assert self._wire is not None
        return self._wire

    async def call(self, *args: Arg, verb: str, key: str = "", timeout: float = 5.0) -> Any:
        """Send one command and wait for its reply; not sent again if that does not come.

        Raises:
            BackendError: refused, or no connection, or no reply within *timeout* seconds.
        """
        wire = await self.wire(timeout)
        with mapped(self.address.place, verb=verb, key=key):
            return await wire.call(*args, timeout=timeout)

    async def run(
        self,
        script: Script,
        keys: list[str],
        *args: Arg,
        verb: str,
        key: str = "",
        timeout: float = 5.0,
    ) -> Any:
        """Run *script*; a server that has forgotten it (SCRIPT FLUSH, restart) is told again.

        Raises:
            BackendError: refused, or no connection, or no reply within *timeout* seconds.
        """
        wire = await self.wire(timeout)
        with mapped(self.address.place, verb=verb, key=key or keys[0]):
            try:
                return await wire.call(*command(script, keys, args), timeout=timeout)
            except ReplyError as error:
                if error.code != "NOSCRIPT":
                    raise
            await wire.call("SCRIPT", "LOAD", script.text, timeout=timeout)
            return await wire.call(*command(script, keys, args), timeout=timeout)

    def close(self) -> None:
        """Close the connection; requests without a reply fail."""
        self._closed = True
        if self._wire is not None:
            self._wire.end()

    async def _connect(self) -> None:
        wire = await connect(self.address)
        self._wire = wire
        self._backoff.reset()
        if self._broken:
            self._observers(Signal("connected", f"connected to {self.address.place} again"))
        self._broken = False
        wire.on_lost(self._on_lost)

    def _on_lost(self, error: Exception) -> None:
        if not self._closed and not self._broken:
            self._broken = True
            text = f"the connection to {self.address.place} ended: {error}; connecting again"
            self._observers(Signal("disconnected", text))


def command(script: Script, keys: list[str], args: tuple[Arg, ...]) -> tuple[Arg, ...]:
    """The command that runs *script*."""
    return ("EVALSHA", script.sha, script.keys, *keys, *args)


async def connect(address: Address) -> Wire:
    """A wire that is logged in and has the scripts.

    Raises:
        BackendUnavailable: no connection, or no answer, within the address's timeout.
        BackendRejected: wrong credentials or rights.
    """
    wire = Wire(address.place)
    try:
        async with asyncio.timeout(address.timeout):
            await _open(address, lambda: wire)
            await _greet(wire, address)
    except (TimeoutError, OSError, ConnectionLost) as error:
        wire.end()
        raise unavailable(error, address.place, verb="connect") from error
    except BaseException:
        wire.end()
        raise
    return wire


async def _open(address: Address, protocol: Callable[[], Wire]) -> None:
    loop = asyncio.get_running_loop()
    if address.path:
        await loop.create_unix_connection(protocol, address.path)
        return
    context = address.tls.context() if address.tls is not None else None
    transport, _ = await loop.create_connection(protocol, address.host, address.port, ssl=context)
    _keep_alive(transport.get_extra_info("socket"))


def _keep_alive(sock: socket.socket) -> None:
    """A peer that is gone without a word is noticed within about half a minute."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 25_000)


async def _greet(wire: Wire, address: Address) -> None:
    """Log in, choose the database, say who we are, load the scripts: one round trip."""
    commands: list[tuple[Arg, ...]] = []
    if address.password is not None:
        login = (address.user, address.password) if address.user else (address.password,)
        commands.append(("AUTH", *login))
    must = len(commands) + 1
    commands.append(("SELECT", address.db) if address.db else ("PING",))
    commands.append(("CLIENT", "SETNAME", address.client_name))
    commands.append(("CLIENT", "ID"))
    commands += [("SCRIPT", "LOAD", script.text) for script in ALL]
    replies = await wire.send_many(commands)
    for reply in replies[:must]:
        if isinstance(reply, ReplyError) and reply.code != "MISCONF":  # a full disk: reads go on
            raise _greeting_refused(reply)
    if isinstance(replies[must + 1], int):
        wire.client_id = replies[must + 1]


def _greeting_refused(error: ReplyError) -> Exception:
    if error.code in RETRY:
        return ConnectionLost(str(error))
    return refused(error, verb="connect")
