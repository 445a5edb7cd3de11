"""What the tests of streams share: conditions with deadlines, and events to count."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

from penstock import END, OLDEST, Client, Event, Position, Reader, Stream
from penstock.event import Shard
from penstock.ports import AppendOptions, Fields, Marks

PATIENCE = 20.0
"""Seconds for what should take a few hundredths of one; less than a lease, which mends much."""


async def soon(condition: Callable[[], Any], what: str, within: float = PATIENCE) -> None:
    """Return as soon as *condition* holds; fail after *within* seconds."""
    deadline = time.monotonic() + within
    while True:
        held = condition()
        if inspect.isawaitable(held):
            held = await held
        if held:
            return
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        await asyncio.sleep(0.005)


async def fill(stream: Stream[Any], count: int, first: int = 0) -> list[Position]:
    """Append the numbers from *first* on."""
    return await stream.append_many([{"n": n} for n in range(first, first + count)])


def number(event: Event[Any] | None) -> int:
    """The number that an event holds."""
    assert event is not None
    return int(event.value["n"])


def numbers(events: Iterable[Event[Any] | None]) -> list[int]:
    """The numbers that events hold."""
    return [number(event) for event in events]


async def put(client: Client, stream: str, *fields: str | bytes) -> None:
    """An entry around everything that is tested, as another program would write it."""
    if client.url.scheme == "memory":
        options, marks = AppendOptions(foreign=True), Marks("fields", "fields")
        appender = await client.backend.appender(Shard(stream), marks, options)
        await appender.submit([list(fields)])
        await appender.aclose()
    else:
        await client.redis.execute_command("XADD", stream, "*", *fields)


async def everything(stream: Stream[Any]) -> list[Event[Any]]:
    """All that the stream holds."""
    async with stream.reader(start=OLDEST, until=END) as reader:
        return [event async for event in reader]


async def take(source: AsyncIterator[Event[Any]], count: int) -> list[Event[Any]]:
    """The next *count* events."""
    async with asyncio.timeout(PATIENCE):
        return [await anext(source) for _ in range(count)]


async def nothing_comes(reader: Reader[Any] | Any, seconds: float = 0.15) -> None:
    """Fail if an event comes within *seconds*."""
    event = await reader.receive(seconds)
    assert event is None, f"nothing must come, got {event}"


class FakeAppender:
    """An appender whose outcomes are the test's."""

    def __init__(self) -> None:
        self.batches: list[Sequence[Fields]] = []
        self.futures: list[asyncio.Future[Sequence[Position]]] = []
        self.closed = False

    def submit(
        self, batch: Sequence[Fields], timeout: float | None = None
    ) -> asyncio.Future[Sequence[Position]]:
        """Take a batch; nothing becomes of it by itself."""
        future: asyncio.Future[Sequence[Position]] = asyncio.get_running_loop().create_future()
        self.batches.append(batch)
        self.futures.append(future)
        return future

    def store(self) -> None:
        """Everything that was submitted is stored."""
        for at, future in enumerate(self.futures):
            if not future.done():
                count = len(self.batches[at])
                future.set_result([Position((at + 1, n)) for n in range(count)])

    def fail(self, error: BaseException) -> None:
        """Everything that was submitted fails."""
        for future in self.futures:
            if not future.done():
                future.set_exception(error)

    @property
    def events(self) -> list[Fields]:
        """What was submitted, in order."""
        return [fields for batch in self.batches for fields in batch]

    async def aclose(self) -> None:
        """What is left fails."""
        self.closed = True
