"""Dispatchers and outlets beside a plain model of what they must have done.

The model keeps nothing but lists: what was emitted and waits, who asked for how much, and who got
what. It does not say who is next: a dispatcher is free there, and its own tests say more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from penstock.rules.broadcast import BroadcastDispatcher
from penstock.rules.dispatch import DemandDispatcher, Dispatcher, Options, RoundRobinDispatcher
from penstock.rules.routing import PartitionDispatcher

LANES = 3
"""Partitions of the model; an event goes to the one of its remainder by 4, 3 is discarded."""


class Tag:
    """A subscription's tag, as far as dispatchers look at it."""

    def __init__(self, number: int, consumer: Any = None) -> None:
        self.number = number
        self.consumer = consumer or f"consumer {number}"

    def __repr__(self) -> str:
        return f"<{self.number}>"


def tags(count: int) -> list[Tag]:
    """Tags of as many consumers."""
    return [Tag(number) for number in range(1, count + 1)]


def lane_of(event: int) -> int | None:
    """The `hash` of the model."""
    lane = event % 4
    return None if lane == LANES else lane


DISPATCHERS: dict[str, Callable[[], Dispatcher]] = {
    "demand": DemandDispatcher,
    "shuffled": lambda: DemandDispatcher(shuffle=True),
    "round robin": RoundRobinDispatcher,
    "round robin by 3": lambda: RoundRobinDispatcher(per_turn=3),
    "broadcast": BroadcastDispatcher,
    "partition": lambda: PartitionDispatcher(LANES, hash=lane_of),
}


class Model:
    """What subscriptions have asked for and got, for dispatchers that give an event to one."""

    def __init__(self) -> None:
        self.open: dict[Tag, int] = {}
        self.got: dict[Tag, list[int]] = {}

    def options(self, number: int, size: int) -> Options | None:
        """What a consumer subscribes with; None: there is no place for it now."""
        return {"max_demand": size}

    def subscribe(self, tag: Tag, options: Options) -> None:
        self.open[tag] = 0
        self.got[tag] = []

    def cancel(self, tag: Tag) -> None:
        del self.open[tag]

    def ask(self, tag: Tag, demand: int) -> None:
        self.open[tag] += demand

    @property
    def room(self) -> int:
        """How many events could leave now."""
        return sum(self.open.values())

    @property
    def held(self) -> list[int]:
        """What has left, and was not delivered."""
        return []

    @property
    def pending(self) -> list[tuple[int, Tag]]:
        """What of it an info waits for, and who will get it."""
        return []

    def step(self, moved: list[int], deliveries: Sequence[tuple[Any, list[int], Any]]) -> None:
        """*moved* events have left, and these deliveries were made: that must fit."""
        now = self._deliver(deliveries)
        assert sorted(event for part in now.values() for event in part) == moved

    def _deliver(self, deliveries: Sequence[tuple[Any, list[int], Any]]) -> dict[Tag, list[int]]:
        now: dict[Tag, list[int]] = {}
        for tag, events, _ in deliveries:
            assert events, "an empty message"
            now.setdefault(tag, []).extend(events)
        for tag, events in now.items():
            self.open[tag] -= len(events)
            assert self.open[tag] >= 0, f"{tag} got more than it asked for"
            self.got[tag] += events
            assert self.got[tag] == sorted(set(self.got[tag])), "out of order, or twice"
        return now


class Everyone(Model):
    """For the dispatcher that gives every event to all, but for what selectors leave out."""

    def __init__(self) -> None:
        super().__init__()
        self._wants: dict[Tag, Callable[[int], bool]] = {}

    def options(self, number: int, size: int) -> Options | None:
        if number % 3:
            return {"max_demand": size}
        return {"max_demand": size, "selector": lambda event: event % 2 == 0}

    def subscribe(self, tag: Tag, options: Options) -> None:
        super().subscribe(tag, options)
        self._wants[tag] = options.get("selector", lambda _: True)

    @property
    def room(self) -> int:
        return min(self.open.values(), default=0)

    def step(self, moved: list[int], deliveries: Sequence[tuple[Any, list[int], Any]]) -> None:
        now = self._deliver(deliveries)
        for tag in self.open:
            assert now.get(tag, []) == [event for event in moved if self._wants[tag](event)]


class Lanes(Model):
    """For the dispatcher with partitions: each has a queue, as long as its max_demand."""

    def __init__(self) -> None:
        super().__init__()
        self.queues: list[list[int]] = [[] for _ in range(LANES)]
        self.owners: list[Tag | None] = [None] * LANES
        self.sizes = [1000] * LANES

    def options(self, number: int, size: int) -> Options | None:
        lane = number % LANES
        return None if self.owners[lane] else {"max_demand": size, "partition": lane}

    def subscribe(self, tag: Tag, options: Options) -> None:
        super().subscribe(tag, options)
        self.owners[options["partition"]] = tag
        self.sizes[options["partition"]] = options["max_demand"]

    def cancel(self, tag: Tag) -> None:
        super().cancel(tag)
        self.owners[self.owners.index(tag)] = None

    @property
    def room(self) -> int:
        spaces = [
            size - len(queue) + (self.open[owner] if owner else 0)
            for size, queue, owner in zip(self.sizes, self.queues, self.owners, strict=True)
        ]
        return max(0, min(sum(self.open.values()), *spaces))

    @property
    def held(self) -> list[int]:
        return [event for queue in self.queues for event in queue]

    @property
    def pending(self) -> list[tuple[int, Tag]]:
        pairs = zip(self.queues, self.owners, strict=True)
        return [(event, owner) for queue, owner in pairs if owner for event in queue]

    def step(self, moved: list[int], deliveries: Sequence[tuple[Any, list[int], Any]]) -> None:
        for event in moved:
            if (lane := lane_of(event)) is not None:
                self.queues[lane].append(event)
        now = self._deliver(deliveries)
        for lane, (queue, owner) in enumerate(zip(self.queues, self.owners, strict=True)):
            events = now.pop(owner, []) if owner else []
            assert queue[: len(events)] == events, "not what came first in this partition"
            del queue[: len(events)]
            assert not queue or not owner or not self.open[owner], "held though it was asked for"
            assert not moved or len(queue) <= self.sizes[lane], "more held than max_demand"
        assert not now, "for a partition of another one"


def model_of(name: str) -> Model:
    """The model for a dispatcher of `DISPATCHERS`."""
    return {"broadcast": Everyone, "partition": Lanes}.get(name, Model)()


def shared(dispatcher: Dispatcher, *asks: int) -> list[Tag]:
    """Subscribe as many consumers as there are asks, and ask."""
    made = tags(len(asks))
    for tag in made:
        dispatcher.subscribe(tag, {})
    for tag, demand in zip(made, asks, strict=True):
        if demand:
            dispatcher.ask(tag, demand)
    return made


def given_out(dispatcher: Dispatcher, count: int) -> tuple[list[tuple[int, list[int]]], int]:
    """Who got what of 0, 1, 2, …, by number; and how many were left over."""
    deliveries, taken, skipped, broken = dispatcher.dispatch(list(range(count)), None)
    assert not skipped
    assert not broken
    return [(tag.number, events) for tag, events, _ in deliveries], count - taken
