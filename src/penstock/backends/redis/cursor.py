"""RedisCursor: XREAD over several streams, on a connection of its own.

Does        read forward, page by page; remember behind which entry each stream stands.
Does not    read ahead: `streams/reader.py` does.
Invariants  1. a position moves only when its entries have been returned.
            2. a blocking read ends by itself within `BLOCK` seconds, and the connection is given
               up when it does not.
            3. every stream of a reply gets its share: they are asked in turns.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from penstock.backends.redis.edge import ReplyError, mapped
from penstock.backends.redis.keys import stream_key
from penstock.backends.redis.link import Link
from penstock.backends.redis.replies import by_name, pages
from penstock.errors import NotFound
from penstock.event import Position, Shard, Start
from penstock.ports import Page

BLOCK: Final = 5.0
"""Seconds that one read blocks at most, so that a half-open connection is noticed."""

GRACE: Final = 2.0
"""Seconds beyond BLOCK after which an answer is not coming any more."""


class RedisCursor:
    """A place in several streams.

    Args:
        link: a connection of its own.
        after: by shard, the id behind which reading begins.
    """

    def __init__(self, link: Link, after: Mapping[Shard, bytes]) -> None:
        self._link = link
        self._after = dict(after)
        self._turn = 0
        self._reading: asyncio.Future[Any] | None = None

    async def read(self, limit: int, wait: float) -> Sequence[Page]:
        """See `ports.Cursor.read`. Cancelled: the reply comes with the next call."""
        order = self._in_turn()
        place = self._link.address.place
        block = min(wait, BLOCK)
        with mapped(place, verb="read", key=order[0].stream):
            try:
                async with asyncio.timeout(block + GRACE):
                    reply = await self._ask(order, limit, block)
            except TimeoutError:
                self._drop()
                raise
            except ReplyError as error:
                if error.code == "UNBLOCKED":
                    return []
                raise
        found = pages(reply, {stream_key(shard).encode(): shard for shard in order})
        for page in found:
            self._after[page.shard] = page.entries[-1][0]
        return found

    def positions(self) -> Mapping[Shard, Position | None]:
        """See `ports.Cursor.positions`."""
        return {
            shard: None if after == b"0-0" else Position.of(after)
            for shard, after in self._after.items()
        }

    async def aclose(self) -> None:
        """Close the connection."""
        self._link.close()

    async def _ask(self, order: list[Shard], limit: int, block: float) -> Any:
        """Send the read, unless one that was cancelled is still under way."""
        if self._reading is None:
            wire = await self._link.wire()
            keys = [stream_key(shard) for shard in order]
            after = [self._after[shard] for shard in order]
            each = max(1, limit // len(order))
            waiting = ("BLOCK", max(1, int(block * 1000))) if block > 0 else ()
            self._reading = wire.send("XREAD", "COUNT", each, *waiting, "STREAMS", *keys, *after)
        try:
            reply = await asyncio.shield(self._reading)
        except asyncio.CancelledError:
            raise
        except BaseException:
            self._reading = None
            raise
        self._reading = None
        return reply

    def _in_turn(self) -> list[Shard]:
        shards = list(self._after)
        self._turn = (self._turn + 1) % len(shards)
        return shards[self._turn :] + shards[: self._turn]

    def _drop(self) -> None:
        self._reading = None
        if self._link.now is not None:
            self._link.now.end()


async def start_id(link: Link, shard: Shard, start: Start) -> bytes:
    """The id behind which a reader that starts at *start* begins."""
    match start.kind:
        case "oldest":
            return b"0-0"
        case "newest":
            return await newest_id(link, shard)
        case "after":
            assert start.position is not None
            return start.position.raw
        case "at":
            assert start.time is not None
            return before_time(start.time)


async def newest_id(link: Link, shard: Shard) -> bytes:
    """The id of the last entry that was ever added; 0-0 for a stream that does not exist."""
    try:
        info = await link.call("XINFO", "STREAM", stream_key(shard), verb="read", key=shard.stream)
    except NotFound:
        return b"0-0"
    return by_name(info)["last-generated-id"]


def before_time(seconds: float) -> bytes:
    """The last id before the first one at or after *seconds* since 1970."""
    ms = max(0, math.ceil(round(seconds * 1000, 3)))  # rounded: floats are not exact milliseconds
    return b"0-0" if ms == 0 else b"%d-%d" % (ms - 1, (1 << 64) - 1)
