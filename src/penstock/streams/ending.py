"""Ending: when a reader or a group has read all that it was told to.

Does        anchor `until` on entry, cut what lies behind it, and know when it is reached.
Does not    read.
Invariants  1. END is the newest event on entry, of every shard; that one is still read.
            2. a shard that held nothing on entry has ended at once.
            3. a group has ended when all up to the end was handed out, and none is due again.
            4. `idle` counts from the last event, or from the entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

from penstock.clock import Clock
from penstock.errors import ConfigError
from penstock.event import Event, Position, Shard, Until

T = TypeVar("T")

_WAIT: Final = 1.0
"""Seconds that one fetch waits, between looks at whether the end has come."""

_NEAR: Final = 0.2
"""Seconds that a fetch waits where there is an end: if nothing comes, it may be reached."""


class Ending:
    """Where reading ends. Made by `anchor`."""

    def __init__(
        self,
        targets: dict[Shard, Position] | None,
        idle: float | None,
        clock: Clock,
        *,
        existing: bool = False,
        alone: bool = False,
    ) -> None:
        self._alone = alone
        self._targets = targets
        self._all = None if targets is None else dict(targets)
        self._idle = idle
        self._clock = clock
        self._existing = existing
        self._empty_since: float | None = None

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
        until = Until.checked(until)
        if until is None:
            return cls(None, None, clock)
        if until.kind == "idle":
            return cls(None, until.seconds, clock)
        if until.kind == "position":
            if len(all_shards) != 1 or until.position is None:
                raise ConfigError(
                    f"until=position needs a reader of one stream with one shard, "
                    f"got {len(all_shards)} shards; use END"
                )
            return cls({all_shards[0]: until.position}, None, clock, alone=True)
        targets = await _newest(backend, all_shards)
        return cls(targets, None, clock, existing=not shared)

    @property
    def targets(self) -> dict[Shard, Position]:
        """The shards that have not ended, and where they will."""
        return self._targets or {}

    def begins_at(self, positions: Mapping[Shard, Position | None]) -> None:
        """Reading begins behind *positions*: a shard that ends there, or before, has ended."""
        self._empty_since = None
        for shard, position in positions.items():
            target = (self._all or {}).get(shard)
            if self._targets is None or target is None:
                continue
            self._targets[shard] = target
            if position is not None and position >= target:
                self.passed(shard)

    async def widen(self, backend: Any, shards: Iterable[Shard]) -> dict[Shard, Position]:
        """Where reading of more *shards* ends, for `add`: what END means now.

        Raises:
            ConfigError: reading ends at a position, which is one shard's.
            BackendError: the end cannot be looked up.
        """
        if self._alone:
            raise ConfigError("until=position reads one stream with one shard; it takes no other")
        return {} if self._targets is None else await _newest(backend, list(shards))

    def add(self, targets: Mapping[Shard, Position]) -> None:
        """More shards are read, up to *targets*; one that is not among them has ended."""
        if self._targets is not None and self._all is not None:
            self._targets.update(targets)
            self._all.update(targets)

    def reached(self) -> bool:
        """Whether there is nothing more to read."""
        if self._idle is not None:
            since = self._empty_since
            return since is not None and self._clock.monotonic() - since >= self._idle
        return self._targets is not None and not self._targets

    def wait(self, most: float | None = None) -> float:
        """How long to wait for events, in seconds, before asking `reached` again."""
        if most is None:
            most = _NEAR if self._targets else _WAIT
        if self._idle is None:
            return most
        now = self._clock.monotonic()
        left = (now if self._empty_since is None else self._empty_since) + self._idle - now
        return min(most, max(0.001, left))

    def busy(self) -> None:
        """There was no room to read, or no answer: nobody can say that nothing came."""
        self._empty_since = None

    def cut(self, shard: Shard, events: list[Event[T]], *, new: bool = True) -> list[Event[T]]:
        """*events* without those behind the end; *new*: they come in order, so the end is seen."""
        self._empty_since = None
        if self._all is None or self._targets is None:
            return events
        target = self._all.get(shard)
        if target is None:
            return []
        if not events or events[-1].position < target:
            return events
        if new:
            self.passed(shard)
        return [event for event in events if event.position <= target]

    def nothing_came(self, since: float) -> None:
        """A read from *since* on found nothing.

        For a reader: what END meant has been read, or was removed meanwhile.
        """
        if self._empty_since is None:
            self._empty_since = since
        if self._existing and self._targets is not None:
            self._targets.clear()

    def past(self, shards: Iterable[Shard]) -> list[Shard]:
        """Those of *shards* of which nothing more is to be read."""
        if self._all is None or self._targets is None:
            return []
        return [shard for shard in shards if shard not in self._targets]

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
