"""ShardReading: XREAD over the shards that a member owns, one read ahead, on its own connection.

Does        read each shard in order behind what was read last; tell what was trimmed unread.
Does not    own, commit, or judge anything: `shard_member.py` and `holdings.py` do.
Invariants  1. the server keeps nothing for these reads: a reply that is lost, late, or of a shard
               that is not ours any more, is dropped, and changes nothing.
            2. a page is used only if it begins where its shard stands now.
            3. a shard that comes in ends a read that blocks without it.
Cost        one XREAD a page for all shards; now and then an XINFO for those that lag, and for all.
Source      Redis XREAD; reliability notes 1.4, 1.5.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, Final

from penstock.backends.redis.cursor import BLOCK, GRACE
from penstock.backends.redis.edge import ConnectionLost, ReplyError
from penstock.backends.redis.keys import as_stored
from penstock.backends.redis.link import Link
from penstock.backends.redis.replies import by_name, position_or_none
from penstock.backends.redis.wire import Wire, heed
from penstock.clock import Clock, set_within
from penstock.errors import BackendError
from penstock.event import Position, Shard
from penstock.ports import Page
from penstock.rules.unread import NOWHERE, Unread

ASK_EVERY: Final = 1.0
"""Seconds between looks at whether shards that do not lag were trimmed or replaced."""


ASK_LAGGING: Final = 0.05
"""Seconds between looks at whether shards that lag were trimmed."""


class Place:
    """Where one log stands: a shard's, or its replay log."""

    def __init__(self, key: str, shard: Shard, epoch: int, after: bytes, unread: Unread) -> None:
        self.key = as_stored(key)
        self.shard = shard
        self.epoch = epoch
        self.after = after
        self.unread = unread
        self.lags = True


class ShardReading:
    """The reads of one member.

    Args:
        own: a connection of its own, whose reads block.
        link: the shared one, for what ends them.
        clock: for deadlines.
        lost: told of a log's shard, and how many entries were trimmed before they were read.
        other: told of a shard whose log is another one by now.
    """

    def __init__(
        self,
        own: Link,
        link: Link,
        clock: Clock,
        lost: Callable[[Shard, int], None],
        other: Callable[[Shard], None],
    ) -> None:
        self._own = own
        self._link = link
        self._clock = clock
        self._lost = lost
        self._other = other
        self._reading: asyncio.Future[Any] | None = None
        self._asked: dict[bytes, tuple[Place, bytes]] = {}
        self._infos: list[tuple[Place, asyncio.Future[Any]]] = []
        self._began = 0.0
        self._ask_all = self._ask_lagging = 0.0

    async def next(
        self, places: Collection[Place], limit: int, wait: float, ahead: int, woken: asyncio.Event
    ) -> list[Page]:
        """The next pages of *places*; the read goes on in the background when *wait* is over."""
        await self._end_if_without(places)
        if self._reading is None:
            if not places or limit < 1:
                await set_within(woken, wait)
                return []
            self._read(await self._own.wire(), places, limit)
        reading = self._reading
        assert reading is not None
        if not await _done(reading, woken, wait):
            self._look_at_infos({place.key: place for place in places})
            wire, patience = self._own.now, BLOCK + GRACE
            slow = wire is not None and wire.silence < patience
            if not slow and self._clock.monotonic() - self._began > patience:
                self.drop()
            return []
        found = self._take(reading, {place.key: place for place in places})
        if found and ahead >= limit > 0 and (wire := self._own.now) is not None:
            self._read(wire, places, limit)  # the server works while the program does
        return found

    def drop(self) -> None:
        """Forget the read that is under way, with its connection: nobody will miss it."""
        self._forget()
        if self._own.now is not None:
            self._own.now.end()

    def close(self) -> None:
        """Close the connection."""
        self._forget()
        self._own.close()

    def _read(self, wire: Wire, places: Collection[Place], limit: int) -> None:
        now = self._clock.monotonic()
        if now >= self._ask_all:
            self._ask_all = now + ASK_EVERY
            asked = list(places)
        elif now >= self._ask_lagging:
            asked = [place for place in places if place.lags]
        else:
            asked = []
        self._ask_lagging = now + ASK_LAGGING if asked else self._ask_lagging
        infos = [wire.send("XINFO", "STREAM", place.key) for place in asked]
        for info in infos:
            info.add_done_callback(heed)
        self._infos = list(zip(asked, infos, strict=True))
        logs = sum(not place.shard.replay for place in places) or 1
        each = max(1, limit // logs)
        self._each = each
        self._asked = {place.key: (place, place.after) for place in places}
        block = ("BLOCK", int(BLOCK * 1000))
        keys, after = self._asked, [place.after for place in places]
        self._reading = wire.send("XREAD", "COUNT", each, *block, "STREAMS", *keys, *after)
        self._began = now

    def _take(self, reading: asyncio.Future[Any], places: dict[bytes, Place]) -> list[Page]:
        """What a read that is done has brought."""
        self._reading = None
        try:
            reply = reading.result()
        except ConnectionLost:
            self.drop()
            raise
        except ReplyError as error:
            if error.code != "UNBLOCKED":
                raise
            reply = None
        self._look_at_infos(places)
        pages: list[Page] = []
        for key, entries in reply or ():
            place, after = self._asked[key]
            if places.get(key) is place and place.after == after:
                place.after = entries[-1][0]
                place.lags = len(entries) >= self._each
                place.unread.read([entry[0] for entry in entries])
                pages.append(Page(place.shard, entries, None, place.epoch))
        return pages

    def _look_at_infos(self, places: dict[bytes, Place]) -> None:
        """What the logs said of themselves when the read was sent, as far as it has come."""
        come = [(place, info) for place, info in self._infos if info.done()]
        self._infos = [(place, info) for place, info in self._infos if not info.done()]
        for place, info in come:
            if places.get(place.key) is place and self._asked[place.key][1] == place.after:
                self._look(place, info)

    def _look(self, place: Place, info: asyncio.Future[Any]) -> None:
        """Whether the log was trimmed past us, or is another one by now."""
        oldest, newest, added, length = None, NOWHERE, 0, 0
        with suppress(ReplyError):  # there is no such stream
            about = by_name(info.result())
            first = about["first-entry"]
            oldest = position_or_none(first[0] if first else None)
            newest = Position.of(about["last-generated-id"])
            added, length = about["entries-added"], about["length"]
        if place.shard.replay:
            return
        if place.unread.is_other(newest, added):
            self._other(place.shard)
        elif lost := place.unread.lost(oldest, newest, added, length):
            self._lost(place.shard, lost)

    async def _end_if_without(self, places: Collection[Place]) -> None:
        """End a blocked read that does not know all of *places*."""
        if self._reading is None or self._reading.done():
            return
        if all(self._asked.get(p.key) == (p, p.after) for p in places):
            return
        wire = self._own.now
        if wire is not None and wire.client_id:
            with suppress(BackendError):  # without the right to it, the connection is given up
                await self._link.call("CLIENT", "UNBLOCK", wire.client_id, verb="read")
                await asyncio.wait((self._reading,), timeout=GRACE)
        if not self._reading.done():
            self.drop()

    def _forget(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        self._reading, self._infos = None, []


async def _done(reading: asyncio.Future[Any], woken: asyncio.Event, wait: float) -> bool:
    """Whether the read is done within *wait* seconds; *woken* ends the waiting."""
    if reading.done():
        return True
    waking = asyncio.ensure_future(woken.wait())
    try:
        await asyncio.wait((reading, waking), timeout=wait, return_when="FIRST_COMPLETED")
    finally:
        waking.cancel()
    return reading.done()
