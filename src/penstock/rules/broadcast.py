"""The dispatcher that gives every event to every consumer.

Does        keep all consumers in step: an event is handed out when all of them have asked for it.
Does not    keep what is not handed out: that stays in the producer's buffer, and goes first.
Invariants  1. every consumer gets every event from its subscription on, in one order, or those of
               them that its selector wants.
            2. what a selector leaves out costs its consumer no demand.
            3. a consumer is subscribed once; a second subscription is refused, each time.
            4. a selector that raises ends its own subscription, and nothing else.
Source      GenStage's broadcast dispatcher.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from penstock.errors import ConfigError
from penstock.rules.buffer import Piece
from penstock.rules.dispatch import (
    AlreadySubscribed,
    Broken,
    Delivery,
    Dispatched,
    Options,
    Plain,
)
from penstock.rules.trace import Carrier

Selector = Callable[[Any], bool]
"""Says whether a consumer wants an event."""


class BroadcastDispatcher(Plain):
    """Every event to every consumer, as fast as the slowest of them asks.

    A consumer may bring ``selector=``: it then gets only the events for which that returns true.
    One that has just subscribed holds all others up until its first ask.
    """

    known = frozenset({"selector"})

    def __init__(self) -> None:
        self._open: dict[Any, int] = {}
        self._selectors: dict[Any, Selector] = {}

    @property
    def room(self) -> int:
        """What all of them have asked for."""
        return min(self._open.values(), default=0)

    def fresh(self) -> BroadcastDispatcher:
        """A new one."""
        return BroadcastDispatcher()

    def check(self, options: Options) -> None:
        """A selector must be callable."""
        super().check(options)
        selector = options.get("selector")
        if selector is not None and not callable(selector):
            raise ConfigError(
                f"selector must be a function of an event that returns whether it is wanted; "
                f"got {selector!r}"
            )

    def subscribe(self, tag: Any, options: Options) -> None:
        """Refuses a consumer that is subscribed already."""
        self.check({name: options[name] for name in self.known if name in options})
        if any(one.consumer is tag.consumer for one in self._open):
            raise AlreadySubscribed(
                f"a consumer can subscribe once to a producer that broadcasts: it would get "
                f"every event twice; {tag.consumer!r} is subscribed already"
            )
        self._open[tag] = 0
        if (selector := options.get("selector")) is not None:
            self._selectors[tag] = selector

    def ask(self, tag: Any, demand: int) -> Sequence[Delivery]:
        """Count it."""
        self._open[tag] += demand
        return ()

    def cancel(self, tag: Any) -> Sequence[Piece]:
        """The others may go on without it."""
        del self._open[tag]
        self._selectors.pop(tag, None)
        return ()

    def dispatch(self, events: list[Any], carrier: Carrier | None) -> Dispatched:
        """The same events to all, each in a list of its own."""
        taken = min(len(events), self.room)
        if not taken:
            return (), 0, (), ()
        shared = events if taken == len(events) else events[:taken]
        broken: list[Broken] = []
        wanted = {tag: self._wanted(tag, shared, broken) for tag in self._open}
        for tag, _ in broken:
            del wanted[tag]
        if not wanted:  # nobody is left to take them: they stay where they are
            return (), 0, (), broken
        trace = carrier.share(shared, len(wanted)) if carrier else None
        deliveries: list[Delivery] = []
        for tag, part in wanted.items():
            self._open[tag] -= len(part)
            if part:
                deliveries.append((tag, part, trace))
        if trace and broken:  # who wanted what, cannot be known: they come again
            trace.fail((), broken[0][1])
        if trace:
            trace.close(sum(taken - len(part) for part in wanted.values()))
        return deliveries, taken, (), broken

    def _wanted(self, tag: Any, events: list[Any], broken: list[Broken]) -> list[Any]:
        selector = self._selectors.get(tag)
        if selector is None:
            return events.copy()
        try:
            return [event for event in events if selector(event)]
        except Exception as error:  # noqa: BLE001 - the consumer's own function: only it is harmed
            broken.append((tag, error))
            return []
