"""The codec `json`: JSON through msgspec, validated on the way out of the stream.

Does        encode any value that msgspec encodes; decode to the stream's type, validated.
Does not    accept what the type does not say, neither on the way in nor on the way out.
Cost        a typed value is decoded once when it is appended: about a microsecond, for a small one.
Source      msgspec: Struct, dataclass, TypedDict, tagged unions, and the plain types.
"""

from __future__ import annotations

from itertools import chain
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    is_typeddict,
)

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
        self._classes = _classes(self._type)
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
        if self._classes and not isinstance(value, self._classes):
            raise EncodeError(  # before it is stored for readers to trip over
                f"a value of this stream must be a {self._named()}, got {type(value).__name__}"
            )
        try:
            body = self._encode(value)
            if self._type is not Any:
                self._decode(body)
        except msgspec.ValidationError as error:
            raise EncodeError(
                f"a value of this stream must be valid as its type says, "
                f"got a {type(value).__name__} that is not: {error}"
            ) from error
        except (TypeError, ValueError, msgspec.MsgspecError, RecursionError) as error:
            raise EncodeError(
                f"a value must be something that JSON can say, got {type(value).__name__}: {error}"
            ) from error
        return body

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

    def _named(self) -> str:
        return " or ".join(cls.__name__ for cls in self._classes)


def _classes(type: Any) -> tuple[Any, ...]:
    """The classes that values of *type* have; none where they cannot be told by class."""
    if get_origin(type) is Annotated:
        return _classes(get_args(type)[0])
    if get_origin(type) in (Union, UnionType):
        found = [_classes(one) for one in get_args(type)]
        return tuple(chain.from_iterable(found)) if all(found) else ()
    cls = get_origin(type) or type
    if is_typeddict(cls):
        return (dict,)
    record = hasattr(cls, "__struct_fields__") or hasattr(cls, "__dataclass_fields__")
    return (cls,) if record or cls in (NoneType, str) else ()
