"""Calling: how a handler's function is run: awaited, or in a thread of its own.

Does        call it, and give its result or raise its error.
Does not    know events, groups or retries.
Invariants  1. at most `size` threads for a handler, however many of its calls hang.
            2. the threads are daemons: a call that never returns holds up neither a drain nor the
               end of the program.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from inspect import iscoroutine
from queue import SimpleQueue
from typing import Any, NamedTuple, Protocol

from penstock.errors import ConfigError


class Calls(Protocol):
    """Runs one handler's calls."""

    @property
    def left(self) -> int:
        """Calls that still run although nobody waits for them."""
        ...

    async def call(self, argument: Any) -> Any:
        """The function's result. Cancelled: a coroutine is cancelled, a thread goes on."""
        ...

    def close(self) -> None:
        """No more calls; threads end as they get idle."""
        ...


class Coroutines:
    """An ``async def``, awaited where it is called."""

    left = 0

    def __init__(self, function: Callable[[Any], Awaitable[Any]]) -> None:
        self._function = function

    async def call(self, argument: Any) -> Any:
        """Await it."""
        return await self._function(argument)

    def close(self) -> None:
        """Nothing to do."""


class Threads:
    """A plain ``def``, in threads that start as they are needed.

    Args:
        function: what is called.
        size: how many threads there are at most.
        name: what they are called.
    """

    def __init__(self, function: Callable[[Any], Any], size: int, name: str) -> None:
        self._function = function
        self._size = size
        self._name = name
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._started = 0
        self._busy = 0
        self._abandoned: set[asyncio.Future[Any]] = set()

    @property
    def left(self) -> int:
        """Calls that still run although nobody waits for them."""
        return len(self._abandoned)

    async def call(self, argument: Any) -> Any:
        """Run it in a thread. Cancelled: the thread goes on, and its result is dropped."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Any] = loop.create_future()
        self._busy += 1
        self._jobs.put(_Job(loop, result, contextvars.copy_context(), argument))
        if self._busy > self._started and self._started < self._size:
            self._started += 1
            threading.Thread(
                target=self._work, name=f"penstock {self._name} {self._started}", daemon=True
            ).start()
        try:
            return await result
        except asyncio.CancelledError:
            self._abandoned.add(result)
            raise

    def close(self) -> None:
        """No more calls: each thread ends when it gets to it."""
        for _ in range(self._started):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            value, error = self._run(job)
            with suppress(RuntimeError):  # the loop has ended: nobody waits any more
                job.loop.call_soon_threadsafe(self._done, job.result, value, error)
            del job, value, error  # an idle thread keeps nothing

    def _run(self, job: _Job) -> tuple[Any, BaseException | None]:
        try:
            value = job.context.run(self._function, job.argument)
        except StopIteration as error:  # no future takes it
            return None, RuntimeError(f"the handler raised {error!r}")
        except BaseException as error:  # noqa: BLE001 - it is raised where the call is awaited
            return None, error
        if iscoroutine(value):
            value.close()
            return None, ConfigError(
                f"handler {self._name} looks like a plain function and returned a coroutine: "
                f"write it as 'async def', or mark its wrapper with functools.wraps"
            )
        return value, None

    def _done(self, result: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
        self._busy -= 1
        self._abandoned.discard(result)
        if result.done():  # it was cancelled meanwhile
            return
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(value)


class _Job(NamedTuple):
    """One call to make."""

    loop: asyncio.AbstractEventLoop
    result: asyncio.Future[Any]
    context: contextvars.Context
    argument: Any


def calls_of(function: Callable[[Any], Any], *, threaded: bool, size: int, name: str) -> Calls:
    """What runs the calls of *function*."""
    return Threads(function, size, name) if threaded else Coroutines(function)
