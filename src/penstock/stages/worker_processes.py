"""Worker processes: several of them, that share the events of one stage.

Does        find out how the work is imported elsewhere, encode events, share them out, start
            another process where one has died, end all of them.
Does not    hold what one process is told (`worker_link`), or retry events (`crew`).
Invariants  1. values cross as MessagePack, functions by their import path: nothing is pickled.
            2. no process outlives `close`, also where that is cancelled.
            3. a process is handed what it has done in a few milliseconds, and not more: so cheap
               events share a frame, and no event waits behind another's long work for long.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from collections.abc import Callable
from functools import reduce
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

import msgspec

from penstock.errors import ConfigError, EncodeError, PayloadTooLarge, StageError
from penstock.stages.worker_link import Job, Link, WorkerDied
from penstock.stages.worker_process import FULL, LOADING, greeting, hints

_encode = msgspec.msgpack.Encoder().encode


class Processes:
    """The worker processes of one stage.

    Args:
        work: a function that can be imported.
        size: how many; None: one for each processor.
        limit: the most bytes of an event, and of a result.
        results: whether results are wanted.
        died: told that a process has died; whether there may be another one.
        failed: told that there cannot be one.

    Raises:
        ConfigError: the function cannot be imported elsewhere, or what it takes cannot cross.
    """

    def __init__(
        self,
        work: Callable[[Any], Any],
        size: int | None,
        limit: int,
        *,
        results: bool,
        died: Callable[[StageError], bool],
        failed: Callable[[StageError], None],
    ) -> None:
        self._place = import_path(work)
        decode = _decoder(work)
        self._decode = decode if results else _nothing
        self._size = size or os.cpu_count() or 1
        self._limit = limit
        self._results = results
        self._died = died
        self._failed = failed
        self._links: list[Link] = []
        self._waiting: deque[Job] = deque()
        self._starting: set[asyncio.Task[None]] = set()
        self._handing_out = False
        self._closed = False

    @property
    def pids(self) -> list[int]:
        """The processes that take events."""
        return [link.pid for link in self._links if link.usable]

    async def open(self) -> None:
        """Start all, and wait until they have loaded the work."""
        if os.environ.get(LOADING):
            raise ConfigError(
                "worker processes were started while the program's own file was loaded in one: "
                'put what runs it under `if __name__ == "__main__":`'
            )
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._size):
                    group.create_task(self._start())
        except BaseExceptionGroup as errors:
            await self.close(0)
            raise errors.exceptions[0] from None
        except BaseException:
            await self.close(0)
            raise

    def submit(self, event: Any, name: str) -> asyncio.Future[Any]:
        """Let a process work on *event*.

        Raises:
            EncodeError, PayloadTooLarge: it cannot cross.
        """
        try:
            body = _encode(event)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise EncodeError(
                f"an event must be something that MessagePack can say to reach a worker process, "
                f"got {type(event).__name__}: {error}"
            ) from error
        if len(body) > self._limit:
            raise PayloadTooLarge(
                f"an event must be at most {self._limit} bytes to reach a worker process; this one "
                f"has {len(body)}",
                size=len(body),
                limit=self._limit,
            )
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.append(Job(body, future))
        if not self._handing_out:  # what else comes in this turn of the loop goes with it
            self._handing_out = True
            loop.call_soon(self._hand_out)
        return future

    async def close(self, seconds: float | None) -> int:
        """End all of them; those that still have work in hand are killed."""
        self._closed = True
        while self._waiting:
            self._waiting.popleft().future.cancel()
        for task in self._starting:
            task.cancel()
        ends = [link.end(kill=bool(link.in_hand)) for link in self._links]
        tasks = [*self._starting, *(asyncio.ensure_future(end) for end in ends)]
        cancelled = False
        while tasks := [task for task in tasks if not task.done()]:
            try:
                await asyncio.wait(tasks)
            except asyncio.CancelledError:
                cancelled = True
                for link in self._links:
                    link.kill()
        if cancelled:
            raise asyncio.CancelledError
        return 0

    # --- helpers ---------------------------------------------------------------------------------

    async def _start(self) -> None:
        words = greeting(self._place, self._limit, self._results, [str(one) for one in sys.path])
        link = Link(words, self._limit, self._decode, self._hand_out, self._lost)
        await link.start()
        self._links.append(link)
        self._hand_out()

    def _hand_out(self) -> None:
        """Give every process its share of what waits."""
        self._handing_out = False
        waiting = self._waiting
        links = [link for link in self._links if link.usable and link.room > 0]
        links.sort(key=lambda link: len(link.in_hand))
        for index, link in enumerate(links):
            others = len(links) - index
            share = min(link.room, -(-len(waiting) // others))
            size, jobs = 0, list[Job]()
            while waiting and len(jobs) < share and size < FULL:
                job = waiting.popleft()
                if not job.future.done():
                    jobs.append(job)
                    size += len(job.body)
            if jobs:
                link.send(jobs)

    def _lost(self, link: Link) -> None:
        """A process has ended."""
        if link not in self._links:
            return  # it never began
        self._links.remove(link)
        if self._closed:
            return
        if link.expected or self._died(WorkerDied(link.end_told)):
            task = asyncio.get_running_loop().create_task(self._replace(), name="penstock worker")
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)
        else:
            self._give_up()

    async def _replace(self) -> None:
        try:
            await self._start()
        except StageError as error:
            self._failed(error)
            self._give_up()

    def _give_up(self) -> None:
        """There will be no other process: where none is left, nothing is begun any more."""
        while self._waiting and not self._links:
            self._waiting.popleft().future.cancel()


def import_path(work: Callable[[Any], Any]) -> tuple[str, str, str]:
    """The module, the file (of a program's own module) and the name by which *work* is imported.

    Raises:
        ConfigError: it cannot be imported; the message says what to do.
    """
    name: str = getattr(work, "__qualname__", "")
    module: str = getattr(work, "__module__", None) or ""
    if not name or not module or "<" in name:
        raise ConfigError(
            f"work for processes must be a function that can be imported: define it with `def` at "
            f"the top of a module; got {work!r}"
        )
    if iscoroutinefunction(work):
        raise ConfigError(f"{name} is a coroutine function: it runs on='tasks', not in processes")
    try:
        found = reduce(getattr, name.split("."), sys.modules[module])
    except (KeyError, AttributeError):
        found = None
    if found is not work:
        raise ConfigError(
            f"{module}:{name} must lead to the work itself, so that a process can import it: give "
            f"a function by the name that it was defined with, no method of an instance; got "
            f"{work!r}"
        )
    return (*_main(name), name) if module == "__main__" else (module, "", name)


def _main(name: str) -> tuple[str, str]:
    """By what the program's own module can be had in another process."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:  # python -m
        return spec.name, ""
    file = getattr(main, "__file__", None)
    if file is None or not Path(file).is_file():
        raise ConfigError(
            f"{name} was defined in a session without a file, where no process can import it from: "
            f"put it into a module, and import it from there"
        )
    return "__main__", str(Path(file).resolve())


def _nothing(value: Any) -> None:
    """No result is wanted."""


def _decoder(work: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Makes values of what *work* returns; ConfigError where msgspec has no use for its types."""
    takes, returns = hints(work)
    try:
        msgspec.msgpack.Decoder(takes)
        return msgspec.msgpack.Decoder(returns).decode
    except TypeError as error:
        raise ConfigError(
            f"what {work.__qualname__} takes and returns must be of types that msgspec reads "
            f"(plain ones, Struct, dataclass, TypedDict): {error}"
        ) from error
