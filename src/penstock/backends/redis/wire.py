"""Wire: one pipelined connection to a Redis or Valkey, the hot road.

Does        write packed commands, hand back their replies in order, in bulk.
Does not    reconnect, retry or know commands: `link.py` makes wires, the verbs are elsewhere.
Invariants  1. replies come in the order of the requests: RESP2, no pushes.
            2. when the connection ends, every unanswered request fails with ConnectionLost.
            3. an unanswered request is never handed to another caller: a wire that timed out ends.
            4. a server that says it is a replica now is left: the wire takes nothing more, and
               ends when what is in flight is answered. The next one may find the new master.
            5. a slow connection is not a dead one: a wait goes on while what was sent is being
               taken, or answers come. Replies are in order, so each of them brings ours nearer.
Cost        per batch: one write, one future. Per reply: what hiredis takes.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

import hiredis

from penstock.backends.redis.edge import DEMOTED, REFUSING, ConnectionLost, ReplyError

Arg = str | bytes | int | float


_GLANCES: Final = 8
"""How often the time that a reply may take is divided, to see whether the connection gets on."""


_PACE: Final = 256 * 1024
"""Bytes a second that a connection worth waiting for carries: what lies between may have taken
megabytes, and not have passed them on."""


class _Request:
    """Replies that one write waits for."""

    __slots__ = ("future", "left", "replies", "size")

    def __init__(self, future: asyncio.Future[Any], count: int, size: int) -> None:
        self.future = future
        self.left = count
        self.size = size
        self.replies: list[Any] = []


class _Refusals:
    """Makes the exception of each error reply; an object of its own, so that nothing goes round."""

    def __init__(self) -> None:
        self.demoted = False
        self.told: Callable[[ReplyError], None] | None = None

    def __call__(self, text: str) -> ReplyError:
        error = ReplyError(text)
        code = error.code
        if code in DEMOTED:
            self.demoted = True
        if code in REFUSING and self.told is not None:
            self.told(error)
        return error


class Wire(asyncio.Protocol):
    """One connection. Made by `link.connect`.

    Args:
        place: host and port or path, for errors.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self.client_id = 0
        self.answers = 0
        self._refusals = _Refusals()
        self._reader = hiredis.Reader(replyError=self._refusals, protocolError=ReplyError)
        self._requests: deque[_Request] = deque()
        self._transport: asyncio.Transport | None = None
        self._lost: Exception | None = None
        self._listeners: list[Callable[[Exception], None]] = []
        self._writable = asyncio.Event()
        self._writable.set()
        self._received = 0
        self._heard = asyncio.get_running_loop().time()
        self.written = 0

    @property
    def alive(self) -> bool:
        """Whether requests can be sent."""
        return self._lost is None and self._transport is not None and not self._refusals.demoted

    @property
    def silence(self) -> float:
        """Seconds since anything came from the server."""
        return asyncio.get_running_loop().time() - self._heard

    @property
    def on_its_way(self) -> float:
        """Seconds that what is to be answered next may take to arrive, for its size alone."""
        return self._requests[0].size / _PACE if self._requests else 0.0

    def progress(self, written: int) -> tuple[int, int]:
        """Of the first *written* bytes, those that the other side has taken; and what came back."""
        transport = self._transport
        left = 0 if transport is None else transport.get_write_buffer_size() + _unsent(transport)
        return min(written, self.written - left), self._received

    def on_lost(self, listener: Callable[[Exception], None]) -> None:
        """Call *listener* once when the connection ends; at once if it has."""
        if self._lost is not None:
            listener(self._lost)
        else:
            self._listeners.append(listener)

    def on_refused(self, listener: Callable[[ReplyError], None]) -> None:
        """Call *listener* with every reply that says: not now."""
        self._refusals.told = listener

    def send(self, *args: Arg) -> asyncio.Future[Any]:
        """Send one command; the future has its reply, an error reply as exception."""
        return self._request(_pack(args), 1, single=True)

    def send_many(self, commands: list[tuple[Arg, ...]]) -> asyncio.Future[list[Any]]:
        """Send several commands in one write; the future has their replies, errors among them."""
        return self._request(b"".join(map(_pack, commands)), len(commands))

    async def call(self, *args: Arg, timeout: float) -> Any:
        """Send one command and wait for its reply.

        Raises:
            ReplyError: the server's error reply.
            ConnectionLost: the connection ended before the reply.
            TimeoutError: no reply, and no progress, for *timeout* seconds; the wire is ended.
        """
        return await self._within(timeout, self.send(*args))

    async def call_many(self, commands: list[tuple[Arg, ...]], *, timeout: float) -> list[Any]:
        """Send several commands in one write and wait for their replies, errors among them.

        Raises:
            ConnectionLost: the connection ended before the last reply.
            TimeoutError: not all replies, and no progress, for *timeout* seconds; it is ended.
        """
        return await self._within(timeout, self.send_many(commands))

    async def writable(self) -> None:
        """Return when the socket takes more: the kernel's buffer and ours are not full."""
        await self._writable.wait()

    def end(self, error: Exception | None = None) -> None:
        """Close now; unanswered requests fail."""
        if self._transport is not None:
            self._transport.abort()
        self._finish(error or ConnectionLost("closed"))

    async def _within(self, timeout: float, replies: asyncio.Future[Any]) -> Any:
        written, quiet, getting_on = self.written, 0.0, GettingOn(self)
        while quiet < timeout + self.on_its_way:
            try:
                await asyncio.wait((replies,), timeout=timeout / _GLANCES)
            except asyncio.CancelledError:
                replies.cancel()  # nobody looks at its error any more
                raise
            if replies.done():
                return replies.result()
            quiet = 0.0 if getting_on.since_last(written) else quiet + timeout / _GLANCES
        error = TimeoutError(f"no reply within {timeout} s")
        self.end(error)
        raise error

    def _request(self, data: bytes, count: int, *, single: bool = False) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if not self.alive or self._transport is None:
            text = "the server is a replica now" if self._refusals.demoted else "not connected"
            future.set_exception(ConnectionLost(str(self._lost or text)))
            return future
        self._requests.append(_Request(future, 0 if single else count, len(data)))
        self._transport.write(data)
        self.written += len(data)
        return future

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the socket is there."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by its manners

    def data_received(self, data: bytes) -> None:
        """asyncio: parse what came, and resolve what is complete."""
        self._received += len(data)
        self._heard = asyncio.get_running_loop().time()
        self._reader.feed(data)
        gets = self._reader.gets
        try:
            while (reply := gets()) is not False:
                self._deliver(reply)
        except ReplyError as error:
            self.end(ConnectionLost(f"the server's answer cannot be used: {error}"))
        if self._refusals.demoted and not self._requests:
            self.end(ConnectionLost("the server is a replica now"))

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the socket is gone."""
        self._finish(ConnectionLost(str(exc) if exc else "the server closed the connection"))

    def pause_writing(self) -> None:
        """asyncio: the socket takes no more for now."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """asyncio: the socket takes more."""
        self._writable.set()

    def _deliver(self, reply: Any) -> None:
        if not self._requests:
            told = str(reply) if isinstance(reply, ReplyError) else "a reply to nothing"
            raise ReplyError(f"nobody had asked, and it said: {told}")
        request = self._requests[0]
        if request.left:
            request.replies.append(reply)
            request.left -= 1
            if request.left:
                return
            reply = request.replies
        self._requests.popleft()
        self.answers += 1
        if request.future.done():
            return
        if isinstance(reply, ReplyError):
            request.future.set_exception(reply)
        else:
            request.future.set_result(reply)

    def _finish(self, error: Exception) -> None:
        if self._lost is not None:
            return
        self._lost = error
        self._writable.set()
        requests, self._requests = self._requests, deque()
        for request in requests:
            if not request.future.done():
                request.future.set_exception(ConnectionLost(_last_word(request, error)))
                request.future.exception()  # looked at: of a read that nobody waits for any more
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener(error)


class GettingOn:
    """Whether a connection gets on: a slow one is not a dead one.

    Args:
        wire: the connection.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._before = wire.progress(wire.written)

    def since_last(self, written: int) -> bool:
        """Whether answers came, or of the first *written* bytes more is being taken, since asked.

        That the last of them was taken says nothing: it may have been long ago.
        """
        before, self._before = self._before, self._wire.progress(written)
        taken, received = self._before
        return received != before[1] or before[0] != taken < written


def _last_word(request: _Request, error: Exception) -> str:
    """Why a connection ended: what the server said before, if it did, as when it is full."""
    if request.replies and isinstance(request.replies[-1], ReplyError):
        return f"the server ended it and said: {request.replies[-1]}"
    return str(error)


def heed(reply: asyncio.Future[Any]) -> None:
    """Of a reply that perhaps nobody waits for: its error is none that was left behind."""
    if not reply.cancelled():
        reply.exception()


def _unsent(transport: asyncio.Transport) -> int:
    """Bytes that the kernel holds and the other side has not taken yet, where it says so."""
    sock = transport.get_extra_info("socket")
    if sys.platform != "linux" or sock is None:
        return 0
    import fcntl
    import termios

    try:
        return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except OSError:  # closed meanwhile
        return 0


_pack_text: Callable[[tuple[Arg, ...]], bytes] = cast("Any", hiredis).pack_command
"""hiredis' own types say that a command has one argument."""


def _pack(args: tuple[Arg, ...]) -> bytes:
    try:
        return _pack_text(args)
    except UnicodeEncodeError:  # bytes that were no UTF-8 when they were read as text
        escaped = (a.encode("utf-8", "surrogateescape") if isinstance(a, str) else a for a in args)
        return _pack_text(tuple(escaped))
