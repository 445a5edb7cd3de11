"""Held: one shard that a member owns on Redis, what is remembered of it, and what a look shows.

Does        keep epoch, beat, places and the number of the last commit together.
Does not    take, give, read or commit.
Used by     `holdings.py`, `shard_looking.py`, `shard_member.py`.
"""

from __future__ import annotations

from typing import NamedTuple

from penstock.backends.redis.heart import Pulse
from penstock.backends.redis.keys import Keys
from penstock.backends.redis.shard_reading import Place
from penstock.event import Shard
from penstock.ports import Ownership
from penstock.rules.unread import NOWHERE, Unread


class Mark(NamedTuple):
    """What an owner remembers of a shard, should the server lose it."""

    position: bytes
    last: bytes
    added: int


class Held:
    """One shard that is owned."""

    def __init__(self, shard: Shard, keys: Keys, incarnation: str, pulse: Pulse) -> None:
        self.shard = shard
        self.keys = keys
        self.incarnation = incarnation
        self.pulse = pulse
        self.ownership = Ownership(0, NOWHERE, None, None)
        self.mark = Mark(b"0-0", b"0-0", 0)
        self.places: list[Place] = []
        self.number = 0
        self.asked: tuple[object, ...] | None = None

    @property
    def unread(self) -> Unread:
        """What was read of the shard."""
        return self.places[0].unread


class Owner(NamedTuple):
    """Who owns a shard: name and beat ("" for nobody), and the epoch of the last who did."""

    name: str
    beat: str
    epoch: int


class Seen(NamedTuple):
    """One look: the living members, who owns which shard, which of them are free, and lost."""

    living: list[str]
    resting: list[str]
    owners: dict[Shard, Owner]
    free: list[Shard]
    missing: list[Shard]
