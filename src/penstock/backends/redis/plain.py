"""PlainAppender: bare pipelined XADDs, for servers and users that want no session.

Does        append in order at the least cost (``idempotent=False``).
Does not    send anything again: a connection that breaks leaves OutcomeUnknown.
Invariants  1. a batch without a reply is unknown, never repeated.
            2. batches are sent in the order of their submission; what waits behind an unknown one
               is not sent, nor what comes before its sender has heard.
            3. before the first batch on a connection the marks are looked at again: a stream that
               had no event may have come to be in shards.
            4. nothing waits longer than `timeout` seconds for its outcome.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

from penstock.backends.redis.edge import ReplyError, refused, unavailable
from penstock.backends.redis.keys import Keys
from penstock.backends.redis.link import Link
from penstock.backends.redis.opening import open_bare, open_session
from penstock.backends.redis.wire import Arg, Wire
from penstock.errors import (
    BackendError,
    BackendRejected,
    ClosedError,
    ConfigError,
    OutcomeUnknown,
    PenstockError,
)
from penstock.event import Position
from penstock.ports import AppendOptions, Fields, Marks, Stored, Terms

_LOOK: Final = 0.5
"""Seconds between looks at the time, while anything is without an outcome."""


_ORDER: Final = "not sent, to keep the order: an earlier append has no outcome"


class PlainAppender:
    """Appends without a session. Arguments as for `RedisAppender`."""

    def __init__(self, link: Link, keys: Keys, marks: Marks, options: AppendOptions) -> None:
        self._link = link
        self._keys = keys
        self._marks = marks
        self._options = options
        self._waiting: deque[_Batch] = deque()
        self._flying: deque[_Batch] = deque()
        self._connecting: asyncio.Task[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._wire: Wire | None = None
        self._closed = self._unheard = False

    async def open(self) -> None:
        """See that the stream is what the marks say.

        Raises:
            ConfigError: the stream has other marks.
            BackendError: refused, or not reachable.
        """
        try:
            await open_session(self._link, self._keys, self._marks, self._options, "none", 0)
        except BackendRejected as error:
            if "NOPERM" not in str(error):
                raise
            await open_bare(self._link, self._keys, self._marks, self._options, error)

    def submit(
        self,
        batch: Sequence[Fields],
        timeout: float | None = None,
        terms: Mapping[int, Terms] | None = None,
    ) -> asyncio.Future[Sequence[Stored]]:
        """Send *batch* behind all others; see `ports.Appender.submit`. *terms* need a session."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Sequence[Stored]] = loop.create_future()
        if terms:
            future.set_exception(
                ConfigError("terms must be judged in a session, got idempotent=False")
            )
            return future
        if self._closed:
            future.set_exception(ClosedError("the appender was closed; nothing was sent"))
            return future
        if self._unheard:
            future.set_exception(OutcomeUnknown(_ORDER, unsent=len(batch)))
            return future
        flags: tuple[Arg, ...] = ("NOMKSTREAM",) if self._options.only_if_exists else ()
        commands = [("XADD", self._keys.stream, *flags, "*", *fields) for fields in batch]
        due = loop.time() + (self._options.timeout if timeout is None else timeout)
        self._waiting.append(_Batch(commands, future, due))
        if self._watch is None:
            self._watch = loop.call_later(_LOOK, self._look)
        self._pump()
        return future

    async def aclose(self) -> None:
        """Refuse later batches; what has no outcome fails."""
        self._closed = True
        if self._watch is not None:
            self._watch.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        self._fail_all(ClosedError("the appender was closed"))

    def _pump(self) -> None:
        """Send what waits, or connect first."""
        if self._connecting is not None or not self._waiting:
            return
        if self._wire is None or not self._wire.alive:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())
            return
        while self._waiting:
            batch = self._waiting.popleft()
            self._flying.append(batch)
            replies = self._wire.send_many(batch.commands)
            replies.add_done_callback(lambda done, batch=batch: self._on_reply(batch, done))

    async def _connect(self) -> None:
        try:
            wire = await self._link.wire(self._options.timeout)
            await self.open()
            self._wire = wire
        except PenstockError as error:
            self._fail_all(error)
        finally:
            self._connecting = None
        self._pump()

    def _on_reply(self, batch: _Batch, done: asyncio.Future[list[Any]]) -> None:
        error = None if done.cancelled() else done.exception()
        if batch not in self._flying:
            return
        if done.cancelled() or error is not None:
            self._fail_all(error or ClosedError("cancelled"))
            return
        self._flying.remove(batch)
        replies = done.result()
        failures = [reply for reply in replies if isinstance(reply, ReplyError)]
        if None in replies:
            failures.append(ReplyError(f"NOGROUP no such key {self._keys.stream!r}"))
        if failures:
            stored = len(replies) - sum(r is None or isinstance(r, ReplyError) for r in replies)
            batch.fail(self._partly(failures[0], stored, len(replies) - stored))
        elif not batch.future.done():
            batch.future.set_result([Position.of(reply) for reply in replies])

    def _look(self) -> None:
        """Twice a second, while anything is without an outcome: is it taking too long?"""
        self._watch = None
        oldest = (self._flying or self._waiting or (None,))[0]
        if oldest is None:
            return
        loop = asyncio.get_running_loop()
        if loop.time() > oldest.due:
            if self._wire is not None:
                self._wire.end(TimeoutError("no answer in time"))
            self._fail_all(TimeoutError("no answer in time"))
        self._watch = loop.call_later(_LOOK, self._look)

    def _fail_all(self, cause: BaseException) -> None:
        """What was sent is unknown, what was not is not stored."""
        flying, self._flying = self._flying, deque()
        waiting, self._waiting = self._waiting, deque()
        mapped = cause
        if not isinstance(cause, PenstockError):
            place = self._link.address.place
            mapped = unavailable(cause, place, verb="append to", key=self._keys.stream)
        if flying:
            self._unheard = True
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._heard_of)  # behind what the futures call
        for batch in flying:
            text = f"{len(batch.commands)} appends have no outcome: {mapped}"
            batch.fail(OutcomeUnknown(text, unknown=len(batch.commands)))
        for batch in waiting:
            unsent = OutcomeUnknown(_ORDER, unsent=len(batch.commands))
            batch.fail(unsent if flying else mapped)

    def _heard_of(self) -> None:
        """Whoever had sent what is unknown has been told: from now on he knows what he does."""
        self._unheard = False

    def _partly(self, error: ReplyError, stored: int, failed: int) -> Exception:
        mapped: BackendError = refused(error, verb="append to", key=self._keys.stream)
        if not stored:
            return mapped
        text = f"{failed} of {stored + failed} appends were refused: {mapped}"
        return OutcomeUnknown(text, stored=stored, unsent=failed)


class _Batch:
    """Commands that are sent together, and who waits for them until when."""

    __slots__ = ("commands", "due", "future")

    def __init__(
        self,
        commands: list[tuple[Arg, ...]],
        future: asyncio.Future[Sequence[Stored]],
        due: float,
    ) -> None:
        self.commands = commands
        self.future = future
        self.due = due

    def fail(self, error: BaseException) -> None:
        """It is not, or may not be, stored."""
        if not self.future.done():
            self.future.set_exception(error)
