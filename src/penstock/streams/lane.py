"""Lane: events on their way into one shard, gathered into batches.

Does        gather what is sent within one turn of the event loop, or until a batch is full.
Does not    encode, limit what is pending, or try again: writer and appender do.
Invariants  1. order in is order out.
            2. nothing waits in a lane longer than one turn of the event loop.
            3. what stands behind a batch that has failed fails too, until its sender has heard.
Cost        per event: two list appends. Per batch: one call of the appender.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, NamedTuple

from penstock.errors import BackendUnavailable, OutcomeUnknown, PenstockError
from penstock.event import Position
from penstock.ports import Appender, ShardsCame, Stored, Terms

BATCH_EVENTS: Final = 500
"""Events of a batch: about a millisecond of the server's time, so that nobody else waits long."""

BATCH_BYTES: Final = 256 * 1024
"""Bytes of a batch: what a local socket takes in a few writes."""


class Batched(NamedTuple):
    """A batch that has an outcome: its entries, bytes and future; receipts and terms by index."""

    entries: list[list[Any]]
    size: int
    future: asyncio.Future[Sequence[Stored]]
    receipts: list[tuple[int, Receipt]]
    terms: dict[int, Terms]

    @property
    def events(self) -> int:
        """How many they are."""
        return len(self.entries)


Done = Callable[[Batched], None]
"""Told of a batch."""


class Lane:
    """One shard's way in.

    Args:
        appender: the session that stores batches.
        done: called when a batch has an outcome; None: receipts tell all there is to tell.
        refused: called, instead, with a batch of which nothing is stored, as the stream has come
            to be in more shards; None: that is an outcome like others.
    """

    def __init__(
        self, appender: Appender, done: Done | None = None, refused: Done | None = None
    ) -> None:
        self._appender = appender
        self._done = done
        self._refused = refused
        self._entries: list[list[Any]] = []
        self._size = 0
        self._scheduled = False
        self._timeout: float | None = None
        self._receipts: list[tuple[int, Receipt]] = []
        self._terms: dict[int, Terms] = {}
        self._failed: BaseException | None = None  # of an appender that answers at once
        self._good = True
        self.flying: set[asyncio.Future[Sequence[Stored]]] = set()

    @property
    def appender(self) -> Appender:
        """The session."""
        return self._appender

    @property
    def idle(self) -> bool:
        """Whether nothing is under way, and all went well at last."""
        return not self._entries and not self.flying and self._good

    def add(
        self,
        fields: list[Any],
        size: int,
        receipt: Receipt | None = None,
        timeout: float | None = None,
        terms: Terms | None = None,
    ) -> None:
        """Put an event in; it is submitted within this turn of the event loop.

        *timeout*: seconds that it may go without an outcome; None: as long as the session says.
        Of events that share a batch, the longest counts.
        """
        if timeout is not None:
            self._timeout = max(self._timeout or 0.0, timeout)
        if receipt is not None:
            self._receipts.append((len(self._entries), receipt))
        if terms is not None:
            self._terms[len(self._entries)] = terms
        self._entries.append(fields)
        self._size += size
        if len(self._entries) >= BATCH_EVENTS or self._size >= BATCH_BYTES:
            self.submit()
        elif not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._on_turn)

    def submit(self) -> None:
        """Hand over what has gathered."""
        if not self._entries:
            return
        entries, self._entries = self._entries, []
        receipts, self._receipts = self._receipts, []
        size, self._size = self._size, 0
        timeout, self._timeout = self._timeout, None
        terms, self._terms = self._terms, {}
        future = self._submitted(entries, timeout, terms)
        if future.done():
            self._failed = future.exception()
        self.flying.add(future)
        future.add_done_callback(
            lambda done: self._on_done(Batched(entries, size, done, receipts, terms))
        )

    def _submitted(
        self, entries: list[list[Any]], timeout: float | None, terms: dict[int, Terms]
    ) -> asyncio.Future[Sequence[Stored]]:
        """The outcome of a batch; behind one that nobody has heard of yet, that one's failure."""
        failed = self._failed
        try:
            if failed is None and terms:
                return self._appender.submit(entries, timeout, terms)
            if failed is None:
                return self._appender.submit(entries, timeout)
        except Exception as error:  # noqa: BLE001 - told like any outcome: whoever waits must hear
            failed = error
        future: asyncio.Future[Sequence[Stored]] = asyncio.get_running_loop().create_future()
        future.set_exception(failed)
        return future

    def _on_turn(self) -> None:
        self._scheduled = False
        self.submit()

    def _on_done(self, batch: Batched) -> None:
        future = batch.future
        self.flying.discard(future)
        self._failed = None
        error = future.exception()
        self._good = error is None
        if self._refused is not None and isinstance(error, ShardsCame):
            self._refused(batch)
            return
        for index, receipt in batch.receipts:
            receipt.resolve(future.result()[index] if error is None else error)
        if self._done is not None:
            self._done(batch)


class Receipt:
    """Proof of one event: ``position = await receipt``."""

    __slots__ = ("_future", "taken")

    def __init__(self) -> None:
        self._future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.taken = False

    def __await__(self) -> Generator[Any, Any, Position]:
        """Wait until the event is stored; its position.

        Of a delayed event (`deliver_at`): None, as it has none before its time.

        Cancelling the waiting does not take the event back.

        Raises:
            BackendError: it was not stored.
            OutcomeUnknown: nobody knows whether it was.
            ConflictError: its id stands for another content; it was not stored.
        """
        self.taken = True
        return asyncio.shield(self._future).__await__()

    def done(self) -> bool:
        """Whether the outcome is there."""
        return self._future.done()

    def resolve(self, outcome: Position | BaseException | None) -> None:
        """Set the outcome; for the lane alone."""
        if self._future.done():
            return
        if isinstance(outcome, BaseException):
            self._future.set_exception(outcome)
            self._future.exception()  # looked at: the writer reports it if nobody awaits it
        else:
            self._future.set_result(outcome)


def too_late(stream: str, receipt: Receipt | None, timeout: float) -> PenstockError:
    """What to raise when an append had no outcome within *timeout* seconds."""
    text = f"an append to {stream!r} had no outcome within {timeout} s; it "
    if receipt is None:
        return BackendUnavailable(text + "was not sent", verb="append to", key=stream)
    return OutcomeUnknown(text + "may be stored", unknown=1)
