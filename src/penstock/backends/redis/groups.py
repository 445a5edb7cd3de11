"""RedisGroups: consumer groups that share events: join, list, drop.

Does        make groups and members; list what is there, heartbeats included.
Does not    hand out events: `member.py` does.
Invariants  1. a group is made at a concrete place; `$` is resolved by the server in that step.
Used by     `log.RedisBackend`, which is this plus the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final
from weakref import WeakSet

from penstock.backends.redis.control import preload
from penstock.backends.redis.edge import ReplyError, mapped, refused
from penstock.backends.redis.group_scripts import JOIN
from penstock.backends.redis.heart import Heart
from penstock.backends.redis.joining import (
    group_start,
    new_incarnation,
    own_name,
    take_names,
)
from penstock.backends.redis.keys import PARKED, Keys, stream_key
from penstock.backends.redis.letters import RedisLetters
from penstock.backends.redis.link import Address, Link
from penstock.backends.redis.member import RedisMember
from penstock.backends.redis.placing import reset_events
from penstock.backends.redis.recovery import Mark, make_group
from penstock.backends.redis.replies import by_name, failures, group_info, text
from penstock.backends.redis.wire import Wire
from penstock.clock import Clock
from penstock.errors import NotFound
from penstock.event import OLDEST, Position, Shard, Start
from penstock.observers import Observers
from penstock.ports import GroupInfo, MemberOptions, PendingInfo
from penstock.signals import Signal

COUNTED: Final = 1000
"""Entries that are fetched, at most, where only counting them tells how far a group is behind."""


class RedisGroups(RedisLetters):
    """Groups on one server. Arguments as for `RedisBackend`."""

    def __init__(self, address: Address, clock: Clock, observers: Observers) -> None:
        self.address = address
        self.clock = clock
        self.observers = observers
        self.link = Link(address, clock, observers)
        self.heart = Heart(address, clock)
        self._links = WeakSet((self.link,))

    def another_link(self) -> Link:
        """A connection of its own, for reads that block; told too when the master has moved."""
        link = Link(self.address, self.clock, self.observers)
        self._links.add(link)
        return link

    def close_links(self) -> None:
        """Close every connection, also those whose owner was cancelled before it closed them."""
        for link in list(self._links):
            link.close()

    def _on_moved(self, place: str) -> None:
        """The sentinels have a new master."""
        for link in list(self._links):
            link.leave(place)

    async def join(
        self, shards: Sequence[Shard], group: str, options: MemberOptions
    ) -> RedisMember:
        """See `ports.EventGroups.join`."""
        await asyncio.to_thread(preload)  # 180 ms, which no beat should wait for
        name = options.name or own_name()
        incarnation = new_incarnation(options.lease)
        marks = {shard: await self.make(shard, group, options.start) for shard in shards}
        await take_names(self, shards, group, name, incarnation, options.lease)
        own = self.another_link()
        member = RedisMember(self, own, shards, group, name, options, incarnation)
        member.marks.update(marks)
        member.begin(used=options.name is not None)
        return member

    async def make(self, shard: Shard, group: str, start: Start) -> Mark:
        """Make the group if there is none; the one that was lost goes on, whatever the start."""
        start = await self._start_of(shard, group, start)
        at = text(group_start(start))
        made = await make_group(self.link, Keys.of(shard), group, at)
        if made.how == "there" and start.kind != "oldest":
            self.observers(_start_ignored(shard, group, start))
        elif made.how == "again":
            self.observers(_lost(shard, group, made.mark))
        return made.mark

    async def groups(self, shard: Shard) -> Sequence[GroupInfo]:
        """See `ports.EventGroups.groups`."""
        reply = await self.link.call(
            "XINFO", "GROUPS", stream_key(shard), verb="list groups of", key=shard.stream
        )
        return [await self._about(shard, by_name(about)) for about in reply]

    async def pending(self, shard: Shard, group: str, limit: int) -> Sequence[PendingInfo]:
        """See `ports.EventGroups.pending`."""
        wire = await self.link.wire()
        with mapped(self.address.place, verb="list pending of", key=shard.stream):
            reply = await self._pending(wire, shard, group, limit)
            if not reply:
                return []
            ids = [one[0] for one in reply]
            failed = await wire.call("HMGET", Keys.of(shard).attempts(group), *ids, timeout=10.0)
        return [
            PendingInfo(shard, Position.of(id_), text(member), idle / 1000, count, failures(tries))
            for (id_, member, idle, count), tries in zip(reply, failed, strict=True)
        ]

    async def drop(self, shard: Shard, group: str) -> bool:
        """See `ports.EventGroups.drop`."""
        keys = Keys.of(shard)
        try:
            gone = await self.link.call(
                "XGROUP", "DESTROY", keys.stream, group, verb="drop a group of", key=shard.stream
            )
        except NotFound:
            gone = 0
        await self.link.call(
            "UNLINK", *keys.of_group(group), verb="drop a group of", key=shard.stream
        )
        if shard.of > 1 and not shard.replay:  # it may have been there before the stream was
            await self.drop(Shard(shard.stream), group)
        return bool(gone)

    async def create_group(self, shard: Shard, group: str, start: Start) -> bool:
        """See `ports.EventGroups.create_group`."""
        start = await self._start_of(shard, group, start)
        at = text(group_start(start))
        made = await make_group(self.link, Keys.of(shard), group, at, plain=True)
        return made.how != "there"

    async def _start_of(self, shard: Shard, group: str, start: Start) -> Start:
        """Where it begins if it is new there: all is new to one that was before the stream was."""
        if shard.of > 1 and start.kind != "oldest":
            base = Keys(shard.stream).mark(group)
            if await self.link.call("EXISTS", base, verb="join a group of", key=shard.stream):
                return OLDEST
        return start

    async def reset_group(
        self, shard: Shard, group: str, start: Start, *, force: bool = False
    ) -> None:
        """See `ports.EventGroups.reset_group`."""
        await reset_events(self.link, self.clock, shard, group, start, force=force)

    async def enter(self, shard: Shard, group: str, name: str, incarnation: str, seen: str) -> str:
        """Take the name *name* if it is free or its beat is still *seen*; else that beat."""
        beats = Keys.of(shard, group).beats(group)
        reply = await self.link.run(
            JOIN, [beats], name, incarnation, seen, verb="join a group of", key=shard.stream
        )
        return text(reply)

    @staticmethod
    async def _pending(wire: Wire, shard: Shard, group: str, limit: int) -> list[Any]:
        """XPENDING in pages, without what is parked."""
        found: list[Any] = []
        cursor, key = "-", stream_key(shard)
        while len(found) < limit:
            page = await wire.call("XPENDING", key, group, cursor, "+", 1000, timeout=10.0)
            found += [one for one in page if text(one[1]) != PARKED]
            if len(page) < 1000:
                break
            cursor = "(" + text(page[-1][0])
        return found[:limit]

    async def _about(self, shard: Shard, about: dict[str, Any]) -> GroupInfo:
        keys, group = Keys.of(shard), text(about["name"])
        wire = await self.link.wire()
        with mapped(self.address.place, verb="list members of", key=shard.stream):
            replies = await wire.call_many(
                [
                    ("XINFO", "CONSUMERS", keys.stream, group),
                    ("HGETALL", keys.beats(group)),
                    ("XPENDING", keys.stream, group, "-", "+", 1),
                    ("XRANGE", keys.stream, b"(" + about["last-delivered-id"], "+", "COUNT", 1),
                    ("XLEN", keys.stream),
                    ("XLEN", keys.letters(group)),
                    ("HGET", keys.mark(group), "position"),
                    ("TIME",),
                ],
                timeout=self.address.timeout,
            )
        for reply in replies:
            if isinstance(reply, ReplyError):
                raise refused(reply, verb="list members of", key=shard.stream)
        info = group_info(shard, about, replies)
        if info.lag is None:  # the server cannot tell, in the midst of what was removed from
            after = about["last-delivered-id"]
            info = info._replace(lag=await entries_between(wire, keys.stream, after, b"+"))
        return info

    async def _stop_beating(self) -> None:
        thread = self.heart.stop()
        if thread is not None:
            await asyncio.get_running_loop().run_in_executor(None, thread.join)


async def entries_between(wire: Wire, key: str, after: bytes, last: bytes) -> int | None:
    """How many entries stand behind *after*, up to *last*; None: more than it is worth to count."""
    found = await wire.call("XRANGE", key, b"(" + after, last, "COUNT", COUNTED + 1, timeout=10.0)
    return len(found) if len(found) <= COUNTED else None


def _lost(shard: Shard, group: str, mark: Mark) -> Signal:
    message = (
        f"group {group!r} of {shard.stream!r} was lost while nobody was in it; it is made anew, "
        f"and goes on behind {mark.position}"
    )
    return Signal("group-lost", message, stream=shard.stream, group=group)


def _start_ignored(shard: Shard, group: str, start: Start) -> Signal:
    text = (
        f"group {group!r} of {shard.stream!r} exists and goes on where it stands; "
        f"start={start} applies to new groups alone"
    )
    return Signal("start-ignored", text, stream=shard.stream, group=group)
