"""The codec `raw`: bytes in, the same bytes out.

Does        nothing to the bytes.
Does not    guess what they mean.
"""

from __future__ import annotations

from typing import Any, Literal, cast

from penstock.errors import DecodeError, EncodeError


class RawCodec:
    """Bytes, untouched; text goes in as UTF-8."""

    name = "raw"
    body: Literal["fields", "payload"] = "payload"

    def encode(self, value: Any) -> bytes:
        """The bytes of *value*.

        Raises:
            EncodeError: *value* is neither bytes nor text.
        """
        if isinstance(value, bytes):
            return value
        if isinstance(value, str):
            return _utf8(value)
        if isinstance(value, (bytearray, memoryview)):
            return bytes(cast("bytearray", value))
        raise EncodeError(f"a value of a raw stream must be bytes, got {type(value).__name__}")

    def decode(self, body: bytes | None) -> bytes:
        """The same bytes.

        Raises:
            DecodeError: the entry has no payload at all.
        """
        if body is None:
            raise DecodeError("the entry has no payload field 'p'")
        return body


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise EncodeError(f"text must be what UTF-8 can say, got {text[:40]!a}") from error
