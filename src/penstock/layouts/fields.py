"""The layout `fields`: a mapping's items are the entry's fields, as redis-cli shows them.

      orders  1700000000000-0   id 7   state paid   penstock.key customer-3   penstock.h.source web

Does        write and read metadata as fields with the reserved prefix ``penstock.``.
Does not    turn values into bytes: the codec `fields` and the wire do.
Invariants  1. an entry without reserved fields is read in one pass, as plain pairs.
            2. reserved names are ours: id, name, topic, key, time, h.<header>.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from penstock.event import Meta
from penstock.layouts.base import to_text, to_time

PREFIX: Final = "penstock."
"""No field of a user may begin so."""

_PREFIX: Final = PREFIX.encode()
_HEADER: Final = b"penstock.h."


class FieldsLayout:
    """Plain fields, and metadata beside them under a reserved prefix."""

    name = "fields"
    body: Literal["fields", "payload"] = "fields"

    def pack(self, body: list[str | bytes | int | float], meta: Meta | None) -> list[object]:
        """The body's own fields, then the metadata that is given."""
        fields: list[object] = list(body)
        if meta is None:
            return fields
        name, topic = meta.name or None, meta.topic or None
        for field, value in (("id", meta.id), ("name", name), ("topic", topic), ("key", meta.key)):
            if value is not None:
                fields += (PREFIX + field, value)
        if meta.timestamp is not None:
            fields += (PREFIX + "time", repr(meta.timestamp))
        for name, value in meta.headers:
            fields += (f"{PREFIX}h.{name}", value)
        return fields

    def meta(self, raw: Sequence[bytes]) -> Meta:
        """What the reserved fields say."""
        if not any(name.startswith(_PREFIX) for name in raw[::2]):
            return _NOTHING
        plain: dict[bytes, bytes] = {}
        headers: list[tuple[str, str]] = []
        for name, value in zip(raw[::2], raw[1::2], strict=True):
            if name.startswith(_HEADER):
                headers.append((to_text(name[len(_HEADER) :]), to_text(value)))
            elif name.startswith(_PREFIX):
                plain[name[len(_PREFIX) :]] = value
        return _meta_of(plain, headers)

    def payload(self, raw: Sequence[bytes]) -> bytes | None:
        """None: this layout has fields, no payload."""
        return None

    def unpack(self, raw: Sequence[bytes]) -> Sequence[bytes]:
        """The user's own fields, flat."""
        if not any(name.startswith(_PREFIX) for name in raw[::2]):
            return raw
        pairs = zip(raw[::2], raw[1::2], strict=True)
        return [part for pair in pairs if not pair[0].startswith(_PREFIX) for part in pair]


_NOTHING: Final = Meta()


def _meta_of(plain: dict[bytes, bytes], headers: list[tuple[str, str]]) -> Meta:
    key, given_id, time = plain.get(b"key"), plain.get(b"id"), plain.get(b"time")
    return Meta(
        id=None if given_id is None else to_text(given_id),
        name=to_text(plain.get(b"name", b"")),
        topic=to_text(plain.get(b"topic", b"")),
        key=None if key is None else to_text(key),
        timestamp=None if time is None else to_time(time),
        headers=tuple(headers),
    )
