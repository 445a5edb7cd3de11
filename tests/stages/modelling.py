"""How the property tests watch stages: a loop that knows when it is at rest, wires, and records.

Does        write down every ask, every event and every outcome; check what must hold at each.
Does not    judge what must hold at rest (`judging`); act (`acting`) or draw (`test_properties`).
Invariants  1. a wire changes nothing: both sides get every message at once, and in order.
            2. what is wrong is kept in `World.faults`: an exception inside a stage would be taken
               for the stage's own failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count
from typing import Any

from penstock import Signal
from penstock.stages import Topology
from penstock.stages.protocol import Ask, Cancel, Events, Reason, Subscribe, Tag

MANY_TURNS = 10_000
"""Turns of the event loop after which stages that still do something run in a circle."""


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
            # A broadcast event is settled as soon as one of its copies is lost.
            gone = giver.stage.counts and kind != "broadcast" and self.settled.get(event)
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


def number(event: Any) -> int:
    """A whole number for every event that our stages give."""
    return 3 * int(event) + (event % 1 > 0)
