"""Format: how one stream's values become entries, and entries become events.

Does        join a layout and a codec, as the stream's marks say; limit the size of an event.
Does not    read or write.
Invariants  1. what is over the limit is refused before anything of it is sent.
            2. entries are never sniffed: the marks decide.
Cost        `pack` is on the hot road: one codec call, one pass for the size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from penstock.codecs import Codec, codec_named
from penstock.errors import ConfigError, EncodeError, PayloadTooLarge
from penstock.event import Meta, seconds_of
from penstock.layouts import Layout, layout_named
from penstock.ports import Marks

MOST_FIELDS: Final = 3500
"""Fields of one event at most: 7 000 parts, what a Lua script can unpack."""

_LONG: Final = 10**20
_SHORT: Final = -(10**19)  # its sign takes a character
"""Numbers between take at most 20 characters, or 24 as a float."""


class Format:
    """A layout and a codec that fit.

    Args:
        layout: where the parts of an event lie.
        codec: what its value is.
        limit: the largest event, in bytes.

    Raises:
        ConfigError: the codec makes a payload and the layout wants fields, or the reverse.
    """

    def __init__(self, layout: Layout, codec: Codec[Any], limit: int) -> None:
        if layout.body != codec.body:
            raise ConfigError(
                f"layout {layout.name!r} stores {layout.body}, but codec {codec.name!r} makes "
                f"{codec.body}; use layout='value' for typed and raw values, "
                f"layout='fields' for plain mappings"
            )
        self.layout = layout
        self.codec = codec
        self._limit = limit

    def marks(self, shards: int) -> Marks:
        """What is stored with the stream."""
        return Marks(self.layout.name, self.codec.name, shards)

    def pack(self, value: Any, meta: Meta | None) -> tuple[list[Any], int]:
        """The flat fields of an event, and their size in bytes (characters, for text).

        Raises:
            EncodeError: the value has no stored form.
            PayloadTooLarge: the event is over the limit.
        """
        fields = self.layout.pack(self.codec.encode(value), meta)
        size = 0
        for part in fields:
            kind = part.__class__
            if kind is str:
                size += len(part)
                if not part.isascii():
                    _check_text(part)
            elif kind is bytes:
                size += len(part)
            else:
                size += 20 if kind is int and _SHORT < part < _LONG else _size_of(part)
        if size * 4 > self._limit:
            self._check_size(fields)
        if len(fields) > 2 * MOST_FIELDS:
            raise EncodeError(
                f"an event must have at most {MOST_FIELDS} fields, got {len(fields) // 2}"
            )
        return fields, size

    def key_of(self, fields: Sequence[Any]) -> str | None:
        """The key of an event that `pack` has packed."""
        return self.layout.meta([_as_bytes(part) for part in fields]).key

    def _check_size(self, fields: list[Any]) -> None:
        """The exact size: text in UTF-8 may take four bytes a character."""
        size = sum(
            len(part)
            if isinstance(part, bytes)
            else len(str(part).encode("utf-8", "surrogateescape"))
            for part in fields
        )
        if size > self._limit:
            raise PayloadTooLarge(
                f"an event must be at most {self._limit} bytes, got {size}; nothing was sent; "
                f"store large things elsewhere and append where they are",
                size=size,
                limit=self._limit,
            )


def _as_bytes(part: Any) -> bytes:
    return part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogateescape")


def _size_of(part: Any) -> int:
    """The size of what is neither text nor bytes; EncodeError where it cannot be written out."""
    if not isinstance(part, (int, float)):
        return len(part)
    if isinstance(part, float) or _SHORT < part < _LONG:
        return 20
    try:
        return len(str(part))
    except ValueError as error:  # and the wire would crash on it
        raise EncodeError(f"a number must be one that can be written out: {error}") from error


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise EncodeError(
            f"text must be what UTF-8 can say, got {text[:40]!a}: {error.reason}"
        ) from error


class ShardOrigin:
    """What all events of one shard share; see `event.Origin`.

    Without a *format* at first, it is told one before there are events.
    """

    __slots__ = ("codec", "layout", "shard", "stream")

    def __init__(self, stream: str, shard: int, format: Format | None = None) -> None:
        self.stream = stream
        self.shard = shard
        if format is not None:
            self.read_as(format)

    def read_as(self, format: Format) -> None:
        """Its events are stored like that."""
        self.layout = format.layout
        self.codec = format.codec

    def decode(self, raw: Sequence[bytes]) -> Any:
        """The value of an entry."""
        return self.codec.decode(self.layout.unpack(raw))

    def time_of(self, entry_id: bytes) -> float:
        """When it was appended: the first number of the id is milliseconds."""
        return int(entry_id.split(b"-")[0]) / 1000


def choose(
    marks: Marks | None,
    *,
    stream: str,
    type: Any,
    codec: Codec[Any] | str | None,
    layout: str | None,
    limit: int,
    exists: bool,
) -> Format:
    """The format of a stream: its marks where it has some, else what the handle asks for.

    Raises:
        ConfigError: the handle asks for another format than is stored.
    """
    wanted = _wanted_codec(type, codec, layout)
    if marks is None and exists:
        if layout not in (None, "fields") or wanted not in (None, "fields"):
            raise ConfigError(
                f"stream {stream!r} was made by others and is read as plain fields; this handle "
                f"asks for {_said(type, codec, layout)}; leave it out, and take dict[str, str]"
            )
        marks = Marks("fields", "fields")
    if marks is None:
        name = wanted or "fields"
        marks = Marks(layout or ("fields" if name == "fields" else "value"), name)
    if (layout or marks.layout) != marks.layout or (wanted or marks.codec) != marks.codec:
        raise ConfigError(
            f"stream {stream!r} has layout {marks.layout!r} and codec {marks.codec!r}; this handle "
            f"asks for {_said(type, codec, layout)}; leave those options out to adopt what is there"
        )
    chosen = codec if codec is not None and not isinstance(codec, str) else None
    return Format(layout_named(marks.layout), chosen or codec_named(marks.codec, type), limit)


def make_meta(  # noqa: PLR0917 - the metadata, in the order of the docs
    name: str,
    topic: str,
    key: str | None,
    headers: Mapping[str, str] | None,
    id: str | None,
    timestamp: float | datetime | None,
) -> Meta | None:
    """The metadata that is given; None where none is.

    Raises:
        EncodeError: a part that is no text.
        ConfigError: a naive datetime.
    """
    if not (name or topic or headers) and key is None and id is None and timestamp is None:
        return None
    pairs = tuple((headers or {}).items())
    parts: tuple[Any, ...] = (name, topic, key, id, *(text for pair in pairs for text in pair))
    for part in parts:
        if part is not None and not isinstance(part, str):
            raise EncodeError(f"name, topic, key, id and headers must be text, got {part!r}")
    time = None if timestamp is None else seconds_of(timestamp)
    return Meta(
        id=None if id is None else str.__str__(id),  # exactly text: it may be a StrEnum
        name=str.__str__(name),
        topic=str.__str__(topic),
        key=None if key is None else str.__str__(key),
        timestamp=time,
        headers=tuple((str.__str__(header), str.__str__(text)) for header, text in pairs),
    )


def _wanted_codec(type: Any, codec: Codec[Any] | str | None, layout: str | None) -> str | None:
    if codec is not None:
        return codec if isinstance(codec, str) else codec.name
    if type is not None:
        return "raw" if type is bytes else "json"
    return "json" if layout == "value" else None


def _said(type: Any, codec: Codec[Any] | str | None, layout: str | None) -> str:
    given = [
        f"layout={layout!r}" if layout else "",
        f"codec={codec if isinstance(codec, str) else codec.name!r}" if codec else "",
        f"type={getattr(type, '__name__', type)}" if type is not None else "",
    ]
    return ", ".join(filter(None, given)) or "plain fields"
