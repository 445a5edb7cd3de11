"""Outputs: what handlers return, on its way into a stream.

Does        append results, each under an id made of where its input stands, before the input is
            acked; try again while the server cannot be reached.
Does not    ack.
Invariants  1. the id of an output depends on nothing but group, stream, shard, position and its
               number: an input that is handled again writes the same ids, and they are stored once
               within the stream's stated window.
            2. what an earlier call stored under an id stands: a later call does not replace it.
            3. several results are stored in their order, as far as the stream keeps one.
            4. an output carries the key of the event that it came from.
Source      Kafka Streams keeps keys through a map.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, Final, cast

from penstock.clock import Backoff, Clock
from penstock.errors import BackendUnavailable, ConflictError, OutcomeUnknown
from penstock.event import Event
from penstock.streams.stream import Stream

AT_ONCE: Final = 500
"""Results that are appended together."""


class Outputs:
    """Writes the results of one handler.

    Args:
        stream: where they go.
        group: the handler's group: part of the ids.
        clock: for the pauses while the server cannot be reached.
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
            LeaseLost: by *still_ours*; some may be stored.
        """
        values = cast("list[Any]", result if isinstance(result, list) else [result])
        if result is None or not values:
            return
        still_ours()
        origin = self._origin(events)
        key = events[0].key if len(events) == 1 else None
        await self._store(values[0], f"{origin}/0", key, still_ours)
        for first in range(1, len(values), AT_ONCE):
            several = values[first : first + AT_ONCE]
            stored = [
                self._store(value, f"{origin}/{number}", key, still_ours)
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
        self, value: Any, id: str, key: str | None, still_ours: Callable[[], None]
    ) -> None:
        backoff = Backoff()
        while True:
            try:
                await self._stream.append(value, id=id, key=key)
            except ConflictError:  # an earlier call for this input has stored its result
                return
            except (BackendUnavailable, OutcomeUnknown):  # the id makes it safe to repeat
                await self._clock.sleep(backoff.next())
                still_ours()
            else:
                self.written += 1
                return


async def _all(several: Sequence[Any]) -> None:
    """Wait for all, and raise the first error when none runs any more."""
    outcomes = await asyncio.gather(*several, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
