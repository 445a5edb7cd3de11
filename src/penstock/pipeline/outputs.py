"""Outputs: what handlers return, on its way into a stream.

Does        append results, each under an id made of where its input stands, before the input is
            acked; try again while the server cannot be reached, or the stream is full.
Does not    ack.
Invariants  1. the id of an output depends on nothing but group, stream, shard, position and its
               number: an input that is handled again writes the same ids, and they are stored once
               within the stream's stated window.
            2. what an earlier call stored under an id stands: a later call does not replace it.
            3. several results are stored in their order, as far as the stream keeps one.
            4. an output carries the key and the headers of the event that it came from, unless it
               says otherwise; results of a batch carry none.
Source      Kafka Streams keeps keys and headers through a map.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import datetime
from hashlib import blake2b
from inspect import isasyncgen, isawaitable, iscoroutine, isgenerator
from types import EllipsisType
from typing import Any, Final, Generic, TypeVar, cast

from penstock.clock import Backoff, Clock
from penstock.errors import (
    BackendUnavailable,
    ConfigError,
    ConflictError,
    OutcomeUnknown,
    StreamFull,
)
from penstock.event import Event
from penstock.streams.asked import AppendKeywords
from penstock.streams.stream import Stream

AT_ONCE: Final = 500
"""Results that are appended together."""


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Output(Generic[T]):
    """A result with metadata of its own: ``return Output(invoice, key=invoice.customer)``.

    A result that is not wrapped is stored with the key and the headers of the event that the
    handler was called with, and with nothing where it was called with a batch.

    Attributes:
        value: the result.
        key: as for `Stream.append`; ``...``: the event's; None: none.
        headers: as for `Stream.append`; ``...``: the event's; a mapping is used instead of them.
        name: as for `Stream.append`.
        topic: as for `Stream.append`.
        timestamp: as for `Stream.append`; None: when it is stored.
        id: by which it is stored once within the window of its stream, and another content is a
            failure of the event; None: one made of where the event stands, by which the content
            that was stored first stands.
        deliver_at: as for `Stream.append`: nobody sees it before.
    """

    value: T
    _: KW_ONLY
    key: str | EllipsisType | None = ...
    headers: Mapping[str, str] | EllipsisType | None = ...
    name: str = ""
    topic: str = ""
    timestamp: float | datetime | None = None
    id: str | None = None
    deliver_at: float | datetime | None = None


class Outputs:
    """Writes the results of one handler.

    Args:
        stream: where they go.
        group: the handler's group: part of the ids.
        clock: for the pauses while nothing can be stored.
    """

    def __init__(self, stream: Stream[Any], group: str, clock: Clock) -> None:
        self._stream = stream
        self._group = group
        self._clock = clock
        self.written = 0

    async def write(
        self, result: Any, events: Sequence[Event[Any]], still_ours: Callable[[], None]
    ) -> None:
        """Store what a call returned: None is nothing, a list is several, all else is one.

        Args:
            result: the handler's.
            events: what it was called with: one, or a batch.
            still_ours: raises LeaseLost where the events are not in hand any more.

        Raises:
            EncodeError, PayloadTooLarge, BackendRejected: it cannot be stored.
            ConflictError: another content has been stored under an id of the handler's own.
            LeaseLost: by *still_ours*; some may be stored.
        """
        values = cast("list[Any]", result if isinstance(result, list) else [result])
        if result is None or not values:
            return
        still_ours()
        origin = self._origin(events)
        await self._store(values[0], f"{origin}/0", events, still_ours)
        for first in range(1, len(values), AT_ONCE):
            several = values[first : first + AT_ONCE]
            stored = [
                self._store(value, f"{origin}/{number}", events, still_ours)
                for number, value in enumerate(several, first)
            ]
            await _all(stored)

    def _origin(self, events: Sequence[Event[Any]]) -> str:
        """What the ids begin with; a batch is named by all that is in it."""
        first = events[0]
        place = f"{self._group}/{first.stream}/{first.shard}/{first.position}"
        if len(events) == 1:
            return place
        digest = blake2b(digest_size=12)
        for event in events:
            digest.update(f"{event.stream}/{event.shard}/{event.position};".encode())
        return f"{place}+{digest.hexdigest()}"

    async def _store(
        self,
        value: Any,
        id: str,
        events: Sequence[Event[Any]],
        still_ours: Callable[[], None],
    ) -> None:
        output = cast("Output[Any]", value) if isinstance(value, Output) else Output(value)
        options = _options(output, id, events)
        backoff = Backoff()
        while True:
            try:
                await self._stream.append(output.value, deliver_at=output.deliver_at, **options)
            except ConflictError:
                if output.id is not None:
                    raise
                return  # an earlier call for this input has stored its result
            except (BackendUnavailable, OutcomeUnknown, StreamFull):  # the id makes it repeatable
                await self._clock.sleep(backoff.next())
                still_ours()
            else:
                self.written += 1
                return


def check_finished(result: Any, place: str) -> None:
    """Raise ConfigError for a result whose work is still to be done: nobody would do it."""
    if result is None or not (isawaitable(result) or isgenerator(result) or isasyncgen(result)):
        return
    if iscoroutine(result):
        result.close()  # so that Python does not say it once more, elsewhere
    raise ConfigError(
        f"{place} returned work that is not done ({type(result).__name__}), and nobody would do "
        f"it: await what is awaitable, return list(…) of what yields; what wraps an 'async def' "
        f"must be an 'async def' itself"
    )


def check_dropped(result: Any, place: str) -> None:
    """Raise ConfigError for an `Output` of a handler whose results go nowhere."""
    results = cast("list[Any]", result if isinstance(result, list) else [result])
    if results and isinstance(results[0], Output):
        raise ConfigError(f"{place} returned an Output, and into= does not say where it goes")


def _options(output: Output[Any], id: str, events: Sequence[Event[Any]]) -> AppendKeywords:
    """What the append is asked for: the output's own, else the one event's."""
    only = events[0] if len(events) == 1 else None
    key, headers = output.key, output.headers
    if isinstance(key, EllipsisType):
        key = only.key if only else None
    if isinstance(headers, EllipsisType):
        headers = only.headers if only else None
    return {
        "key": key,
        "headers": headers,
        "name": output.name,
        "topic": output.topic,
        "timestamp": output.timestamp,
        "id": id if output.id is None else output.id,
    }


async def _all(several: Sequence[Any]) -> None:
    """Wait for all, and raise the first error when none runs any more."""
    outcomes = await asyncio.gather(*several, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
