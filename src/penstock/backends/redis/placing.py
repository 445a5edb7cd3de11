"""Placing: groups that are made or set elsewhere by hand, whichever kind they are.

Does        make a group without joining it; set one elsewhere, unless a member lives.
Does not    join or hand out events.
Invariants  1. a group is set elsewhere in one step for each shard, with nothing pending.
            2. whether a member lives is seen by its beat that moves, as everywhere.
Used by     `groups.RedisGroups`, `shard_groups.RedisShardGroups`.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping

from penstock.backends.redis.beats import lease_of
from penstock.backends.redis.joining import group_start
from penstock.backends.redis.keys import PARKED, Keys
from penstock.backends.redis.link import Link
from penstock.backends.redis.recovery_scripts import RESET, RESET_SHARE
from penstock.backends.redis.replies import text
from penstock.backends.redis.shard_scripts import STRIKE
from penstock.clock import Clock
from penstock.errors import ConfigError, NotFound
from penstock.event import Shard, Start
from penstock.rules.leases import STRUCK, LeaseWatch


async def reset_events(
    link: Link, clock: Clock, shard: Shard, group: str, start: Start, *, force: bool
) -> None:
    """Set a group that shares events elsewhere; see `ports.EventGroups.reset_group`."""
    keys = Keys.of(shard)
    seen: Mapping[str, str] = {}
    if not force:
        seen = await _dead(link, clock, keys.beats(group), group, shard)
    flat = [part for pair in seen.items() for part in pair]
    names = [keys.stream, keys.mark(group), keys.parked(group), keys.attempts(group)]
    args = (group, PARKED, text(group_start(start)), secrets.token_hex(8), int(force), *flat)
    reply = await link.run(RESET, [*names, keys.beats(group)], *args, verb="reset a group of")
    if reply[0] == b"alive":
        raise _lives(text(reply[1]), group, shard)
    if reply[0] == b"none":
        raise _missing(group, shard)


async def reset_share(
    link: Link, clock: Clock, shard: Shard, group: str, start: Start, *, force: bool
) -> None:
    """Set a group that shares shards elsewhere, in one shard; what was kept with it goes."""
    keys, roster = Keys.of(shard), Keys(shard.stream).roster(group)
    if not force:
        for name, beat in (await _dead(link, clock, roster, group, shard)).items():
            await link.run(STRIKE, [roster], name, beat, "", verb="reset a group of")
    names = [keys.stream, keys.share(group), keys.positions]
    args = (group, text(group_start(start)), secrets.token_hex(8))
    if await link.run(RESET_SHARE, names, *args, verb="reset a group of") == 0:
        raise _missing(group, shard)


async def _dead(
    link: Link, clock: Clock, beats: str, group: str, shard: Shard
) -> Mapping[str, str]:
    """The last beats of members that are all dead; waits up to the longest of their leases.

    Raises:
        ConfigError: one lives.
    """

    async def look() -> dict[str, str]:
        flat = await link.call("HGETALL", beats, verb="reset a group of", key=shard.stream)
        pairs = zip(flat[::2], flat[1::2], strict=True)
        found = {text(name): text(beat) for name, beat in pairs}
        return {name: beat for name, beat in found.items() if beat != STRUCK}

    return await _still(clock, look, lambda name: _lives(name, group, shard))


async def _still(
    clock: Clock, look: Callable[[], Awaitable[dict[str, str]]], lives: Callable[[str], Exception]
) -> dict[str, str]:
    """The beats that no longer change; one that changes twice is of a living member.

    Once is not enough: the last beat of one that has just died may still have been under way.
    """
    watch = LeaseWatch(0.0)
    beats = await look()
    changed: set[str] = set()
    while True:
        leases = {name: lease_of(beat, 0.0) for name, beat in beats.items()}
        if len(watch.observe(clock.monotonic(), beats, leases)) == len(beats):
            return beats
        await clock.sleep(max(0.02, min(leases.values()) / 4))
        before, beats = beats, await look()
        for name in [name for name, beat in beats.items() if before.get(name) != beat]:
            if name in changed or name not in before:
                raise lives(name)
            changed.add(name)


def _lives(name: str, group: str, shard: Shard) -> ConfigError:
    return ConfigError(
        f"a group is set elsewhere while nobody is in it, but member {name!r} of group {group!r} "
        f"of {shard.stream!r} lives; end it first, or force it: its events then come again"
    )


def _missing(group: str, shard: Shard) -> NotFound:
    return NotFound(
        f"there is no group {group!r} of {shard.stream!r} to set elsewhere",
        backend="redis",
        verb="reset a group of",
        key=shard.stream,
    )
