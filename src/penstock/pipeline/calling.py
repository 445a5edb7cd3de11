"""Calling: how a handler's function is run: in a task, or in a thread of its own.

Does        call it, and give its result or raise its error.
Does not    know events, groups or retries.
Invariants  1. at most `size` threads for a handler, however many of its calls hang.
            2. the threads are daemons: a call that never returns holds up neither a drain nor the
               end of the program.
            3. each call has a task and a context of its own: what it cancels is itself, what it
               binds in context variables is gone with it.
            4. whatever a call raises is raised where it is awaited, and nowhere else: a
               `SystemExit` ends no event loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, NamedTuple, Protocol


class Deadline:
    """When a call is cancelled.

    Args:
        when: in the event loop's time, in seconds; it may be put off.
    """

    __slots__ = ("expired", "when")

    def __init__(self, when: float) -> None:
        self.when = when
        self.expired = False


class Calls(Protocol):
    """Runs one handler's calls."""

    @property
    def left(self) -> int:
        """Calls that still run although nobody waits for them."""
        ...

    async def call(self, argument: Any, late: Deadline) -> Any:
        """The function's result. Cancelled: a coroutine is cancelled, a thread goes on.

        Args:
            argument: what the function is called with.
            late: cancels a coroutine when its time is over; a thread takes no notice.
        """
        ...

    def makes(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether *task* is one of the calls."""
        ...

    def close(self) -> None:
        """No more calls; threads end as they get idle."""
        ...


class Coroutines:
    """An ``async def``, each call in a task of its own.

    Args:
        function: what is called.
        name: what the tasks are called.
    """

    left = 0

    def __init__(self, function: Callable[[Any], Awaitable[Any]], name: str) -> None:
        self._function = function
        self._name = f"penstock-call-{name}"
        self._calls: dict[asyncio.Task[_Ended], Deadline] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def call(self, argument: Any, late: Deadline) -> Any:
        """Await it, in a task.

        Raises:
            asyncio.CancelledError: also where *late* has expired.
        """
        loop = asyncio.get_running_loop()
        call = loop.create_task(self._run(argument), name=self._name)
        self._calls[call] = late
        if self._timer is None:
            self._timer = loop.call_at(late.when, self._look)
        try:
            value, error = await call
        finally:
            del self._calls[call]
        if error is not None:
            raise error
        return value

    def makes(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether *task* is one of the calls."""
        return task in self._calls

    def close(self) -> None:
        """Nobody needs to look any more: who closes has cancelled what still ran."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        """Cancel what is late. One timer serves all calls, as few of them live to see it."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for call, late in self._calls.items():
            if late.when <= now and not late.expired:
                late.expired = True
                call.cancel()
        waits = [late.when for late in self._calls.values() if not late.expired]
        self._timer = loop.call_at(min(waits), self._look) if waits else None

    async def _run(self, argument: Any) -> _Ended:
        try:
            return await self._function(argument), None
        except SystemExit as error:  # it would leave the loop at once, and with it everything
            return None, error
        except GeneratorExit as error:  # raised on, it would mean that a coroutine is closed
            return None, _raised(error)


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
        self._abandoned: set[asyncio.Future[_Ended]] = set()

    @property
    def left(self) -> int:
        """Calls that still run although nobody waits for them."""
        return len(self._abandoned)

    async def call(self, argument: Any, late: Deadline) -> Any:
        """Run it in a thread. Cancelled: the thread goes on, and its result is dropped."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[_Ended] = loop.create_future()
        self._busy += 1
        self._jobs.put(_Job(loop, result, contextvars.copy_context(), argument))
        if self._busy > self._started and self._started < self._size:
            self._started += 1
            threading.Thread(
                target=self._work, name=f"penstock {self._name} {self._started}", daemon=True
            ).start()
        try:
            value, error = await result
        except asyncio.CancelledError:
            self._abandoned.add(result)
            raise
        if error is not None:
            raise error
        return value

    def makes(self, task: asyncio.Task[Any] | None) -> bool:
        """A thread is no task."""
        return False

    def close(self) -> None:
        """No more calls: each thread ends when it gets to it."""
        for _ in range(self._started):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            ended = self._run(job)
            with suppress(RuntimeError):  # the loop has ended: nobody waits any more
                job.loop.call_soon_threadsafe(self._done, job.result, ended)
            del job, ended  # an idle thread keeps nothing

    def _run(self, job: _Job) -> _Ended:
        try:
            return job.context.run(self._function, job.argument), None
        except (StopIteration, GeneratorExit, KeyboardInterrupt) as error:
            return None, _raised(error)
        except BaseException as error:  # noqa: BLE001 - it is raised where the call is awaited
            return None, error

    def _done(self, result: asyncio.Future[_Ended], ended: _Ended) -> None:
        self._busy -= 1
        self._abandoned.discard(result)
        if not result.done():  # else it was cancelled meanwhile
            result.set_result(ended)


_Ended = tuple[Any, BaseException | None]
"""How a call has ended: what it returned, or what it raised."""


class _Job(NamedTuple):
    """One call to make."""

    loop: asyncio.AbstractEventLoop
    result: asyncio.Future[_Ended]
    context: contextvars.Context
    argument: Any


def _raised(error: BaseException) -> RuntimeError:
    """What stands for an error that means something else to whoever awaits."""
    stands = RuntimeError(f"the handler raised {error!r}")
    stands.__cause__ = error
    return stands


def calls_of(function: Callable[[Any], Any], *, threaded: bool, size: int, name: str) -> Calls:
    """What runs the calls of *function*."""
    return Threads(function, size, name) if threaded else Coroutines(function, name)
