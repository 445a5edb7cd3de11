"""Reader: its own cursor over one or several streams; it sees every event.

Does        hand out events, one by one or in batches; move: seek, more streams, fewer streams.
Does not    ack: nothing is shared, nothing is kept on the server. It reads in the background:
            `reading.py`.
Invariants  1. each stream's events come in order, none twice, none skipped.
            2. a move takes effect in one step, when the call returns; cancelled, it did or did not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from penstock.errors import ClosedError, ConfigError
from penstock.event import Event, Position, Shard, Start, Until
from penstock.rules.filters import Where
from penstock.streams.inbox import Batches, Inbox
from penstock.streams.names import check_streams
from penstock.streams.reading import ReaderStatistics, Reading
from penstock.streams.saved import Saved, load, save

if TYPE_CHECKING:
    from penstock.streams.client import Client
    from penstock.streams.stream import Stream

T = TypeVar("T")


class Reader(Generic[T]):
    """Reads every event. Made by `Stream.reader`; use it with ``async with``."""

    def __init__(
        self,
        client: Client,
        streams: Sequence[Stream[T]],
        *,
        start: Start | str,
        until: Until | Position | None,
        where: Where | None,
        prefetch: int,
    ) -> None:
        if not streams or prefetch < 1:
            raise ConfigError(
                f"a reader needs at least one stream and a prefetch of at least 1 event, "
                f"got {len(streams)} streams and prefetch={prefetch}"
            )
        Until.checked(until)
        self._client = client
        self._streams = {stream.name: stream for stream in streams}
        self._start = self._where_from(start)
        self._reading: Reading[T] = Reading(client, self._streams, until, where, prefetch)
        self._closed = False

    @property
    def opened(self) -> bool:
        """Whether it was entered already."""
        return self._reading.begun or self._closed

    @property
    def streams(self) -> list[Stream[T]]:
        """The streams that it reads."""
        return list(self._streams.values())

    @property
    def open_streams(self) -> list[str]:
        """The names of the streams that it reads; none once it is closed."""
        return [] if self._closed else list(self._streams)

    @property
    def position(self) -> str:
        """How far has been read, over all streams and shards, as a text to keep.

        Up to the last event that was yielded; what was read ahead is not counted, what was filtered
        out is. ``start=text`` goes on there, in another process or after a restart: nothing comes
        twice and nothing is left out, if it is kept when all that was yielded has been handled.
        """
        return save(self.positions())

    async def __aenter__(self) -> Reader[T]:
        """Open the cursor; `start` and `until` are anchored when this returns.

        Raises:
            ConfigError: a handle asks for another format than is stored, or the saved position is
                one of another number of shards.
            BackendError: refused, or not reachable.
        """
        if self.opened:
            raise ClosedError("a reader cannot be opened twice; make another one")
        await self._reading.open(self._start)
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

        None: the beginning. See `position` for all of them as one text.
        """
        return self._reading.positions()

    async def seek(self, start: Start | str, *, stream: Stream[T] | str | None = None) -> None:
        """Go on from *start*, forwards or backwards; nothing that was read ahead comes after it.

        NEWEST and the rest are anchored when this returns. A reader that has ended goes on: up to
        where `until` told it to end. Cancelled, or failed: it goes on where it was.

        Args:
            start: as for a new reader; a saved position moves the streams that it names.
            stream: only this one; by default all streams.

        Raises:
            ConfigError: no such stream here, or a text that is no saved position of these.
            BackendError: refused, or not reachable.
            ClosedError: not open.
        """
        self._moving()
        name = stream if isinstance(stream, str) or stream is None else stream.name
        if name is not None and name not in self._streams:
            raise ConfigError(
                f"seek moves streams of the reader, which reads {', '.join(self._streams)}; "
                f"got {name!r}"
            )
        where = self._where_from(start)
        names = [name] if name is not None else list(self._streams)
        if not isinstance(where, Start):
            names = [one for one in names if one in where]
        if not isinstance(where, Start) and not names:
            raise ConfigError(f"the saved position must name {name!r}, got {', '.join(where)}")
        await self._reading.seek(where, names)

    async def add_stream(self, stream: Stream[T], start: Start | str | None = None) -> bool:
        """Read *stream* too, from now on; False if it is read already.

        Waits until its start is anchored. Cancelled, or failed: it is not read.

        Args:
            stream: which.
            start: where it begins; None: where the reader was told to begin.

        Raises:
            ConfigError: it is read already, and a start is given (`seek` moves it); or the reader
                ends at a position, which is one of its only stream; or it is another client's.
            BackendError: refused, or not reachable.
            ClosedError: not open.
        """
        self._moving()
        check_streams([stream], self._client)
        if stream.name in self._streams and start is not None:
            raise ConfigError(
                f"{stream.name!r} is read already, so it cannot begin at {start}; "
                f"seek(start, stream=...) moves it"
            )
        where = self._start if start is None else self._where_from(start, stream.name)
        return await self._reading.add(stream, where)

    async def remove_stream(self, stream: Stream[T] | str) -> bool:
        """Read *stream* no more: none of its events is yielded after this; False if it was not.

        Raises:
            ConfigError: it is the last one.
            ClosedError: not open.
        """
        self._moving()
        name = stream if isinstance(stream, str) else stream.name
        return await self._reading.remove(name)

    def statistics(self) -> ReaderStatistics:
        """What was read, and what waits to be yielded."""
        return self._reading.statistics()

    async def on_shards(self, stream: str, count: int) -> None:
        """See `opening.Closable.on_shards`."""
        if stream in self._streams and not self._closed:
            await self._reading.on_shards(self._streams[stream], count)

    async def aclose(self) -> None:
        """Stop reading and close the connection. What was read ahead is dropped."""
        self._closed = True
        await self._reading.close()

    def __repr__(self) -> str:
        return f"<Reader {', '.join(self._streams)} {len(self._reading.inbox)} buffered>"

    def _where_from(self, start: Start | str, *more: str) -> Start | Saved:
        if isinstance(start, str):
            return load(start, [*self._streams, *more])
        return Start.checked(start)

    def _moving(self) -> None:
        if self._closed:
            raise ClosedError("the reader was closed; make another one")
        self._opened()

    def _opened(self) -> Inbox[Event[T]]:
        if not self._reading.begun:
            raise ClosedError("a reader must be opened: write 'async with stream.reader(...)'")
        return self._reading.inbox
