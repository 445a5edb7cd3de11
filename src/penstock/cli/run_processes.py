"""The parent of ``penstock run --processes N``: it keeps N workers running.

Does        start workers, start them again when they die, drain and end them.
Does not    import the user's module, or connect anywhere.
Invariants  1. a worker that dies starts again, after a pause that grows to half a minute; one that
               never lasts is given up, and everything with it. Where only the server is away, it
               is tried for ever.
            2. the first worker runs before the others are started: what is wrong is said once.
            3. workers are in sessions of their own: Ctrl-C reaches the parent alone, which drains
               them; when it dies, they notice (`run_worker.py`).
            4. it does not end before they have ended.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from asyncio.subprocess import Process
from contextlib import suppress
from typing import Final

import msgspec

from penstock.cli.run_worker import ENDED, LATEST, UNREACHABLE, WORKER, WorkerTask
from penstock.clock import Backoff

STEADY: Final = 10.0
"""Seconds that a worker must have lasted to count as one that works."""

GIVE_UP: Final = 5
"""Workers that did not last, one after the other in one place, after which nothing helps."""

SILENT: Final = 70
"""The code of a worker that ended with 0 and without a word: EX_SOFTWARE."""

CUT: Final = 3.0
"""Seconds that workers get to hand back what they hold, at the second signal."""

_log = logging.getLogger("penstock.run")


def keep_running(target: str, count: int, url: str | None, drain: float, log_level: str) -> int:
    """Run *count* workers until they are told to end; the exit code."""
    parent = _Parent(target, count, url, drain, log_level)
    with asyncio.Runner() as runner:
        return runner.run(parent.run())


class _Parent:
    """Keeps the workers."""

    def __init__(
        self, target: str, count: int, url: str | None, drain: float, log_level: str
    ) -> None:
        self._command = [sys.executable, "-m", "penstock", "run", target]
        self._command += ["--drain", str(drain), "--log-level", log_level]
        self._count = count
        self._url = url
        self._drain = drain
        self._workers: dict[int, Process] = {}
        self._stopping = asyncio.Event()
        self._signals = 0
        self._code = 0
        self._read, self._write = os.pipe()

    async def run(self) -> int:
        """Until all workers have ended for good."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal, int(number))
        ready = asyncio.Event()
        first = asyncio.create_task(self._keep(1, ready))
        rest = asyncio.create_task(self._keep_rest(first, ready))
        try:
            await asyncio.gather(first, rest)
        finally:
            self._send(signal.SIGKILL)  # nobody is left but where this was interrupted
        return self._code

    async def _keep_rest(self, first: asyncio.Task[None], ready: asyncio.Event) -> None:
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait((first, waiting), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if ready.is_set() and not self._stopping.is_set():
            await asyncio.gather(
                *(self._keep(number, asyncio.Event()) for number in range(2, self._count + 1))
            )

    async def _keep(self, number: int, ready: asyncio.Event) -> None:
        """Keep one worker running."""
        backoff, short = Backoff(first=0.1, cap=30.0), 0
        while not self._stopping.is_set():
            began = time.monotonic()
            code = await self._one(number, ready)
            if self._stopping.is_set() or code == 0:
                self._code = self._code or code
                return
            if code == 2:
                self._stop(2)
                return
            if time.monotonic() - began >= STEADY:
                backoff, short = Backoff(first=0.1, cap=30.0), 0
            short += code != UNREACHABLE
            if short >= GIVE_UP:
                _log.error(
                    "worker %d has died %d times in a row within %g s of its start: giving up",
                    *(number, short, STEADY),
                )
                self._stop(1)
                return
            pause = backoff.next()
            _log.warning("worker %d %s; it starts again in %.1f s", number, _ending(code), pause)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()

    async def _one(self, number: int, ready: asyncio.Event) -> int:
        """Run one worker to its end; its exit code."""
        told, tell = os.pipe()
        task = WorkerTask(number, self._count, self._read, tell, self._url)
        try:
            worker = await asyncio.create_subprocess_exec(
                *self._command,
                env={**os.environ, WORKER: msgspec.json.encode(task).decode()},
                pass_fds=(self._read, tell),
                start_new_session=True,
            )
        finally:
            os.close(tell)
        self._workers[number] = worker
        _log.info("worker %d is process %d", number, worker.pid)
        if self._stopping.is_set():  # it was told to the others while this one was started
            self._send(signal.SIGTERM, number)
        loop = asyncio.get_running_loop()
        loop.add_reader(told, self._on_ready, told, ready)
        try:
            returned = await worker.wait()
            if self._stopping.is_set() and returned == -signal.SIGTERM:
                return 0  # it had not begun yet
            if returned == 0 and not self._stopping.is_set() and ENDED not in _rest(told):
                return SILENT
            return _code(returned)
        finally:
            loop.remove_reader(told)
            os.close(told)
            del self._workers[number]

    @staticmethod
    def _on_ready(told: int, ready: asyncio.Event) -> None:
        asyncio.get_running_loop().remove_reader(told)
        if os.read(told, 1):
            ready.set()

    def _on_signal(self, number: int) -> None:
        self._signals += 1
        if self._signals == 1:
            _log.info("draining %d workers, for %g s at most", len(self._workers), self._drain)
            self._stop(0)
            return
        self._code = 128 + number
        _log.warning("ending now: what is held is handed back")
        self._send(signal.SIGTERM)
        asyncio.get_running_loop().call_later(CUT, self._send, signal.SIGKILL)

    def _stop(self, code: int) -> None:
        """Let all workers drain, and end those that do not."""
        self._code = self._code or code
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._send(signal.SIGTERM)
        late = self._drain + LATEST
        asyncio.get_running_loop().call_later(late, self._send, signal.SIGKILL)

    def _send(self, number: int, only: int | None = None) -> None:
        for place, worker in list(self._workers.items()):
            if only in (None, place):
                with suppress(ProcessLookupError):
                    worker.send_signal(number)


def _rest(told: int) -> bytes:
    """What a worker has told, and nobody has read; its own children may still have the pipe."""
    os.set_blocking(told, False)
    with suppress(BlockingIOError):
        return os.read(told, 16)
    return b""


def _code(returned: int) -> int:
    """As a shell says it."""
    return returned if returned >= 0 else 128 - returned


def _ending(code: int) -> str:
    if code > 128:
        with suppress(ValueError):
            return f"was ended by {signal.Signals(code - 128).name}"
    if code == SILENT:
        return "has left with exit code 0 before its App had ended"
    if code == UNREACHABLE:
        return "could not reach the server"
    return f"ended with exit code {code}"
