"""Terms: what an append asks beyond being stored, and what the answer to that is.

Does        hold the terms of one event; tell equal contents from others; read a store's answer.
Does not    keep ids or compare them: the backends do, in the step that stores.
Invariants  1. equal flat fields have one digest, whatever types their parts came in.
            2. an event whose terms do not hold is not stored, and those beside it are.
Source      reliability notes 1.8: the server's own IDMP drops other content under one id in
            silence, and forgets by count; so ids are compared with their contents, by time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

from penstock.errors import ConflictError
from penstock.event import Position, PositionRun

Stored = Position | ConflictError | None
"""What became of one event: where it stands; why it is not stored; None: it waits for its time."""


class Terms(NamedTuple):
    """What one append asks: all of it is looked at in the step that stores the event.

    `id` with `digest`: stored once within the window, another content under it is a conflict.
    `expect`: the newest position of the shard, ``0-0`` for an empty one. `due`: seconds since 1970
    before which the event is not in the stream.
    """

    id: str = ""
    digest: bytes = b""
    expect: Position | None = None
    due: float | None = None


NOTHING: Final = Terms()
"""The terms of an event that has none, among others that have."""


def digest(fields: Sequence[str | bytes | float]) -> bytes:
    """A short name for the content of an event, as hexadecimal digits."""
    hashed = blake2b(digest_size=12)
    for part in fields:
        raw = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogateescape")
        hashed.update(b"%d:" % len(raw))
        hashed.update(raw)
    return hashed.hexdigest().encode()


def outcomes(
    answer: bytes, count: int, terms: Mapping[int, Terms], stream: str
) -> Sequence[Stored]:
    """What became of each of *count* events.

    *answer*: the first new position (or ``-``), then for each event that is not simply new its
    index, a letter and a position: ``a`` stored already, ``c`` another content, ``x`` not the
    newest any more, ``w`` waits.
    """
    first, *marked = answer.split(b" ")
    if not marked:
        return PositionRun(Position.of(first), count)
    special: dict[int, Stored] = {}
    for mark in marked:
        index, letter, where = mark.split(b":")
        at = int(index)
        position = None if where in (b"", b"w") else Position.of(where)
        special[at] = _meant(letter, position, terms.get(at, NOTHING), stream)
    new = iter(PositionRun(Position.of(first), count) if first != b"-" else ())
    return [special[at] if at in special else next(new) for at in range(count)]


def other_content(stream: str, id: str, position: Position | None) -> ConflictError:
    """The error of an id that stands for something else."""
    where = "waiting for its time" if position is None else f"at {position}"
    return ConflictError(
        f"an event with id {id!r} and another content is in {stream!r} already, {where}; "
        f"nothing was stored; an id must stand for one content",
        position=position,
    )


def not_newest(stream: str, expect: Position | None, newest: Position | None) -> ConflictError:
    """The error of an expectation that does not hold."""
    return ConflictError(
        f"the newest position of {stream!r} was expected to be {_place(expect)} and is "
        f"{_place(newest)}; nothing was stored; read what came, and decide anew",
        position=newest,
    )


def _meant(letter: bytes, position: Position | None, terms: Terms, stream: str) -> Stored:
    match letter:
        case b"a" | b"w":
            return position
        case b"c":
            return other_content(stream, terms.id, position)
        case _:
            return not_newest(stream, terms.expect, position)


def _place(position: Position | None) -> str:
    return "none" if position is None or not any(position) else str(position)
