"""A source that hears of outcomes, and stages that end their calls when a test says.

Does        give events out with a carrier, and write down what is heard of them; step; keep.
Does not    judge: the tests do, but that nothing may be settled twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from penstock.rules.trace import Fresh, Kind
from penstock.stages import (
    Kept,
    StageHandle,
    Subscription,
    Topology,
)
from stages.fixtures import (
    Forwarder,
    Middle,
    Seen,
    Silent,
)


class Source(Silent):
    """Gives events out, and writes down what it hears of them.

    Attributes:
        outcomes: ``(event, kind)`` in the order in which they were heard.
        errors: why events failed.
    """

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.outcomes: Seen[tuple[Any, Kind]] = Seen()
        self.errors: list[BaseException | None] = []

    def give(self, events: Sequence[Any]) -> None:
        giving = self._running().giving
        assert giving is not None
        giving.supply(list(events), Fresh(self.settle))

    def settle(self, events: Sequence[Any], kind: Kind, error: BaseException | None) -> None:
        self.errors.append(error)
        for event in events:
            self.outcomes.append((event, kind))

    def heard(self) -> dict[Any, Kind]:
        """What became of each event that is over; each was heard of once."""
        outcomes = dict(self.outcomes)
        assert len(outcomes) == len(self.outcomes), "something was settled twice"
        return outcomes


class Stepper(Forwarder):
    """Ends one call at each `step`; raises in it after `fail`."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self._steps = asyncio.Semaphore(0)
        self._error: Exception | None = None

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            self._steps.release()

    def fail(self, error: Exception) -> None:
        self._error = error
        self._steps.release()

    async def handle_events(self, events: list[Any], source: Subscription) -> None:
        super().handle_events(events, source)
        await self._steps.acquire()
        if self._error:
            raise self._error


class Keeper(Middle):
    """Keeps a receipt for each call; the work goes on elsewhere."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.receipts: list[Kept] = []

    def handle_events(self, events: list[Any], source: Subscription) -> None:
        super().handle_events(events, source)
        self.receipts.append(self.keep())


def sourced(topology: Topology, **options: Any) -> tuple[Source, StageHandle[Any]]:
    """A source, started; lives on when others fail."""
    source = Source()
    return source, topology.start(source, name="source", **options)


def all_are(kind: Kind, events: Any) -> dict[Any, Kind]:
    """The same outcome for all."""
    return dict.fromkeys(events, kind)
