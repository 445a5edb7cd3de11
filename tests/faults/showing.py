"""What the tests of promises share: a lab on each server, and what its members did."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from faults.lab.calibration import slowness
from faults.lab.figures import Verdict, judge, report
from faults.lab.history import Handling, History
from faults.lab.lab import Lab, open_lab
from faults.lab.orders import Orders
from faults.lab.promise import Promise
from support.servers import embedded_binary, redis_binary

SERVERS = {"valkey": embedded_binary, "redis7": redis_binary}
POLL = 0.25
"""Seconds between two looks of a member, with a lease of a second."""


class Shown:
    """A lab in which a promise is shown; `judged` holds the whole run to the checker's rules."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.history = History()

    async def add(self, kind: str, *names: str, **orders: Any) -> None:
        """Processes of one kind, ``member`` or ``producer``."""
        for name in names:
            await self.lab.add(name, f"{kind}.py", replace(Orders("", "", ""), **orders))

    async def judged(self, **promise: Any) -> Verdict:
        """Drain, gather, and hold the run to the rules."""
        drained = await self.lab.drain(40 * self.lab.slow)
        self.history = await asyncio.to_thread(self.lab.history, drained)
        self.lab.slow = max(self.lab.slow, slowness())  # it may have become slow meanwhile
        verdict = judge(self.history, Promise(slow=self.lab.slow, in_flight=2000, **promise))
        assert verdict.good, report(verdict)
        return verdict

    def handled(self, id_: str, group: str = "g") -> list[Handling]:
        """The handlings of one event in one group."""
        return [handling for handling in self.history.of(group) if handling.id == id_]

    def first_starts(self, group: str) -> dict[str, float]:
        """When each event was begun for the first time."""
        found: dict[str, float] = {}
        for handling in self.history.of(group):
            found.setdefault(handling.id, handling.start)
        return found

    def lag(self, spans: Iterable[tuple[float, float]]) -> float:
        """The longest that the machine stood still within one of the spans."""
        return max((self.history.lag_between(*span) for span in spans), default=0.0)


@asynccontextmanager
async def showing(server: str, folder: Path, **options: Any) -> AsyncGenerator[Shown]:
    """A lab around a new server of the kind *server*."""
    async with open_lab(SERVERS[server](), folder, slow=slowness(), **options) as lab:
        yield Shown(lab)
