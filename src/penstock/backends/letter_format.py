"""Letter format: how a dead letter is stored, and an event that was taken back from one.

      a letter     position 1700000000000-0  attempts 5  deliveries 7  error ValueError  reason …
                   time 1700000060000   then the event's own fields, as they were
      a replayed   penstock.position 1700000000000-0   then the event's own fields

An event of more than `PARTS` parts, which no script can copy one by one, is stored in both as one
field, ``penstock.packed``: each part as its length, a colon, and itself.

Does        write and read what stands before the event's own fields.
Does not    move anything: each backend does, in one step.
Invariants  1. the header has always the same pairs, so the event's fields are found by counting:
               their names may be anything.
Used by     memory_letters, memory_groups, redis.letters, redis.letter_scripts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from penstock.event import Position, Shard
from penstock.ports import Burial, DeadLetter, Death, RawEntry

HEADER: Final = 12
"""Parts of a letter before the event's own."""

POSITION: Final = b"penstock.position"
"""What a replayed event's entry begins with."""

REPLAYED: Final = 2
"""Parts of a replayed event before its own."""

PARTS: Final = 7900
"""Parts of an event that a Lua script can pass on; ours have fewer, others' may have more."""

PACKED: Final = b"penstock.packed"
"""The one field of an event of more parts."""

REASON: Final = 1000
"""Characters of a reason that are kept."""


def pack(position: bytes, deliveries: int, death: Death, time: float) -> list[bytes]:
    """The header of a letter; *time* in seconds since 1970."""
    pairs: tuple[tuple[bytes, Any], ...] = (
        (b"position", position.decode()),
        (b"attempts", death.attempts),
        (b"deliveries", deliveries),
        (b"error", death.error),
        (b"reason", death.reason[:REASON]),
        (b"time", int(time * 1000)),
    )
    return [part for name, value in pairs for part in (name, as_bytes(value))]


def letter_parts(burial: Burial, position: bytes, time: float) -> list[bytes]:
    """A letter of a group that shares shards, whole."""
    death = Death(burial.id, burial.attempts, burial.error, burial.reason)
    raw = burial.raw
    if len(raw) > PARTS:
        raw = [PACKED, b"".join(b"%d:%s" % (len(part), part) for part in raw)]
    return [*pack(position, burial.deliveries, death, time), *raw]


def letter_of(shard: Shard, group: str, entry: RawEntry) -> DeadLetter:
    """A letter as it is stored."""
    raw: Sequence[bytes] = entry[1]
    position, attempts, deliveries, error, reason, time = raw[1:HEADER:2]
    return DeadLetter(
        shard,
        Position.of(entry[0]),
        Position.of(position),
        group,
        int(attempts),
        int(deliveries),
        as_text(error),
        as_text(reason),
        int(time) / 1000,
        unpacked(raw[HEADER:]),
    )


def without_position(entries: Sequence[RawEntry]) -> list[RawEntry]:
    """Replayed events with their own fields alone."""
    return [
        entry if entry[1] is None else [entry[0], list(unpacked(entry[1][REPLAYED:]))]
        for entry in entries
    ]


def unpacked(raw: Sequence[bytes]) -> Sequence[bytes]:
    """An event's own parts, as they were appended."""
    if len(raw) != 2 or raw[0] != PACKED:
        return raw
    parts: list[bytes] = []
    at, whole = 0, raw[1]
    while at < len(whole):
        colon = whole.index(b":", at)
        at = colon + 1 + int(whole[at:colon])
        parts.append(whole[colon + 1 : at])
    return parts


def as_bytes(value: object) -> bytes:
    """Text as it is stored, whatever it holds."""
    return str(value).encode("utf-8", "surrogateescape" if _escaped(str(value)) else "replace")


def as_text(stored: bytes) -> str:
    """Stored text; what is not UTF-8 by surrogateescape."""
    return stored.decode("utf-8", "surrogateescape")


def _escaped(text: str) -> bool:
    """Whether its surrogates, if any, stand for bytes that were not UTF-8."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True
