"""Together: several events of one call, on their way and at their end.

Does        hand events over in order, wait for every outcome, and say what became of all of them.
Does not    choose shards, or send again what met the birth of shards: the stream does.
Invariants  1. where some are stored and others are not, the error counts both: an error that means
               "not stored" is only raised where nothing is.
            2. what all of them ask is asked once.
            3. behind an event that is known to have failed, nothing more is handed over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, Generic, TypeVar

from penstock.errors import BackendUnavailable, NotConfirmed, OutcomeUnknown, PenstockError
from penstock.event import Position
from penstock.streams.lane import BATCH_EVENTS, Lane, Receipt

_AT_ONCE: Final = 20 * BATCH_EVENTS
"""Events that are handed over before their outcome is waited for."""

T = TypeVar("T")

Outcome = Position | Exception | None
"""Of one event: where it stands, or why it does not."""


class Shared(Generic[T]):
    """One question for all who ask it at the same time: thousands of first appends, one look."""

    def __init__(self) -> None:
        self._asking: asyncio.Task[T] | None = None

    async def of(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The answer, or error, of *ask*. Cancelled: it goes on, others may wait for it."""
        if self._asking is None:
            self._asking = asyncio.create_task(ask())
            self._asking.add_done_callback(self._on_done)
        return await asyncio.shield(self._asking)

    def _on_done(self, asked: asyncio.Task[T]) -> None:
        self._asking = None
        if not asked.cancelled():
            asked.exception()  # looked at: nobody may wait for it any more


async def store(
    packed: Sequence[tuple[list[Any], int]], lane: Callable[[], Awaitable[Lane]], timeout: float
) -> list[Outcome]:
    """Hand over events, as `Format.pack` made them, each to the lane that *lane* gives for it."""
    receipts: list[Receipt] = []
    failed: Exception | None = None
    try:
        for at, (fields, size) in enumerate(packed):
            way = await lane()
            receipts.append(Receipt())
            way.add(fields, size, receipts[-1], timeout)
            if at % _AT_ONCE == _AT_ONCE - 1:
                await receipts[-1]
    except PenstockError as error:
        failed = error
    outcomes = [await _outcome(receipt) for receipt in receipts]
    return outcomes + [failed] * (len(packed) - len(receipts))


def positions(outcomes: Sequence[Outcome], stream: str) -> list[Position]:
    """Where all of them stand.

    Raises:
        PenstockError: what became of the first that is not stored, where none is.
        OutcomeUnknown: how many are stored, may be, and are not.
    """
    errors = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    if errors:
        raise _told(outcomes, errors, stream)
    return [outcome for outcome in outcomes if isinstance(outcome, Position)]


def unsent(error: PenstockError, stream: str) -> PenstockError:
    """An outcome that is unknown to others, and of the event itself says that it was not sent."""
    if not isinstance(error, OutcomeUnknown) or error.unknown or error.stored:
        return error
    told = BackendUnavailable(str(error), verb="append to", key=stream)
    told.__cause__ = error
    return told


async def _outcome(receipt: Receipt) -> Outcome:
    try:
        return await receipt
    except Exception as error:  # noqa: BLE001 - told with the others'
        return error


def _told(outcomes: Sequence[Outcome], errors: Sequence[Exception], stream: str) -> Exception:
    stored = sum(isinstance(one, (Position, NotConfirmed)) for one in outcomes)
    unknown = sum(_is_unknown(one) for one in errors)
    first = errors[0]
    if stored + unknown == 0:
        return unsent(first, stream) if isinstance(first, PenstockError) else first
    if stored == len(outcomes) and isinstance(first, NotConfirmed):
        return _because(NotConfirmed(str(first), stored=stored, confirmed=first.confirmed), first)
    left = len(outcomes) - stored - unknown
    text = (
        f"{first}; of {len(outcomes)} events that were appended to {stream!r} together, {stored} "
        f"are stored, {unknown} may be, and {left} are not"
    )
    return _because(OutcomeUnknown(text, stored=stored, unknown=unknown, unsent=left), first)


def _is_unknown(error: Exception) -> bool:
    if not isinstance(error, OutcomeUnknown) or isinstance(error, NotConfirmed):
        return False
    return bool(error.unknown or error.stored)


def _because(error: PenstockError, cause: Exception) -> PenstockError:
    error.__cause__ = cause
    return error
