"""Joining: what a group and a member begin with.

Does        say where a group begins; name members; make what their beats begin with; take names,
            also of dead members.
Does not    make groups (`recovery.py`), beat, or hand out events.
Invariants  1. a name that beats is refused; one that does not is taken over after a lease, in all
               streams at once.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from penstock.backends.redis.beats import family_of, lease_of
from penstock.backends.redis.cursor import BLOCK
from penstock.backends.redis.edge import ReplyError
from penstock.backends.redis.keys import Keys
from penstock.backends.redis.link import Link
from penstock.backends.redis.takeovers import LOOK_EVERY
from penstock.backends.redis.wire import Arg
from penstock.errors import BackendError, ConfigError
from penstock.event import Shard, Start
from penstock.rules.gaps import before_time
from penstock.rules.leases import LeaseWatch

if TYPE_CHECKING:
    from penstock.backends.redis.groups import RedisGroups


class Naming:
    """A member's name in one stream, on its way to being the member's.

    Args:
        groups: the backend.
        shard: where.
        group: the group's name.
        name: the member's.
        lease: how long a bearer of it must be silent to be dead, where his own is not known.
    """

    def __init__(
        self, groups: RedisGroups, shard: Shard, group: str, name: str, lease: float
    ) -> None:
        self.shard = shard
        self._groups = groups
        self._group = group
        self._name = name
        self._lease = lease
        self._watch = LeaseWatch(lease)
        self._began = groups.clock.monotonic()
        self._beats: set[str] = set()

    @property
    def lives(self) -> bool:
        """Whether the bearer lives, as far as can be said after a lease.

        One beat more than was seen at first may be the last one of a member that has died since.
        """
        waited = self._groups.clock.monotonic() - self._began
        return len(self._beats) > 2 and waited >= self._lease

    async def taken(self, incarnation: str) -> bool:
        """Take it, if it is free, ours, or of one who is dead by now; whether it was."""
        seen = ""
        while (beat := await self._enter(incarnation, seen)) != "joined":
            if not beat.startswith(family_of(incarnation)) and not self._is_dead(beat):
                return False
            seen = beat
        return True

    def _is_dead(self, beat: str) -> bool:
        self._beats.add(beat)
        leases = {self._name: lease_of(beat, self._lease)}
        now = self._groups.clock.monotonic()
        return bool(self._watch.observe(now, {self._name: beat}, leases))

    async def _enter(self, incarnation: str, seen: str) -> str:
        where = (self.shard, self._group, self._name)
        return await self._groups.enter(*where, incarnation, seen)


async def take_names(  # noqa: PLR0917 - made by the two who join
    groups: RedisGroups,
    shards: Iterable[Shard],
    group: str,
    name: str,
    incarnation: str,
    lease: float,
) -> None:
    """Take the name in all *shards*; where somebody had it, wait until it is clear that he is dead.

    Raises:
        ConfigError: a living member has it.
    """
    namings = [Naming(groups, shard, group, name, lease) for shard in shards]
    # Those that were free are taken again after each wait: others may strike one that beats not
    while waits := [naming for naming in namings if not await naming.taken(incarnation)]:
        for naming in waits:
            if naming.lives:
                raise ConfigError(
                    f"a member's name must be its own, but a living member {name!r} is in group "
                    f"{group!r} of {naming.shard.stream!r}; choose another name, or give none"
                )
        await groups.clock.sleep(lease / 4)


class Replays:
    """Where a group was handed back dead letters, and a member may look after them.

    Arguments as for `Naming`.
    """

    def __init__(self, groups: RedisGroups, group: str, name: str, lease: float) -> None:
        self._groups = groups
        self._group = group
        self._name = name
        self._lease = lease
        self._namings: dict[Shard, Naming] = {}
        self._next = 0.0

    async def joined(self, shards: Sequence[Shard], incarnation: str) -> list[Shard]:
        """Those of *shards*, of replayed events, that are there, and where the name is ours now.

        None before it is time to look again. Nobody is waited for: where one who is dead has the
        name, it is taken some looks later.
        """
        link, found, now = self._groups.link, list[Shard](), self._groups.clock.monotonic()
        if now < self._next or not shards:
            return []
        self._next = now + LOOK_EVERY
        known, self._namings = self._namings, {}  # broken off: whoever has it is watched anew
        waits = dict[Shard, Naming]()
        for shard in await replayed(link, shards, self._group):
            if not await join_replay(link, Keys.of(shard, self._group), self._group):
                continue
            naming = known.get(shard) or Naming(
                self._groups, shard, self._group, self._name, self._lease
            )
            if await naming.taken(incarnation):
                found.append(shard)
            else:
                waits[shard] = naming
        self._namings = waits
        return found


async def join_replay(link: Link, keys: Keys, group: str) -> bool:
    """Whether there are replayed events of the group; their own group is made if it is gone."""
    try:
        await link.call(
            "XGROUP", "CREATE", keys.stream, group, "0", verb="join a group of", key=keys.stream
        )
    except BackendError as error:
        if not isinstance(error.__cause__, ReplyError):
            raise
        return error.__cause__.code == "BUSYGROUP"
    return True


async def replayed(link: Link, shards: Sequence[Shard], group: str) -> list[Shard]:
    """Those of *shards*, which are of replayed events, that are there."""
    asks: list[tuple[Arg, ...]] = [("EXISTS", Keys.of(shard, group).stream) for shard in shards]
    there = await (await link.wire()).call_many(asks, timeout=BLOCK)
    return [shard for shard, exists in zip(shards, there, strict=True) if exists == 1]


def group_start(start: Start) -> bytes | str:
    """Behind which id a group begins: an id, ``0``, or ``$``, which the server makes one."""
    match start.kind:
        case "oldest":
            return "0"
        case "newest":
            return "$"
        case "after":
            assert start.position is not None
            return start.position.raw
        case "at":
            assert start.time is not None
            return before_time(start.time).raw


def new_incarnation(lease: float, family: str = "") -> str:
    """What a member's beats begin with: a token, and the lease that it asks for.

    *family*: of a member that begins anew.
    """
    family = family or f"{secrets.token_hex(4)}."
    return f"{family}{secrets.token_hex(3)}:{int(lease * 1000)}"


def own_name() -> str:
    """A name that nobody else has had, and that tells people where the member is."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
