"""PlainAppender: bare pipelined XADDs, for servers and users that want no session.

Does        append in order at the least cost (``idempotent=False``).
Does not    send anything again: a connection that breaks leaves OutcomeUnknown.
Invariants  1. a batch without a reply is unknown, never repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from penstock.backends.redis.edge import ReplyError, refused, unavailable
from penstock.backends.redis.keys import Keys
from penstock.backends.redis.link import Link
from penstock.backends.redis.opening import open_session
from penstock.backends.redis.wire import Arg, Wire
from penstock.errors import BackendError, ClosedError, OutcomeUnknown
from penstock.event import Position
from penstock.ports import AppendOptions, Fields, Marks


class PlainAppender:
    """Appends without a session. Arguments as for `RedisAppender`."""

    def __init__(self, link: Link, keys: Keys, marks: Marks, options: AppendOptions) -> None:
        self._link = link
        self._keys = keys
        self._marks = marks
        self._options = options
        self._tail: asyncio.Task[Sequence[Position]] | None = None
        self._wire: Wire | None = None
        self._closed = False

    async def open(self) -> None:
        """See that the stream is what the marks say.

        Raises:
            ConfigError: the stream has other marks.
            BackendError: refused, or not reachable.
        """
        await open_session(self._link, self._keys, self._marks, self._options, "none", 0)
        self._wire = self._link.now

    def submit(self, batch: Sequence[Fields]) -> asyncio.Future[Sequence[Position]]:
        """Send *batch* now; the future has its positions, or says what became of it."""
        loop = asyncio.get_running_loop()
        if self._closed:
            future: asyncio.Future[Sequence[Position]] = loop.create_future()
            future.set_exception(ClosedError("the appender was closed; nothing was sent"))
            return future
        flags: tuple[Arg, ...] = ("NOMKSTREAM",) if self._options.only_if_exists else ()
        commands = [("XADD", self._keys.stream, *flags, "*", *fields) for fields in batch]
        if self._wire is not None and self._wire.alive:
            replies = self._wire.send_many(commands)
            task = loop.create_task(self._outcome(replies, len(batch)))
        else:
            task = loop.create_task(self._later(commands, self._tail))
            self._tail = task
        return task

    async def aclose(self) -> None:
        """Refuse later batches; what was sent is answered or fails by itself."""
        self._closed = True

    async def _later(
        self,
        commands: list[tuple[Arg, ...]],
        before: asyncio.Task[Sequence[Position]] | None,
    ) -> Sequence[Position]:
        """Connect first, behind what waits for the same."""
        if before is not None and not before.done():
            await asyncio.wait([before])
        self._wire = await self._link.wire(self._options.timeout)
        return await self._outcome(self._wire.send_many(commands), len(commands))

    async def _outcome(self, replies: asyncio.Future[list[Any]], count: int) -> Sequence[Position]:
        try:
            async with asyncio.timeout(self._options.timeout):
                done = await replies
        except (TimeoutError, Exception) as error:
            cause = unavailable(error, self._link.address.place, verb="append to")
            text = f"{count} appends to {self._keys.stream!r} have no outcome: {cause}"
            raise OutcomeUnknown(text, unknown=count) from error
        failures = [reply for reply in done if isinstance(reply, ReplyError)]
        if None in done:
            failures.append(ReplyError(f"NOGROUP no such key {self._keys.stream!r}"))
        if failures:
            raise self._partly(failures[0], stored=count - len(failures), failed=len(failures))
        return [Position.of(reply) for reply in done]

    def _partly(self, error: ReplyError, *, stored: int, failed: int) -> Exception:
        mapped: BackendError = refused(error, verb="append to", key=self._keys.stream)
        if not stored:
            return mapped
        text = f"{failed} of {stored + failed} appends were refused: {mapped}"
        return OutcomeUnknown(text, stored=stored, unsent=failed)
