"""Formats: between an event and a line of output or input.

Does        print an event as its value, as text, or whole; take a whole one apart again.
Does not    read or write anything.
Invariants  1. `parse_entry(whole line)` is the entry that was stored, byte for byte: what cannot be
               said in names and values goes as ``entry``, field by field.
            2. bytes that are not UTF-8 are ``{"base64": "…"}``; nothing is replaced or dropped.

A whole event, all but the position optional::

    {"position": "1700000000000-0", "fields": {"id": "7"}, "key": "customer-3", "time": 1.5}
    {"position": "1700000000000-1", "value": {"id": 7}}                   JSON, as it is stored
    {"position": "1700000000000-2", "value": "a line", "codec": "raw"}    bytes of another codec
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import msgspec

from penstock import DecodeError, Event
from penstock.event import Meta
from penstock.layouts import Layout
from penstock.ports import Marks

Mode = Literal["values", "events", "text"]
Render = Callable[[Event[Any]], bytes]


class Base64(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bytes that are no text."""

    base64: bytes


Text = str | Base64
Item = str | int | float | Base64

_NONE: Final = msgspec.Raw(b"")


class EventLine(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """A whole event, as a line of JSON."""

    position: str = ""
    value: msgspec.Raw = _NONE
    payload: Text | None = None
    fields: dict[str, Item] | list[tuple[Text, Item]] | None = None
    entry: list[tuple[Text, Item]] | None = None
    id: str | None = None
    name: str = ""
    topic: str = ""
    key: str | None = None
    headers: dict[str, str] = {}
    time: float | None = None
    layout: str = ""
    codec: str = ""


class OpaqueCodec:
    """A codec by its name alone: bytes in, the same bytes out.

    Args:
        name: what the stream's mark says.
        layout: the stream's layout, which says whether bodies are fields or a payload.
    """

    def __init__(self, name: str, layout: str) -> None:
        self.name = name
        self.body: Literal["fields", "payload"] = "fields" if layout == "fields" else "payload"

    def encode(self, value: Any) -> Any:
        """*value*, which is in its stored form."""
        return value

    def decode(self, body: Any) -> Any:
        """The stored form."""
        return body


def renderer(mode: Mode, layout: Layout, codec: str) -> Render:
    """What prints events of a stream with these marks. It raises DecodeError where it cannot."""
    if mode == "text":
        return lambda event: _payload(event, layout)
    if mode == "events":
        return lambda event: _whole(event, layout, codec)
    if codec == "json":
        return _json_value
    if layout.body == "fields":
        return lambda event: _fields_value(event, layout)
    return lambda event: msgspec.json.encode(_text(_payload(event, layout)))


def parse_line(line: bytes) -> EventLine:
    """The event that a line says.

    Raises:
        ValueError: it is not JSON, or not one of our events; says which and where.
    """
    parsed = _decode_line(line)
    given = (len(bytes(parsed.value)) > 0, parsed.payload is not None, parsed.fields is not None)
    if sum((*given, parsed.entry is not None)) != 1:
        raise ValueError("an event must have one of 'value', 'fields', 'payload' and 'entry'")
    return parsed


def marks_of(line: EventLine) -> Marks:
    """The marks of the stream that the event came from."""
    plain = line.fields is not None or (line.entry is not None and not line.codec)
    codec = line.codec or ("fields" if plain else "json")
    return Marks(line.layout or ("fields" if codec == "fields" else "value"), codec)


def entry_of(line: EventLine, layout: Layout) -> list[Any]:
    """The flat fields that the line stands for, in a stream of that layout.

    Raises:
        ValueError: the value is not what its codec writes.
    """
    if line.entry is not None:
        return [_bytes(part) for pair in line.entry for part in pair]
    headers = tuple(line.headers.items())
    meta = Meta(line.id, line.name, line.topic, line.key, line.time, headers)
    if line.fields is not None:
        pairs = line.fields.items() if isinstance(line.fields, dict) else line.fields
        return layout.pack([_bytes(part) for pair in pairs for part in pair], meta)
    return layout.pack(_body(line), meta)


def _body(line: EventLine) -> bytes:
    raw = bytes(line.value)
    if line.payload is not None:
        return _encoded(line.payload)
    if line.codec in ("", "json"):
        msgspec.json.decode(raw)  # the outer one has only found its end
        return raw
    return _encoded(_decode_text(raw))


def _payload(event: Event[Any], layout: Layout) -> bytes:
    payload = layout.payload(event.raw)
    if payload is None:
        raise DecodeError("the entry has no payload field 'p'", position=str(event.position))
    return payload


def _json_value(event: Event[Any]) -> bytes:
    event.value  # noqa: B018 - validates; what is printed are the stored digits
    return _one_line(event.payload)


def _one_line(payload: bytes) -> bytes:
    if b"\n" in payload or b"\r" in payload:
        return msgspec.json.format(payload, indent=-1)
    return payload


def _fields_value(event: Event[Any], layout: Layout) -> bytes:
    try:
        return msgspec.json.encode(event.value)
    except UnicodeEncodeError:
        flat: Sequence[bytes] = layout.unpack(event.raw)
    named = {
        name.decode("utf-8", "surrogateescape"): _python(value)
        for name, value in zip(flat[::2], flat[1::2], strict=True)
    }
    return json.dumps(named).encode()  # unlike msgspec, it escapes what is no UTF-8 in a name


def _whole(event: Event[Any], layout: Layout, codec: str) -> bytes:
    position = event.entry_id.decode()
    try:
        line = _readable(event, layout, codec, position)
        if line is not None:
            return _encode_line(line)
    except UnicodeEncodeError:  # metadata that is no UTF-8
        pass
    pairs: list[tuple[Text, Item]] = [(_text(name), _text(value)) for name, value in event.fields]
    return _encode_line(_marked(EventLine(position, entry=pairs), layout, codec))


def _readable(event: Event[Any], layout: Layout, codec: str, position: str) -> EventLine | None:
    """The event by names and values; None where that would not be exactly what is stored."""
    body = layout.unpack(event.raw)
    if body is None:
        return None
    line = EventLine(position)
    if layout.body == "fields":
        line.fields = _named(body)
        _marked(line, layout, codec)
    else:
        _set_value(line, event, body, codec)
    if body is event.raw or (len(event.raw) == 2 and layout.body == "payload"):
        return line
    meta = event.meta
    if not _exact(layout.pack(body, meta), event.raw, meta):
        return None
    line.id, line.name, line.topic, line.key = meta.id, meta.name, meta.topic, meta.key
    line.headers, line.time = dict(meta.headers), meta.timestamp
    return line


def _marked(line: EventLine, layout: Layout, codec: str) -> EventLine:
    """Say what `marks_of` would not guess."""
    if codec != "fields":
        line.codec = codec
        line.layout = "fields" if layout.body == "fields" else ""
    return line


def _set_value(line: EventLine, event: Event[Any], body: bytes, codec: str) -> None:
    if codec != "json":
        line.codec = codec
        line.value = msgspec.Raw(msgspec.json.encode(_text(body)))
        return
    try:
        event.value  # noqa: B018 - raises where it is undecodable
    except DecodeError:
        line.payload, line.codec = _text(body), codec
        return
    if b"\n" in body or body != body.strip(b" \t\r"):
        line.payload, line.codec = _text(body), codec
    else:
        line.value = msgspec.Raw(body)


def _exact(packed: Sequence[Any], raw: Sequence[bytes], meta: Meta) -> bool:
    if meta.timestamp is not None and not math.isfinite(meta.timestamp):
        return False  # JSON has no word for it
    if len(dict(meta.headers)) != len(meta.headers) or len(packed) != len(raw):
        return False
    return all(_encoded(part) == stored for part, stored in zip(packed, raw, strict=True))


def _named(flat: Sequence[bytes]) -> dict[str, Item] | list[tuple[Text, Item]]:
    try:
        texts = [part.decode() for part in flat]
    except UnicodeDecodeError:
        return [(_text(name), _text(value)) for name, value in _pairs(flat)]
    named: dict[str, Item] = dict(zip(texts[::2], texts[1::2], strict=True))
    return named if 2 * len(named) == len(texts) else list(_pairs(texts))


def _pairs(flat: Sequence[Any]) -> list[tuple[Any, Any]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


def _text(raw: bytes) -> Text:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return Base64(raw)


def _python(raw: bytes) -> Any:
    text = _text(raw)
    return text if isinstance(text, str) else {"base64": base64.b64encode(raw).decode()}


def _bytes(item: Item) -> Any:
    return item.base64 if isinstance(item, Base64) else item


def _encoded(part: Any) -> bytes:
    if isinstance(part, str):
        return part.encode("utf-8", "surrogateescape")
    return bytes(_bytes(part))


_decode_line = msgspec.json.Decoder(EventLine).decode
_decode_text: Callable[[bytes], Text] = msgspec.json.Decoder(Text).decode  # type: ignore[assignment]
_encode_line = msgspec.json.Encoder().encode
