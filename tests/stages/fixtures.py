"""Small stages that write down what they see, and helpers to wait for it.

Does        count, forward, double, sleep, discard, postpone; speak the protocol by hand.
Does not    sleep for a time: what a test waits for is awaited, and "nothing more comes" is said by
            `quiet`, which lets the event loop turn until no stage does anything any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from penstock import Signal
from penstock.stages import (
    Call,
    Consumer,
    Producer,
    ProducerConsumer,
    Reason,
    Stage,
    Subscription,
    To,
    Topology,
)
from penstock.stages.protocol import Ask, Events, Message, Subscribe, SubscribeOptions, Tag

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds after which a test says that something did not come."""

STILL = 25
"""Turns of the event loop without any change after which nothing will change by itself."""


class Seen(list[T]):
    """What was seen, in order; a test can wait until it is long enough."""

    def __init__(self, items: Iterable[T] = ()) -> None:
        super().__init__(items)
        self._more = asyncio.Event()

    def append(self, item: T) -> None:
        super().append(item)
        self._more.set()

    async def reach(self, count: int) -> Seen[T]:
        """Wait until it has *count* items, or more; itself."""
        return await self.until(lambda seen: len(seen) >= count, f"{count} items")

    async def until(self, enough: Callable[[Seen[T]], bool], what: str = "enough") -> Seen[T]:
        """Wait until *enough* says so; itself."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not enough(self):
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            raise AssertionError(f"waited for {what}, and there is only {list(self)!r}") from None
        return self


# --- stages ----------------------------------------------------------------------------------


class Watcher(Stage):
    """What all stages here have in common.

    Attributes:
        mode: what `handle_subscribe` returns on the consumer's side.
        subscribed: all subscriptions, on either side.
        cancelled: ``(reason, subscription)`` of each that ended.
        infos: messages of `handle_info`.
        closed: the reason of the end.
    """

    mode: Any = None

    def __init__(self, **attributes: Any) -> None:
        self.subscribed: Seen[Subscription] = Seen()
        self.cancelled: Seen[tuple[Reason, Subscription]] = Seen()
        self.infos: Seen[Any] = Seen()
        self.closed: Seen[Reason] = Seen()
        for name, value in attributes.items():
            setattr(self, name, value)

    def handle_subscribe(self, subscription: Subscription) -> Any:
        self.subscribed.append(subscription)
        return self.mode if subscription.peer_is == "producer" else None

    def handle_cancel(self, reason: Reason, subscription: Subscription) -> None:
        self.cancelled.append((reason, subscription))

    def handle_info(self, message: Any) -> None:
        self.infos.append(message)

    def handle_close(self, reason: Reason) -> None:
        self.closed.append(reason)

    def handle_call(self, request: Any, call: Call) -> Any:
        """Call *request*, a function of the stage, in the stage; the answer is what it returns."""
        return request(self)

    def handle_cast(self, request: Any) -> None:
        """Call *request*, a function of the stage, in the stage."""
        request(self)


class Emitter(Watcher):
    """What the stages that emit have in common.

    Attributes:
        discarded: what `handle_discarded` was called with.
        answer: what it returns.
    """

    answer: bool | None = None

    def __init__(self, **attributes: Any) -> None:
        self.discarded: Seen[int] = Seen()
        super().__init__(**attributes)

    def handle_discarded(self, count: int) -> bool | None:
        self.discarded.append(count)
        return self.answer


class Counter(Emitter, Producer[int]):
    """Gives ``start``, ``start + 1``, …, as many as it was asked for, and never more.

    Attributes:
        asked: the demands that it was called with.
    """

    def __init__(self, start: int = 0, **attributes: Any) -> None:
        self.asked: Seen[int] = Seen()
        self.next = start
        super().__init__(**attributes)

    def handle_demand(self, demand: int) -> Sequence[int]:
        self.asked.append(demand)
        first, self.next = self.next, self.next + demand
        return range(first, self.next)


class Silent(Emitter, Producer[Any]):
    """Gives nothing by itself: a test lets it `emit`.

    Attributes:
        asked: the demands that it was called with.
    """

    def __init__(self, **attributes: Any) -> None:
        self.asked: Seen[int] = Seen()
        super().__init__(**attributes)

    def handle_demand(self, demand: int) -> None:
        self.asked.append(demand)


class Forwarder(Watcher, Consumer[Any]):
    """Takes everything.

    Attributes:
        batches: the lists that `handle_events` was called with.
        sources: the subscriptions that they came from.
    """

    def __init__(self, **attributes: Any) -> None:
        self.batches: Seen[list[Any]] = Seen()
        self.sources: Seen[Subscription] = Seen()
        super().__init__(**attributes)

    @property
    def events(self) -> list[Any]:
        """All events, in order."""
        return [event for batch in self.batches for event in batch]

    async def reach(self, count: int) -> list[Any]:
        """Wait until it has *count* events; the first that many."""
        await self.batches.until(lambda _: len(self.events) >= count, f"{count} events")
        return self.events[:count]

    def handle_events(self, events: list[Any], source: Subscription) -> Any:
        self.sources.append(source)
        self.batches.append(list(events))


class Sleeper(Forwarder):
    """Takes what comes, and sleeps in the callback until `wake` is set.

    Attributes:
        wake: ends every sleep, from then on.
    """

    def __init__(self, **attributes: Any) -> None:
        self.wake = asyncio.Event()
        super().__init__(**attributes)

    async def handle_events(self, events: list[Any], source: Subscription) -> None:
        super().handle_events(events, source)
        await self.wake.wait()


class Middle(Emitter, ProducerConsumer[Any, Any]):
    """What the stages between have in common: this one hands on what it gets.

    Attributes:
        batches: the lists that `handle_events` was called with.
    """

    def __init__(self, **attributes: Any) -> None:
        self.batches: Seen[list[Any]] = Seen()
        super().__init__(**attributes)

    @property
    def events(self) -> list[Any]:
        """All events, in order."""
        return [event for batch in self.batches for event in batch]

    def handle_events(self, events: list[Any], source: Subscription) -> Any:
        self.batches.append(list(events))
        return events


class Doubler(Middle):
    """Gives every event twice."""

    def handle_events(self, events: list[Any], source: Subscription) -> list[Any]:
        super().handle_events(events, source)
        return [copy for event in events for copy in (event, event)]


class Discarder(Middle):
    """Gives nothing."""

    def handle_events(self, events: list[Any], source: Subscription) -> None:
        super().handle_events(events, source)


class Postponer(Middle):
    """Gives the events later, by an info to itself."""

    def handle_events(self, events: list[Any], source: Subscription) -> None:
        super().handle_events(events, source)
        self.info(list(events))

    def handle_info(self, message: Any) -> None:
        super().handle_info(message)
        self.emit(message)


# --- strangers: the protocol by hand -----------------------------------------------------------


class Stranger:
    """A peer that is none of our stages: it keeps its messages, and does nothing by itself.

    Attributes:
        messages: what was sent to it, in order.
    """

    def __init__(self, name: str = "stranger") -> None:
        self.name = name
        self.messages: Seen[Any] = Seen()

    def send(self, message: Message) -> None:
        self.messages.append(message)

    def of(self, kind: type[T]) -> list[T]:
        """The messages of one kind."""
        return [message for message in self.messages if isinstance(message, kind)]

    async def first(self, kind: type[T]) -> T:
        """Wait for the first message of a kind."""
        await self.messages.until(lambda _: bool(self.of(kind)), kind.__name__)
        return self.of(kind)[0]

    @property
    def events(self) -> list[Any]:
        """All events that were sent to it, in order."""
        return [event for message in self.of(Events) for event in message.events]

    async def reach(self, count: int) -> list[Any]:
        """Wait until it has *count* events; the first that many."""
        await self.messages.until(lambda _: len(self.events) >= count, f"{count} events")
        return self.events[:count]

    def subscribe(self, producer: Any, *, ask: int = 0, **options: Any) -> Tag:
        """Subscribe as a consumer; and ask for *ask* events, if any."""
        tag = Tag(self, producer)
        producer.send(Subscribe(tag, SubscribeOptions(**options)))
        if ask:
            producer.send(Ask(tag, ask))
        return tag

    def to(self, **options: Any) -> To:
        """Itself as a producer, for ``subscribe_to=``."""
        return To(self, SubscribeOptions(**options))


# --- helpers -----------------------------------------------------------------------------------


def watched(**options: Any) -> tuple[Topology, list[Signal]]:
    """A topology, and its signals."""
    signals: Seen[Signal] = Seen()
    return Topology(observer=signals.append, **options), signals


def kinds(signals: Iterable[Signal]) -> list[str]:
    """What kinds of signals there were."""
    return [signal.kind for signal in signals]


async def quiet(topology: Topology, *also: Any) -> None:
    """Let the event loop turn until no stage of *topology* does anything any more.

    Stages wait for messages alone: when nothing changed for many turns, nothing will. *also*: other
    things with a length that count as changes (`Seen`).
    """
    last, still = _state(topology, also), 0
    async with asyncio.timeout(PATIENCE):
        while still < STILL:
            await asyncio.sleep(0)
            state = _state(topology, also)
            still = still + 1 if state == last else 0
            last = state


def _state(topology: Topology, also: Sequence[Any]) -> Any:
    figures = [
        (
            *(name, one.state, one.demand_in, one.demand_out, one.received, one.handled),
            *(one.emitted, one.delivered, one.buffered, one.queued, one.calls, one.discarded),
            len(one.subscriptions),
        )
        for name, one in topology.statistics().items()
    ]
    return figures, [len(one) for one in also]


async def within(topology: Topology) -> None:
    """Wait until the work is done, but not for ever."""
    async with asyncio.timeout(PATIENCE):
        await topology.wait()


async def collected(topology: Topology) -> list[Any]:
    """Run *topology*, which is entered, to its end; what its Forwarders got, in order of start."""
    await within(topology)
    found = [handle.runner.stage for handle in topology.stages.values()]
    return [event for stage in found if isinstance(stage, Forwarder) for event in stage.events]


async def in_stage(handle: Any, act: Callable[[Any], T]) -> T:
    """Call *act* with the stage, in its own task, behind all that it has to do; its answer.

    For stages that are `Watcher`.
    """
    return await handle.call(act)  # type: ignore[no-any-return]


async def emit(handle: Any, events: Sequence[Any]) -> None:
    """Let a `Silent`, `Counter` or `Middle` emit *events*; waits until it has."""
    await in_stage(handle, lambda stage: stage.emit(events))
