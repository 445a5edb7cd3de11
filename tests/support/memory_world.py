"""A memory backend of its own for a test, its clock in our hand, and every signal that it gave."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager

from penstock.backends.memory import MemoryBackend
from penstock.event import OLDEST, Position, Shard, Start
from penstock.observers import Observers
from penstock.ports import (
    AppendOptions,
    EventMember,
    Marks,
    MemberOptions,
    Page,
)
from penstock.signals import Signal
from penstock.testing.clock import ManualClock

MARKS = Marks("fields", "plain")
SHARD = Shard("orders")
LEASE = 8.0
names = itertools.count()


class World:
    """A backend of its own, its clock in our hand, and every signal that it gave."""

    def __init__(self) -> None:
        self.name = f"unit-{next(names)}"
        self.clock = ManualClock()
        self.signals: list[Signal] = []
        self.backend = self.client(self.clock)

    def client(self, clock: ManualClock) -> MemoryBackend:
        """One more client of the same log."""
        return MemoryBackend(self.name, clock=clock, observers=Observers([self.signals.append]))

    @property
    def kinds(self) -> list[str]:
        """What was signalled, in order."""
        return [signal.kind for signal in self.signals]

    async def append(self, count: int, shard: Shard = SHARD) -> list[Position]:
        """Append *count* entries."""
        appender = await self.backend.appender(shard, MARKS, AppendOptions())
        return list(await appender.submit([[b"n", b"%d" % n] for n in range(count)]))

    @asynccontextmanager
    async def member(
        self, *shards: Shard, name: str | None = None, start: Start = OLDEST, stuck: bool = False
    ) -> AsyncGenerator[EventMember]:
        """A member that is gone in the end; for one that is *stuck*, time stands still."""
        backend = self.client(ManualClock()) if stuck else self.backend
        options = MemberOptions(start, name, LEASE)
        member = await backend.join(shards or [SHARD], "g", options)
        yield member
        member.abandon()


def ids(pages: Iterable[Page]) -> list[bytes]:
    """The ids of all entries of *pages*."""
    return [entry[0] for page in pages for entry in page.entries]
