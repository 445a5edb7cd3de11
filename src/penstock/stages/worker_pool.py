"""Who does the work: tasks of the event loop, threads, or worker processes.

Does        hand an event to one of them, with a future of the result.
Does not    know stages, demand or restarts (`crew`).
Invariants  1. after `close` nothing of it runs any more; but for threads that did not end in time,
               which nothing can stop: they are counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent import futures
from inspect import isawaitable, iscoroutine, iscoroutinefunction
from typing import Any, Final, Literal, Protocol

from penstock.errors import ConfigError, StageError

On = Literal["tasks", "threads", "processes"]
"""Where work is done."""

ONS: Final = ("tasks", "threads", "processes")


class Pool(Protocol):
    """Does work."""

    async def open(self) -> None:
        """Get ready; where this fails, nothing is left of it."""
        ...

    def submit(self, event: Any, name: str) -> asyncio.Future[Any]:
        """Begin with *event*; the future's cancellation asks to leave it. Raises: not begun."""
        ...

    async def close(self, seconds: float | None) -> int:
        """End, within *seconds* where it cannot be forced; how much still runs all the same."""
        ...


class Tasks:
    """A task of the event loop for each event.

    Args:
        work: ``def`` or ``async def``; the former runs inline, and holds up the loop.
    """

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self._work = work

    async def open(self) -> None:
        """Nothing to do."""

    def submit(self, event: Any, name: str) -> asyncio.Future[Any]:
        """Make a task of it."""
        return asyncio.get_running_loop().create_task(self._do(event), name=f"penstock {name}")

    async def close(self, seconds: float | None) -> int:
        """Whoever submitted waits for the tasks: nothing to do."""
        return 0

    async def _do(self, event: Any) -> Any:
        result = self._work(event)
        return await result if isawaitable(result) else result


class Threads:
    """A pool of threads of its own. A function that runs in a thread cannot be stopped.

    Args:
        work: a plain function.
        size: how many threads; None: as many as `ThreadPoolExecutor` takes.

    Raises:
        ConfigError: a coroutine function.
    """

    def __init__(self, work: Callable[[Any], Any], size: int | None) -> None:
        if iscoroutinefunction(work):
            raise ConfigError(f"{named(work)} is a coroutine function: it runs on='tasks'")
        self._work = work
        self._size = size
        self._executor: futures.ThreadPoolExecutor | None = None
        self._running: set[futures.Future[Any]] = set()

    async def open(self) -> None:
        """Make the pool; its threads start as they are needed."""
        self._executor = futures.ThreadPoolExecutor(self._size, thread_name_prefix="penstock")

    def submit(self, event: Any, name: str) -> asyncio.Future[Any]:
        """Queue it for a thread."""
        if self._executor is None:
            raise StageError(
                f"there are no threads for {named(self._work)} now: the stage is not open"
            )
        future = self._executor.submit(self._do, event)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return asyncio.wrap_future(future)

    async def close(self, seconds: float | None) -> int:
        """Drop what waits, and let what runs end."""
        executor, self._executor = self._executor, None
        if executor is None:
            return 0
        executor.shutdown(wait=False, cancel_futures=True)
        ends = [asyncio.wrap_future(future) for future in list(self._running)]
        try:
            if ends and seconds != 0:
                await asyncio.wait(ends, timeout=seconds)
        finally:
            for end in ends:
                end.cancel()
        for end in ends:
            if not end.cancelled():
                end.exception()  # looked at: whoever wanted it has gone
        return sum(future.running() for future in list(self._running))

    def _do(self, event: Any) -> Any:
        result = self._work(event)
        if iscoroutine(result):
            result.close()
            raise StageError(f"{named(self._work)} returned a coroutine: it runs on='tasks'")
        return result


def check_pool(on: str, workers: int | None, max_bytes: int) -> None:
    """Raise ConfigError for options that make no sense."""
    if on not in ONS:
        raise ConfigError(f"on must be one of {', '.join(ONS)}; got {on!r}")
    if workers is not None:
        if on == "tasks":
            raise ConfigError("workers= is for threads and processes; max_demand bounds tasks")
        if type(workers) is not int or workers < 1:
            raise ConfigError(f"workers must be a whole number, at least 1; got {workers!r}")
    if type(max_bytes) is not int or not 1 <= max_bytes < 1 << 31:
        raise ConfigError(f"max_bytes must be from 1 to 2 GiB; got {max_bytes!r}")


def named(work: Any) -> str:
    """What *work* is called in errors and signals."""
    return getattr(work, "__qualname__", None) or type(work).__name__
