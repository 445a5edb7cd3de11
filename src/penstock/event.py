"""Event: one immutable record, and the values that say where it stands.

Does        hold what a backend read, as it read it, and decode it when it is first asked for.
Does not    know any backend, layout or codec by name: its `Origin` carries them.
Invariants  1. making an Event costs one small allocation; nothing is decoded until asked for.
            2. `fields` are the stored bytes, untouched: repeated fields survive.
            3. an undecodable value raises DecodeError from `value`, never from anything else.
            4. the garbage collector does not track Events (it would cost a third of the speed of a
               group): nothing that an Event refers to may refer back to it.
Cost        per event: one Struct. Metadata and value are decoded once, on first use.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from math import isfinite
from typing import Any, Final, Generic, Literal, NamedTuple, Protocol, TypeVar, cast, overload

import msgspec
from msgspec.structs import force_setattr

from penstock.errors import ConfigError, DecodeError

T = TypeVar("T")


class Event(msgspec.Struct, Generic[T], frozen=True, eq=False, gc=False):
    """One immutable record of a stream.

    A plain value: two events are equal when stream, shard, position and stored bytes are.
    Metadata and value are decoded on first use and kept.

    Attributes:
        origin, entry_id, raw: what the backend read, untouched; everything else comes from them.
        deliveries: how often a group has handed the event out, this time included; 1 for readers.
        attempts: how often its handling has failed before.
        size: bytes of all stored fields.
    """

    origin: Origin
    entry_id: bytes
    raw: Sequence[bytes]
    deliveries: int = 1
    attempts: int = 0
    size: int = 0
    _meta: Meta | None = None
    _value: Any = msgspec.UNSET

    @property
    def stream(self) -> str:
        """The name of the stream."""
        return self.origin.stream

    @property
    def shard(self) -> int:
        """The number of the shard, from 0; always 0 in an unsharded stream."""
        return self.origin.shard

    @property
    def position(self) -> Position:
        """Where the event stands in its shard."""
        return Position.of(self.entry_id)

    @property
    def value(self) -> T:
        """The decoded value.

        Raises:
            DecodeError: the stored bytes are not what the stream's codec reads; they are
                untouched in `payload` and `fields`.
        """
        if self._value is msgspec.UNSET:
            force_setattr(self, "_value", self._decode())
        return cast("T", self._value)

    @property
    def payload(self) -> bytes:
        """The stored bytes of the value; ``b""`` in the layout ``fields``, which has none."""
        return self.origin.layout.payload(self.raw) or b""

    @property
    def fields(self) -> tuple[tuple[bytes, bytes], ...]:
        """Every stored field and its bytes, in order, repeated ones too."""
        pairs = iter(self.raw)
        return tuple(zip(pairs, pairs, strict=True))

    @property
    def id(self) -> str | None:
        """The id that the writer gave the event; ``None`` if it gave none."""
        return self.meta.id

    @property
    def name(self) -> str:
        """What happened, e.g. ``"order.paid"``; ``""`` if not given."""
        return self.meta.name

    @property
    def topic(self) -> str:
        """The label that readers filter by; ``""`` if not given."""
        return self.meta.topic

    @property
    def key(self) -> str | None:
        """What the event is about; events of one key keep their order. ``None`` if not given."""
        return self.meta.key

    @property
    def headers(self) -> dict[str, str]:
        """Free metadata, by name."""
        return dict(self.meta.headers)

    @property
    def timestamp(self) -> float:
        """Seconds since 1970: as given by the writer, else when the event was appended."""
        given = self.meta.timestamp
        return given if given is not None else self.origin.time_of(self.entry_id)

    @property
    def meta(self) -> Meta:
        """All metadata at once."""
        if self._meta is None:
            force_setattr(self, "_meta", self.origin.layout.meta(self.raw))
        return self._meta  # type: ignore[return-value]  # set just above

    def _decode(self) -> Any:
        try:
            return self.origin.decode(self.raw)
        except DecodeError as error:
            where = f"event {self.position} of stream {self.stream!r}"
            raise DecodeError(
                f"{where} is undecodable: {error}; its bytes are in event.fields",
                stream=self.stream,
                position=str(self.position),
            ) from error

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Event):
            return NotImplemented
        return (self.stream, self.shard, self.entry_id, list(self.raw)) == (
            other.stream,
            other.shard,
            other.entry_id,
            list(other.raw),
        )

    def __hash__(self) -> int:
        return hash((self.stream, self.shard, self.entry_id))

    def __repr__(self) -> str:
        shard = f"[{self.shard}]" if self.shard else ""
        return f"<Event {self.stream}{shard} {self.entry_id.decode()} {self.size} bytes>"


class Position(tuple[int, ...]):
    """Where an event stands in its shard: ordered, hashable, with an exact string form.

    Two numbers on Redis and in memory (milliseconds and sequence), one on Kafka.
    ``Position.parse(str(position)) == position`` always holds.
    """

    __slots__ = ()

    @classmethod
    def of(cls, raw: bytes) -> Position:
        """The position that a backend wrote as *raw*, e.g. ``b"1700000000000-0"``."""
        return cls(map(int, raw.split(b"-")))

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read back what ``str(position)`` wrote.

        Raises:
            ConfigError: *text* is not one or two whole numbers joined by ``-``.
        """
        parts = text.split("-")
        if len(parts) > 2 or not all(part.isascii() and part.isdigit() for part in parts):
            raise ConfigError(
                f"a position must be one or two whole numbers joined by '-', "
                f"such as '1700000000000-0', got {text!r}"
            )
        if any(int(part) >= 1 << 64 for part in parts):
            raise ConfigError(f"each number of a position must be below 2**64, got {text!r}")
        return cls(map(int, parts))

    def __str__(self) -> str:
        return "-".join(map(str, self))

    def __repr__(self) -> str:
        return f"Position({str(self)!r})"

    @property
    def raw(self) -> bytes:
        """The bytes that a backend knows the position by."""
        return str(self).encode()


class PositionRun(Sequence[Position]):
    """*count* positions that follow each other in their last number, from *first* on.

    What an append of a batch returns: it costs the same for one event as for a thousand.
    """

    __slots__ = ("first", "size")

    def __init__(self, first: Position, count: int) -> None:
        self.first = first
        self.size = count

    @overload
    def __getitem__(self, index: int) -> Position: ...
    @overload
    def __getitem__(self, index: slice) -> list[Position]: ...
    def __getitem__(self, index: int | slice) -> Position | list[Position]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.size))]
        if not -self.size <= index < self.size:
            raise IndexError(index)
        *head, last = self.first
        return Position((*head, last + index % self.size))

    def __len__(self) -> int:
        return self.size


class Shard(NamedTuple):
    """One of the *of* logs that a stream is split into; an unsharded stream has one.

    `replay`: not that log, but the events that were taken back from the dead letters of a group;
    known to members of that group alone.
    """

    stream: str
    index: int = 0  # pyright: ignore[reportIncompatibleMethodOverride]  # nobody searches a Shard
    of: int = 1
    replay: bool = False


class Start(NamedTuple):
    """Where reading begins: `OLDEST`, `NEWEST`, ``after(position)`` or ``at(datetime)``."""

    kind: Literal["oldest", "newest", "after", "at"]
    position: Position | None = None
    time: float | None = None

    def __str__(self) -> str:
        detail = self.position if self.position is not None else self.time
        return self.kind if detail is None else f"{self.kind}({detail})"

    @classmethod
    def checked(cls, given: Any) -> Start:
        """*given*, if it is a Start.

        Raises:
            ConfigError: it is something else.
        """
        if isinstance(given, Start):
            return given
        hint = ""
        if isinstance(given, Position):
            hint = "; after(position) begins behind that one"
        raise ConfigError(
            f"start must be OLDEST, NEWEST, after(position) or at(datetime), got {given!r}{hint}"
        )


class Until(NamedTuple):
    """Where reading ends: `END`, ``idle(seconds)``, or a position (itself included)."""

    kind: Literal["end", "idle", "position"]
    position: Position | None = None
    seconds: float = 0.0

    @classmethod
    def checked(cls, given: Any) -> Until | None:
        """What *given* means, if it may stand for `until`.

        Raises:
            ConfigError: it is something else.
        """
        if given is None or isinstance(given, Until):
            return given
        if isinstance(given, Position):
            return Until("position", given)
        raise ConfigError(
            f"until must be END, idle(seconds), a position or None (for ever), got {given!r}"
        )


OLDEST: Final = Start("oldest")
"""The oldest event that the stream still holds."""

NEWEST: Final = Start("newest")
"""Only what is appended after the reader or the group has been opened."""

END: Final = Until("end")
"""The newest event at the moment of opening; that one is still read."""


def after(position: Position | str) -> Start:
    """Start with the first event behind *position*, which is itself excluded."""
    return Start("after", Position.parse(position) if isinstance(position, str) else position)


def at(time: datetime) -> Start:
    """Start with the first event appended at or after *time*, which must know its time zone.

    Raises:
        ConfigError: *time* is naive.
    """
    return Start("at", time=seconds_of(time))


def idle(seconds: float) -> Until:
    """End when no event has come for *seconds*.

    Raises:
        ConfigError: *seconds* is not above zero.
    """
    if not seconds > 0:
        raise ConfigError(f"idle must be above 0 seconds, got {seconds!r}")
    return Until("idle", seconds=seconds)


def seconds_of(time: float | datetime) -> float:
    """Seconds since 1970 of a number or of a datetime that knows its time zone."""
    if not isinstance(time, datetime):
        number: Any = time
        if not isinstance(number, (int, float)) or not isfinite(number):
            raise ConfigError(
                f"a time must be seconds since 1970 or a datetime with its zone, got {time!r}"
            )
        return float(time)
    if time.utcoffset() is None:
        raise ConfigError(
            f"a datetime must know its time zone, got the naive {time!r}; "
            f"write datetime(..., tzinfo=timezone.utc) or .astimezone()"
        )
    return time.timestamp()


class Meta(msgspec.Struct, frozen=True):
    """What is said about a value: all of it optional."""

    id: str | None = None
    name: str = ""
    topic: str = ""
    key: str | None = None
    timestamp: float | None = None
    headers: tuple[tuple[str, str], ...] = ()


class LayoutReader(Protocol):
    """How the stored fields of an entry are read."""

    def meta(self, raw: Sequence[bytes]) -> Meta:
        """The metadata of an entry; empty for entries that others wrote."""
        ...

    def payload(self, raw: Sequence[bytes]) -> bytes | None:
        """The bytes of the value, or None where there are none."""
        ...


class Origin(Protocol):
    """What all events of one shard share: names, and how to read them."""

    stream: str
    shard: int

    @property
    def layout(self) -> LayoutReader:
        """How its entries are read."""
        ...

    def decode(self, raw: Sequence[bytes]) -> Any:
        """The value that *raw* holds; raises DecodeError where it holds none."""
        ...

    def time_of(self, entry_id: bytes) -> float:
        """When an entry was appended, in seconds since 1970."""
        ...
