"""Ending: when a reader or a group has read all that it was told to.

Does        anchor `until` on entry, cut what lies behind it, and know when it is reached.
Does not    read.
Invariants  1. END is the newest event on entry, of every shard; that one is still read.
            2. a shard that held nothing on entry has ended at once.
            3. a group has ended when all up to the end was handed out, and none is due again.
            4. `idle` counts from the last event, or from the entry.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from penstock.clock import Clock
from penstock.errors import ConfigError
from penstock.event import Event, Position, Shard, Until

T = TypeVar("T")


class Ending:
    """Where reading ends. Made by `anchor`."""

    def __init__(
        self,
        targets: dict[Shard, Position] | None,
        idle: float | None,
        clock: Clock,
        *,
        existing: bool = False,
        shared: bool = False,
    ) -> None:
        self._targets = targets
        self._idle = idle
        self._clock = clock
        self._existing = existing
        self._shared = shared
        self.near = False
        self._last = clock.monotonic()

    @classmethod
    async def anchor(
        cls,
        backend: Any,
        shards: Iterable[Shard],
        until: Until | Position | None,
        clock: Clock,
        *,
        shared: bool = False,
    ) -> Ending:
        """The ending that *until* means now; *shared*: for a group, whose members read parts.

        Raises:
            ConfigError: a position, for several shards.
            BackendError: the end cannot be looked up.
        """
        all_shards = list(shards)
        if until is None:
            return cls(None, None, clock)
        if isinstance(until, Position):
            until = Until("position", until)
        if until.kind == "idle":
            return cls(None, until.seconds, clock)
        if until.kind == "position":
            if len(all_shards) != 1 or until.position is None:
                raise ConfigError(
                    f"until=position needs a reader of one stream with one shard, "
                    f"got {len(all_shards)} shards; use END"
                )
            return cls({all_shards[0]: until.position}, None, clock, shared=shared)
        targets = await _newest(backend, all_shards)
        return cls(targets, None, clock, existing=not shared, shared=shared)

    @property
    def targets(self) -> dict[Shard, Position]:
        """The shards that have not ended, and where they will."""
        return self._targets or {}

    def reached(self) -> bool:
        """Whether there is nothing more to read."""
        if self._idle is not None:
            return self._clock.monotonic() - self._last >= self._idle
        return self._targets is not None and not self._targets

    def wait(self, most: float) -> float:
        """How long to wait for events, in seconds, before asking `reached` again."""
        if self._idle is None:
            return most
        left = self._last + self._idle - self._clock.monotonic()
        return min(most, max(0.001, left))

    def cut(self, shard: Shard, events: list[Event[T]]) -> list[Event[T]]:
        """*events* without those behind the end."""
        self._last = self._clock.monotonic()
        if self._targets is None:
            return events
        target = self._targets.get(shard)
        if target is None:
            return []
        if not events or events[-1].position < target:
            return events
        self.near = True
        if not self._shared:  # in a group, what others have handed back may still come
            self.passed(shard)
        return [event for event in events if event.position <= target]

    def nothing_came(self) -> None:
        """A reader found nothing more: what END meant has been read, or was removed meanwhile."""
        if self._existing and self._targets is not None:
            self._targets.clear()

    def passed(self, shard: Shard) -> None:
        """The shard is known to have been read to its end."""
        if self._targets is not None:
            self._targets.pop(shard, None)


async def _newest(backend: Any, shards: list[Shard]) -> dict[Shard, Position]:
    targets: dict[Shard, Position] = {}
    for shard in shards:
        newest = await backend.read_range(shard, None, None, 1, True)
        if newest:
            targets[shard] = Position.of(newest[0][0])
    return targets
