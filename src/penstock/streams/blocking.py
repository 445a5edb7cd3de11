"""Blocking: the same streams for programs without an event loop, and for threads.

Does        run one event loop in a thread, and wait in the caller's for what happens there.
Does not    add anything: append, write, receive, and nothing more.
Invariants  1. every call may come from any thread.
            2. Ctrl-C ends the waiting, and cancels what was waited for.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Iterable, Iterator
from concurrent.futures import CancelledError
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar, Unpack, cast, overload

from penstock.errors import ClosedError
from penstock.event import Event, Position
from penstock.streams.asked import AppendKeywords
from penstock.streams.client import Client, connect
from penstock.streams.group import Group
from penstock.streams.reader import Reader
from penstock.streams.stream import Stream
from penstock.streams.writer import Writer

T = TypeVar("T")

_NOT_OPEN: Final = "a blocking client must be opened: write 'with penstock.blocking()'"


def blocking(url: str | None = None, **options: Any) -> BlockingClient:
    """A client for programs without an event loop (Django, Flask, Celery); use it with ``with``.

    Args:
        url: where the streams are; None: ``$PENSTOCK_URL``.
        **options: as for `connect`.

    Raises:
        ConfigError: no URL, or a wrong one.
    """
    return BlockingClient(connect(url, **options))


class BlockingClient:
    """Where blocking streams come from. Made by `blocking`; usable from any thread."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._loop = Loop()

    def __enter__(self) -> Self:
        """Connect; errors as for `connect`."""
        self._loop.start()
        try:
            self._loop.run(self._client.__aenter__())
        except BaseException:
            self._loop.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def stream(self, name: str, **options: Any) -> BlockingStream[Any]:
        """A handle on the stream *name*; arguments and errors as for `Client.stream`."""
        return BlockingStream(self._client.stream(name, **options), self._loop)

    def close(self) -> None:
        """Close all connections and end the thread; a second time, nothing."""
        if not self._loop.running:
            return
        try:
            self._loop.run(self._client.aclose())
        finally:
            self._loop.stop()


class BlockingStream(Generic[T]):
    """A handle on one stream."""

    def __init__(self, stream: Stream[T], loop: Loop) -> None:
        self._stream = stream
        self._loop = loop

    @property
    def name(self) -> str:
        """The stream's name."""
        return self._stream.name

    @overload
    def append(self, value: T, **options: Unpack[AppendKeywords]) -> Position: ...
    @overload
    def append(
        self, value: T, *, deliver_at: float | datetime | None, **options: Unpack[AppendKeywords]
    ) -> Position | None: ...
    def append(self, value: T, **options: Any) -> Position | None:
        """Append one event; arguments and errors as for `Stream.append`."""
        return self._loop.run(self._stream.append(value, **options))

    def append_many(self, values: Iterable[T], **options: Any) -> list[Position]:
        """Append several events in order; as `Stream.append_many`."""
        return self._loop.run(self._stream.append_many(list(values), **options))

    def writer(self, **options: Any) -> BlockingWriter[T]:
        """A pipelined writer, for ``with``; arguments as for `Stream.writer`."""
        return BlockingWriter(self._stream.writer(**options), self._loop)

    def reader(self, **options: Any) -> BlockingReader[T]:
        """A reader, for ``with``; arguments as for `Stream.reader`."""
        return BlockingReader(self._stream.reader(**options), self._loop)

    def group(self, name: str, **options: Any) -> BlockingGroup[T]:
        """A member of a group, for ``with``; arguments as for `Stream.group`."""
        group = cast("Group[T]", self._stream.group(name, **options))
        return BlockingGroup(group, self._loop)


class _Scoped:
    """Something with ``async with`` inside, used with ``with``."""

    def __init__(self, inner: Any, loop: Loop) -> None:
        self._inner = inner
        self._loop = loop

    def __enter__(self) -> Any:
        self._loop.run(self._inner.__aenter__())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.run(self._inner.__aexit__(kind, error, trace))


class BlockingWriter(_Scoped, Generic[T]):
    """Appends many events, pipelined."""

    def __init__(self, writer: Writer[T], loop: Loop) -> None:
        super().__init__(writer, loop)

    def __enter__(self) -> BlockingWriter[T]:
        """Open; errors as for `Writer`."""
        return super().__enter__()

    def send(self, value: T, **metadata: Any) -> None:
        """Send one event; waits only while there is no room. As `Writer.send`."""
        self._loop.run(self._inner.send(value, **metadata))

    def flush(self) -> None:
        """Wait until all earlier sends are stored; as `Writer.flush`."""
        self._loop.run(self._inner.flush())


class BlockingReader(_Scoped, Generic[T]):
    """Reads every event."""

    def __init__(self, reader: Reader[T], loop: Loop) -> None:
        super().__init__(reader, loop)

    def __enter__(self) -> BlockingReader[T]:
        """Open; errors as for `Reader`."""
        return super().__enter__()

    def receive(self, timeout: float | None = None) -> Event[T] | None:
        """The next event; None if none comes within *timeout* seconds, or at the end."""
        return self._loop.run(self._inner.receive(timeout))

    def __iter__(self) -> Iterator[Event[T]]:
        while (event := self.receive()) is not None:
            yield event


class BlockingGroup(_Scoped, Generic[T]):
    """One member of a group."""

    def __init__(self, group: Group[T], loop: Loop) -> None:
        super().__init__(group, loop)

    def __enter__(self) -> BlockingGroup[T]:
        """Join; errors as for `Group`."""
        return super().__enter__()

    def receive(self, timeout: float | None = None) -> Event[T] | None:
        """The next event; None if none comes within *timeout* seconds, or at the end."""
        return self._loop.run(self._inner.receive(timeout))

    def __iter__(self) -> Iterator[Event[T]]:
        while (event := self.receive()) is not None:
            yield event

    def ack(self, events: Event[T] | Iterable[Event[T]]) -> None:
        """Queue acks; as `Group.ack`."""
        self._loop.run(_call(self._inner.ack, events))

    def nack(
        self, events: Event[T] | Iterable[Event[T]], delay: float | None = None, reason: str = ""
    ) -> None:
        """Hand events back, counted; as `Group.nack`."""
        self._loop.run(_call(self._inner.nack, events, delay, reason))

    def flush(self) -> None:
        """Wait until all queued acks are confirmed; as `Group.flush`."""
        self._loop.run(self._inner.flush())


class Loop:
    """One event loop in one thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._process = os.getpid()
        self._submitting = threading.Lock()

    @property
    def running(self) -> bool:
        """Whether the thread is there."""
        return self._loop is not None

    def start(self) -> None:
        """Start the thread; return when its loop runs."""
        ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._main(ready)), name="penstock-blocking", daemon=True
        )
        self._thread.start()
        ready.wait()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run *work* there, and wait for it here.

        Raises:
            ClosedError: the client is not open, was closed meanwhile, or was opened in another
                process.
        """
        if os.getpid() != self._process:  # its thread stayed in the parent: nobody would answer
            work.close()
            raise ClosedError(
                "a blocking client must be made in the process that uses it, and this one was made "
                "before a fork; call blocking() in the child"
            )
        with self._submitting:  # what is submitted to a loop that ends, is cancelled there
            if self._loop is None:
                work.close()
                raise ClosedError(_NOT_OPEN)
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError as error:
            raise ClosedError(
                "the blocking client was closed before this had come to its end"
            ) from error
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """End the loop and the thread."""
        if os.getpid() != self._process:
            self._loop = None
            return  # the thread lives in the parent
        with self._submitting:
            loop, self._loop = self._loop, None
        if loop is None or self._stop is None or self._thread is None:
            return
        loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _main(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        ready.set()
        await self._stop.wait()


async def _call(function: Any, *args: Any) -> Any:
    return function(*args)
