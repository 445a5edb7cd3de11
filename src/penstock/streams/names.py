"""Names: what streams, groups and members may be called.

Does        check names that we create.
Does not    check names that others created: ``foreign=True`` takes any.
Source      Kafka's limit of 249; the alphabet that Redis keys, topics and file names share.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from penstock.errors import ConfigError

LONGEST: Final = 249

_STREAM: Final = re.compile(r"(?:\{[A-Za-z0-9._:-]+\})?[A-Za-z0-9._:-]*")
_SHARD: Final = re.compile(r":[0-9]+\Z")
_OTHER: Final = re.compile(r"[!-~]+")


def check_stream(name: Any, *, foreign: bool = False) -> str:
    """*name*, if a stream may be called so.

    Raises:
        ConfigError: empty, too long, characters outside the alphabet, or kept for shards.
    """
    if not isinstance(name, str) or not name:
        raise ConfigError(f"a stream's name must be text and not empty, got {name!r}")
    if foreign:
        return name
    if len(name) > LONGEST:
        raise ConfigError(
            f"a stream's name must be at most {LONGEST} characters, got {len(name)}: {name[:40]!r}…"
        )
    if not _STREAM.fullmatch(name):
        raise ConfigError(
            f"a stream's name must be letters, digits and . _ - : with at most one leading "
            f"{{tag}}, got {name!r}; a key that others made opens with foreign=True"
        )
    if _SHARD.search(name):
        raise ConfigError(
            f"a stream's name must not end in ':' and digits, which is kept for shards, "
            f"got {name!r}; a key that others made opens with foreign=True"
        )
    return name


def check_label(kind: str, name: Any) -> str:
    """*name*, if a group or a member may be called so; *kind* is which, for the error.

    Raises:
        ConfigError: empty, too long, spaces or control characters, or kept for ourselves.
    """
    if not isinstance(name, str) or not _OTHER.fullmatch(name) or len(name) > LONGEST:
        raise ConfigError(
            f"a {kind}'s name must be 1 to {LONGEST} printable ASCII characters without spaces, "
            f"got {name!r}"
        )
    if name.startswith("@penstock:"):
        raise ConfigError(f"a {kind}'s name must not begin with '@penstock:', got {name!r}")
    return name


def check_streams(streams: Sequence[Any], client: Any) -> None:
    """Raise ConfigError if *streams* are not handles of *client*: a text is a sequence too."""
    for stream in streams:
        if not isinstance(getattr(stream, "name", None), str):
            raise ConfigError(
                f"streams must be a list of streams, such as client.stream('orders'), "
                f"got {stream!r} among {streams!r}"
            )
        if stream.client is not client:
            raise ConfigError(
                f"streams must be of the client that reads them: write "
                f"client.stream({stream.name!r}); got one of {stream.client!r}"
            )
