"""Reading: the background work of one reader.

Does        read ahead within bounds, filter, end where it is told to; move while it runs.
Does not    show itself to users: `reader.Reader` does.
Invariants  1. each shard's events come in order, none twice, none skipped, wherever it is moved to.
            2. what is read ahead is at most `prefetch` events plus one fetch, bounded in bytes.
            3. a lost connection is made again and reading goes on where it stood.
            4. a move takes effect in one step: nothing of what was read before is yielded after it.
            5. `PositionLost` is raised behind the events that were read before the loss.
            6. what lies behind its end is not read, so nobody waits for it, or hears of its loss.
Cost        per batch that is taken: one pass over it. Per page: one pass over it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

from penstock.clock import Backoff
from penstock.errors import BackendUnavailable, ConfigError, NotFound, PositionLost
from penstock.event import OLDEST, Event, Position, Shard, Start, Until
from penstock.ports import Cursor, Page
from penstock.rules.filters import Where, predicate, sift
from penstock.rules.gaps import ZERO, Gap, position_lost
from penstock.rules.sizing import FetchSizer
from penstock.streams.ending import Ending
from penstock.streams.format import ShardOrigin
from penstock.streams.inbox import Inbox
from penstock.streams.progress import Progress
from penstock.streams.saved import Saved, starts_at

if TYPE_CHECKING:
    from penstock.streams.client import Client
    from penstock.streams.stream import Stream

T = TypeVar("T")

PREFETCH_BYTES: Final = 16 * 1024 * 1024
"""Bytes that are read ahead at most."""

WAIT: Final = 1.0
"""Seconds that one read waits, between looks at whether the end has come."""

LOOK: Final = 0.25
"""The same while a stream does not exist yet: it may come to be with shards of its own."""


class ReaderStatistics(NamedTuple):
    """A reader at one moment; events since it was opened. `lost`: trimmed before they were read."""

    read: int
    yielded: int
    filtered: int
    buffered: int
    buffered_bytes: int
    lost: int = 0


class Reading(Generic[T]):
    """What a `Reader` does while it is open."""

    def __init__(
        self,
        client: Client,
        streams: dict[str, Stream[T]],
        until: Until | Position | None,
        where: Where | None,
        prefetch: int,
    ) -> None:
        self.streams = streams
        self._room = asyncio.Event()
        self.inbox: Inbox[Event[T]] = Inbox(self._on_taken, hungry=self._room.set)
        self._client = client
        self._until = until
        self._where = predicate(where)
        self._sizer = FetchSizer(prefetch, PREFETCH_BYTES)
        self._handles: dict[Shard, Stream[T]] = {}
        self._starts: dict[str, Start | Saved] = {}
        self._progress = Progress()
        self._unsure: set[Shard] = set()
        self._cursor: Cursor | None = None
        self._ending: Ending | None = None
        self._task: asyncio.Task[None] | None = None
        self._moved = asyncio.Event()
        self._changing = asyncio.Lock()
        self._pages: deque[Page] = deque()
        self._loss: PositionLost | None = None
        self._reborn: deque[PositionLost] = deque()
        self._closed = False
        self._moves = self._bytes = self._read = self._yielded = self._filtered = self._lost = 0

    @property
    def begun(self) -> bool:
        """Whether it was opened."""
        return self._task is not None

    async def open(self, start: Start | Saved) -> None:
        """Anchor where reading begins and ends, and begin."""
        backend = self._client.backend
        for stream in self.streams.values():
            self._handles.update(await _shards_of(stream))
            self._starts[stream.name] = start
        starts = starts_at(start, self._handles)
        self._ending = await Ending.anchor(backend, self._handles, self._until, self._client.clock)
        self._cursor = await backend.cursor(starts)
        self._begin(self._handles)
        self._task = asyncio.create_task(self._run(), name="penstock-reader")

    async def add(self, stream: Stream[T], start: Start | Saved) -> bool:
        """Read *stream* too. Cancelled, or failed: it is not read."""
        async with self._changing:
            if stream.name in self._starts:
                return False
            await self._add(stream, start)
        await self._opened.wake()
        return True

    async def remove(self, name: str) -> bool:
        """Read the stream *name* no more; what was read ahead of it is dropped."""
        async with self._changing:
            gone = [shard for shard in self._handles if shard.stream == name]
            if not gone:
                return False
            if len(gone) == len(self._handles):
                raise ConfigError(
                    f"a reader must read at least one stream, and {name!r} is its last; close it, "
                    f"or add another stream first"
                )
            self._forget(gone)
            del self.streams[name]
        await self._opened.wake()
        return True

    async def seek(self, start: Start | Saved, names: Sequence[str]) -> None:
        """Read these streams from *start* on. Cancelled, or failed: nothing has moved."""
        async with self._changing:
            shards = [shard for shard in self._handles if shard.stream in names]
            await self._opened.move(starts_at(start, shards))
            self._drop(shards)
            self._begin(shards)
        await self._opened.wake()

    def positions(self) -> Mapping[Shard, Position | None]:
        """By shard, up to where everything was yielded or filtered out; None: the beginning."""
        return self._progress.positions()

    def statistics(self) -> ReaderStatistics:
        """What was read, and what waits to be yielded."""
        counts = (self._read, self._yielded, self._filtered)
        return ReaderStatistics(*counts, len(self.inbox), self._bytes, self._lost)

    async def on_shards(self, stream: Stream[T], count: int) -> None:
        """The stream has so many shards now: read all of them."""
        if self._task is None or self._task.done():
            return
        known = sum(1 for shard in self._handles if shard.stream == stream.name)
        fewer = count == 1 < known  # which is said of a stream that is not there, too
        if fewer and await self._client.backend.describe(stream.name) is None:
            return
        if count > known or fewer:
            await stream.look_again()
            await self._look_for_shards(stream)
            await self._opened.wake()

    async def close(self) -> None:
        """Stop reading and close the connection. Cancelled: it is closed all the same."""
        self._closed = True
        try:
            if self._task is not None:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
        finally:
            self.inbox.clear()
            self.inbox.end()
            if self._cursor is not None:
                await self._cursor.aclose()

    # --- moving ------------------------------------------------------------------------------

    @property
    def _opened(self) -> Cursor:
        assert self._cursor is not None
        return self._cursor

    @property
    def _end(self) -> Ending:
        assert self._ending is not None
        return self._ending

    async def _add(self, stream: Stream[T], start: Start | Saved) -> None:
        handles = await _shards_of(stream)
        targets = await self._end.widen(self._client.backend, handles)
        await self._opened.move(starts_at(start, handles))
        self._starts[stream.name] = start
        self.streams[stream.name] = stream
        self._handles.update(handles)
        self._end.add(targets)
        self._begin(handles)

    def _begin(self, shards: Sequence[Shard] | Mapping[Shard, Any]) -> None:
        """Reading of *shards* begins where the cursor stands; what has ended goes on."""
        places = self._opened.positions()
        began = {shard: places[shard] for shard in shards}
        self._progress.begins(began)
        self._end.begins_at(began)
        self._leave_ended(began)
        self._moves += 1
        if not self._closed:
            self.inbox.reopen()
        self._moved.set()
        self._room.set()

    def _drop(self, shards: Sequence[Shard]) -> None:
        """What was read of *shards* is not yielded any more."""
        places = {shard[:2] for shard in shards}
        self._pages = deque(page for page in self._pages if page.shard not in shards)
        kept = [e for e in self.inbox.clear() if (e.stream, e.shard) not in places]
        self._bytes = sum(event.size for event in kept)
        self.inbox.put(kept)
        for shard in shards:
            self._progress.drop(shard)

        def moot(error: BaseException) -> bool:
            return isinstance(error, PositionLost) and (error.stream, error.shard) in places

        self.inbox.forgive(moot)
        if self._loss is not None and moot(self._loss):
            self._loss = None

    def _forget(self, shards: Sequence[Shard]) -> None:
        self._opened.leave(shards)
        self._drop(shards)
        for shard in shards:
            self._starts.pop(shard.stream, None)
            self._handles.pop(shard, None)
            self._progress.forget(shard)
            self._unsure.discard(shard)
            self._end.passed(shard)
        self._moves += 1
        self._moved.set()
        self._room.set()

    def _leave_ended(self, shards: Iterable[Shard]) -> None:
        """What lies behind the end is not read: it may be much, and may go without being missed."""
        if ended := self._end.past(shards):
            self._opened.leave(ended)

    # --- reading -----------------------------------------------------------------------------

    def _on_taken(self, events: list[Event[T]]) -> None:
        self._yielded += len(events)
        self._bytes -= events[0].size if len(events) == 1 else sum([e.size for e in events])
        self._progress.taken(events)
        self._room.set()

    async def _run(self) -> None:
        """Read ahead to the end; what cannot be mended is raised at every step until a move."""
        backoff = Backoff()
        while True:
            moves = self._moves
            try:
                if self._reborn:
                    await self._tell(self._reborn.popleft())
                elif self._end.reached():
                    self._leave_ended(self._handles)
                    self.inbox.end()
                    await self._for_a_move()
                elif limit := self._limit():
                    await self._read_page(limit)
                    backoff.reset()
                else:
                    await self._for_room()
            except PositionLost as error:
                await self._tell(error)
            except (BackendUnavailable, NotFound):
                self._sizer.lost()
                self._end.busy()
                await self._client.clock.sleep(backoff.next())
            except Exception as error:  # noqa: BLE001 - whatever it is, every further step raises it
                if moves == self._moves:  # else it is of where one was: if not, it comes again
                    self.inbox.end(error)
                    await self._for_a_move()

    def _limit(self) -> int:
        """How many events to read now; 0: none yet.

        Unless somebody waits, a read is made when there is room for a quarter of what may be read
        ahead: else a slow program would make the server answer for each single event.
        """
        buffered = len(self.inbox)
        if buffered and not self.inbox.waiting:
            quarter = self._sizer.room(0, 0) // 4
            if self._sizer.room(buffered, self._bytes) < quarter:
                return 0
        return self._sizer.next(buffered, self._bytes)

    async def _for_room(self) -> None:
        self._room.clear()
        self._end.busy()
        await self._room.wait()

    async def _for_a_move(self) -> None:
        self._moved.clear()
        await self._moved.wait()

    async def _tell(self, error: PositionLost) -> None:
        """Raise *error* where one reads, behind what was read before; unless it was moved away."""
        self._loss = error
        self._lost += error.lost or 0
        self._end.busy()
        while self._loss is error and (len(self.inbox) or self.inbox.failing):
            self._room.clear()
            await self._room.wait()
        if self._loss is error:
            self.inbox.fail(error)
        self._unsure |= {shard for shard in self._handles if shard.stream == error.stream}

    async def _read_page(self, limit: int) -> None:
        unborn = [s for s in self._handles.values() if not s.known]
        wait = self._end.wait(LOOK if unborn else WAIT)
        began = self._client.clock.monotonic()
        moves = self._moves
        if not self._pages:
            pages = await self._opened.read(limit, wait)
            self._pages.extend(pages)  # looked up now: a move may have put another one there
        if not self._pages and moves == self._moves:  # else it was woken
            for stream in unborn:
                await self._look_for_shards(stream)
            self._end.nothing_came(began)
        if self._reborn:
            raise self._reborn.popleft()
        while self._pages:  # kept where taking in fails: the cursor is already behind them
            page = self._pages[0]
            if page.shard not in self._progress.origins or page.shard in self._unsure:
                await self._look_for_origin(page.shard)
            if self._pages and self._pages[0] is page:  # it was not moved away meanwhile
                self._take_in(page, self._progress.origins[page.shard])
                self._pages.popleft()

    async def _look_for_origin(self, shard: Shard) -> None:
        stream = self._handles[shard]
        if not stream.known:
            await self._look_for_shards(stream)
        elif shard in self._unsure:  # it may have been made anew, in another format
            stream.forget()
        origin = await stream.origin(shard.index)
        if shard in self._handles:
            self._progress.reads_otherwise(shard, origin)
            self._unsure.discard(shard)

    def _take_in(self, page: Page, origin: ShardOrigin) -> None:
        entries: list[Event[T]] = [
            Event(origin, e[0], e[1], 1, 0, len(b"".join(e[1]))) for e in page.entries
        ]
        events = self._end.cut(page.shard, entries)
        self._leave_ended([page.shard])
        wanted, error = sift(events, self._where)
        self._read += len(events)
        self._filtered += len(events) - len(wanted)
        sizes = [event.size for event in wanted]
        self._bytes += sum(sizes)
        self._sizer.seen(len(wanted), sum(sizes), max(sizes, default=0))
        self._progress.read(page.shard, events, wanted)
        self.inbox.put(wanted)
        if error is not None:
            self._pages[0] = page._replace(entries=page.entries[len(events) :])
            raise error

    async def _look_for_shards(self, stream: Stream[T]) -> None:
        """A stream that was not there may have come to be, in shards: read all of them."""
        async with self._changing:
            handles = await _shards_of(stream)
            if (
                not stream.known
                or stream.name not in self._starts
                or handles.keys() <= (self._handles.keys())
            ):
                return
            start = self._starts[stream.name]
            before = [shard for shard in self._handles if shard.stream == stream.name]
            gone = [shard for shard in before if shard not in handles]
            new = {shard: stream for shard in handles if shard not in before}
            if reborn := [shard for shard in gone if self._progress.existed(shard)]:
                wanted = self.positions()[reborn[0]] or ZERO
                self._reborn.append(position_lost(Gap(wanted, None, None, anew=True), reborn[0]))
            if not gone or reborn or start == Start("newest"):
                start = OLDEST  # they are all new
            await self._opened.move(starts_at(start, new))
            self._forget(gone)
            self._starts[stream.name] = start
            self._handles.update(new)
            self._begin(new)


async def _shards_of(stream: Stream[T]) -> dict[Shard, Stream[T]]:
    await stream.format()
    return {stream.shard(index): stream for index in range(stream.shards)}
