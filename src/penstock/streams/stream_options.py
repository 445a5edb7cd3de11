"""Stream options: what a handle may ask for, checked before anything is asked of a server.

Does        name the options that `Client.stream` hands on, and check those that need no server.
Does not    compare them with what is stored: `Stream.format` does.
"""

from __future__ import annotations

from typing import Final, TypedDict

from penstock.errors import ConfigError
from penstock.ports import Retention

LONGEST_WINDOW: Final = 7 * 86_400.0
"""Seconds that ids may be compared for: they are in the server's memory as long."""


class StreamKeywords(TypedDict, total=False):
    """The options of `Client.stream` that do not decide about the type of values."""

    layout: str | None
    shards: int | None
    foreign: bool
    dedupe_window: float
    retention: Retention | None


def check_options(
    *, shards: int | None, foreign: bool, dedupe_window: float, retention: Retention | None
) -> None:
    """See that the options can be.

    Raises:
        ConfigError: a number out of range, or marks asked of a stream that has none.
    """
    if not 0 <= dedupe_window <= LONGEST_WINDOW:
        raise ConfigError(
            f"dedupe_window must be from 0 to {LONGEST_WINDOW:.0f} seconds, got {dedupe_window}"
        )
    if shards is not None and shards < 1:
        raise ConfigError(f"shards must be at least 1, got {shards}")
    if foreign and ((shards or 1) > 1 or retention is not None):
        raise ConfigError(
            f"a foreign stream is one key without marks, got shards={shards} and "
            f"retention={retention}; leave them out"
        )
