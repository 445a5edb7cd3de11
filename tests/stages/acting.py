"""The stages of the property tests: they do as they are told, and write down what they do.

Does        give, hand on and take numbers; be paused, be fed, fail.
Does not    decide anything by themselves: a test tells them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from penstock.rules.trace import Fresh
from penstock.stages import Consumer, Producer, ProducerConsumer, Stage, Subscription
from penstock.stages.calls import Kept
from penstock.stages.protocol import Events, Reason
from penstock.stages.statistics import statistics_of
from stages.modelling import Line, Log, World, number


class Boom(Exception):
    """What a stage fails with when it is told to."""


class Actor(Stage):
    """What all our stages do: they can be paused, told to fail, and informed."""

    sharing = ""  # by what dispatcher it gives out; empty: it does not
    counts = False  # it makes the events itself
    hold = doomed = False
    gate: asyncio.Future[None] | None = None

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.log = Log(world, name, self)

    def handle_subscribe(self, subscription: Subscription) -> Any:
        line = self.world.lines.get(subscription.tag)
        if subscription.peer_is == "consumer" and line is not None:
            line.start = statistics_of(self.log.runner).delivered
            self.log.joined.append(line)
        return None

    def handle_cast(self, request: Any) -> None:
        request(self)

    def handle_info(self, message: Any) -> None:
        number, before = message
        self.world.expect(number > self.log.last_info, self.name, "info", number, "is overtaken")
        self.log.last_info = number
        runner = self.log.runner
        if runner.giving is not None and self.sharing != "partition":
            figures = statistics_of(runner)
            left = figures.delivered + figures.discarded
            self.world.expect(left >= before, self.name, "info", number, "comes too early")

    def release(self, error: Exception | None = None) -> None:
        """Let the callback that is paused go on, or fail."""
        self.hold = False
        if self.gate is not None and not self.gate.done():
            self.gate.set_exception(error) if error else self.gate.set_result(None)

    def perform(self, work: Callable[[], Any], events: int = 0) -> Any:
        """Do *work* now, or when it is released; *events* go down where it fails."""
        if self.hold:
            return self._later(work, events)
        return self._now(work, events)

    def _now(self, work: Callable[[], Any], events: int) -> Any:
        if self.doomed:
            self.log.failed += events
            raise Boom
        return work()

    async def _later(self, work: Callable[[], Any], events: int) -> Any:
        self.gate = asyncio.get_running_loop().create_future()
        try:
            await self.gate
        except BaseException:
            self.log.failed += events
            raise
        finally:
            self.gate = None
        return self._now(work, events)

    def carried(self, events: list[Any]) -> None:
        """Give *events* out, and follow what becomes of them."""
        for event in events:
            self.world.settled[event] = []
        self.log.runner.giving.supply(self.log.giving(events), Fresh(self.world.settle))


class Source(Actor, Producer[Any]):
    """Gives numbers, no more than it has been given fuel for.

    Args:
        manner: when it serves: "prompt" as it is asked, "generous" and two events more,
            "late" only when it is told to.
        way: how: "return", "emit", or "carry", with outcomes.
    """

    counts = True

    def __init__(self, world: World, name: str, manner: str, way: str) -> None:
        super().__init__(world, name)
        self.manner, self.way, self.fuel = manner, way, 0

    def handle_demand(self, demand: int) -> Any:
        self.world.expect(demand > 0, self.name, "was asked for", demand)
        self.log.wanted += demand
        self.log.owed += demand
        return self.perform(lambda: self.serve() if self.manner != "late" else None)

    def feed(self, fuel: int) -> None:
        """It may give *fuel* more events, and serves what it owes."""
        self.fuel += fuel
        self.give(self.serve())

    def serve(self) -> list[Any] | None:
        """What it owes, as far as it can."""
        extra = 2 if self.manner == "generous" and self.log.owed else 0
        events = self.make(min(self.log.owed + extra, self.fuel))
        if self.way == "return":
            return self.log.giving(events)
        self.give(events)
        return None

    def give(self, events: list[Any] | None) -> None:
        """Give *events* out in a way that is not a callback's return."""
        if events and self.way == "return":
            self.emit(events)
        elif events and self.way == "emit":
            self.emit(self.log.giving(events))
        elif events:
            self.carried(events)

    def spill(self, count: int) -> None:
        """Give events that nobody has asked for."""
        events = self.make(count)
        self.give(self.log.giving(events) if self.way == "return" else events)

    def make(self, count: int) -> list[Any]:
        events = [next(self.world.numbers) for _ in range(count)]
        self.fuel = max(0, self.fuel - count)
        return events


class Middle(Actor, ProducerConsumer[Any, Any]):
    """Hands events on.

    Args:
        manner: "same"; "half" drops some; "double" gives two for each; "later" by an info to
            itself; "kept" too, with their outcome.
    """

    def __init__(self, world: World, name: str, manner: str) -> None:
        super().__init__(world, name)
        self.manner = manner
        self.receipts: list[Kept] = []

    def handle_events(self, events: list[Any], source: Subscription) -> Any:
        line = self.world.lines[source.tag]
        return self.perform(lambda: self._handle(events, line), len(events))

    def _handle(self, events: list[Any], line: Line) -> list[Any] | None:
        line.handled += len(events)
        self.log.handled += events
        if self.manner in {"later", "kept"}:
            receipt = self.keep() if self.manner == "kept" else None
            if receipt:
                self.receipts.append(receipt)
            self.info((events, receipt))
            return None
        return self.log.giving([part for event in events for part in self._parts(event)])

    def _parts(self, event: Any) -> list[Any]:
        parts = [event, event + 0.5] if self.manner == "double" else [event]
        if self.manner == "half" and number(event) % 2:
            parts = []
        self.log.outputs[event] = parts
        return parts

    def handle_info(self, message: Any) -> None:
        events, receipt = message
        if type(events) is not list:
            super().handle_info(message)
            return
        self.emit(
            self.log.giving([part for event in events for part in self._parts(event)]), receipt
        )
        if receipt:
            self.receipts.remove(receipt)
            receipt.done()

    def handle_close(self, reason: Reason) -> None:
        for receipt in self.receipts:
            receipt.failed(Boom())


class Leaf(Actor, Consumer[Any]):
    """Handles events. `manual`: asks when it is told to."""

    def __init__(self, world: World, name: str, *, manual: bool = False) -> None:
        super().__init__(world, name)
        self.manual = manual

    def handle_subscribe(self, subscription: Subscription) -> Any:
        return "manual" if self.manual else None

    def handle_events(self, events: list[Any], source: Subscription) -> Any:
        line = self.world.lines[source.tag]
        return self.perform(lambda: self._handle(events, line), len(events))

    def _handle(self, events: list[Any], line: Line) -> None:
        line.handled += len(events)
        self.log.handled += events


class Stranger:
    """A consumer that is none of our stages: it handles what comes at once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.handled: set[Any] = set()

    def send(self, message: Any) -> None:
        if type(message) is Events:
            self.handled.update(message.events)
            if message.carrier is not None:
                message.carrier.finish(message.events)
