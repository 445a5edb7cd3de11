"""The layout `value`: one payload, and short names for its metadata.

      p payload   n name   t topic   k key   i id   at seconds since 1970   h:<name> header

Does        write and read typed events; `n`, `t` and `p` are where Pulse has them.
Does not    look into the payload.
Invariants  1. the payload is the first field of what we write; it is found by name all the same.
            2. an entry without a payload is still an event: only its value cannot be decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from penstock.event import Meta
from penstock.layouts.base import to_text, to_time

_HEADER: Final = b"h:"


class ValueLayout:
    """One payload and its metadata, under short names."""

    name = "value"
    body: Literal["fields", "payload"] = "payload"

    def pack(self, body: bytes, meta: Meta | None) -> list[object]:
        """The payload, then the metadata that is given."""
        fields: list[object] = ["p", body]
        if meta is None:
            return fields
        name, topic = meta.name or None, meta.topic or None
        for field, value in (("n", name), ("t", topic), ("k", meta.key), ("i", meta.id)):
            if value is not None:
                fields += (field, value)
        if meta.timestamp is not None:
            fields += ("at", repr(meta.timestamp))
        for name, value in meta.headers:
            fields += ("h:" + name, value)
        return fields

    def meta(self, raw: Sequence[bytes]) -> Meta:
        """What the fields beside the payload say; unknown ones are left to `event.fields`."""
        if len(raw) == 2:
            return _NOTHING
        found: dict[bytes, bytes] = dict(zip(raw[::2], raw[1::2], strict=True))
        key, given_id, time = found.get(b"k"), found.get(b"i"), found.get(b"at")
        return Meta(
            id=None if given_id is None else to_text(given_id),
            name=to_text(found.get(b"n", b"")),
            topic=to_text(found.get(b"t", b"")),
            key=None if key is None else to_text(key),
            timestamp=None if time is None else to_time(time),
            headers=_headers(raw),
        )

    def payload(self, raw: Sequence[bytes]) -> bytes | None:
        """The field ``p``; None in an entry that others wrote without one."""
        if raw and raw[0] == b"p":
            return raw[1]
        return dict(zip(raw[::2], raw[1::2], strict=True)).get(b"p")

    def unpack(self, raw: Sequence[bytes]) -> bytes | None:
        """The payload."""
        return self.payload(raw)


_NOTHING: Final = Meta()


def _headers(raw: Sequence[bytes]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (to_text(name[len(_HEADER) :]), to_text(value))
        for name, value in zip(raw[::2], raw[1::2], strict=True)
        if name.startswith(_HEADER)
    )
