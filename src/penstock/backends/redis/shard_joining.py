"""Joining a group that shares shards: a name that is this member's alone.

Does        take a name in a group's roster; wait until it is clear that its last bearer is dead.
Does not    own shards.
Invariants  1. a name that beats is refused; one that does not is taken over after a lease.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from penstock.backends.redis.beats import lease_of
from penstock.backends.redis.group_scripts import JOIN
from penstock.backends.redis.keys import Keys
from penstock.backends.redis.replies import text
from penstock.errors import ConfigError, LeaseLost
from penstock.rules.leases import LeaseWatch

if TYPE_CHECKING:
    from penstock.backends.redis.groups import RedisGroups


async def take_name(  # noqa: PLR0917 - made by the two who join
    groups: RedisGroups,
    stream: str,
    group: str,
    name: str,
    incarnation: str,
    lease: float,
    is_ours: Callable[[str], bool],
) -> None:
    """Take *name*; where somebody has it, wait up to *lease* seconds for him to be dead.

    One beat more than was seen at first may be the last one of a member that has died since.
    What *is_ours* is taken at once. With a lease of 0, nobody is waited for.

    Raises:
        ConfigError: a living member has it.
        LeaseLost: another member has it, and nobody is waited for.
    """
    roster = Keys(stream).roster(group)
    watch, began = LeaseWatch(lease), groups.clock.monotonic()
    seen, beats = "", set[str]()
    while True:
        args = (name, incarnation, seen)
        reply = await groups.link.run(JOIN, [roster], *args, verb="join a group of", key=stream)
        beat = text(reply)
        if beat == "joined":
            return
        if is_ours(beat):
            seen = beat
            continue
        if not lease:
            raise LeaseLost(
                f"member {name!r} of group {group!r} was taken for dead, and another has taken "
                f"its name meanwhile; close this one"
            )
        beats.add(beat)
        now = groups.clock.monotonic()
        if len(beats) > 2 and now - began >= lease:
            raise ConfigError(
                f"a member's name must be its own, but a living member {name!r} is in group "
                f"{group!r} of {stream!r}; choose another name, or give none"
            )
        dead = watch.observe(now, {name: beat}, {name: lease_of(beat, lease)})
        seen = dead[0][1] if dead else ""
        if not dead:
            await groups.clock.sleep(lease / 4)
