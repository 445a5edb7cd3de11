"""Reader: its own cursor over one or several streams; it sees every event.

Does        read ahead within bounds, filter, and end where it is told to.
Does not    ack: nothing is shared, nothing is kept on the server.
Invariants  1. each stream's events come in order, none twice, none skipped.
            2. what is read ahead is at most `prefetch` events plus one fetch, bounded in bytes.
            3. a lost connection is made again and reading goes on where it stood.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

from penstock.clock import Backoff
from penstock.errors import BackendUnavailable, ClosedError, ConfigError, NotFound
from penstock.event import Event, Origin, Position, Shard, Start, Until
from penstock.ports import Cursor, Page
from penstock.rules.filters import Where, predicate
from penstock.rules.sizing import FetchSizer
from penstock.streams.ending import Ending
from penstock.streams.format import ShardOrigin
from penstock.streams.inbox import Batches, Inbox

if TYPE_CHECKING:
    from penstock.streams.client import Client
    from penstock.streams.stream import Stream

T = TypeVar("T")

PREFETCH_BYTES: Final = 16 * 1024 * 1024
"""Bytes that are read ahead at most."""

WAIT: Final = 1.0
"""Seconds that one read waits, between looks at whether the end has come."""


class ReaderStatistics(NamedTuple):
    """A reader at one moment; events since it was opened."""

    read: int
    yielded: int
    filtered: int
    buffered: int
    buffered_bytes: int


class Reader(Generic[T]):
    """Reads every event. Made by `Stream.reader`; use it with ``async with``."""

    def __init__(
        self,
        client: Client,
        streams: Sequence[Stream[T]],
        *,
        start: Start,
        until: Until | Position | None,
        where: Where | None,
        prefetch: int,
    ) -> None:
        if not streams or prefetch < 1:
            raise ConfigError(
                f"a reader needs at least one stream and a prefetch of at least 1 event, "
                f"got {len(streams)} streams and prefetch={prefetch}"
            )
        self._client = client
        self._streams = list(streams)
        self._start = start
        self._until = until
        self._where = predicate(where)
        self._sizer = FetchSizer(prefetch, PREFETCH_BYTES)
        self._inbox: Inbox[Event[T]] = Inbox(self._on_taken)
        self._origins: dict[Shard, ShardOrigin] = {}
        self._handles: dict[Shard, Stream[T]] = {}
        self._cursor: Cursor | None = None
        self._ending: Ending | None = None
        self._task: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._pages: deque[Page] = deque()
        self._began: dict[Shard, Position | None] = {}
        self._last: dict[Origin, bytes] = {}
        self._bytes = 0
        self._read = self._yielded = self._filtered = 0
        self._closed = False

    @property
    def opened(self) -> bool:
        """Whether it was entered already."""
        return self._task is not None or self._closed

    async def __aenter__(self) -> Reader[T]:
        """Open the cursor; `start` and `until` are anchored when this returns.

        Raises:
            ConfigError: a handle asks for another format than is stored.
            BackendError: refused, or not reachable.
        """
        if self._task is not None or self._closed:
            raise ClosedError("a reader cannot be opened twice; make another one")
        for stream in self._streams:
            await stream.format()
            for index in range(stream.shards):
                self._handles[stream.shard(index)] = stream
        backend = self._client.backend
        self._ending = await Ending.anchor(backend, self._handles, self._until, self._client.clock)
        cursor: Cursor = await backend.cursor(dict.fromkeys(self._handles, self._start))
        self._cursor = cursor
        self._began = dict(cursor.positions())
        self._ending.begins_at(self._began)
        self._task = asyncio.create_task(self._run(), name="penstock-reader")
        self._client.opened(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> AsyncIterator[Event[T]]:
        return self

    async def __anext__(self) -> Event[T]:
        """Wait for the next event. Cancelled: it comes with the next call."""
        event = await self._opened().next()
        if event is None:
            raise StopAsyncIteration
        return event

    async def receive(self, timeout: float | None = None) -> Event[T] | None:
        """Wait for the next event, at most *timeout* seconds; None if none came, or at the end.

        Cancelled: the event comes with the next call.

        Raises:
            BackendRejected: the server refuses to be read.
            ClosedError: not open.
        """
        return await self._opened().receive(timeout)

    def batches(self, size: int = 1000, within: float = 0.05) -> Batches[Event[T]]:
        """Lists of one to *size* events: what comes within *within* seconds of the first.

        Raises:
            ConfigError: a size below 1, or a negative time.
        """
        if size < 1 or within < 0:
            raise ConfigError(f"batches needs size >= 1 and within >= 0 s, got {size}, {within}")
        return Batches(self._opened(), size, within)

    async def fetch(self, demand: int) -> Sequence[Event[T]]:
        """At least one and at most *demand* events; empty at the end (the port `Source`)."""
        return await self._opened().batch(demand, 0.0)

    def settle(self, outcomes: Sequence[Any]) -> None:
        """Nothing: a reader's events have no outcomes (the port `Source`)."""

    def positions(self) -> Mapping[Shard, Position | None]:
        """By shard, the last event that was yielded, or behind which reading began.

        None: the beginning. ``start=after(position)`` goes on from there, one stream at a time.
        """
        yielded = {
            shard: Position.of(self._last[origin])
            for shard, origin in self._origins.items()
            if origin in self._last
        }
        return {**self._began, **yielded}

    def statistics(self) -> ReaderStatistics:
        """What was read, and what waits to be yielded."""
        buffered = len(self._inbox)
        return ReaderStatistics(self._read, self._yielded, self._filtered, buffered, self._bytes)

    async def aclose(self) -> None:
        """Stop reading and close the connection. What was read ahead is dropped."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._cursor is not None:
            await self._cursor.aclose()
        self._inbox.end()

    def __repr__(self) -> str:
        names = ", ".join(stream.name for stream in self._streams)
        return f"<Reader {names} {len(self._inbox)} buffered>"

    def _opened(self) -> Inbox[Event[T]]:
        if self._task is None:
            raise ClosedError("a reader must be opened: write 'async with stream.reader(...)'")
        return self._inbox

    def _on_taken(self, events: list[Event[T]]) -> None:
        self._yielded += len(events)
        for event in events:
            self._bytes -= event.size
            self._last[event.origin] = event.entry_id
        self._room.set()

    async def _run(self) -> None:
        """Read ahead until the end; what cannot be mended is raised at the next step."""
        backoff = Backoff()
        assert self._ending is not None
        try:
            while not self._ending.reached():
                limit = self._sizer.next(len(self._inbox), self._bytes)
                if not limit:
                    self._room.clear()
                    self._ending.busy()
                    await self._room.wait()
                    continue
                try:
                    await self._read_page(limit)
                    backoff.reset()
                except (BackendUnavailable, NotFound):
                    self._sizer.lost()
                    self._ending.busy()
                    await self._client.clock.sleep(backoff.next())
        except Exception as error:  # noqa: BLE001 - whatever it is, every further step raises it
            self._inbox.end(error)
        self._inbox.end()

    async def _read_page(self, limit: int) -> None:
        assert self._cursor is not None
        assert self._ending is not None
        wait = self._ending.wait(WAIT)
        began = self._client.clock.monotonic()
        if not self._pages:
            self._pages.extend(await self._cursor.read(limit, wait))
        if not self._pages:
            self._ending.nothing_came(began)
        while self._pages:  # kept where taking in fails: the cursor is already behind them
            page = self._pages[0]
            events = self._ending.cut(page.shard, await self._events(page))
            self._read += len(events)
            wanted = [event for event in events if self._where is None or self._where(event)]
            self._filtered += len(events) - len(wanted)
            sizes = [event.size for event in wanted]
            self._bytes += sum(sizes)
            self._sizer.seen(len(wanted), sum(sizes), max(sizes, default=0))
            self._inbox.put(wanted)
            self._pages.popleft()

    async def _events(self, page: Page) -> list[Event[T]]:
        origin = self._origins.get(page.shard)
        if origin is None:
            origin = await self._handles[page.shard].origin(page.shard.index)
            self._origins[page.shard] = origin
        return [
            Event(origin, entry[0], entry[1], 1, 0, len(b"".join(entry[1])))
            for entry in page.entries
        ]
