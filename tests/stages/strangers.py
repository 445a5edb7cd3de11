"""Peers that are none of our stages: helpers to speak by hand, and two that are complete.

`Letters` and `Total` are written from the text of `penstock.stages.protocol` alone, as a stranger
would: they know its messages and its peers, and nothing else of ours.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest

from penstock import DemandExceeded, StageError
from penstock.stages import StageHandle, Topology
from penstock.stages.protocol import (
    NORMAL,
    Ask,
    Cancel,
    Cancelled,
    Events,
    Message,
    Peer,
    Reason,
    Subscribe,
    SubscribeOptions,
    Tag,
)
from stages.fixtures import Forwarder, Middle, Silent, Stranger, quiet

takers = pytest.mark.parametrize("taker", [Forwarder, Middle])
"""Our stages that take events."""

givers = pytest.mark.parametrize("giver", [Silent, Middle])
"""Our stages that give events."""


async def consuming(
    topology: Topology, taker: type[Any], mouth: Stranger, *, ask: int = 1000, **options: Any
) -> tuple[Any, StageHandle[Any], Tag]:
    """A stage of ours that takes events from *mouth*, at most 4 ahead; and its subscription.

    A stage between works when somebody asks: a stranger behind it asks for *ask* events.
    """
    stage = taker()
    to = mouth.to(max_demand=4, min_demand=2, cancel="temporary")
    handle = topology.start(stage, subscribe_to=to, restart="temporary", **options)
    tag = (await mouth.first(Ask)).tag
    if issubclass(taker, Middle) and ask:
        extra = {"partition": 0} if options.get("dispatcher") else {}
        Stranger("behind").subscribe(handle, ask=ask, extra=extra)
    await quiet(topology, mouth.messages)
    return stage, handle, tag


async def giving(
    topology: Topology, giver: type[Any], ask: int = 0
) -> tuple[Any, StageHandle[Any], Stranger, Tag]:
    """A stage of ours that gives events to a stranger, and its subscription."""
    stage, mouth = giver(), Stranger()
    handle = topology.start(stage, restart="temporary")
    tag = mouth.subscribe(handle, ask=ask)
    await stage.subscribed.reach(1)
    await quiet(topology, mouth.messages)
    return stage, handle, mouth, tag


def typed(mouth: Stranger) -> list[str]:
    """The types of the messages that it got."""
    return [type(message).__name__ for message in mouth.messages]


# --- complete strangers ------------------------------------------------------------------------


class Letters:
    """A producer: gives each letter to the first who asks, and ends when none is left."""

    def __init__(self, letters: str) -> None:
        self.name = "letters"
        self.notes: list[str] = []
        self._left = deque(letters)
        self._open: set[Tag] = set()

    def send(self, message: Message) -> None:
        tag = message.tag
        match message:
            case Subscribe() if tag in self._open:
                tag.consumer.send(Cancelled(tag, Reason("failed", StageError("twice"))))
            case Subscribe() if not self._left:
                tag.consumer.send(Cancelled(tag, Reason("normal", down=True)))
            case Subscribe(replaces=replaces):
                if replaces and replaces[0] in self._open:
                    self._end(*replaces)
                self._open.add(tag)
            case Ask(demand=demand) if tag in self._open:
                self._give(tag, demand)
            case Ask():
                tag.consumer.send(Cancelled(tag, Reason("failed", StageError("unknown"))))
            case Cancel(reason=reason):
                if tag in self._open:
                    self._end(tag, reason)
            case _:
                self.notes.append(f"a producer takes no {type(message).__name__}")

    def _give(self, tag: Tag, demand: int) -> None:
        events = [self._left.popleft() for _ in range(min(demand, len(self._left)))]
        tag.consumer.send(Events(tag, events))
        if not self._left:
            for one in list(self._open):
                self._end(one, Reason("normal", down=True))

    def _end(self, tag: Tag, reason: Reason) -> None:
        self._open.remove(tag)
        tag.consumer.send(Cancelled(tag, reason))


class Total:
    """A consumer: keeps what it gets, and lets producers send so many events ahead."""

    def __init__(self, ahead: int) -> None:
        self.name = "total"
        self.events: list[Any] = []
        self.reasons: list[Reason] = []
        self.notes: list[str] = []
        self.over = asyncio.Event()
        self._ahead = ahead
        self._asked: dict[Tag, int] = {}

    def subscribe(self, producer: Peer, **extra: Any) -> None:
        tag = Tag(self, producer)
        self._asked[tag] = self._ahead
        producer.send(Subscribe(tag, SubscribeOptions(extra=extra)))
        producer.send(Ask(tag, self._ahead))

    def send(self, message: Message) -> None:
        tag = message.tag
        match message:
            case Events(events=events) if tag in self._asked:
                self._take(tag, events)
            case Events(events=events):
                self.notes.append(f"{len(events)} events of nobody")
                tag.producer.send(Cancel(tag, Reason("failed", StageError("unknown"))))
            case Cancelled(reason=reason):
                self._asked.pop(tag, None)
                self.reasons.append(reason)
                if not self._asked:
                    self.over.set()
            case _:
                self.notes.append(f"a consumer takes no {type(message).__name__}")

    def leave(self) -> None:
        for tag in self._asked:
            tag.producer.send(Cancel(tag, NORMAL.as_down()))
        self._asked.clear()

    def _take(self, tag: Tag, events: list[Any]) -> None:
        self.events += events
        self._asked[tag] -= len(events)
        if self._asked[tag] < 0:
            tag.producer.send(Cancel(tag, Reason("failed", DemandExceeded("too many"))))
        elif events:
            self._asked[tag] += len(events)
            tag.producer.send(Ask(tag, len(events)))
