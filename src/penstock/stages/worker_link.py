"""One worker process, as its parent sees it.

Does        start it, hand it events, settle their futures with its answers, notice its end.
Does not    choose who gets what, or start another one (`worker_processes`).
Invariants  1. answers come in the order of the events: what is in hand is a queue.
            2. when it has ended, nothing is in hand any more: what was, has failed with WorkerDied.
            3. it is in a session of its own: what a terminal sends the program does not reach it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import msgspec

from penstock.errors import PayloadTooLarge, StageError
from penstock.stages import worker_process
from penstock.stages.worker_process import FAILED, FULL, HEADER, TOO_LARGE, framed

AHEAD = 0.005
"""Seconds of work that are handed to a process ahead: so cheap events share the way there."""

MOST = 256
"""Events that are in one process's hand at most."""

SLACK = 4 * FULL
"""Bytes that a frame may be larger than one result: its other answers, and its own words."""

_frames = msgspec.msgpack.Decoder(tuple[float, list[tuple[int, msgspec.Raw]]]).decode
_failure = msgspec.msgpack.Decoder(tuple[str, str, str]).decode
_size = msgspec.msgpack.Decoder(int).decode
_encode = msgspec.msgpack.Encoder().encode


class WorkerDied(StageError):
    """The worker process ended, by itself or by force, with work in hand."""


class Job:
    """One event that is worked on: encoded, with the future of its result."""

    __slots__ = ("body", "future")

    def __init__(self, body: bytes, future: asyncio.Future[Any]) -> None:
        self.body = body
        self.future = future


class Link(asyncio.SubprocessProtocol):
    """A process, and the pipes to it.

    Args:
        greeting: what it is told first; see `worker_process.greeting`.
        limit: the most bytes of a result.
        decode: makes a result of its bytes.
        freed: called when it has answered.
        ended: called once, when it has ended.
    """

    def __init__(
        self,
        greeting: bytes,
        limit: int,
        decode: Callable[[Any], Any],
        freed: Callable[[], None],
        ended: Callable[[Link], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.in_hand: deque[Job] = deque()
        self.expected = False  # its end was asked for
        self.pid = 0
        self.end_told = ""  # how it ended
        self.over: asyncio.Future[None] = loop.create_future()
        self._ready: asyncio.Future[str] = loop.create_future()
        self._greeting = greeting
        self._limit = limit
        self._decode = decode
        self._freed = freed
        self._ended = ended
        self._buffer = bytearray()
        self._pace = 0.0  # seconds an event, by the last answers; 0: not known
        self._transport: asyncio.SubprocessTransport | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Start it, and wait until it has loaded the work.

        Raises:
            StageError: it cannot be started, or the work cannot be loaded there.
        """
        loop = asyncio.get_running_loop()
        command = (sys.executable, "-P", worker_process.__file__)
        # A task of its own, as a start that is cancelled half-way would leave a process that runs.
        starting = asyncio.ensure_future(
            loop.subprocess_exec(lambda: self, *command, stderr=None, start_new_session=True)
        )
        try:
            await asyncio.shield(starting)
            wrong = await self._ready
        except OSError as error:
            raise StageError(f"a worker process cannot be started: {error}") from error
        except BaseException:
            while not starting.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([starting])
            if starting.exception() is None:
                await self.end(kill=True)
            raise
        if wrong:
            await self.end(kill=True)
            raise StageError(f"a worker process cannot load the work: {wrong}")

    @property
    def room(self) -> int:
        """How many events more it should be handed."""
        cheap = 0 < self._pace < AHEAD
        window = min(MOST, 1 + int(AHEAD / self._pace)) if cheap else 1
        return window - len(self.in_hand)

    @property
    def usable(self) -> bool:
        """Whether it takes events."""
        return self._ready.done() and not self.expected and not self.over.done()

    def send(self, jobs: list[Job]) -> None:
        """Hand it *jobs*, in one frame."""
        self.in_hand.extend(jobs)
        self._write(_encode([msgspec.Raw(job.body) for job in jobs]))

    async def end(self, *, kill: bool, grace: float = 2.0) -> None:
        """Let it end, or kill it; returns when it has ended, also if cancelled."""
        self.expected = True
        cancelled = False
        if not kill:
            self._write(b"")
        while not self.over.done() and self._transport is not None:
            if kill:
                self.kill()
            try:
                await asyncio.wait([self.over], timeout=None if kill else grace)
            except asyncio.CancelledError:
                cancelled = True
            kill = True
        if cancelled:
            raise asyncio.CancelledError

    def kill(self) -> None:
        """Kill it; nothing is waited for."""
        self.expected = True
        if self._transport is not None:
            with contextlib.suppress(ProcessLookupError):
                self._transport.kill()

    # --- what the event loop calls ---------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It has been started."""
        self._transport = cast("asyncio.SubprocessTransport", transport)
        self.pid = self._transport.get_pid() or 0
        self._write(self._greeting)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Something came; take the frames that are complete."""
        buffer = self._buffer
        buffer += data
        while len(buffer) >= HEADER.size:
            size: int = HEADER.unpack_from(buffer)[0]
            if size > self._limit + SLACK:
                self._broken()
                return
            if len(buffer) < HEADER.size + size:
                return
            frame = bytes(buffer[HEADER.size : HEADER.size + size])
            del buffer[: HEADER.size + size]
            self._take(frame)

    def process_exited(self) -> None:
        """It has ended; a pipe that something else holds open is waited for no longer than this."""
        if self._transport is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(1.0, self._transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended, and all that it sent has come."""
        if self._timer is not None:
            self._timer.cancel()
        code: int | None = None
        if self._transport is not None:
            code = self._transport.get_returncode()
            self._transport.close()
        how = f"was killed by signal {-code}" if code and code < 0 else f"ended with code {code}"
        self.end_told = f"the worker process {self.pid} {how}"
        if not self._ready.done():
            self._ready.set_result(self.end_told)
        self.over.set_result(None)
        while self.in_hand:
            future = self.in_hand.popleft().future
            if not future.done():
                future.set_exception(WorkerDied(self.end_told))
        self._ended(self)

    # --- helpers ---------------------------------------------------------------------------------

    def _take(self, frame: bytes) -> None:
        if not self._ready.done():
            self._ready.set_result(frame.decode(errors="replace"))
            return
        try:
            seconds, answers = _frames(frame)
        except msgspec.MsgspecError:
            self._broken()
            return
        if not answers or len(answers) > len(self.in_hand):
            self._broken()
            return
        pace = max(seconds / len(answers), 1e-7)
        self._pace = (self._pace + pace) / 2 if self._pace else pace
        for kind, value in answers:
            future = self.in_hand.popleft().future
            if not future.done():
                self._settle(future, kind, value)
        self._freed()

    def _settle(self, future: asyncio.Future[Any], kind: int, value: Any) -> None:
        if kind == FAILED:
            name, text, trace = _failure(value)
            error = StageError(f"{name}: {text}" if text else name)
            error.add_note(f"In the worker process {self.pid}:\n{trace}")
            future.set_exception(error)
        elif kind == TOO_LARGE:
            size = _size(value)
            future.set_exception(
                PayloadTooLarge(
                    f"a result must be at most {self._limit} bytes to leave a worker process; "
                    f"this one has {size}",
                    size=size,
                    limit=self._limit,
                )
            )
        else:
            try:
                future.set_result(self._decode(value))
            except msgspec.MsgspecError as wrong:
                failure = StageError(f"the result is not of the type that the work says: {wrong}")
                failure.__cause__ = wrong
                future.set_exception(failure)

    def _broken(self) -> None:
        """It does not keep to the protocol: something else writes to its pipe."""
        self._buffer.clear()
        if self._transport is not None:
            with contextlib.suppress(ProcessLookupError):
                self._transport.kill()

    def _write(self, body: bytes) -> None:
        if self._transport is None or self.over.done():
            return
        pipe = cast("asyncio.WriteTransport | None", self._transport.get_pipe_transport(0))
        if pipe is not None and not pipe.is_closing():
            pipe.write(framed(body))
