"""Codec: the public protocol, and the codecs by name.

Does        say what a codec must do; find one by the name that is stored with a stream.
Does not    hold any codec itself.
Invariants  1. no codec runs code that a payload names: there is no pickle, and there will be none.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol, TypeVar

from penstock.errors import ConfigError

T = TypeVar("T")


class Codec(Protocol[T]):
    """Between a value and its stored form. Bring your own by writing these four members.

    Attributes:
        name: stored with the stream at its first append; other handles must name the same.
        body: ``"payload"`` if it encodes to bytes, ``"fields"`` if to a flat list of fields.
    """

    @property
    def name(self) -> str:
        """The name that is stored with the stream."""
        ...

    @property
    def body(self) -> Literal["fields", "payload"]:
        """What `encode` returns and `decode` takes."""
        ...

    def encode(self, value: T) -> Any:
        """The stored form of *value*; raises EncodeError if it has none."""
        ...

    def decode(self, body: Any) -> T:
        """The value of a stored form; raises DecodeError if it is not one."""
        ...


def codec_named(name: str, type_: Any = None) -> Codec[Any]:
    """The codec that a stream's mark names, for values of *type_*.

    Raises:
        ConfigError: no such codec here; the user must bring it: ``client.stream(..., codec=...)``.
    """
    from penstock.codecs.fields import FieldsCodec
    from penstock.codecs.json import JsonCodec
    from penstock.codecs.raw import RawCodec

    match name:
        case "fields":
            return FieldsCodec()
        case "json":
            return JsonCodec(type_)
        case "raw":
            return RawCodec()
        case _:
            raise ConfigError(
                f"a codec by name must be one of fields, json, raw, got {name!r}; "
                f"give your own as client.stream(..., codec=...)"
            )
