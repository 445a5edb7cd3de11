"""Layout: the protocol, and the layouts by name.

Does        say what a layout must do; find one by the name that is stored with a stream.
Does not    hold any layout itself.
Used by     streams, which write with one and give it to every Event to be read with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from penstock.errors import ConfigError
from penstock.event import Meta


class Layout(Protocol):
    """Between (body, metadata) and the flat fields of an entry."""

    name: str
    body: Literal["fields", "payload"]
    """What the body is: flat fields, or bytes. A codec must give the same."""

    def pack(self, body: Any, meta: Meta | None) -> list[Any]:
        """The flat fields of an entry; *meta* None means: none at all."""
        ...

    def meta(self, raw: Sequence[bytes]) -> Meta:
        """The metadata of an entry; empty for entries that others wrote."""
        ...

    def payload(self, raw: Sequence[bytes]) -> bytes | None:
        """The bytes of the value; None where there are none."""
        ...

    def unpack(self, raw: Sequence[bytes]) -> Any:
        """The body that a codec of the same kind decodes; None where there is none."""
        ...


def layout_named(name: str) -> Layout:
    """The layout that a stream's mark names.

    Raises:
        ConfigError: no such layout; a newer version of the library may have written it.
    """
    from penstock.layouts.fields import FieldsLayout
    from penstock.layouts.value import ValueLayout

    layouts: dict[str, Layout] = {"fields": FieldsLayout(), "value": ValueLayout()}
    if name not in layouts:
        raise ConfigError(
            f"a layout must be one of {', '.join(sorted(layouts))}, got {name!r}; "
            f"if the stream was made by a newer Penstock, update this one"
        )
    return layouts[name]


def to_text(raw: bytes) -> str:
    """Text of *raw*; what is not UTF-8 survives as lone surrogates."""
    return raw.decode("utf-8", "surrogateescape")


def to_time(raw: bytes) -> float | None:
    """Seconds since 1970; None where *raw* is no number, as foreign entries may hold anything."""
    try:
        return float(raw)
    except ValueError:
        return None
