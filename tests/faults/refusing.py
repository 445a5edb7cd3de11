"""A server that stands and refuses: every command gets the same error reply, and is counted."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Self


class RefusingProxy:
    """Before one server; passes everything on until it is told to refuse.

    Attributes:
        refusal: the error that every command gets, without its dash; None: all is passed on.
        refused: the commands that were refused, by name.
        connections: how many connections came.
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.refusal: str | None = None
        self.refused: Counter[str] = Counter()
        self.connections = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        self.connections += 1
        answers, server = await asyncio.open_connection("127.0.0.1", self._server_port)
        self._writers += [back, server]
        self._run(self._pass_on(client, back, server))
        self._run(_copy(answers, back))

    def _run(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pass_on(
        self,
        client: asyncio.StreamReader,
        back: asyncio.StreamWriter,
        server: asyncio.StreamWriter,
    ) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                raw, name = await _command(client)
                if self.refusal is None:
                    server.write(raw)
                else:
                    self.refused[name] += 1
                    back.write(f"-{self.refusal}\r\n".encode())
        server.transport.abort()
        back.transport.abort()


async def _command(reader: asyncio.StreamReader) -> tuple[bytes, str]:
    """One command, as it came and by its name."""
    head = await reader.readuntil(b"\r\n")
    raw, name = [head], ""
    for at in range(int(head[1:])):
        size = await reader.readuntil(b"\r\n")
        value = await reader.readexactly(int(size[1:]) + 2)
        raw += [size, value]
        if at == 0:
            name = value[:-2].decode().upper()
    return b"".join(raw), name


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(1 << 16):
            writer.write(piece)
    writer.transport.abort()
