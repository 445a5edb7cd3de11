"""How safe a server keeps what it has confirmed, from what it says about itself.

Does        name the durability class; say whether a confirmation of fsync can be believed.
Does not    ask a server: callers bring the replies to INFO and CONFIG GET.
Invariants  1. what is not known counts as the weaker: no right to CONFIG is no ``always``.
Source      reliability notes 1.1, with what kill -9 and power cuts lost on each server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from penstock.errors import ConfigError

Durability = Literal["volatile", "crash-safe", "power-safe"]

Confirm = Literal["server", "fsync", "all"] | int
"""What an append waits for: the server's reply, its disk, all of its replicas, or so many."""

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


class Way(NamedTuple):
    """How a confirmation is had: by which command behind the writes, and what it must answer.

    Without a command the server's own reply is enough.
    """

    command: Literal["", "WAIT", "WAITAOF"] = ""
    wanted: int = 0

    @property
    def args(self) -> tuple[int, ...]:
        """The command's arguments, but for the time that it may take."""
        return (1, 0) if self.command == "WAITAOF" else (self.wanted,)

    def confirmed(self, reply: Any) -> int:
        """What the server has confirmed, of what is wanted."""
        return int(reply[0] if self.command == "WAITAOF" else reply)


def way_of(level: Confirm, info: Mapping[str, Any], config: Mapping[str, str]) -> Way:
    """How the server with these replies to INFO and CONFIG GET confirms at *level*.

    Raises:
        ConfigError: it cannot, or there is no such level.
    """
    if level == "server":
        return Way()
    if level == "fsync":
        if not fsync_counts(info, config):
            raise ConfigError(
                f"confirm='fsync' needs a server that says when it has written to its disk, and "
                f"this one is {durability(info, config)!r}: set appendonly yes and appendfsync "
                f"always (with everysec, Valkey and Redis before 7.2 do not say so)"
            )
        return Way() if durability(info, config) == "power-safe" else Way("WAITAOF", 1)
    if level != "all" and not _is_count(level):
        raise ConfigError(
            f"confirm must be 'server', 'fsync', 'all' or a number of replicas, got {level!r}"
        )
    replicas = int(info.get("connected_slaves", 0))
    wanted = max(replicas, 1) if level == "all" else level
    if replicas < wanted:
        raise ConfigError(
            f"confirm={level!r} needs {wanted} connected replicas, and the server has {replicas}"
        )
    return Way("WAIT", wanted)


def _is_count(given: Any) -> bool:
    return isinstance(given, int) and not isinstance(given, bool) and given > 0
