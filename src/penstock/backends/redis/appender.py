"""Appender: batches into one stream key, in order, each once.

Does        send batches pipelined; after a broken connection send again what has no answer, under
            the same sequence; judge by `rules.session`.
Does not    encode events, wait for room, or hold receipts: `streams/writer.py` does.
Invariants  1. a batch is sent at most once per connection, and never before the ones before it.
            2. sending again stores nothing twice: the script knows the sequence.
            3. nothing goes on after `timeout` seconds without an outcome: what may be stored is
               OutcomeUnknown, the rest is BackendUnavailable.
            4. a session that was given up is deleted before the next one stores anything, so a
               late packet of it stores nothing.
Source      reliability notes 1.7, 1.8; Kafka KIP-98.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

from penstock.backends.redis.append_scripts import APPEND, STORE
from penstock.backends.redis.batches import Batch, arguments, reject, resolve
from penstock.backends.redis.confirming import Confirming
from penstock.backends.redis.edge import RETRY, ReplyError, full, refused, unavailable
from penstock.backends.redis.keys import Keys
from penstock.backends.redis.link import Link, command
from penstock.backends.redis.opening import open_session
from penstock.backends.redis.wire import Arg, GettingOn, Wire, heed
from penstock.clock import Backoff, Clock
from penstock.errors import BackendUnavailable, ClosedError, OutcomeUnknown, PenstockError
from penstock.observers import Observers
from penstock.ports import AppendOptions, Fields, Marks, ShardsCame, Stored, Terms
from penstock.rules.durability import Way
from penstock.rules.session import Answer, AppendSession, Flight
from penstock.signals import Signal

TTL: Final = 3_600_000
"""Milliseconds that a session outlives its writer's silence: longer than any outage worth waiting
for. A session that is gone while nothing is in flight is opened anew, and observers are told."""

_SILENCE: Final = 5.0
"""Seconds without any progress after which a connection counts as dead: a server answers in
milliseconds, and pauses for a second at worst when it forks or its disk is slow."""

_ORDER: Final = "not sent to {}, to keep the order: an earlier append has no outcome"

_LOOK: Final = 0.5
"""Seconds between looks at the time, while anything is without an outcome."""


class RedisAppender:
    """One idempotent session of appends.

    Args:
        link: the shared, pipelined connection.
        keys: the names of the stream.
        marks: what a new stream is marked with.
        options: how to append.
    """

    def __init__(  # noqa: PLR0917 - handed through from the backend
        self,
        link: Link,
        keys: Keys,
        marks: Marks,
        options: AppendOptions,
        clock: Clock,
        observers: Observers,
    ) -> None:
        self._link = link
        self._keys = keys
        self._marks = marks
        self._options = options
        self._clock = clock
        self._observers = observers
        self._rules: AppendSession[Batch] = AppendSession()
        self._session = secrets.token_hex(8)
        self._given_up: list[str] = []
        self._marked = not options.foreign
        # Which key must exist: the stream; of a shard its marks, for others may hold the events.
        self._existing = options.only_if_exists * (1 if keys.base is None else 2)
        self._opened = False
        self._wire: Wire | None = None
        self._cause: Exception | None = None
        self._stands_at = 0
        self._heard = 0.0
        self._written = 0
        self._getting_on: GettingOn | None = None
        self._answer = asyncio.Event()
        self._backoff = Backoff()
        self._mender: asyncio.Task[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._closed = False
        self._unheard = self._grown = False
        self._confirming: Confirming | None = None
        self._own: Link | None = None

    def confirm_by(self, way: Way, link: Link) -> None:
        """Count batches as stored when *way* says so; over *link*, which is this appender's own."""
        self._link = self._own = link
        self._confirming = Confirming(way, self._keys.stream, self._clock, self._settle)

    def submit(
        self,
        batch: Sequence[Fields],
        timeout: float | None = None,
        terms: Mapping[int, Terms] | None = None,
    ) -> asyncio.Future[Sequence[Stored]]:
        """Store *batch* behind everything submitted before; see `ports.Appender.submit`."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Sequence[Stored]] = loop.create_future()
        if self._closed:
            future.set_exception(ClosedError("the appender was closed; nothing was sent"))
            return future
        if self._unheard:
            text = f"{_ORDER.format(self._place)}, and its sender has not heard of it yet"
            future.set_exception(OutcomeUnknown(text, unsent=len(batch)))
            return future
        if self._grown:
            future.set_exception(ShardsCame(self._keys.stream))
            return future
        limit = self._options.timeout if timeout is None else timeout
        args = arguments(batch, terms)
        self._rules.add(Batch(args, len(batch), future, self._clock.monotonic(), limit, terms))
        if self._watch is None:
            self._watch = loop.call_later(_LOOK, self._look)
        self._pump()
        return future

    async def open(self) -> None:
        """Open the session now, so that what is wrong with the stream is known before a batch.

        Raises:
            ConfigError: the stream has other marks, or newer ones.
            BackendError: refused, or not reachable.
        """
        await self._open(await self._link.wire())

    async def aclose(self) -> None:
        """End the session; what has no outcome yet fails as OutcomeUnknown."""
        self._closed = True
        if self._watch is not None:
            self._watch.cancel()
        try:
            if self._mender is not None:
                self._mender.cancel()
                await asyncio.gather(self._mender, return_exceptions=True)
        finally:
            self._end(ClosedError("the appender was closed"))
            wire = self._link.now
            if wire is not None and self._given_up:
                keys = [self._keys.session(session) for session in self._given_up]
                wire.send("DEL", *keys).add_done_callback(heed)  # the server's expiry does it too
            if self._own is not None:
                self._own.close()

    def _pump(self) -> None:
        """Send what may be sent; where something is wrong, leave it to the mender."""
        if self._mender is not None:
            return
        wire = self._wire
        if wire is None or not wire.alive or not self._opened or self._rules.trouble:
            self._mender = asyncio.get_running_loop().create_task(self._mend())
            self._mender.add_done_callback(self._mended)
            return
        if not self._rules.in_air:
            self._heard = self._clock.monotonic()
        for flight in self._rules.take():
            self._send(wire, flight)

    def _send(self, wire: Wire, flight: Flight[Batch]) -> None:
        names = self._keys
        keys = [names.stream, names.meta, names.session(self._session)]
        stamp = " ".join(map(str, self._marks)) if self._marked else ""
        args: tuple[Arg, ...] = (flight.sequence, stamp, self._existing, TTL)
        script = APPEND
        if flight.batch.terms is not None:
            script = STORE
            keys += [names.ids, *names.sides, names.delayed, names.waiting]
            args = (*args, int(self._options.window * 1000))
        reply = wire.send(*command(script, keys, (*args, *flight.batch.args)))
        self._written = wire.written
        reply.add_done_callback(lambda done: self._on_reply(wire, flight, done))

    def _on_reply(self, wire: Wire, flight: Flight[Batch], done: asyncio.Future[Any]) -> None:
        """An answer came, or the connection broke."""
        self._answer.set()
        error = None if done.cancelled() else done.exception()
        if done.cancelled() or wire is not self._wire or not flight.in_air:
            return
        self._heard = self._clock.monotonic()
        if error is not None and not isinstance(error, ReplyError):
            self._cause = unavailable(error, self._link.address.place, verb="append")
            self._rules.cut()
        else:
            answer = self._judge(error, done)
            if error is None and answer in ("refused", "unmarked"):
                flight.unsure = False  # the script has looked at its number before
            if self._confirming is not None and answer in ("stored", "again"):
                self._confirming.add(wire, flight, done.result()[1])
                return  # until then it is in the air: a connection that breaks sends it again
            if self._rules.answered(flight, answer):
                self._backoff.reset()
                resolve(flight.batch, done.result()[1], self._keys.stream)
        self._go_on()

    def _settle(self, wire: Wire, flight: Flight[Batch], error: Exception | None) -> bool:
        """A stored batch is confirmed, or told that it is not; or its connection broke."""
        self._answer.set()
        if wire is not self._wire or not flight.in_air:
            return False
        self._heard = self._clock.monotonic()
        if error is not None:
            self._cause = unavailable(error, self._link.address.place, verb="append")
            self._rules.cut()
        elif self._rules.answered(flight, "stored"):
            self._backoff.reset()
        asyncio.get_running_loop().call_soon(self._go_on)
        return error is None

    def _judge(self, error: ReplyError | None, done: asyncio.Future[Any]) -> Answer:
        if error is None:
            status = done.result()[0].decode()
            if status == "gap":
                self._stands_at = done.result()[1]
            if status == "full":
                self._cause = (
                    self._cause
                    if self._rules.trouble
                    else full(self._keys.stream, done.result()[1])
                )
                return "refused"
            if status != "absent":
                return status
            error = ReplyError(f"NOGROUP no such stream {self._keys.stream!r}; it must exist")
        if not self._rules.trouble:
            self._cause = refused(error, verb="append to", key=self._keys.stream)
        return "retry" if error.code in RETRY else "refused"

    def _go_on(self) -> None:
        if not self._closed and not self._rules.idle:
            self._pump()

    async def _mend(self) -> None:
        """Until everything that waits is under way on a good connection."""
        while not self._rules.idle:
            try:
                await self._attempt()
            except ShardsCame:
                raise
            except BackendUnavailable as error:
                self._cause = error
                await self._clock.sleep(self._backoff.next())
            else:
                return

    def _mended(self, task: asyncio.Task[None]) -> None:
        self._mender = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._end(error)
        self._go_on()

    async def _attempt(self) -> None:
        """Hear all answers, draw the conclusions, and send again on a good connection."""
        while self._rules.in_air:
            self._answer.clear()
            await self._answer.wait()
        trouble = set(self._rules.trouble)
        if "retry" in trouble or "refused" in trouble:
            self._on_refusal("refused" in trouble)
        if "missing" in trouble:
            self._on_missing()
        if "gap" in trouble and (lost := self._rules.behind(self._stands_at)):
            self._on_behind(lost)
        if trouble & {"retry", "unmarked"}:
            await self._clock.sleep(self._backoff.next())
        wire = await self._link.wire()
        if "retry" in trouble and "NOSCRIPT" in str(self._cause):
            for script in (APPEND, STORE):
                await self._link.call("SCRIPT", "LOAD", script.text, verb="append to")
        if not self._opened or wire is not self._wire or trouble & {"unmarked", "missing"}:
            await self._open(wire)
        self._heard = self._clock.monotonic()
        for flight in self._rules.rewind():
            self._send(wire, flight)

    async def _open(self, wire: Wire) -> None:
        """See that the stream is what we take it for, and that the session is there."""
        session, given_up, fresh = self._session, list(self._given_up), not self._opened
        if given_up:
            keys = [self._keys.session(one) for one in given_up]
            await self._link.call("DEL", *keys, verb="append to", key=self._keys.stream)
            self._given_up = [one for one in self._given_up if one not in given_up]
        marks, self._marked = await open_session(
            self._link,
            self._keys,
            self._marks,
            self._options,
            session,
            TTL if fresh else 0,
            self._wire is not None,
        )
        self._grown |= marks.shards != self._marks.shards  # what was submitted goes, but no more
        self._marks = marks
        self._opened = session == self._session  # else it was given up meanwhile
        if wire is not self._wire:
            self._wire, self._getting_on = wire, GettingOn(wire)

    def _on_refusal(self, for_good: bool) -> None:
        """Nothing of the refused batch was stored."""
        if for_good:
            assert self._cause is not None
            left = self._rules.refused()
            self._fail(left.unknown, left.unsent, self._cause)
            self._new_session()
        elif self._link.now is not None and "READONLY" in str(self._cause):
            self._link.now.end()  # a demoted master: the next connection may find the new one

    def _on_missing(self) -> None:
        """The server has forgotten the session: a restart without its data, or a long silence."""
        lost = self._rules.missing()
        cause = OutcomeUnknown("the server no longer knows the session")
        text = (
            f"the server no longer knows a session of {self._keys.stream!r} (it lost its data, or "
            f"the writer was silent for an hour); if it lost its data, confirmed events are lost"
        )
        self._observers(Signal("session-reset", text, stream=self._keys.stream))
        self._fail(lost.unknown, lost.unsent, cause)
        self._new_session()

    def _on_behind(self, lost: int) -> None:
        """The server stands before what it had confirmed: a failover that lost events."""
        text = (
            f"the server has lost {lost} batches of {self._keys.stream!r} that it had confirmed "
            f"(a failover without replicas confirmed?); later ones are stored again in order"
        )
        self._observers(Signal("confirmed-lost", text, stream=self._keys.stream, count=lost))
        self._new_session()

    def _new_session(self) -> None:
        self._given_up.append(self._session)
        self._session = secrets.token_hex(8)
        self._opened = False
        self._rules.renew()

    def _look(self) -> None:
        """Twice a second, while anything is without an outcome: is it taking too long?"""
        self._watch = None
        oldest = self._rules.oldest()
        if oldest is None:
            return
        now = self._clock.monotonic()
        if now - oldest.since > oldest.limit:
            self._end(self._cause)
        elif self._rules.in_air and self._wire is not None:
            assert self._getting_on is not None
            if self._getting_on.since_last(self._written):
                self._heard = now
            elif now - self._heard > _SILENCE + self._wire.on_its_way:
                self._wire.end(TimeoutError(f"no answer for {_SILENCE} s"))
        self._watch = asyncio.get_running_loop().call_later(_LOOK, self._look)

    def _end(self, cause: BaseException | None) -> None:
        """Give everything up that has no outcome."""
        left = self._rules.give_up()
        self._answer.set()
        self._fail(left.unknown, left.unsent, cause or TimeoutError("no answer in time"))
        self._new_session()

    def _fail(self, unknown: list[Batch], unsent: list[Batch], cause: BaseException) -> None:
        place = self._place
        if unknown:
            self._unheard = True
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._heard_of)  # behind what the futures call
        for batch in unknown:
            text = (
                f"an append to {place} has no outcome after all attempts: {cause}; it may be stored"
            )
            reject(batch, OutcomeUnknown(text, unknown=batch.count), cause)
        for batch in unsent:
            reject(batch, self._unsent(place, batch, cause, bool(unknown)), cause)

    def _heard_of(self) -> None:
        """Whoever had sent what is unknown has been told: from now on he knows what he does."""
        self._unheard = False

    @property
    def _place(self) -> str:
        return f"{self._keys.stream!r} on {self._link.address.place}"

    def _unsent(self, place: str, batch: Batch, cause: BaseException, order: bool) -> BaseException:
        if order:
            return OutcomeUnknown(_ORDER.format(place), unsent=batch.count)
        if isinstance(cause, PenstockError):
            return cause
        return unavailable(cause, self._link.address.place, verb="append to", key=self._keys.stream)
