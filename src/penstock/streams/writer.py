"""Writer: pipelined appends with back-pressure.

Does        take events as fast as there is room, store them in order, and account for each.
Does not    wait for an outcome in `send`; repeat anything (the appender does, and may).
Invariants  1. what is pending is at most `max_pending` events and `max_pending_bytes` bytes, or
               one event.
            2. a failure that no receipt took is raised by the next send, flush, or the exit.
            3. after an unknown outcome nothing more is sent, to keep the order, until a flush has
               raised it.
Cost        per event: the codec, one size, two list appends. Per batch: one script call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, NamedTuple, TypeVar, overload

from penstock.errors import (
    ClosedError,
    ConfigError,
    ConflictError,
    OutcomeUnknown,
    PenstockError,
)
from penstock.event import PositionRun
from penstock.ports import Appender, Stored, Terms
from penstock.rules.terms import digest
from penstock.streams.asked import due_of
from penstock.streams.format import Format, make_meta
from penstock.streams.lane import Batched, Receipt
from penstock.streams.routes import Routes

if TYPE_CHECKING:
    from penstock.streams.stream import Stream

T = TypeVar("T")

MAX_PENDING: Final = 10_000
"""Events without an outcome: some 20 ms of the server's work, so the pipe never runs dry."""

MAX_PENDING_BYTES: Final = 16 * 1024 * 1024
"""Bytes without an outcome."""


class WriterStatistics(NamedTuple):
    """A writer at one moment; events and bytes since it was opened."""

    sent: int
    stored: int
    failed: int
    unknown: int
    pending: int
    pending_bytes: int


class Writer(Generic[T]):
    """Appends many events, pipelined. Made by `Stream.writer`; use it with ``async with``.

    Leaving the block waits until everything has an outcome, and raises what went wrong and was
    not yet raised; if the body raised, that error wins. Cancelling the exit ends the waiting:
    what is under way may still be stored.
    """

    def __init__(
        self,
        stream: Stream[T],
        open_appender: Callable[[int], Awaitable[Appender]],
        *,
        max_pending: int,
        max_pending_bytes: int,
        idempotent: bool = True,
        dedupe: bool = True,
    ) -> None:
        if max_pending < 1 or max_pending_bytes < 1:
            raise ConfigError(
                f"max_pending (events) and max_pending_bytes must be at least 1, "
                f"got {max_pending} and {max_pending_bytes}"
            )
        self._stream = stream
        self._routes = Routes(stream, open_appender, self._on_done, self._on_failed)
        self._max_pending = max_pending
        self._max_bytes = max_pending_bytes
        self._idempotent = idempotent
        self._dedupe = dedupe and idempotent
        self._format: Format | None = None
        self._pending = 0
        self._bytes = 0
        self._sent = self._stored = self._failed = self._unknown = 0
        self._before = WriterStatistics(0, 0, 0, 0, 0, 0)
        self._failures: list[tuple[BaseException, list[Receipt]]] = []
        self._blocked: OutcomeUnknown | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._closed = False

    @property
    def open_streams(self) -> list[str]:
        """The name of its stream; none once it is closed."""
        return [] if self._closed else [self._stream.name]

    @property
    def opened(self) -> bool:
        """Whether it was entered already."""
        return self._format is not None or self._closed

    async def __aenter__(self) -> Writer[T]:
        """Open the sessions: what is wrong with the stream is raised here.

        Raises:
            ConfigError: the stream has another layout, codec or number of shards.
            BackendError: refused, or not reachable.
        """
        form = await self._stream.format()
        await self._routes.open()
        self._format = form
        self._stream.client.opened(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self.flush()
        except PenstockError:
            if error is None:
                raise
        finally:
            await self.aclose()

    @overload
    async def send(
        self,
        value: T,
        *,
        name: str = "",
        topic: str = "",
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        id: str | None = None,
        timestamp: float | datetime | None = None,
        deliver_at: float | datetime | None = None,
        receipt: Literal[False] = False,
    ) -> None: ...
    @overload
    async def send(
        self,
        value: T,
        *,
        name: str = "",
        topic: str = "",
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        id: str | None = None,
        timestamp: float | datetime | None = None,
        deliver_at: float | datetime | None = None,
        receipt: Literal[True],
    ) -> Receipt: ...
    async def send(
        self,
        value: T,
        *,
        name: str = "",
        topic: str = "",
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        id: str | None = None,
        timestamp: float | datetime | None = None,
        deliver_at: float | datetime | None = None,
        receipt: bool = False,
    ) -> Receipt | None:
        """Send one event; waits only while there is no room.

        Cancelled while waiting: the event is not sent.

        Args:
            value: what the stream's codec encodes.
            name: what happened, e.g. ``"order.paid"``.
            topic: the label that readers filter by.
            key: what the event is about; events of one key go to one shard and keep their order.
            headers: free metadata, text by name.
            id: the event's own id: it is stored once within the stream's `dedupe_window`.
            timestamp: when it happened, if not now: seconds since 1970, or a datetime with a zone.
            deliver_at: the time before which it is not in the stream; see `Stream.append`.
            receipt: return a `Receipt`, whose awaiting gives the position; None if it waits for
                its time.

        Raises:
            EncodeError, PayloadTooLarge: this event cannot be stored; nothing of it was sent.
            BackendError: an earlier send failed; this one was not sent.
            ConflictError: an earlier id stands for another content; that event is not stored.
            OutcomeUnknown: an earlier send has no outcome; this one was not sent (see `flush`).
            ClosedError: the writer was closed.

        Source: Redis XADD in a script that knows the batch's sequence; Kafka KIP-98.
        """
        if self._failures or self._closed or self._blocked is not None:
            self._refuse()
        if self._routes.changing:
            await self._wait_for_routes()
        meta = make_meta(name, topic, key, headers, id, timestamp)
        if self._format is None:
            raise ClosedError("a writer must be opened: write 'async with stream.writer()'")
        due = None if deliver_at is None else self._due(deliver_at)
        fields, size = self._format.pack(value, meta)
        if self._pending >= self._max_pending or self._bytes + size > self._max_bytes:
            await self._wait_for_room(size)
        self._pending += 1
        self._bytes += size
        self._sent += 1
        ticket = Receipt() if receipt else None
        if id is None and due is None:
            self._routes.lane(key).add(fields, size, ticket)
        else:
            self._add_with_terms(fields, size, ticket, id if self._dedupe else None, key, due)
        return ticket

    async def write(self, batch: Sequence[T]) -> None:
        """Send all of *batch* and wait until it is stored (the port `Target`).

        Raises:
            The same as `send` and `flush`.
        """
        for value in batch:
            await self.send(value)
        await self.flush()

    async def flush(self) -> None:
        """Wait until all earlier sends have an outcome, and raise what went wrong.

        Cancelled: the sends go on.

        Raises:
            BackendError: some were not stored, and it is known which.
            OutcomeUnknown: some may be stored; it counts stored, unknown and unsent events since
                the last flush. After it, sends are taken again.
        """
        await self._routes.outcomes()
        blocked, self._blocked = self._blocked, None
        error = self._untold()
        before, self._before = self._before, self.statistics()
        if blocked is not None:
            raise self._tally(blocked, before)
        if error is not None:
            raise error

    async def on_shards(self, stream: str, count: int) -> None:
        """See `opening.Closable.on_shards`: keys are spread over all of them from then on."""
        if not self._closed:
            await self._routes.follow(count)

    async def aclose(self) -> None:
        """Close at once; what has no outcome stays without. Leaving the block flushes first."""
        self._closed = True
        await self._routes.aclose()

    def statistics(self) -> WriterStatistics:
        """What was sent, and what became of it."""
        return WriterStatistics(
            self._sent, self._stored, self._failed, self._unknown, self._pending, self._bytes
        )

    def __repr__(self) -> str:
        return f"<Writer {self._stream.name!r} {self._pending} pending>"

    async def _wait_for_routes(self) -> None:
        """The stream has got more shards: what was refused for it goes first."""
        await self._routes.settled()
        self._refuse()

    def _due(self, time: float | datetime) -> float:
        """Seconds since 1970; ConfigError where an event could not wait for them."""
        if not self._idempotent:
            raise ConfigError("deliver_at needs a session, got idempotent=False")
        due = due_of(time)
        self._stream.client.tender.always(self._stream.name)
        return due

    def _add_with_terms(  # noqa: PLR0917 - one caller's state
        self,
        fields: list[Any],
        size: int,
        ticket: Receipt | None,
        id: str | None,
        key: str | None,
        due: float | None,
    ) -> None:
        """An event that is stored once by its id, or waits for its time, or both."""
        terms = None
        if id is not None or due is not None:
            terms = Terms(id or "", b"" if id is None else digest(fields), None, due)
        self._routes.lane(id if key is None else key).add(fields, size, ticket, None, terms)

    async def _wait_for_room(self, size: int) -> None:
        """Until there is room for *size* bytes more; one event may always be under way."""
        while self._pending and (
            self._pending >= self._max_pending or self._bytes + size > self._max_bytes
        ):
            self._routes.submit()
            self._room.clear()
            await self._room.wait()
            if self._failures or self._closed or self._blocked is not None:
                self._refuse()

    def _on_done(self, batch: Batched) -> None:
        """A batch has an outcome."""
        count = batch.events
        self._let_go(batch)
        error = batch.future.exception()
        if error is None:
            self._stored += count
            if not isinstance(stored := batch.future.result(), PositionRun):
                self._look_for_conflicts(stored, dict(batch.receipts))
        elif isinstance(error, OutcomeUnknown):
            self._unknown += error.unknown
            self._failed += error.unsent
            self._stored += error.stored
            self._blocked = self._blocked or error
        else:
            self._count_failed(batch, error)

    def _on_failed(self, batch: Batched, error: BaseException) -> None:
        """A batch was refused, and nothing of it is stored."""
        for _, receipt in batch.receipts:
            receipt.resolve(error)
        self._let_go(batch)
        self._count_failed(batch, error)

    def _let_go(self, batch: Batched) -> None:
        self._pending -= batch.events
        self._bytes -= batch.size
        self._room.set()

    def _count_failed(self, batch: Batched, error: BaseException) -> None:
        self._failed += batch.events
        receipts = [receipt for _, receipt in batch.receipts]
        self._failures.append((error, receipts if len(receipts) == batch.events else []))

    def _look_for_conflicts(
        self, stored: Sequence[Stored], receipts: Mapping[int, Receipt]
    ) -> None:
        """Single events of a stored batch may be refused for their terms."""
        for index, outcome in enumerate(stored):
            if isinstance(outcome, ConflictError):
                self._stored -= 1
                self._failed += 1
                mine = receipts.get(index)
                self._failures.append((outcome, [] if mine is None else [mine]))

    def _refuse(self) -> None:
        """Raise what stands in the way of a send, if anything does."""
        if self._closed:
            raise ClosedError(f"the writer of {self._stream.name!r} was closed; nothing was sent")
        if (error := self._untold()) is not None:
            raise error
        if self._blocked is None:
            return
        raise OutcomeUnknown(
            f"not sent to {self._stream.name!r}, to keep the order: an earlier send has no outcome "
            f"({self._blocked}); call flush() to hear which, then send again",
            unsent=1,
        ) from self._blocked

    def _untold(self) -> BaseException | None:
        """The first failure of which receipts have not told all; then there is none any more."""
        failures, self._failures = self._failures, []
        for error, receipts in failures:
            if not receipts or not all(receipt.taken for receipt in receipts):
                return error
        return None

    def _tally(self, error: OutcomeUnknown, before: WriterStatistics) -> OutcomeUnknown:
        """The outcome of everything since the last flush, in order: stored, unknown, unsent."""
        sent = self._sent - before.sent
        stored = self._stored - before.stored
        unknown = self._unknown - before.unknown
        total = OutcomeUnknown(
            f"{error}; of {sent} events that were sent to {self._stream.name!r} since the last "
            f"flush, in order: {stored} are stored, then {unknown} may be, "
            f"then {sent - stored - unknown} are not",
            stored=stored,
            unknown=unknown,
            unsent=sent - stored - unknown,
        )
        total.__cause__ = error
        return total
