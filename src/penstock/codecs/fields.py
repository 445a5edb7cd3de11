"""The codec `fields`: a flat mapping of plain values, each a field of its own.

Does        refuse what would not come back: nested values, None, bool, reserved names.
Does not    encode: the wire writes str, bytes, int and float itself, at C speed.
Invariants  1. values come out as ``dict[str, str]``; what is not UTF-8 by surrogateescape.
Cost        per field: one type look-up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from penstock.errors import DecodeError, EncodeError

RESERVED: Final = "penstock."
_PLAIN: Final = frozenset((str, bytes, int, float))

Plain = str | bytes | int | float


class FieldsCodec:
    """``Mapping[str, str | bytes | int | float]`` in, ``dict[str, str]`` out."""

    name = "fields"
    body: Literal["fields", "payload"] = "fields"

    def encode(self, value: Mapping[str, Plain]) -> list[Plain]:
        """The items of *value*, flat.

        Raises:
            EncodeError: not a mapping, empty, a name that is reserved or no text, or a value that
                is not plain.
        """
        flat: list[Plain] = []
        try:
            for name, item in value.items():
                if type(item) not in _PLAIN or type(name) is not str or name[:9] == RESERVED:
                    flat += _checked(name, item)
                else:
                    flat += (name, item)
        except AttributeError:
            raise EncodeError(_not_a_mapping(value)) from None
        if not flat:
            raise EncodeError("a value must have at least one field, got an empty mapping")
        return flat

    def decode(self, body: Sequence[bytes]) -> dict[str, str]:
        """The fields as text; of a repeated name the last one (all are in `event.fields`)."""
        if len(body) % 2:
            raise DecodeError(f"fields must come in pairs, got {len(body)} parts")
        try:
            text = [part.decode() for part in body]
        except UnicodeDecodeError:
            text = [part.decode("utf-8", "surrogateescape") for part in body]
        return dict(zip(text[::2], text[1::2], strict=True))


def _checked(name: Any, item: Any) -> tuple[str, Plain]:
    """The slow path: subclasses of plain types pass, the rest is refused with its name."""
    if not isinstance(name, str):
        raise EncodeError(f"a field's name must be text, got {name!r}")
    if name.startswith(RESERVED):
        raise EncodeError(
            f"a field's name must not begin with {RESERVED!r}, got {name!r}; "
            f"metadata is given by keyword: append(..., key=..., topic=..., headers=...)"
        )
    if isinstance(item, bool) or not isinstance(item, (str, bytes, int, float)):
        raise EncodeError(
            f"the value of field {name!r} must be str, bytes, int or float, "
            f"got {type(item).__name__}; for nested values use a typed stream: "
            f"client.stream(name, type=...), or layout='value' for JSON"
        )
    if isinstance(item, str):
        return str.__str__(name), str.__str__(item)
    if isinstance(item, bytes):
        return str.__str__(name), bytes(item)
    return str.__str__(name), int(item) if isinstance(item, int) else float(item)


def _not_a_mapping(value: object) -> str:
    return (
        f"a value of an untyped stream must be a mapping of plain values, "
        f"got {type(value).__name__}; for other values use a typed stream: "
        f"client.stream(name, type=...)"
    )
