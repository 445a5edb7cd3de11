"""Dialing: one connection, made and logged in.

Does        hold where the server is and who we are there; open a socket, TLS, log in, load scripts.
Does not    find a master (`sentinel.py`), or try again (`link.py`).
Invariants  1. a password is sent to the server, and nowhere else.
            2. whatever fails on the way closes the socket.
Source      reliability notes 1.7, 1.14.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from typing import Final

import msgspec

from penstock.backends.redis.control import Tls
from penstock.backends.redis.edge import RETRY, ConnectionLost, ReplyError, TlsRefused, refused
from penstock.backends.redis.replies import text
from penstock.backends.redis.script_list import ALL
from penstock.backends.redis.wire import Arg, Wire

REPLICA: Final = "slave"
"""What ROLE calls a replica."""


class Sentinels(msgspec.Struct, frozen=True):
    """Who knows the master: host and port of each, the master's name, and who we are to them."""

    hosts: tuple[tuple[str, int], ...]
    master: str
    user: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return f"Sentinels({self.master} by {self.places})"

    @property
    def places(self) -> str:
        """All of them, for errors."""
        return ", ".join(f"{host}:{port}" for host, port in self.hosts)


class Address(msgspec.Struct, frozen=True):
    """Where the server is, and who we are there. `timeout` in seconds, for connecting.

    With `sentinels` these say where it is, and `host` and `port` mean nothing.
    """

    host: str = "localhost"
    port: int = 6379
    path: str = ""
    user: str | None = None
    password: str | None = None
    db: int = 0
    client_name: str = "penstock"
    timeout: float = 5.0
    tls: Tls | None = None
    sentinels: Sentinels | None = None

    @property
    def place(self) -> str:
        """Host and port, or the socket's path: what errors name."""
        if self.sentinels is not None:
            return f"{self.sentinels.master!r} of the sentinels {self.sentinels.places}"
        return self.path or f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"Address({self.place})"


async def open_wire(address: Address, host: str, port: int) -> Wire:
    """A connection to *host* and *port*, or to the address's socket; nothing is sent yet.

    Raises:
        OSError: no connection.
        TlsRefused: the text says which side of it, and what to look at.
    """
    loop = asyncio.get_running_loop()
    place = address.path or f"{host}:{port}"
    if address.path:
        _, wire = await loop.create_unix_connection(lambda: Wire(place), address.path)
        return wire
    context = address.tls.context() if address.tls is not None else None
    try:
        transport, wire = await loop.create_connection(lambda: Wire(place), host, port, ssl=context)
    except ssl.SSLError as error:
        raise TlsRefused(_tls_refused(error)) from error
    _keep_alive(transport.get_extra_info("socket"))
    return wire


async def greet(wire: Wire, address: Address) -> str:
    """Log in, choose the database, say who we are, load the scripts: one round trip.

    Returns:
        The server's role, ``"master"`` or ``"slave"``; ``""`` without the right to ask.

    Raises:
        ConnectionLost: the server is not ready, or went away.
        BackendRejected: wrong credentials or rights.
    """
    commands: list[tuple[Arg, ...]] = []
    if address.password is not None:
        login = (address.user, address.password) if address.user else (address.password,)
        commands.append(("AUTH", *login))
    must = len(commands) + 1
    commands.append(("SELECT", address.db) if address.db else ("PING",))
    commands.append(("CLIENT", "SETNAME", address.client_name))
    commands.append(("CLIENT", "ID"))
    commands.append(("ROLE",))
    commands += [("SCRIPT", "LOAD", script.text) for script in ALL]
    try:
        replies = await wire.send_many(commands)
    except ConnectionLost as error:
        raise _hung_up(error, address) from error
    for reply in replies[:must]:
        if isinstance(reply, ReplyError) and reply.code != "MISCONF":  # a full disk: reads go on
            raise _greeting_refused(reply)
    _, client_id, role = replies[must : must + 3]
    if isinstance(client_id, int):
        wire.client_id = client_id
    return text(role[0]) if isinstance(role, list) and role else ""


def _greeting_refused(error: ReplyError) -> Exception:
    if error.code in RETRY:
        return ConnectionLost(str(error))
    return refused(error, verb="connect")


def _hung_up(error: ConnectionLost, address: Address) -> ConnectionLost:
    """A server that ends the connection instead of answering: TLS is the usual cause."""
    if address.tls is not None and ("CERTIFICATE" in str(error) or "ALERT" in str(error)):
        asks = "it refuses our certificate, or wants one: cert=FILE and key=FILE"
        return TlsRefused(f"{asks} ({error})")
    if address.tls is not None and "said" not in str(error):  # its reason may not have come
        return ConnectionLost(f"{error}; if it wants a certificate of ours: cert=FILE, key=FILE")
    if address.tls is None and not address.path and "said" not in str(error):
        return ConnectionLost(f"{error} without a word; if it speaks TLS, use rediss://")
    return error


def _keep_alive(sock: socket.socket) -> None:
    """A peer that is gone without a word is noticed within about half a minute."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 25_000)


def _tls_refused(error: ssl.SSLError) -> str:
    """What of TLS went wrong, and where to look."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not trusted ({error.verify_message}); give the authority that "
            f"signed it as ca=FILE, and a certificate that is in force and names the host"
        )
    reason = error.reason or str(error)
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_EOF_WHILE_READING"):
        return f"it does not speak TLS there ({reason}); use its TLS port, or redis:// without TLS"
    return (
        f"TLS was refused ({reason}); does it ask for a client certificate (cert=FILE, key=FILE)?"
    )
