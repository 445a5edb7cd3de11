"""TcpProxy: a bad network between a client and its server, at a test's command.

Does        forward bytes, and cut, refuse, delay, withhold or lose them when it is told to.
Does not    know any protocol: a reply is what the server sent in one piece.
Invariants  1. bytes that are forwarded are in order and untouched.
            2. a cut is seen by both sides as a reset, at once; nothing more passes.
            3. leaving the block ends every connection and task, also of who came just then: so
               connections are accepted here, since `asyncio.Server` forgets those when it closes.
Used by     tests, ours and our users'.
Source      what Toxiproxy calls toxics: reset_peer, timeout, latency, bandwidth, limit_data.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Callable
from types import TracebackType
from typing import Final, Literal, Self

Direction = Literal["up", "down"]
"""``up``: from the client to the server."""

_CHUNK: Final = 1 << 16
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # linger on, for 0 s: close() sends RST


class TcpProxy:
    """A proxy on 127.0.0.1 in front of one server.

        async with TcpProxy(("127.0.0.1", 6379)) as proxy:
            client = connect(f"redis://127.0.0.1:{proxy.port}")
            proxy.cut()

    Args:
        server: host and port, or the path of a unix socket.

    Attributes:
        refuse: while True, new connections are closed as soon as they come.
        delay: seconds that every piece is held before it is passed on, each way.
        jitter: seconds that are added to the delay by chance, up to so many.
        throttle: bytes a second that one connection passes each way, at most; 0: no bound.
        accepted: how many connections came and were served.
        refused: how many connections were turned away.
        resets: how many connections were cut.
        bytes_up: how many bytes went to the server.
        bytes_down: how many bytes went to clients.
    """

    def __init__(self, server: tuple[str, int] | str) -> None:
        self._server = server
        self._listener: socket.socket | None = None
        self._closing = False
        self._serving: set[asyncio.Task[None]] = set()
        self._links: set[_Link] = set()
        self._gates = {"up": asyncio.Event(), "down": asyncio.Event()}
        self._budgets: dict[Direction, int | None] = {"up": None, "down": None}
        self._keep_reply: Callable[[bytes], bool] | None = None
        self.refuse = False
        self.delay = self.jitter = 0.0
        self.throttle = 0
        self.accepted = self.refused = self.resets = self.bytes_up = self.bytes_down = 0
        self.resume()

    @property
    def port(self) -> int:
        """The port on 127.0.0.1 that clients connect to."""
        assert self._listener is not None, "the proxy listens inside `async with`"
        return int(self._listener.getsockname()[1])

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._links)

    async def __aenter__(self) -> Self:
        self._closing = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self._listener.setblocking(False)
        asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._listener is not None
        self._closing = True
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        self.cut()
        while self._serving:
            await asyncio.wait(self._serving)
        for _ in range(2):  # turns of the event loop, in which transports close their sockets
            await asyncio.sleep(0)

    def lead_to(self, server: tuple[str, int] | str) -> None:
        """Serve new connections from another server, as an address that moves does."""
        self._server = server

    def cut(self) -> None:
        """Reset all connections now; new ones are still served."""
        for link in list(self._links):
            self._reset(link)

    def pause(self, direction: Direction | None = None) -> None:
        """Withhold all bytes, or those of one direction; connections stay open (a black hole)."""
        for way in (direction,) if direction else ("up", "down"):
            self._gates[way].clear()

    def resume(self, direction: Direction | None = None) -> None:
        """Pass on again, first what was withheld."""
        for way in (direction,) if direction else ("up", "down"):
            self._gates[way].set()

    def cut_after(self, count: int, direction: Direction = "up") -> None:
        """Pass on *count* more bytes of one direction, of all connections together, then `cut`."""
        self._budgets[direction] = count

    def swallow_replies(
        self, every: int = 1, *, when: Callable[[bytes], bool] | None = None
    ) -> None:
        """Lose every n-th piece that the server sends, and cut its connection: the lost reply.

        Args:
            every: n; 1 loses the next piece and each after it, 0 loses none any more.
            when: counts only pieces for which it is true.
        """
        if not every:
            self._keep_reply = None
            return
        seen = 0

        def keep(piece: bytes) -> bool:
            nonlocal seen
            if when is None or when(piece):
                seen += 1
                return seen % every != 0
            return True

        self._keep_reply = keep

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # whoever it was has gone
        task = asyncio.get_running_loop().create_task(self._take(connection))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _take(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=connection)
        if self.refuse or self._closing:
            self.refused += 1
            reset_connection(writer)
            return
        link = _Link(writer)
        self._links.add(link)
        self.accepted += 1
        try:
            await self._serve(link, reader)
        except asyncio.CancelledError:
            if not link.was_reset:  # else it was `_reset` that ended the pumps
                raise
        finally:
            self._links.discard(link)
            link.close()

    async def _serve(self, link: _Link, reader: asyncio.StreamReader) -> None:
        try:
            answers, link.server = await self._connect()
        except OSError:
            reset_connection(link.client)
            return
        if link.client.is_closing():
            return
        for writer in (link.client, link.server):
            # Nothing waits in our own buffers: what was counted as passed on has left.
            writer.transport.set_write_buffer_limits(0)
        async with asyncio.TaskGroup() as pumps:
            pumps.create_task(self._pump("up", link, reader, link.server))
            pumps.create_task(self._pump("down", link, answers, link.client))

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._server, str):
            return await asyncio.open_unix_connection(self._server)
        return await asyncio.open_connection(*self._server)

    async def _pump(
        self, way: Direction, link: _Link, reader: asyncio.StreamReader, to: asyncio.StreamWriter
    ) -> None:
        try:
            while piece := await reader.read(_CHUNK):
                if self.delay or self.jitter or self.throttle:
                    await asyncio.sleep(self._slowness(len(piece)))
                await self._gates[way].wait()
                await self._pass_on(way, link, piece, to)
            if not to.is_closing():  # to which uvloop would have an error of its own
                to.write_eof()
        except OSError:  # one side is gone: so is the other, for its peer
            self._reset(link)
        except RuntimeError:  # uvloop's word for the same
            if not to.is_closing():
                raise
            self._reset(link)

    async def _pass_on(
        self, way: Direction, link: _Link, piece: bytes, to: asyncio.StreamWriter
    ) -> None:
        passed = self._passed(way, piece)
        if passed:
            to.write(passed)
            await to.drain()
        if self._budgets[way] == 0:
            self._budgets[way] = None
            self.cut()
        elif len(passed) < len(piece):
            self._reset(link)

    def _passed(self, way: Direction, piece: bytes) -> bytes:
        """What of *piece* is passed on; where it is less than all, the connection is cut."""
        if way == "down" and self._keep_reply is not None and not self._keep_reply(piece):
            return b""
        budget = self._budgets[way]
        if budget is not None:
            piece = piece[:budget]
            self._budgets[way] = budget - len(piece)
        if way == "up":
            self.bytes_up += len(piece)
        else:
            self.bytes_down += len(piece)
        return piece

    def _slowness(self, size: int) -> float:
        """Seconds that a piece of *size* bytes is held."""
        pace = size / self.throttle if self.throttle else 0.0
        return self.delay + random.random() * self.jitter + pace

    def _reset(self, link: _Link) -> None:
        if not link.was_reset:
            self.resets += 1
            link.reset()


class _Link:
    """One client's connection, and ours to the server for it; made by the task that serves it."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.client = client
        self.server: asyncio.StreamWriter | None = None
        self.was_reset = False
        task = asyncio.current_task()
        assert task is not None
        self.task = task

    def reset(self) -> None:
        """Reset both sides, and end what serves them."""
        self.was_reset = True
        for writer in self._both():
            reset_connection(writer)
        self.task.cancel()

    def close(self) -> None:
        """Close both sides in order."""
        for writer in self._both():
            writer.close()

    def _both(self) -> list[asyncio.StreamWriter]:
        return [self.client] if self.server is None else [self.client, self.server]


def reset_connection(writer: asyncio.StreamWriter) -> None:
    """Close so that the peer sees a reset, not an end."""
    raw: socket.socket | None = writer.get_extra_info("socket")
    if raw is not None and raw.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):  # closed already
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()
