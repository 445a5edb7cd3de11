"""Asked: what a single append asks beyond being stored, checked before anything is sent.

Does        name the options of `Stream.append`; make `Terms` of some of them.
Does not    judge: the backend does, in the step that stores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, TypedDict

from penstock.errors import ConfigError
from penstock.event import Position, seconds_of
from penstock.ports import Confirm, Terms
from penstock.rules.terms import digest

_EMPTY: Final = Position((0, 0))
"""What stands before every event."""


_LATEST: Final = 253_402_300_800.0
"""The year 10000: servers keep times in numbers that end somewhere."""


class AppendKeywords(TypedDict, total=False):
    """The options of `Stream.append`, but for `deliver_at`."""

    name: str
    topic: str
    key: str | None
    headers: Mapping[str, str] | None
    id: str | None
    timestamp: float | datetime | None
    expect: Position | Literal["empty"] | None
    only_if_exists: bool
    confirm: Confirm | None
    timeout: float


class Asked(NamedTuple):
    """The terms of one append, before its content is known.

    `key`: what decides about the shard; an event without a key that has an id goes where the id
    belongs, so that it meets itself there.
    """

    id: str
    key: str | None
    expect: Position | None
    due: float | None

    @classmethod
    def of(
        cls,
        id: str | None,
        key: str | None,
        expect: Position | Literal["empty"] | None,
        deliver_at: float | datetime | None,
    ) -> Asked:
        """Read what the caller wrote.

        Raises:
            ConfigError: an `expect` that is no position, a naive datetime, or both terms at once.
        """
        if expect is not None and deliver_at is not None:
            raise ConfigError(
                "an append takes expect or deliver_at, not both: what is newest when the event "
                "is due, nobody can expect now"
            )
        position = _EMPTY if expect == "empty" else expect
        if position is not None and not _is_position(position):
            raise ConfigError(f"expect must be a position or 'empty', got {expect!r}")
        due = None if deliver_at is None else due_of(deliver_at)
        return cls(id or "", key if key is not None else id, position, due)

    def check(self, stream: str, shards: int) -> None:
        """See that the terms mean something in a stream of so many shards.

        Raises:
            ConfigError: an expectation about some shard, nobody knows which.
        """
        if self.expect is not None and self.key is None and shards > 1:
            raise ConfigError(
                f"expect is about one shard, and {stream!r} has {shards}: give a key (or an id), "
                f"which says which"
            )

    def terms(self, fields: Sequence[Any]) -> Terms | None:
        """The terms, with the content that the id stands for; None where nothing is asked."""
        if not self.id and self.expect is None and self.due is None:
            return None
        return Terms(self.id, digest(fields) if self.id else b"", self.expect, self.due)


def due_of(time: float | datetime) -> float:
    """Seconds since 1970 of a time that an event can wait for.

    Raises:
        ConfigError: no time, a naive datetime, or one that no calendar has.
    """
    seconds = seconds_of(time)
    if seconds >= _LATEST:
        raise ConfigError(f"deliver_at must be before the year 10000, got {time!r}")
    return seconds


def _is_position(given: Any) -> bool:
    return isinstance(given, Position) and len(given) == 2
