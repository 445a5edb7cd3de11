"""RedisCursor: XREAD over several shards, on a connection of its own.

Does        read forward, page by page; remember behind which entry each shard stands; notice what
            was trimmed away before it was read.
Does not    read ahead: `streams/reading.py` does. What a loss is, `rules/gaps.py` judges.
Invariants  1. a place moves only when its entries have been returned.
            2. a blocking read ends by itself within `BLOCK` seconds, and the connection is given
               up when it does not.
            3. every shard gets its share: a page of those that are known to have more takes turns
               with one of all, so that one busy shard of a hundred is read in pages of its own.
            4. a reply to what was asked before a place was moved is not used for that place.
            5. a read that asked some of the shards only is followed by one of all, before it
               is said that there is nothing.
Cost        one XREAD a page. A shard that is behind costs an XINFO a page beside it, in the same
            write; one that is read to its end costs one every `LOOK` seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from penstock.backends.redis.edge import ConnectionLost, ReplyError, mapped, refused
from penstock.backends.redis.keys import as_stored, stream_key
from penstock.backends.redis.link import Link
from penstock.backends.redis.replies import by_name, pages
from penstock.backends.redis.wire import Arg, heed
from penstock.clock import Clock
from penstock.errors import BackendError, NotFound
from penstock.event import Position, Shard, Start
from penstock.ports import Page
from penstock.rules.gaps import LogState, Place, position_lost

BLOCK: Final = 5.0
"""Seconds that one read blocks at most, so that a half-open connection is noticed."""

GRACE: Final = 2.0
"""Seconds beyond BLOCK after which an answer is not coming any more."""

LOOK: Final = 1.0
"""Seconds after which shards are looked at that have been read to their end."""

PAGE: Final = 500
"""Shards that are asked about in one write."""


class _Asked(NamedTuple):
    """A read that is under way: what was asked, and the futures of the answers."""

    places: dict[Shard, Place]
    after: dict[Shard, Position]
    limit: int
    block: float
    looked_at: list[Shard]
    states: asyncio.Future[list[Any]] | None
    reply: asyncio.Future[Any]


class RedisCursor:
    """A place in several shards.

    Args:
        link: a connection of its own.
        control: the shared connection, for what must not wait behind a read.
        clock: for when to look at shards that are read to their end.
    """

    def __init__(self, link: Link, control: Link, clock: Clock) -> None:
        self._link = link
        self._control = control
        self._clock = clock
        self._places: dict[Shard, Place] = {}
        self._turns = [0, 0]  # of all shards, and of those that are behind
        self._quiet = 0
        self._asked: _Asked | None = None
        self._behind: set[Shard] = set()
        self._apart = False
        self._look_due = 0.0
        self._lost: list[tuple[Shard, Exception]] = []

    async def read(self, limit: int, wait: float) -> Sequence[Page]:
        """See `ports.Cursor.read`. Cancelled: the reply comes with the next call."""
        block = max(min(wait, BLOCK), self._asked.block if self._asked else 0.0)
        with mapped(self._link.address.place, verb="read", key=next(iter(self._places)).stream):
            try:
                while True:
                    asked, reply = await self._answered(limit, block)
                    found = self._pages(asked, reply)
                    if found or asked.after.keys() >= self._places.keys():
                        return found
            except TimeoutError:
                self._drop()
                raise
            except (ReplyError, ConnectionLost, OSError) as error:
                self._asked = None
                if isinstance(error, ReplyError) and error.code == "UNBLOCKED":
                    return []
                raise

    async def _answered(self, limit: int, block: float) -> tuple[_Asked, Any]:
        """The read that is under way, or a new one, and its answer.

        Raises:
            TimeoutError: nothing of an answer comes, and the event loop did not stand still.
        """
        while True:
            try:
                async with asyncio.timeout(block + GRACE):
                    asked = self._asked or await self._ask(limit, block)
                    await self._judge(asked)
                    if self._lost:
                        raise self._lost.pop(0)[1]
                    return asked, await asyncio.shield(asked.reply)
            except TimeoutError:
                if self._asked is not None and self._asked.reply.done():
                    continue
                wire = self._link.now
                if wire is None or wire.silence > GRACE:
                    raise

    async def move(self, starts: Mapping[Shard, Start]) -> None:
        """See `ports.Cursor.move`."""
        places = await places_at(self._control, starts)
        self._places.update(places)
        self._lost = [(shard, error) for shard, error in self._lost if shard not in places]
        self._look_due = 0.0
        self._quiet = 0

    def leave(self, shards: Collection[Shard]) -> None:
        """See `ports.Cursor.leave`."""
        for shard in shards:
            self._places.pop(shard, None)
        self._behind.difference_update(shards)
        self._lost = [(shard, error) for shard, error in self._lost if shard not in shards]

    async def wake(self) -> None:
        """See `ports.Cursor.wake`."""
        asked, wire = self._asked, self._link.now
        if asked is None or wire is None or not wire.client_id:
            return
        with suppress(BackendError):  # without the right to it, the read ends by itself
            while not asked.reply.done():
                args = ("CLIENT", "UNBLOCK", wire.client_id)
                if await self._control.call(*args, verb="wake a reader of"):
                    return
                await self._clock.sleep(0.002)  # it was sent, and does not block yet

    def positions(self) -> Mapping[Shard, Position | None]:
        """See `ports.Cursor.positions`."""
        return {shard: place.position for shard, place in self._places.items()}

    async def aclose(self) -> None:
        """Close the connection."""
        self._link.close()

    async def _ask(self, limit: int, block: float) -> _Asked:
        """Send the read, and before it, in the same write, the questions about what is behind."""
        broken = self._link.now is None
        wire = await self._link.wire()
        order, now = self._in_turn(limit), self._clock.monotonic()
        looked_at = [shard for shard in order if shard in self._behind]
        if broken or now >= self._look_due:
            looked_at, self._look_due = list(self._places), now + LOOK
        states = None
        if looked_at:
            states = wire.send_many([("XINFO", "STREAM", stream_key(s)) for s in looked_at])
        places = dict(self._places)
        after = {shard: places[shard].after for shard in order}
        each = max(1, limit // len(order))
        waiting = ("BLOCK", max(1, int(block * 1000))) if block > 0 else ()
        if len(order) < len(places):
            waiting = ()
        names = [stream_key(shard) for shard in order]
        ids = [after[shard].raw for shard in order]
        reply = wire.send("XREAD", "COUNT", each, *waiting, "STREAMS", *names, *ids)
        reply.add_done_callback(heed)
        if states is not None:
            states.add_done_callback(heed)
        self._asked = _Asked(places, after, limit, block, looked_at, states, reply)
        return self._asked

    async def _judge(self, asked: _Asked) -> None:
        """See whether something was trimmed away, or a shard is another one than it was."""
        if asked.states is None or asked is not self._asked:
            return
        replies = await asyncio.shield(asked.states)
        self._asked = asked._replace(states=None)
        for shard, reply in zip(asked.looked_at, replies, strict=True):
            place = self._places.get(shard)
            if place is None or place is not asked.places[shard]:
                continue
            gap = place.judge(state_of(reply, shard))
            if gap is not None:
                self._lost.append((shard, position_lost(gap, shard)))

    def _pages(self, asked: _Asked, reply: Any) -> list[Page]:
        """The pages of a reply, but for those of places that were moved, and beyond the limit."""
        self._asked = None
        found = pages(reply, {as_stored(stream_key(shard)): shard for shard in asked.after})
        self._count(asked, {page.shard: len(page.entries) for page in found})
        good: list[Page] = []
        left = asked.limit
        for page in found:
            place = self._places.get(page.shard)
            if place is None or place is not asked.places[page.shard]:
                continue
            if place.after != asked.after[page.shard] or left <= 0:
                continue
            left -= len(page.entries)
            first, last = page.entries[0][0], page.entries[-1][0]
            place.read(len(page.entries), Position.of(first), Position.of(last))
            good.append(page)
        return good

    def _count(self, asked: _Asked, came: Mapping[Shard, int]) -> None:
        """See who has more to give, and how many shards in a row had nothing."""
        each = max(1, asked.limit // len(asked.after))
        self._behind.difference_update(asked.after)
        self._behind.update(shard for shard, count in came.items() if count >= each)
        self._quiet = 0 if came else self._quiet + len(asked.after)

    def _in_turn(self, limit: int) -> list[Shard]:
        """Whom to ask: those that are behind and all take turns; no more than *limit* at once.

        All, however many, where none of them had anything: whoever has something first is read.
        """
        shards = list(self._places)
        behind = [shard for shard in shards if shard in self._behind]
        self._apart = bool(behind) and not self._apart
        some = behind if self._apart else shards
        at = self._turns[self._apart] % len(some)
        self._turns[self._apart] = at + min(limit, len(some) - 1)
        order = some[at:] + some[:at]
        return order if limit >= len(some) or self._quiet >= len(shards) else order[:limit]

    def _drop(self) -> None:
        self._asked = None
        if self._link.now is not None:
            self._link.now.end()


async def places_at(link: Link, starts: Mapping[Shard, Start]) -> dict[Shard, Place]:
    """Where reading begins, by shard; NEWEST becomes the last entry that was ever added.

    Raises:
        BackendError: a key that is no stream, no rights, or no connection.
    """
    places: dict[Shard, Place] = {}
    shards = list(starts)
    for at in range(0, len(shards), PAGE):
        page = shards[at : at + PAGE]
        wire = await link.wire()
        with mapped(link.address.place, verb="read", key=page[0].stream):
            asked: list[tuple[Arg, ...]] = [("XINFO", "STREAM", stream_key(s)) for s in page]
            replies = await wire.call_many(asked, timeout=link.address.timeout)
        for shard, reply in zip(page, replies, strict=True):
            places[shard] = Place.at(starts[shard], state_of(reply, shard))
    return places


async def start_id(link: Link, shard: Shard, start: Start) -> bytes:
    """The id behind which reading that starts at *start* begins."""
    return (await places_at(link, {shard: start}))[shard].after.raw


def state_of(reply: Any, shard: Shard) -> LogState | None:
    """What an XINFO STREAM says; None: there is no such stream."""
    if isinstance(reply, ReplyError):
        error = refused(reply, verb="read", key=shard.stream)
        if isinstance(error, NotFound):
            return None
        raise error
    about = by_name(reply)
    first = about["first-entry"]
    return LogState(
        added=about["entries-added"],
        length=about["length"],
        oldest=Position.of(first[0]) if first else None,
        newest=Position.of(about["last-generated-id"]),
        removed=Position.of(about["max-deleted-entry-id"]),
    )
