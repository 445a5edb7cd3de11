"""Orders: what a process of the lab is to do, as plain values that go over a command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Orders:
    """What a process is to do; each uses what concerns it."""

    url: str
    who: str
    folder: str
    stream: str = "orders"
    shards: int = 1
    mutant: str = ""
    # producers
    mode: str = "writer"
    rate: float = 200.0
    keys: int = 16
    confirm: str = ""
    timeout: float = 5.0
    trim: int = 0
    # members
    group: str = "g"
    share: str = "events"
    lease: float = 1.0
    hold: float = 60.0
    max_in_flight: int = 50
    batch: int = 0
    work: float = 0.0
    fail_every: int = 0
    poison_every: int = 0
    attempts: int = 5
    breaker: int = 20
    dedupe: str = ""
    member: str | None = None
    hesitate: float = 0.0
    hang: str = ""


def event_value(who: str, key: str, seq: int) -> dict[str, Any]:
    """What the lab's events say."""
    return {"id": f"{who}/{key}/{seq}", "k": key, "s": seq}
