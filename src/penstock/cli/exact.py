"""Exact: entries stored as they are, field by field.

Does        append flat fields, pipelined, through the backend's own port.
Does not    encode: `Stream.writer` does, and cannot repeat a field or leave metadata as it was.
Invariants  1. order in is order out; what is pending is bounded in batches.
            2. nothing over the client's limit is sent.
Used by     ``append --events``, whose copies differ in nothing but positions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

from penstock import ConfigError, PayloadTooLarge, PenstockError, Stream
from penstock.ports import Appender, AppendOptions, Stored

BATCH_EVENTS: Final = 500
"""Events of a batch: the same as a writer's."""

BATCH_BYTES: Final = 256 * 1024
"""Bytes of a batch: the same as a writer's."""

FLYING: Final = 20
"""Batches without an outcome: the same 10 000 events as a writer's."""


class ExactWriter:
    """Appends flat fields to *stream*; use it with ``async with``, which opens the session."""

    def __init__(self, stream: Stream[Any]) -> None:
        self._stream = stream
        self._appender: Appender | None = None
        self._batch: list[list[Any]] = []
        self._size = 0
        self._flying: set[asyncio.Future[Sequence[Stored]]] = set()
        self._error: BaseException | None = None
        self.sent = self.stored = 0

    async def __aenter__(self) -> Self:
        form = await self._stream.format()
        if self._stream.shards > 1:
            raise ConfigError(
                f"append --events needs an unsharded stream, {self._stream.name!r} has "
                f"{self._stream.shards} shards; write a program that places them by key"
            )
        backend = self._stream.client.backend
        shard, marks = self._stream.shard(0), form.marks(1)
        self._appender = await backend.appender(shard, marks, AppendOptions())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self.flush()
        except PenstockError:
            if error is None:
                raise
        finally:
            if self._appender is not None:
                await self._appender.aclose()

    async def send(self, fields: list[Any]) -> None:
        """Send one entry; waits only while there is no room.

        Raises:
            PayloadTooLarge: nothing of it was sent.
            PenstockError: an earlier entry was not stored; this one was not sent.
        """
        size = sum(len(part) if isinstance(part, (bytes, str)) else 20 for part in fields)
        limit = self._stream.client.max_event_bytes
        if size * 4 > limit:
            size = sum(len(_bytes(part)) for part in fields)
        if size > limit:
            text = f"an event must be at most {limit} bytes, got {size}; nothing of it was sent"
            raise PayloadTooLarge(text, size=size, limit=limit)
        self._batch.append(fields)
        self._size += size
        self.sent += 1
        if len(self._batch) >= BATCH_EVENTS or self._size >= BATCH_BYTES:
            await self.push()

    async def push(self) -> None:
        """Send what has gathered; waits only while there is no room."""
        while len(self._flying) >= FLYING:
            await asyncio.wait(self._flying, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0)  # the outcomes are told in callbacks
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        self._submit()

    async def flush(self) -> None:
        """Wait until all is stored.

        Raises:
            PenstockError: something was not, or nobody knows.
        """
        if self._error is None:
            self._submit()
        if self._flying:
            await asyncio.wait(self._flying)
            await asyncio.sleep(0)
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _submit(self) -> None:
        if not self._batch or self._appender is None:
            return
        batch, self._batch = self._batch, []
        self._size = 0
        future = self._appender.submit(batch)
        self._flying.add(future)
        future.add_done_callback(lambda done: self._on_done(len(batch), done))

    def _on_done(self, count: int, future: asyncio.Future[Sequence[Stored]]) -> None:
        self._flying.discard(future)
        error = future.exception()
        if error is None:
            self.stored += count
        else:
            self._error = self._error or error


def _bytes(part: Any) -> bytes:
    if isinstance(part, bytes):
        return part
    return str(part).encode("utf-8", "surrogateescape")
