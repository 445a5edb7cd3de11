"""What the property tests run and watch: an event loop that knows when it is at rest, wires that
write down every message, and stages that write down all that they do.

Does        record asks, events, outcomes and infos; pause, fail and feed stages at a word.
Does not    draw anything (`test_properties`), or judge what must hold at rest (`judging`): here
            stands only what must hold at each single message.
Invariants  1. a wire changes nothing: both sides get every message at once, and in order.
            2. what is wrong is kept in `World.faults`: an exception inside a stage would be taken
               for the stage's own failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from penstock import Signal
from penstock.rules.trace import Fresh
from penstock.stages import Consumer, Producer, ProducerConsumer, Stage, Subscription, Topology
from penstock.stages.calls import Receipt
from penstock.stages.protocol import Ask, Cancel, Cancelled, Events, Reason, Subscribe, Tag
from penstock.stages.statistics import statistics_of

MANY_TURNS = 10_000
"""Turns of the event loop after which stages that still do something run in a circle."""


class Boom(Exception):
    """What a stage fails with when it is told to."""


class RestingLoop(asyncio.SelectorEventLoop):
    """An event loop that counts what is scheduled, and so knows when there is nothing to do."""

    scheduled = 0

    def call_soon(self, *args: Any, **options: Any) -> asyncio.Handle:
        self.scheduled += 1
        return super().call_soon(*args, **options)

    async def rest(self) -> None:
        """Return when nothing runs any more: in a whole turn only this coroutine was scheduled."""
        for _ in range(MANY_TURNS):
            before = self.scheduled
            await asyncio.sleep(0)
            if self.scheduled == before + 1:
                return
        raise AssertionError("the stages never come to rest")


# --- records -----------------------------------------------------------------------------------


class Line:
    """One subscription, as its messages say."""

    def __init__(self, message: Subscribe, giver: Log, taker: Log | None) -> None:
        self.tag, self.options, self.giver, self.taker = message.tag, message.options, giver, taker
        self.asked = self.handled = self.checked = 0
        self.sent: list[Any] = []
        self.start: int | None = None  # what was given out before it, once it was taken in
        self.leaving = False
        self.again = 0  # refusals of a second Subscribe with its tag that are still to come
        self.manual = taker is None or getattr(taker.stage, "manual", False)
        self.over: Reason | None = None

    @property
    def live(self) -> bool:
        """Whether events may come."""
        return self.over is None and self.start is not None

    @property
    def open(self) -> int:
        """Asked for, and not sent."""
        return self.asked - len(self.sent)

    def __repr__(self) -> str:
        return f"<{self.tag!r} asked {self.asked} sent {self.sent} over {self.over}>"


class Log:
    """What one run of a stage did."""

    def __init__(self, world: World, name: str, stage: Any) -> None:
        self.world, self.name, self.stage = world, name, stage
        self.emitted: list[Any] = []
        self.place: dict[Any, int] = {}
        self.sent: dict[Any, list[Line]] = {}
        self.handled: list[Any] = []
        self.outputs: dict[Any, list[Any]] = {}
        self.hashed: dict[Any, Any] = {}
        self.joined: list[Line] = []
        self.dispatched: dict[int, Any] = {}
        self.failed = self.wanted = self.owed = 0
        self.last = -1
        self.last_info = -1
        self.told_to_end: str | None = None
        world.logs.append(self)

    @property
    def runner(self) -> Any:
        return self.stage._runner

    def giving(self, events: list[Any]) -> list[Any]:
        """The stage emits *events* now."""
        for event in events:
            self.place[event] = len(self.emitted)
            self.emitted.append(event)
        self.owed = max(0, self.owed - len(events))
        return events


class World:
    """One topology, and all that is known of it."""

    def __init__(self) -> None:
        self.signals: list[Signal] = []
        self.topology = Topology(observer=self.signals.append, max_restarts=1000)
        self.lines: dict[Tag, Line] = {}
        self.logs: list[Log] = []
        self.settled: dict[Any, list[str]] = {}
        self.faults: list[str] = []
        self.infos = 0
        self.numbers = count()
        self._backs: dict[int, _Back] = {}

    def expect(self, holds: object, *what: object) -> None:
        """Keep it as a fault where *holds* is not true."""
        if not holds:
            self.faults.append(" ".join(map(str, what)))

    def settle(self, events: Sequence[Any], kind: str, error: BaseException | None) -> None:
        """The outcome of events that a source gave out."""
        for event in events:
            self.settled[event].append(kind)
            self.expect(len(self.settled[event]) == 1, event, "settled", self.settled[event])

    def up(self, handle: Any, message: Any) -> None:
        """A consumer sends *message* to the stage of *handle*."""
        tag = message.tag
        line = self.lines.get(tag)
        if type(message) is Subscribe and line is not None:
            line.again += 1
        elif type(message) is Subscribe:
            runner = getattr(tag.consumer, "stage", None)
            self.lines[tag] = Line(message, handle.runner.stage.log, runner and runner.log)
            back = self._backs.setdefault(id(tag.consumer), _Back(self, tag.consumer))
            tag.consumer = back
        elif type(message) is Ask and line is not None:
            line.asked += message.demand
            self.expect(message.demand > 0, line, "asks for", message.demand)
            if not line.manual:
                ahead = line.asked - line.handled
                self.expect(ahead <= line.options.max_demand, line, "granted", ahead)
        elif type(message) is Cancel and line is not None:
            line.leaving = True

    def down(self, message: Any) -> None:
        """A producer sends *message* to a consumer."""
        line = self.lines[message.tag]
        if type(message) is Events:
            self._given(line, line.giver, message.events)
        elif line.again and not message.reason.down:
            line.again -= 1
        elif line.over is None:
            line.over = message.reason

    def _given(self, line: Line, giver: Log, events: list[Any]) -> None:
        line.sent += events
        self.expect(line.open >= 0, line, "got more than it asked for")
        self.expect(line.over is None, line, "got events when it was over")
        places = [giver.place[event] for event in events]
        before = giver.place[line.sent[-len(events) - 1]] if len(line.sent) > len(events) else -1
        ordered = all(a < b for a, b in zip([before, *places], places, strict=False))
        self.expect(ordered, line, "is out of order, or has one twice")
        kind = giver.stage.sharing
        for event in events:
            lines = giver.sent.setdefault(event, [])
            self.expect(not lines or kind == "broadcast", event, "given to", lines, "and", line)
            gone = isinstance(giver.stage, Source) and self.settled.get(event)
            self.expect(not gone, event, "was settled, and then given out")
            lines.append(line)
        if kind == "demand":
            self.expect(places[0] > giver.last, line, "got events that were overtaken")
            giver.last = places[-1]


class Wire:
    """Stands for a producer: hands on every message that is for it, and writes it down."""

    def __init__(self, world: World, handle: Any) -> None:
        self._world, self._handle, self.name = world, handle, handle.name

    def send(self, message: Any) -> None:
        self._world.up(self._handle, message)
        self._handle.send(message)


class _Back:
    """Stands for a consumer."""

    def __init__(self, world: World, peer: Any) -> None:
        self._world, self._peer, self.name = world, peer, peer.name

    def send(self, message: Any) -> None:
        self._world.down(message)
        self._peer.send(message)


class Selector:
    """What a consumer wants of a broadcast; it keeps what it was shown."""

    def __init__(self, leaves_out: int) -> None:
        self._leaves_out = leaves_out
        self.shown: list[Any] = []

    def __call__(self, event: Any) -> bool:
        self.shown.append(event)
        return self.wants(event)

    def wants(self, event: Any) -> bool:
        return number(event) % 4 != self._leaves_out


# --- stages ------------------------------------------------------------------------------------


class Actor(Stage):
    """What all our stages do: they can be paused, told to fail, and informed."""

    sharing = ""
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
        self.receipts: list[Receipt] = []

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
        self.emit(self.log.giving([part for event in events for part in self._parts(event)]), receipt)
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


def number(event: Any) -> int:
    """A whole number for every event that our stages give."""
    return 3 * int(event) + (event % 1 > 0)
