"""Tending: what must be done to a stream from time to time, by whoever has it open.

Does        move events that are due; hand out the retention to one client at a time; change it.
Does not    trim: the caller does, with what it was told here.
Invariants  1. an event that is due is moved in one step: it is waiting, or in the stream.
            2. the lock is held for a moment, by the server's clock: it outlives nobody.
Cost        one script a shard and a look.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from penstock.backends.redis.append_scripts import MOVE, RETAIN
from penstock.backends.redis.keys import Keys
from penstock.backends.redis.link import Link
from penstock.event import Shard
from penstock.ports import Retention, Tended

LOCKED: Final = 400
"""Milliseconds that the lock is held: most of the time between two looks, so that of all clients
one trims, and another one half a second after it died."""

_EVENTS: Final = 100
_BYTES: Final = 1 << 20
"""What one step moves at most: some milliseconds of the server's time."""


async def tend(link: Link, stream: str) -> Tended:
    """See `ports.Log.tend`."""
    shards = await _shards(link, stream)
    parts = [_tend(link, Keys.of(Shard(stream, index, shards))) for index in range(shards)]
    found = await asyncio.gather(*parts)
    waits = [one.wait for one in found if one.wait is not None]
    kept = [one for one in found if one.retention is not None]
    return Tended(
        shards=shards,
        moved=sum(one.moved for one in found),
        wait=min(waits, default=None),
        retention=kept[0].retention if kept else None,  # a shard without events has no marks
        time=max(one.time for one in found),
        dropped=sum(one.dropped for one in found),
    )


async def retain(link: Link, stream: str, retention: Retention | None) -> bool:
    """See `ports.Log.retain`."""
    shards = await _shards(link, stream)
    stored = "" if retention is None else retention.stored()
    keys = [Keys.of(Shard(stream, index, shards)) for index in range(shards)]
    if shards > 1:
        keys.insert(0, Keys(stream))
    done = [
        await link.run(
            RETAIN, [one.stream, one.meta, one.delayed], stored, verb="keep", key=one.stream
        )
        for one in keys
    ]
    return bool(done[0])


async def _tend(link: Link, keys: Keys) -> Tended:
    names = [keys.stream, keys.meta, keys.delayed, keys.waiting, keys.lock]
    moved, more, total, reply = 0, 1, 0, list[Any]()
    while more:
        reply = await link.run(MOVE, names, _EVENTS, _BYTES, LOCKED, verb="tend", key=keys.stream)
        moved, more = reply[0], reply[1]
        total += moved
    wait, retention, dropped, now = reply[2:]
    return Tended(
        moved=total,
        wait=int(wait) / 1000 if wait else None,
        retention=Retention.read(retention),
        time=int(now) / 1000,
        dropped=dropped,
    )


async def _shards(link: Link, stream: str) -> int:
    shards, shard = await link.call(
        "HMGET", Keys(stream).meta, "shards", "shard", verb="tend", key=stream
    )
    return 1 if shards is None or shard is not None else int(shards)
