"""Trying: an App's handlers in tests, without a server, and without waiting.

Does        send events to handlers in memory, one call at a time; say what became of each.
Does not    run handlers by itself: nothing is called but what the test sends.
Invariants  1. everything is what runs elsewhere, but for the log, which is in memory, the clock,
               which stands still, and delays, which are none; nor does a breaker open, or a key
               wait behind its event that failed.
            2. one `send` is one call of one handler, unless it says otherwise.
Source      Broadway's test_message; FastStream's TestBroker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple, Self

from penstock.errors import ClosedError, ConfigError, RetryLater
from penstock.event import END, OLDEST, Event, Position
from penstock.manual_clock import ManualClock
from penstock.pipeline.handlers import Handler, check_together
from penstock.pipeline.handling import Handled
from penstock.pipeline.runner import Runner
from penstock.rules.filters import predicate
from penstock.rules.retry import Retry
from penstock.signals import Signal
from penstock.streams.client import Client, connect
from penstock.streams.group_options import GroupKeywords
from penstock.streams.stream import Stream

Status = Literal["acked", "failed", "dead-lettered", "rejected", "retry", "filtered", "duplicate"]

_PATIENCE: Final = 30.0
"""Seconds of the machine's own clock that an event may take through the memory."""

_AWAY: Final = 1e9
"""Seconds for which an event that another `send` left behind is put away."""


class AppOutcome(NamedTuple):
    """What became of what was sent. Made by `AppTest`.

    Attributes:
        status: ``"acked"``; ``"failed"``: counted, and to be tried again; ``"dead-lettered"``: it
            failed too often; ``"rejected"``: by `Reject`, or as undecodable: a dead letter too;
            ``"retry"``: by `RetryLater`; ``"filtered"``: `where` does not want it;
            ``"duplicate"``: its `id` is stored already, so nothing new has come.
        outputs: the values that were stored in the `into` of the handler, in order.
        error: what the handler raised, or the DecodeError.
        delay: seconds until it would come again, at most; None where it would not.
        attempts: how many failures were counted.
    """

    status: Status
    outputs: list[Any]
    error: BaseException | None = None
    delay: float | None = None
    attempts: int = 0


class AppTest:
    """An App's handlers in memory. Made by `App.test`; use ``async with``.

    Attributes:
        clock: the clock of everything in it; it stands still but where a test advances it.
        signals: what was signalled, in order.
    """

    def __init__(self, handlers: Sequence[Handler], bind: Callable[[Client | None], None]) -> None:
        self.clock = ManualClock()
        self.signals: list[Signal] = []
        self._handlers = handlers
        self._bind = bind
        self._client: Client | None = None
        self._runners: dict[Runner, Retry] = {}

    async def __aenter__(self) -> Self:
        """Make the memory, and join all groups in it.

        Raises:
            ConfigError: no handlers, or handlers that do not go together.
        """
        check_together(self._handlers)
        client = connect("memory://", clock=self.clock, observer=self.signals.append)
        self._client = await client.__aenter__()
        try:
            for handler in self._handlers:
                runner = Runner(_in_memory(handler), client, trying=True)
                self._runners[runner] = handler.options.get("retry") or Retry()
                await runner.open()
        except BaseException:
            await self._close()
            raise
        self._bind(client)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bind(None)
        await self._close()

    @property
    def client(self) -> Client:
        """The client of the memory: to look at streams, or to put something into others.

        Raises:
            ClosedError: not within ``async with``.
        """
        if self._client is None:
            raise ClosedError("the test must be opened: write 'async with app.test() as test:'")
        return self._client

    async def send(
        self,
        stream: str,
        value: Any,
        *,
        group: str | None = None,
        attempts: int = 1,
        key: str | None = None,
        name: str = "",
        topic: str = "",
        headers: Mapping[str, str] | None = None,
        id: str | None = None,
        timestamp: float | datetime | None = None,
    ) -> AppOutcome:
        """Append an event to *stream*, and call the handler with it.

        A handler of batches gets a batch of one.

        Args:
            stream: its name.
            value: what the stream takes.
            group: which handler, where the stream has several; the others are not called.
            attempts: call it again, at once, while it fails or asks for later, so often at most.
            key: as for `Stream.append`.
            name: as for `Stream.append`.
            topic: as for `Stream.append`.
            headers: as for `Stream.append`.
            id: as for `Stream.append`.
            timestamp: as for `Stream.append`.

        Raises:
            ConfigError: no such handler, or several and no *group*.
            EncodeError: the stream does not take the value.
        """
        runner = self._runner(stream, group)
        before = await self._stream(stream).length()
        position = await self._stream(stream).append(
            value, key=key, name=name, topic=topic, headers=headers, id=id, timestamp=timestamp
        )
        if id is not None and await self._stream(stream).length() == before:
            return AppOutcome("duplicate", [])
        where = predicate(runner.options.where)
        if where is not None:
            stored = await self._stream(stream).read_range(position, position)
            if not where(stored[0]):
                return AppOutcome("filtered", [])
        return await self._handle(runner, stream, [position], max(1, attempts))

    async def send_batch(
        self, stream: str, values: Sequence[Any], *, group: str | None = None
    ) -> AppOutcome:
        """Append *values*, and call the handler of batches with all of them at once.

        What is not decodable is not in the list, and does not show in the outcome.

        Raises:
            ConfigError: no values, or more than the handler's `size`; no such handler, or one
                that takes single events.
        """
        runner = self._runner(stream, group)
        batch = runner.handler.batch
        if batch is None:
            raise ConfigError(
                f"send_batch needs a handler of batches, and {runner.handler.name} takes single "
                f"events: use send()"
            )
        if not 1 <= len(values) <= batch.size:
            raise ConfigError(
                f"send_batch takes 1 to {batch.size} values, as {runner.handler.name} is given "
                f"size={batch.size} at most; got {len(values)}"
            )
        positions = await self._stream(stream).append_many(values)
        return await self._handle(runner, stream, positions, 1)

    async def values(self, stream: str) -> list[Any]:
        """The values of all that *stream* holds, oldest first."""
        return [event.value for event in await self.stored(stream)]

    async def stored(self, stream: str) -> list[Event[Any]]:
        """All that *stream* holds, oldest first: with keys, headers and the rest."""
        async with self._stream(stream).reader(start=OLDEST, until=END) as reader:
            return [event async for event in reader]

    async def _handle(
        self, runner: Runner, stream: str, positions: Sequence[Position], attempts: int
    ) -> AppOutcome:
        before = 0 if runner.into is None else await runner.into.length()
        outcome = AppOutcome("failed", [])
        for _ in range(attempts):
            events = await self._receive(runner, {(stream, position) for position in positions})
            handled = await runner.handling.handle(events)
            await runner.group.flush()
            outcome = await self._judge(runner, events, handled)
            if outcome.delay is None:
                break
        return outcome._replace(outputs=await self._outputs(runner, before))

    async def _judge(
        self, runner: Runner, events: Sequence[Event[Any]], handled: Handled
    ) -> AppOutcome:
        """What the group has made of it."""
        options, error = runner.options, handled.error
        failures = max(event.attempts for event in events)
        match handled.kind:
            case "acked":
                return AppOutcome("acked", [], attempts=failures)
            case "retry":
                assert isinstance(error, RetryLater)
                return AppOutcome("retry", [], error, error.seconds, failures)
            case "rejected":
                return AppOutcome("rejected", [], error, attempts=failures)
            case "failed" | "lost":
                failures += 1
        retry = self._runners[runner]
        if len(events) == 1 and options.dead_letters and failures >= retry.attempts:
            return AppOutcome("dead-lettered", [], error, attempts=failures)
        return AppOutcome("failed", [], error, retry.delay(failures, 0.0), failures)

    async def _receive(self, runner: Runner, wanted: set[tuple[str, Position]]) -> list[Event[Any]]:
        """These events, out of the group; what an earlier `send` left there is put away."""
        found: list[Event[Any]] = []
        while len(found) < len(wanted):
            event = await runner.group.receive(_PATIENCE)
            if event is None:
                raise ClosedError(f"{runner.handler.place} was not given what was sent to it")
            if (event.stream, event.position) in wanted:
                found.append(event)
            else:
                runner.group.fail(event, RetryLater(_AWAY))
        return found

    async def _outputs(self, runner: Runner, before: int) -> list[Any]:
        if runner.into is None:
            return []
        async with runner.into.reader(start=OLDEST, until=END) as reader:
            return [event.value async for event in reader][before:]

    def _runner(self, stream: str, group: str | None) -> Runner:
        """The one that is meant."""
        found = [
            runner
            for runner in self._runners
            if stream in runner.handler.streams and group in (None, runner.handler.group)
        ]
        if len(found) == 1:
            return found[0]
        groups = [runner.handler.group for runner in found]
        raise ConfigError(
            f"a handler must be on stream {stream!r}{f' in group {group!r}' if group else ''}, "
            f"and none is"
            if not found
            else f"stream {stream!r} has handlers in the groups {', '.join(groups)}: say which is "
            f"meant, as group={groups[0]!r}"
        )

    def _stream(self, name: str) -> Stream[Any]:
        """A handle on a stream, typed if one of the handlers says how."""
        found: dict[bool, Stream[Any]] = {}
        for runner in self._runners:
            taken, given = runner.handler.signature.value, runner.handler.signature.result
            handles = [(stream, taken) for stream in runner.streams]
            handles += [(runner.into, given)] if runner.into is not None else []
            for stream, type_ in handles:
                if stream.name == name:
                    found.setdefault(type_ is not None, stream)
        return found.get(True) or found.get(False) or self.client.stream(name)

    async def _close(self) -> None:
        runners, self._runners = self._runners, {}
        for runner in runners:
            await runner.close()
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()


def _in_memory(handler: Handler) -> Handler:
    """The same, with results that go into the memory too, with nothing to wait for or behind."""
    into = handler.into.name if isinstance(handler.into, Stream) else handler.into
    retry = handler.options.get("retry") or Retry()
    at_once = Retry(attempts=retry.attempts, first=0.0, cap=0.0, breaker=0)
    options: GroupKeywords = {
        **handler.options,
        "share": "events",
        "until": None,
        "retry": at_once,
    }
    return handler._replace(into=into, options=options)
