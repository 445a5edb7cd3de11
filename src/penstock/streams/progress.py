"""Progress: how far a reader has come, by shard.

Does        know behind which event each shard's reading goes on.
Does not    read, or write that down: `streams/saved.py` does.
Invariants  1. it never goes beyond what was yielded, but for what was filtered out behind it.
Cost        per batch that is taken from one shard: one assignment; from several: one an event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.event import Event, Position, Shard
from penstock.rules.gaps import LAST
from penstock.streams.format import ShardOrigin

_Place = tuple[str, int]
"""A stream and the number of a shard: what an event knows of where it is from."""


class Progress:
    """How far a reader has come. `origins` are those of its shards, as far as they are known."""

    def __init__(self) -> None:
        self.origins: dict[Shard, ShardOrigin] = {}
        self._began: dict[Shard, Position | None] = {}
        self._reached: dict[_Place, bytes] = {}
        self._newest: dict[_Place, bytes] = {}
        self._last: dict[Any, bytes] = {}

    def positions(self) -> Mapping[Shard, Position | None]:
        """By shard, up to where everything was yielded or filtered out; None: the beginning."""
        found: dict[Shard, Position | None] = {}
        for shard, began in self._began.items():
            place, origin = shard[:2], self.origins.get(shard)
            yielded = self._last.get(origin)
            all_of_it = self._newest.get(place) == yielded
            raw = self._reached.get(place) if all_of_it else yielded
            found[shard] = began if raw is None else Position.of(raw)
        return found

    def existed(self, shard: Shard) -> bool:
        """Whether an event of the shard is known: one that was read, or behind which it began."""
        began = self._began.get(shard)
        return shard[:2] in self._reached or (began is not None and began[1:] != (LAST,))

    def begins(self, places: Mapping[Shard, Position | None]) -> None:
        """Reading of these shards begins there; what was read of them before does not count."""
        for shard, position in places.items():
            self.drop(shard)
            self._began[shard] = position

    def taken(self, events: Sequence[Event[Any]]) -> None:
        """These were yielded."""
        for event in events[-1:] if len(self.origins) == 1 else events:
            self._last[event.origin] = event.entry_id

    def read(self, shard: Shard, events: Sequence[Any], wanted: Sequence[Any]) -> None:
        """These were read, and those are *wanted*."""
        if wanted:
            self._newest[shard[:2]] = wanted[-1].entry_id
        if events:
            self._reached[shard[:2]] = events[-1].entry_id

    def drop(self, shard: Shard) -> None:
        """What was read of the shard does not count any more."""
        self._last.pop(self.origins.get(shard), None)
        self._newest.pop(shard[:2], None)
        self._reached.pop(shard[:2], None)

    def forget(self, shard: Shard) -> None:
        """The shard is not read any more."""
        self.drop(shard)
        self.origins.pop(shard, None)
        self._began.pop(shard, None)

    def reads_otherwise(self, shard: Shard, origin: ShardOrigin) -> None:
        """Events of the shard are read by *origin* from now on."""
        before = self.origins.get(shard)
        self.origins[shard] = origin
        if before in self._last:
            self._last[origin] = self._last.pop(before)
