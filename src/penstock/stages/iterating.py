"""From stages to ``async for``: the iterating program is a consumer like any other.

Does        subscribe when the first event is wanted, ask as events are taken, cancel at the end.
Does not    run a task, or a stage: it is a peer of the protocol, and its caller does the work.
Invariants  1. an event counts as handled when the next one is asked for: so leaving the loop at an
               event returns it, and what came with it, to its source.
            2. no more is asked for than was taken.
            3. left in any way, also by being forgotten, it cancels all its subscriptions.
Source      GenStage.stream.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from penstock.errors import ClosedError, DemandExceeded, StageError, SubscriptionCancelled
from penstock.rules.demand import Demand
from penstock.rules.trace import Trace
from penstock.stages.calls import Missing
from penstock.stages.handle import StageHandle, To, to_of
from penstock.stages.protocol import (
    Cancel,
    Cancelled,
    Events,
    Message,
    Peer,
    Reason,
    Subscribe,
    Tag,
)
from penstock.stages.subscription import Subscription

T = TypeVar("T")

_TURN = 256
"""Events after which other tasks get their turn, if nothing has waited meanwhile."""


def iterate(
    producers: To | Peer | Iterable[To | Peer],
    *,
    forward: Iterable[StageHandle[Any]] | None = None,
) -> EventIterator[Any]:
    """Iterate over what *producers* give out, each event once, in the order in which it comes.

    ``async for event in iterate([a, b.with_options(max_demand=10)])``. It subscribes at the first
    step, asks for more as events are taken, and cancels when the loop is left. It ends when all
    producers have ended. To leave it at a known moment: ``async with iterate(…) as events``.

    Args:
        producers: one or several: handles, ``handle.with_options(…)``, or other peers.
        forward: producers that are told to forward demand when all subscriptions have been made;
            None: all of *producers*.

    Raises:
        ConfigError: options that are out of range, or that a producer can never serve.
    """
    return EventIterator(producers, forward)


class EventIterator(Generic[T]):
    """An asynchronous iterator over what stages give out; made by `iterate` and `handle.events`."""

    def __init__(
        self,
        producers: To | Peer | Iterable[To | Peer],
        forward: Iterable[StageHandle[Any]] | None = None,
    ) -> None:
        self._inbox = _Inbox()
        self._begun = False
        single = isinstance(producers, To | str) or not isinstance(producers, Iterable)
        several: Any = [producers] if single else producers
        self._to = [to_of(to) for to in several]
        self._forward = None if forward is None else list(forward)
        self._slice: list[T] = []
        self._next = self._turn = 0
        self._whose: Subscription | None = None
        self._ask = 0
        self._trace: Trace | None = None
        self._slices: deque[tuple[Subscription, list[T], int, Trace | None]] = deque()

    def subscribe(self, to: To | Peer) -> None:
        """Take events of one more producer too, also while iterating.

        Raises:
            ConfigError: options that are out of range, or that the producer can never serve.
            ClosedError: the iteration is over.
        """
        if self._inbox.closed:
            raise ClosedError("the iteration is over: it takes no more producers")
        self._to.append(to_of(to))
        if self._begun:
            self._inbox.subscribe(self._to[-1])

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """Wait for the next event; the one before counts as handled. Cancelled: nothing is skipped.

        Raises:
            SubscriptionCancelled: a producer failed, refused, or was not there (unless its `cancel`
                is ``"temporary"``), or was shut down (if it is ``"permanent"``).
        """
        while self._next >= len(self._slice):
            self._handled()
            if not self._take():
                await self._wait()
        self._turn += 1
        if self._turn >= _TURN:
            self._turn = 0
            await asyncio.sleep(0)
        self._next += 1
        return self._slice[self._next - 1]

    async def aclose(self) -> None:
        """Cancel all subscriptions; what was not taken goes back where it can. Twice is fine."""
        self._close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def __del__(self) -> None:
        if self._begun and not self._inbox.closed:
            with suppress(RuntimeError):  # the event loop is closed: nobody is left to be told
                self._close()

    def _handled(self) -> None:
        """All of the present slice were taken: that is when it is done, and more is asked for."""
        trace, self._trace = self._trace, None
        count, self._slice, self._next = len(self._slice), [], 0
        if trace is not None:
            trace.close(count)
        if self._whose is not None and self._ask:
            self._whose.send_ask(self._ask)
        self._whose = None

    def _take(self) -> bool:
        """Begin with the next slice, if one is there; or raise, where a producer failed."""
        while not self._slices:
            if not self._inbox.messages:
                return False
            source, message = self._inbox.messages.popleft()
            if isinstance(message, StageError):
                self._close()
                raise message
            self._cut(source, message)
        self._whose, self._slice, self._ask, self._trace = self._slices.popleft()
        return True

    def _cut(self, source: Subscription, message: Events) -> None:
        events, carrier, start = message.events, message.carrier, 0
        for size, ask in source.demand.received(len(events)):
            part = events[start : start + size]
            start += size
            trace = carrier.begin(part) if carrier is not None else None
            self._slices.append((source, part, ask, trace))
        if source.demand.excess:
            excess, source.demand.excess = source.demand.excess, 0
            source.cancel(
                DemandExceeded(
                    f"{source.peer.name} sent {excess} events more to {_Inbox.name} than were "
                    f"asked for: mend the producer"
                )
            )

    async def _wait(self) -> None:
        """Wait for a message; or raise: it is the end, or a failure."""
        if not self._begun and not self._inbox.closed:
            self._begin()
        inbox = self._inbox
        self._turn = 0
        if inbox.messages:
            return
        if inbox.closed or not inbox.sources:
            self._close()
            raise StopAsyncIteration
        await inbox.wait()

    def _begin(self) -> None:
        self._begun = True
        for to in self._to:
            self._inbox.subscribe(to)
        producers = [to.producer for to in self._to] if self._forward is None else self._forward
        for producer in producers:
            if isinstance(producer, StageHandle) and producer.started:
                producer.demand("forward")

    def _close(self) -> None:
        if self._trace is not None:
            self._trace.fail((), None)
        for _, _, _, trace in self._slices:
            if trace is not None:
                trace.fail((), None)
        self._slices.clear()
        self._slice, self._next, self._trace, self._whose = [], 0, None, None
        self._inbox.close()


class _Inbox:
    """The peer that producers know; apart, so that a forgotten iterator is noticed."""

    name = "an iteration"

    def __init__(self) -> None:
        self.messages: deque[tuple[Subscription, Events | StageError]] = deque()
        self.sources: dict[Tag, Subscription] = {}
        self.closed = False
        self._waiters: list[asyncio.Future[None]] = []

    def send(self, message: Message) -> None:
        """Take a message in."""
        if type(message) is Events:
            source = self.sources.get(message.tag)
            if source is None:
                self._unknown(message)
                return
            source.events += len(message.events)
            self.messages.append((source, message))
        elif type(message) is Cancelled:
            self._ended(message)
        self._wake()

    def subscribe(self, to: To) -> None:
        """Subscribe, and ask for the first events."""
        producer = to.producer
        if isinstance(producer, str):
            error = StageError(f"there is no topology to look up {producer!r} in: give a handle")
            producer = Missing(producer, Reason("failed", error, down=True))
        elif isinstance(producer, StageHandle):
            producer = producer.runner
        tag = Tag(self, producer)
        self.sources[tag] = source = Subscription(tag, to.options, "producer")
        source.demand = Demand(to.options.max_demand, to.options.min_demand)
        producer.send(Subscribe(tag, to.options))
        if tag in self.sources:  # it may have been refused at once
            source.demand.grant(to.options.max_demand)
            source.send_ask(to.options.max_demand)

    async def wait(self) -> None:
        """Wait for the next message."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            self._waiters.remove(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def close(self) -> None:
        """Cancel everything, and return what was not taken."""
        self.closed = True
        self._wake()
        for tag, source in self.sources.items():
            source.open = False
            tag.producer.send(Cancel(tag, Reason("normal", down=True)))
        self.sources.clear()
        for _, message in self.messages:
            if isinstance(message, Events) and message.carrier is not None:
                message.carrier.fail(message.events, None)
        self.messages.clear()

    def _ended(self, message: Cancelled) -> None:
        source = self.sources.pop(message.tag, None)
        if source is None:
            return
        source.open = False
        reason, mode = message.reason, source.options.cancel
        if reason.kind == "normal" or not reason.ends(mode):
            return
        what = "ended" if reason.down else "cancelled"
        failure = SubscriptionCancelled(
            f"the iteration over {source.peer.name} cannot go on, as that {what}: {reason}"
        )
        failure.__cause__ = reason.error
        self.messages.append((source, failure))  # behind the events that came before

    def _unknown(self, message: Events) -> None:
        """Events that come when their subscription is over."""
        if message.carrier is not None:
            message.carrier.fail(message.events, None)
        tag = message.tag
        error = StageError(f"{self.name} has no {tag!r}: {len(message.events)} events were dropped")
        tag.producer.send(Cancel(tag, Reason("failed", error)))
