"""The codec `json`: JSON through msgspec, validated on the way out of the stream.

Does        encode any value that msgspec encodes; decode to the stream's type, validated.
Does not    accept what the type does not say: a decoded value is of the type, or DecodeError.
Source      msgspec: Struct, dataclass, TypedDict, tagged unions, and the plain types.
"""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

import msgspec

from penstock.errors import ConfigError, DecodeError, EncodeError

T = TypeVar("T")


class JsonCodec(Generic[T]):
    """Values of one type, as JSON.

    Args:
        type: what values are; None: anything that JSON can say.

    Raises:
        ConfigError: msgspec cannot decode to such a type.
    """

    name = "json"
    body: Literal["fields", "payload"] = "payload"

    def __init__(self, type: Any = None) -> None:
        self._type: Any = Any if type is None else type
        self._encode = msgspec.json.Encoder().encode
        try:
            self._decode = msgspec.json.Decoder(self._type).decode
        except TypeError as error:
            raise ConfigError(
                f"a stream's type must be one that msgspec reads (Struct, dataclass, TypedDict, "
                f"a tagged union of them), got {type!r}: {error}"
            ) from error

    def encode(self, value: T) -> bytes:
        """The JSON of *value*.

        Raises:
            EncodeError: msgspec cannot encode it, or it is not of the stream's type.
        """
        if self._type is not Any:
            self._check(value)
        try:
            return self._encode(value)
        except (TypeError, ValueError, msgspec.MsgspecError, RecursionError) as error:
            raise EncodeError(
                f"a value must be something that JSON can say, got {type(value).__name__}: {error}"
            ) from error

    def decode(self, body: bytes | None) -> T:
        """The value that *body* says.

        Raises:
            DecodeError: not JSON, not of the stream's type, or no payload at all.
        """
        if body is None:
            raise DecodeError("the entry has no payload field 'p'")
        try:
            return self._decode(body)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise DecodeError(f"{error} ({len(body)} bytes)") from error

    def _check(self, value: T) -> None:
        """Refuse a value of another class before it is stored for readers to trip over."""
        expected: Any = getattr(self._type, "__origin__", self._type)
        if _is_record(expected) and not isinstance(value, expected):
            raise EncodeError(
                f"a value of this stream must be a {expected.__name__}, got {type(value).__name__}"
            )


def _is_record(cls: Any) -> bool:
    return hasattr(cls, "__struct_fields__") or hasattr(cls, "__dataclass_fields__")
