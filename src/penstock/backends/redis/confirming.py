"""Confirming: batches that count as stored when replicas, or the disk, have them too.

Does        ask once for all batches that were answered together, on their own connection; ask
            again while there is time.
Does not    send batches: `appender.py` does, and keeps them in its window until they are confirmed.
Invariants  1. the question goes behind the answers of what it is about, on the same connection.
            2. what is not confirmed in time is stored all the same, and said to be.
            3. a question that is refused is not asked again; a server that has changed its part
               loses the connection.
Source      reliability notes 1.1, 1.2: WAIT and WAITAOF cover all earlier writes of a connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from penstock.backends.redis.batches import Batch, reject, resolve
from penstock.backends.redis.edge import RETRY, ReplyError, refused
from penstock.backends.redis.wire import Wire
from penstock.clock import Clock
from penstock.errors import NotConfirmed
from penstock.rules.durability import Way
from penstock.rules.session import Flight

_ONCE: Final = 1.0
"""Seconds that one question waits: the connection does nothing else meanwhile."""

_REST: Final = 0.7
"""Seconds before a batch's time is over at which it is told that it is not confirmed."""

Settled = Callable[[Wire, Flight[Batch], Exception | None], bool]
"""Told of a flight that is confirmed (None), or is not, or was cut off; False: it is not ours."""


class Confirming:
    """Batches that are stored and not yet confirmed.

    Args:
        way: how the server confirms.
        stream: the stream's key.
        clock: for the time that batches have.
        settled: told what became of each.
    """

    def __init__(self, way: Way, stream: str, clock: Clock, settled: Settled) -> None:
        self._way = way
        self._stream = stream
        self._clock = clock
        self._settled = settled
        self._stored: list[tuple[Flight[Batch], bytes]] = []
        self._asked = False

    def add(self, wire: Wire, flight: Flight[Batch], answer: bytes) -> None:
        """*flight* is stored, as *answer* says: ask for it within this turn of the loop."""
        self._stored.append((flight, answer))
        if not self._asked:
            self._asked = True
            asyncio.get_running_loop().call_soon(self._ask, wire)

    def _ask(self, wire: Wire) -> None:
        about, self._stored = self._stored, []
        self._asked = bool(about)
        if not about:
            return
        now = self._clock.monotonic()
        left = min(flight.batch.since + flight.batch.limit - now for flight, _ in about)
        wait = int(1000 * min(_ONCE, max(0.01, left - _REST)))
        reply = wire.send(self._way.command, *self._way.args, wait)
        reply.add_done_callback(lambda done: self._on_reply(wire, about, done))

    def _on_reply(
        self, wire: Wire, about: list[tuple[Flight[Batch], bytes]], done: asyncio.Future[Any]
    ) -> None:
        error = ConnectionError("cancelled") if done.cancelled() else done.exception()
        if isinstance(error, ReplyError) and not _changed(error):
            self._refused(wire, about, error)
            return
        if error is not None:
            self._asked = False
            for flight, _ in about:
                self._settled(wire, flight, error if isinstance(error, Exception) else None)
            if isinstance(error, ReplyError):
                wire.end(error)
            return
        confirmed = self._way.confirmed(done.result())
        now = self._clock.monotonic()
        for flight, answer in about:
            batch = flight.batch
            if confirmed >= max(1, self._way.wanted):
                if self._settled(wire, flight, None):
                    resolve(batch, answer, self._stream)
            elif now < batch.since + batch.limit - _REST:
                self._stored.append((flight, answer))
            elif self._settled(wire, flight, None):
                self._too_few(batch, confirmed)
        self._ask(wire)

    def _refused(
        self, wire: Wire, about: list[tuple[Flight[Batch], bytes]], error: ReplyError
    ) -> None:
        """Nobody will ever say whether these are confirmed."""
        for flight, _ in about:
            if self._settled(wire, flight, None):
                mapped = refused(error, verb="confirm appends to", key=self._stream)
                text = f"{flight.batch.count} events are stored in {self._stream!r} on the master; "
                told = NotConfirmed(f"{text}{mapped}", stored=flight.batch.count)
                reject(flight.batch, told, mapped)
        self._ask(wire)

    def _too_few(self, batch: Batch, confirmed: int) -> None:
        where = "its disk" if self._way.command == "WAITAOF" else f"{self._way.wanted} replicas"
        error = NotConfirmed(
            f"{batch.count} events are stored in {self._stream!r} on the master, and were to be "
            f"confirmed by {where}; {confirmed} did in time; a failover may lose them",
            stored=batch.count,
            confirmed=confirmed,
        )
        reject(batch, error, error)


def _changed(error: ReplyError) -> bool:
    """Whether the server has become a replica since the write: WAIT is a master's to answer."""
    return error.code in RETRY or "replica" in str(error)
