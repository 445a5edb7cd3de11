"""How safe a server keeps what it has confirmed, from what it says about itself.

Does        name the durability class; say whether a confirmation of fsync can be believed.
Does not    ask a server: callers bring the replies to INFO and CONFIG GET.
Invariants  1. what is not known counts as the weaker: no right to CONFIG is no ``always``.
Source      reliability notes 1.1, with what kill -9 and power cuts lost on each server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

Durability = Literal["volatile", "crash-safe", "power-safe"]

LOSES: Final[dict[Durability, str]] = {
    "volatile": "a restart loses events: all of them, or those since the last snapshot",
    "crash-safe": "a killed server loses nothing; losing power may lose about the last second",
    "power-safe": "neither a killed server nor losing power loses anything",
}
"""What each class means, from the weakest to the strongest."""


def durability(info: Mapping[str, Any], config: Mapping[str, str]) -> Durability:
    """The class of a server with these replies to INFO and CONFIG GET."""
    if str(info.get("aof_enabled", "0")) != "1":
        return "volatile"
    return "power-safe" if config.get("appendfsync") == "always" else "crash-safe"


def fsync_counts(info: Mapping[str, Any], config: Mapping[str, str]) -> bool:
    """Whether a confirmed fsync means that losing power loses nothing of it.

    With ``appendfsync always`` every reply is one. WAITAOF is right on Redis since 7.2, but for
    7.4.0 to 7.4.2; Valkey answers it too early under ``everysec``.
    """
    match durability(info, config):
        case "volatile":
            return False
        case "power-safe":
            return True
        case _:
            return "valkey_version" not in info and _waitaof(str(info.get("redis_version", "0")))


def _waitaof(version: str) -> bool:
    numbers = [int(part) if part.isdigit() else 0 for part in version.split(".")]
    parts = (*numbers, 0, 0)[:3]
    return parts >= (7, 2, 0) and not (7, 4, 0) <= parts <= (7, 4, 2)
