"""Saved: how far a reader has come, as a text that another reader can start from.

Does        write positions over all streams and shards, and read them back.
Does not    know where a reader stands: `streams/reading.py` does.
Invariants  1. reading back what was written gives the same positions.
            2. a text that names none of a reader's streams is refused, never read as "anew".
Source      JSON: ``{"orders": ["1700000000000-0"]}``; one position a shard, null for its beginning.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from penstock.errors import ConfigError
from penstock.event import OLDEST, Position, Shard, Start, after

Saved = dict[str, list[str | None]]
"""By stream: a position for each shard, in its string form."""


def save(positions: Mapping[Shard, Position | None]) -> str:
    """*positions* as one line of text."""
    saved: Saved = {}
    for shard, position in sorted(positions.items()):
        saved.setdefault(shard.stream, []).append(None if position is None else str(position))
    return msgspec.json.encode(saved).decode()


def load(text: str, names: Collection[str]) -> Saved:
    """What `save` wrote, for a reader of the streams *names*.

    Raises:
        ConfigError: not such a text, or it names none of the streams.
    """
    try:
        saved = msgspec.json.decode(text, type=Saved)
    except msgspec.DecodeError as error:
        raise ConfigError(
            f"start must be a Start (OLDEST, NEWEST, after(...), at(...)) or a text that "
            f"reader.position gave, got {text[:80]!r}"
        ) from error
    if not saved.keys() & set(names):
        raise ConfigError(
            f"a saved position must name a stream of the reader, which reads "
            f"{', '.join(sorted(names))}; it names {', '.join(sorted(saved)) or 'none'}"
        )
    for position in [one for row in saved.values() for one in row if one is not None]:
        Position.parse(position)
    return saved


def starts_at(start: Start | Saved, shards: Iterable[Shard]) -> dict[Shard, Start]:
    """Where reading begins, by shard.

    A shard that a saved position does not name begins at its oldest event: nothing of it was read.

    Raises:
        ConfigError: the stream has another number of shards than was saved.
    """
    if isinstance(start, Start):
        return dict.fromkeys(shards, start)
    return {shard: _start(start.get(shard.stream), shard) for shard in shards}


def _start(row: list[str | None] | None, shard: Shard) -> Start:
    if row is None:
        return OLDEST
    if len(row) != shard.of:
        if len(row) == 1 and row[0] is None:
            return OLDEST  # saved before the stream existed: nobody knew its shards
        raise ConfigError(
            f"stream {shard.stream!r} has {shard.of} shards, and the saved position has "
            f"{len(row)}; it is of another stream under this name"
        )
    position = row[shard.index]
    return OLDEST if position is None else after(position)
