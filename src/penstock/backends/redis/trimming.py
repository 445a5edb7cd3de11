"""Trimming: the oldest events of one stream key go, in pages.

Does        trim to a number, a position, or a size; what groups need is looked at in the step that
            trims.
Does not    decide when: the janitor of a client does, or the user.
Invariants  1. the server is never busy for long: what is much goes page by page.
            2. a size is the server's own estimate; the last megabytes go event by event, so that
               no more is removed than must be.
"""

from __future__ import annotations

from typing import Any, Final

from penstock.backends.redis.keys import Keys, stream_key
from penstock.backends.redis.link import Link
from penstock.backends.redis.scripts import PAGE, TRIM, TRIMMED
from penstock.event import Position, Shard
from penstock.ports import TrimTo

_BULK: Final = 16 << 20
"""Bytes too many from which on half of them go by number, as if all events were of one size."""

_LOOKED_AT: Final = 1 << 20
"""Bytes of the oldest events that are looked at in one go."""


async def trim(link: Link, shard: Shard, limit: TrimTo) -> int:
    """See `ports.Log.trim`."""
    if limit.max_bytes is not None:
        return await _to_size(link, shard, limit, limit.max_bytes)
    return await _trim(link, shard, limit)


async def _trim(link: Link, shard: Shard, limit: TrimTo) -> int:
    most = -1 if limit.max_events is None else limit.max_events
    before = "" if limit.before is None else str(limit.before)
    flags = (int(limit.acked_only), TRIMMED, int(limit.approximate))
    beside = Keys.of(shard)
    keys = [stream_key(shard), beside.positions, beside.trimmed]
    removed, more = 0, 1
    while more:
        count, more = await link.run(TRIM, keys, most, before, *flags, verb="trim", key=keys[0])
        removed += count
    return removed


async def _to_size(link: Link, shard: Shard, limit: TrimTo, most: int) -> int:
    """Until the server's estimate is *most* bytes, or a group still needs the oldest event."""
    key = stream_key(shard)
    removed = 0
    while True:
        length = await link.call("XLEN", key, verb="trim", key=key)
        size = await link.call("MEMORY", "USAGE", key, verb="trim", key=key)
        if not length or not size or size <= most:
            return removed
        step = await _step(link, key, length, size, size - most)
        gone = await _trim(link, shard, step._replace(acked_only=limit.acked_only))
        removed += gone
        if not gone:
            return removed


async def _step(link: Link, key: str, length: int, size: int, excess: int) -> TrimTo:
    """What to leave next, of *length* events that take *size* bytes, *excess* too many."""
    if excess > _BULK:
        return TrimTo(max_events=length - max(1, length * excess // size // 2))
    count = min(PAGE, length, max(1, _LOOKED_AT * length // size))
    page = await link.call("XRANGE", key, "-", "+", "COUNT", count, verb="trim", key=key)
    last = _last_to_go(page, excess)
    return TrimTo(before=Position((last[0], last[1] + 1)))


def _last_to_go(page: list[Any], excess: int) -> Position:
    """The last of the oldest events that make up *excess* bytes, or all of *page*."""
    for position, fields in page:
        excess -= sum(map(len, fields))
        if excess <= 0:
            return Position.of(position)
    return Position.of(page[-1][0])
