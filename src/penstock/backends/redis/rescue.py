"""Rescue: pending entries that nobody will ack, of any group of any client, made due again.

Does        list who holds what for how long; park pages of it in the same group, due at once, so
            that a living member of ours handles it; or hand it to a consumer by name.
Does not    ack, delete or read an entry; it goes on where it stopped when it is run again.
Invariants  1. never from the living: a consumer of others must have done nothing for *idle*
               seconds with the entry; a member of ours whose beat moves is left alone, and one
               that stands still is struck in the step that takes, given the beat that was seen.
            2. deliveries are not counted: nobody was given anything.
            3. what was trimmed is dropped from the pending list by that step, and counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from penstock.backends.redis.beats import lease_of
from penstock.backends.redis.keys import PARKED, Keys
from penstock.backends.redis.link import Link
from penstock.backends.redis.replies import by_name, text
from penstock.backends.redis.scripts import PAGE, Script
from penstock.errors import NotFound

STRUCK: Final = "struck"

RESCUE: Final = Script(
    3,
    """-- take stranded entries over, a page. KEYS stream, beats, parked
-- ARGV group, target, park, owner, beat seen or '', idle in ms, cursor, limit
local beat = redis.call('HGET', KEYS[2], ARGV[4])
if beat and beat ~= 'struck' and beat ~= ARGV[5] then return {'alive'} end
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], 'IDLE', ARGV[6], ARGV[7], '+', ARGV[8],
  ARGV[4])
if #pending == 0 then return {'empty'} end
if beat and beat ~= 'struck' then redis.call('HSET', KEYS[2], ARGV[4], 'struck') end
local ids = {}
for i, one in ipairs(pending) do ids[i] = one[1] end
local last = ids[#ids]
local count = #ids
ids[count + 1] = 'JUSTID'
local moved = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, unpack(ids))
if ARGV[3] == '1' then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  for _, id in ipairs(moved) do redis.call('ZADD', KEYS[3], now, id) end
end
return {'taken', #moved, count - #moved, last}
""",
    when_full=True,
)


class Holder(NamedTuple):
    """Who holds pending entries.

    Attributes:
        consumer: its name.
        pending: how many entries it holds.
        stranded: how many of them have been pending for long enough, at most `PAGE`.
        idle: seconds since it last did anything.
        beat: the heartbeat that was seen; ``""`` if it never was a member of ours.
        alive: whether it is a member of ours that beats.
    """

    consumer: str
    pending: int
    stranded: int
    idle: float
    beat: str
    alive: bool


class Taken(NamedTuple):
    """A page that was taken: from whom, how many entries, and how many were trimmed."""

    consumer: str
    moved: int
    trimmed: int


async def group_names(link: Link, key: str) -> list[str]:
    """The groups of a stream key.

    Raises:
        NotFound: there is no such stream.
    """
    reply = await link.call("XINFO", "GROUPS", key, verb="rescue", key=key)
    return [text(by_name(about)["name"]) for about in reply]


async def holders(link: Link, key: str, group: str, idle: float) -> Sequence[Holder]:
    """Who holds what; takes as long as the longest lease of a member of ours that may be dead.

    Raises:
        NotFound: there is no such stream or group.
    """
    first = await _beats(link, key, group)
    reply = await link.call("XINFO", "CONSUMERS", key, group, verb="rescue", key=key)
    about = {text(one["name"]): one for one in map(by_name, reply) if one["pending"]}
    about.pop(PARKED, None)
    doubtful = {name: beat for name, beat in first.items() if name in about and beat != STRUCK}
    if doubtful:
        await asyncio.sleep(max(lease_of(beat, 0.1) for beat in doubtful.values()) * 1.1)
    beats = await _beats(link, key, group)
    found: list[Holder] = []
    for name, one in about.items():
        beat = beats.get(name, "")
        alive = name in doubtful and beat not in ("", STRUCK, doubtful[name])
        alive = alive or (beat not in ("", STRUCK) and name not in doubtful)
        since = 0.0 if beat and not alive else idle
        count = 0 if alive else await _stranded(link, key, group, name, since)
        found.append(Holder(name, one["pending"], count, one["idle"] / 1000, beat, alive))
    return found


async def rescue(  # noqa: PLR0917 - a record of what to do
    link: Link, key: str, group: str, holder: Holder, idle: float, to: str | None
) -> AsyncIterator[Taken]:
    """Take a holder's stranded entries over, page by page; *to* None: park them, due at once."""
    keys = Keys(key)
    names = [key, keys.beats(group), keys.parked(group)]
    since = 0 if holder.beat else int(idle * 1000)
    cursor = "-"
    while True:
        target = (to or PARKED, int(to is None))
        whom = (holder.consumer, holder.beat, since, cursor, PAGE)
        reply = await link.run(RESCUE, names, group, *target, *whom, verb="rescue", key=key)
        if reply[0] != b"taken":
            return
        cursor = "(" + text(reply[3])
        yield Taken(holder.consumer, int(reply[1]), int(reply[2]))


async def living_members(link: Link, key: str, group: str) -> int:
    """How many members of ours the group has that have not been struck."""
    return sum(beat != STRUCK for beat in (await _beats(link, key, group)).values())


async def require(link: Link, key: str, group: str) -> None:
    """Raise NotFound unless the stream has the group."""
    known = await group_names(link, key)
    if group not in known:
        there = f"its groups are {', '.join(map(repr, known))}" if known else "it has none"
        text = f"there is no group {group!r} of {key!r}; {there}"
        raise NotFound(text, backend="redis", verb="rescue", key=key)


async def _beats(link: Link, key: str, group: str) -> Mapping[str, str]:
    flat: list[Any] = await link.call("HGETALL", Keys(key).beats(group), verb="rescue", key=key)
    return {text(name): text(beat) for name, beat in zip(flat[::2], flat[1::2], strict=True)}


async def _stranded(link: Link, key: str, group: str, name: str, idle: float) -> int:
    page = await link.call(
        *("XPENDING", key, group, "IDLE", int(idle * 1000), "-", "+", PAGE, name),
        verb="rescue",
        key=key,
    )
    return len(page)
