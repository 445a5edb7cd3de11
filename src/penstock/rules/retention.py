"""Retention: how much of a stream is kept, as one value that is stored with it.

Does        hold the limits, check that they can be kept, write and read their stored form; say
            what a trim must leave.
Does not    trim: a client that has the stream open does, by and by (`streams/tending.py`); the cap
            is looked at in the step that appends.
Invariants  1. what is written by one release is read by the next: unknown names are refused.
            2. a guarded limit gives way to groups that still need events; the cap does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import NoneType
from typing import Final, Literal

import msgspec

from penstock.errors import ConfigError
from penstock.event import Position

_LIMITS: Final[dict[str, float]] = {
    **dict.fromkeys(("max_events", "max_bytes", "cap"), 10**15),
    **dict.fromkeys(("max_age", "ttl", "absent"), 1e10),
}
"""How large each limit may be: servers keep numbers that end somewhere; a count is whole."""


class Retention(
    msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True
):
    """How much of a stream is kept; by shard, where it has several.

    Attributes:
        max_events: the oldest beyond so many are removed.
        max_age: events older than so many seconds are removed, by the time of their appending.
        max_bytes: the oldest are removed while the shard takes more memory, as the server
            estimates it (in memory: the bytes of names and contents).
        ttl: seconds after which the whole stream goes, with its groups.
        sliding: count `ttl` from the last append, not from the first.
        guarded: remove nothing that a group has not acked (what is a dead letter, it has).
        cap: events that the stream holds at most, whatever its groups need.
        at_cap: ``"refuse"`` the append (`StreamFull`), or ``"drop-oldest"``: counted, signalled.
        absent: a group that keeps events from being removed, and has had no living member for so
            many seconds, is named by the signal ``group-absent``.
    """

    max_events: int | None = None
    max_age: float | None = None
    max_bytes: int | None = None
    ttl: float | None = None
    sliding: bool = False
    guarded: bool = True
    cap: int | None = None
    at_cap: Literal["refuse", "drop-oldest"] = "refuse"
    absent: float = 3600.0

    def __post_init__(self) -> None:
        """See that it can be kept.

        Raises:
            ConfigError: a limit that is none, or two that contradict each other.
        """
        for name, most in _LIMITS.items():
            value = getattr(self, name)
            if value is not None and not 0 < value <= most:
                raise ConfigError(
                    f"{name} must be above 0 and at most {most:g}, got {value!r}; leave it out "
                    f"for none"
                )
            if isinstance(most, int) and not isinstance(value, (int, NoneType)):
                raise ConfigError(f"{name} must be a whole number, got {value!r}")
        if self.at_cap not in ("refuse", "drop-oldest"):
            raise ConfigError(f"at_cap must be 'refuse' or 'drop-oldest', got {self.at_cap!r}")
        if self.sliding and self.ttl is None:
            raise ConfigError("sliding is about ttl: give one")
        if self.cap is not None and self.max_events is not None and self.cap < self.max_events:
            raise ConfigError(
                f"cap must be at least max_events, got cap={self.cap} and "
                f"max_events={self.max_events}"
            )

    @property
    def trims(self) -> bool:
        """Whether anything is to be removed by and by."""
        return (self.max_events or self.max_age or self.max_bytes) is not None

    def stored(self) -> str:
        """The form that lies with the stream."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def read(cls, stored: str | bytes | None) -> Retention | None:
        """The value that `stored` wrote; None for nothing.

        Raises:
            ConfigError: it is of a newer release.
        """
        if not stored:
            return None
        try:
            return msgspec.json.decode(stored, type=cls)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            raise ConfigError(
                f"the stored retention must be one that this Penstock knows: {error}; update it"
            ) from error


def over(retention: Retention, length: int, oldest: Sequence[Position | None], now: float) -> bool:
    """Whether a stream of *length* events is longer or older than it should be."""
    shards = len(oldest)
    if retention.max_events is not None and length > retention.max_events * shards:
        return True
    if retention.max_age is None:
        return retention.max_bytes is not None and length > 0
    limit = (now - retention.max_age) * 1000
    return any(position is not None and position[0] < limit for position in oldest)
