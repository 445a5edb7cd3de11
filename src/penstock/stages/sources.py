"""From iterables, and from the ports, to stages.

Does        pull exactly what consumers have asked for, give it out, and take outcomes back; write.
Does not    know streams: a `Source` and a `Target` are whatever keeps to the port.
Invariants  1. nothing is pulled that was not asked for.
            2. waiting for a source holds up nothing: the stage answers, and ends, meanwhile.
            3. every event of a `Source` is settled once: done, when all that it led to has left the
               last stage; failed; or returned.
            4. a source is left when that is so, or when the stage is closed or has failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from itertools import islice
from typing import Any, Literal, TypeVar

from penstock.errors import ConfigError, StageError
from penstock.ports import Outcome, Source, Target
from penstock.rules.trace import Carrier, Fresh, Kind
from penstock.stages.protocol import Reason
from penstock.stages.stage import Consumer, Producer
from penstock.stages.subscription import Subscription

T = TypeVar("T")


class Pulling(Producer[T]):
    """A producer that awaits its events in a task of its own; `pull` is its one rule."""

    carrier: Carrier | None = None

    def __init__(self) -> None:
        self._wanted: int = 0
        self._asked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def pull(self, wanted: int) -> list[T]:
        """Wait for at least one event, at most *wanted*; an empty list: it is the end."""
        raise NotImplementedError

    def begin(self) -> None:
        """Pull from now on, as soon as somebody asks."""
        self._task = asyncio.create_task(self._pulling(), name=f"penstock pulls for {self.name}")

    def handle_demand(self, demand: int) -> Sequence[T] | None:
        """Remember it: the task serves it."""
        self._wanted += demand
        self._asked.set()
        return None

    def _supply(self, events: list[T], carrier: Carrier | None) -> None:
        giving = self._running().giving
        assert giving is not None
        giving.supply(events, carrier)

    async def _close_own(self, reason: Reason) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _pulling(self) -> None:
        try:
            while True:
                while not self._wanted:
                    self._asked.clear()
                    await self._asked.wait()
                events = await self.pull(self._wanted)
                if not events:
                    break
                self._wanted = max(0, self._wanted - len(events))
                self._supply(events, self.carrier)
            self.finish()
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            self._fail("get events", error)  # it was not us: something within was cancelled
        except Exception as error:  # noqa: BLE001 - whatever a source raises ends its stage
            self._fail("get events", error)

    def _fail(self, what: str, error: BaseException) -> None:
        text = f"{self.name} could not {what}: {type(error).__name__}: {error}"
        failed = StageError(text, stage=self.name)
        failed.__cause__ = error
        if isinstance(error, StageError) and error.stage == self.name:
            failed = error  # its dispatcher's, say: it is named already
        runner = self._running()
        if runner.ended is None:
            runner.stop(Reason("failed", failed))
        else:
            runner.signal("stage-failed", str(failed))


class IterableStage(Pulling[T]):
    """A producer of what an iterable gives, pulled as it is asked for; at its end the stage ends.

    Args:
        iterable: its steps run inline, so a slow one holds up the event loop: give an asynchronous
            one (an async generator) where it waits. What that gives within one turn of the event
            loop is given out together; nothing waits for a batch to fill.
        on_cancel: ``"stop"``: end when the last consumer has left; ``"continue"``: wait for others.

    An error of the iterable ends the stage as failed.

    Raises:
        ConfigError: it is no iterable, or `on_cancel` is unknown.

    Source: GenStage.from_enumerable.
    """

    def __init__(
        self,
        iterable: Iterable[T] | AsyncIterable[T],
        on_cancel: Literal["continue", "stop"] = "continue",
    ) -> None:
        super().__init__()
        if on_cancel not in {"continue", "stop"}:
            raise ConfigError(f"on_cancel must be 'continue' or 'stop'; got {on_cancel!r}")
        self._on_cancel = on_cancel
        self._items: Iterator[T] | None = None
        self._later: AsyncIterator[T] | None = None
        if isinstance(iterable, AsyncIterable):
            self._later = aiter(iterable)
        elif isinstance(iterable, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
            self._items = iter(iterable)
        else:
            raise ConfigError(f"IterableStage needs an iterable; got {iterable!r}")
        self._ready: list[T] = []

    def handle_start(self) -> None:
        """Only an asynchronous iterable needs a task."""
        if self._later is not None:
            self.begin()

    def handle_demand(self, demand: int) -> Sequence[T] | None:
        """Pull *demand* items; fewer: that was the end."""
        if self._items is None:
            return super().handle_demand(demand)
        events: list[T] = []
        try:
            events.extend(islice(self._items, demand))
        except Exception:
            self.emit(events)  # what came before the error is given out before the end
            raise
        if len(events) < demand:
            self.finish()
        return events

    async def pull(self, wanted: int) -> list[T]:
        """Items until *wanted* are there, or the iterable waits: then `_flush` gives them out."""
        assert self._later is not None
        self._ready = []
        flush: asyncio.Handle | None = None
        async for item in self._later:
            ready: list[T] = self._ready
            ready.append(item)
            if len(ready) >= self._wanted:
                break
            if len(ready) == 1:
                flush = asyncio.get_running_loop().call_soon(self._flush)
        if flush is not None:
            flush.cancel()
        found, self._ready = self._ready, []
        return found

    def _flush(self) -> None:
        found, self._ready = self._ready, []
        if found:
            self._wanted -= len(found)
            self._supply(found, None)

    async def _close_own(self, reason: Reason) -> None:
        await super()._close_own(reason)
        later: object = self._later
        if isinstance(later, AsyncGenerator):
            await later.aclose()
        items: object = self._items
        if isinstance(items, Generator):  # files and their like are their owner's to close
            items.close()

    def handle_cancel(self, reason: Reason, subscription: Subscription) -> None:
        """Without consumers, end, if so told."""
        if self._on_cancel == "stop" and not self.subscriptions:
            self.stop()


class SourceStage(Pulling[T]):
    """A producer of what a `Source` gives: a reader, a group, or whatever keeps to that port.

    Consumers' demand is what is fetched; what becomes of the events goes back to the source. An
    event is done when everything that it led to has been handled by the last stage, in this
    topology: then a group acks it. It failed, if a handler raised: then a group nacks it. What was
    not handled when the topology ends is returned: then a group hands it back, uncounted.

    Args:
        source: if it is an asynchronous context manager that was not entered yet (as a group or a
            reader is), it is entered when the stage starts, and left after its last event is
            settled.

    An error of the source ends the stage as failed.

    Source: Brink's producers; the port `Source`.
    """

    def __init__(self, source: Source[T]) -> None:
        super().__init__()
        _check_port(source, "fetch", "settle")
        self._source = source
        self._entered = False
        self._out = self._undone = 0
        self._settled = asyncio.Event()
        self._left = False
        self.carrier = Fresh(self._settle)

    async def handle_start(self) -> None:
        """Enter the source, and fetch from now on."""
        self._entered = await enter(self._source)
        self.begin()

    async def pull(self, wanted: int) -> list[T]:
        """Fetch."""
        events = list(await self._source.fetch(wanted))
        self._out += len(events)
        return events

    async def _close_own(self, reason: Reason) -> None:
        """Wait for the outcomes of what was given out, if all went well; then leave the source."""
        try:
            await super()._close_own(reason)
            while self._out and reason.kind == "normal":
                self._settled.clear()
                await self._settled.wait()
            if self._undone and reason.kind == "normal":
                self._running().signal(
                    "events-returned",
                    f"{self.name} has come to its end, but {self._undone} outcomes were not "
                    f"'done': what failed or was returned waits for a later run, if it did not "
                    f"come again in this one",
                    self._undone,
                )
        finally:
            self._left = True
            if self._entered:
                await leave(self._source)

    def _settle(self, events: Sequence[Any], kind: Kind, error: BaseException | None) -> None:
        self._out -= len(events)
        self._settled.set()
        self._undone += 0 if kind == "done" else len(events)
        if not self._left:
            try:
                self._source.settle([Outcome(event, kind, error) for event in events])
            except Exception as failure:  # noqa: BLE001 - the source's own; who said it goes on
                self._fail("settle its events", failure)
        elif kind == "done":
            self._running().signal(
                "acks-missed",
                f"{self.name} was closed before {len(events)} of its events were done: they may "
                f"come again",
                len(events),
            )


class TargetStage(Consumer[T]):
    """A consumer that writes to a `Target`: a writer, a stream, or whatever keeps to that port.

    It asks for more when the target has stored what came: its pace goes back to the sources, and
    its success too, where events come from a `SourceStage`.

    Args:
        target: if it is an asynchronous context manager that was not entered yet (as a writer is),
            it is entered when the stage starts, and left when that ends.

    Source: Brink's consumers; the port `Target`.
    """

    def __init__(self, target: Target[T]) -> None:
        _check_port(target, "write")
        self._target = target
        self._entered = False

    async def handle_start(self) -> None:
        """Enter the target."""
        self._entered = await enter(self._target)

    async def handle_events(self, events: list[T], source: Subscription) -> None:
        """Write them; all are stored when this returns."""
        await self._target.write(events)

    async def handle_close(self, reason: Reason) -> None:
        """Leave the target; an error of that fails the stage."""
        await self._close_own(reason)

    async def _close_own(self, reason: Reason) -> None:
        entered, self._entered = self._entered, False
        if entered:
            await leave(self._target)


def _check_port(port: object, *methods: str) -> None:
    missing = [name for name in methods if not callable(getattr(port, name, None))]
    if missing:
        raise ConfigError(
            f"{'a source' if 'fetch' in methods else 'a target'} needs {' and '.join(methods)}, as "
            f"penstock.ports says; {type(port).__name__} has no {' and no '.join(missing)}"
        )


async def enter(port: Any) -> bool:
    """Enter *port* if it can be, and is not; whether it was."""
    if not hasattr(port, "__aenter__") or getattr(port, "opened", False):
        return False
    await port.__aenter__()
    return True


async def leave(port: Any) -> None:
    """Leave what was entered."""
    await port.__aexit__(None, None, None)
