"""RedisShardGroups: both kinds of group on one server; here those that share shards.

Does        make members that own shards; list their groups beside those that share events.
Does not    hand out events: `shard_member.py` does.
Invariants  1. one name is one group of one kind on a stream.
Used by     `log.RedisBackend`, which is this plus the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from penstock.backends.redis.beats import age_of, is_beating, is_resting
from penstock.backends.redis.control import preload
from penstock.backends.redis.edge import ReplyError, mapped
from penstock.backends.redis.groups import RedisGroups, entries_between
from penstock.backends.redis.joining import new_incarnation, own_name
from penstock.backends.redis.keys import Keys
from penstock.backends.redis.member import RedisMember
from penstock.backends.redis.placing import reset_share
from penstock.backends.redis.replies import position_or_none, text
from penstock.backends.redis.shard_joining import take_name
from penstock.backends.redis.shard_member import RedisShardMember
from penstock.backends.redis.wire import Wire
from penstock.errors import ConfigError, NotFound
from penstock.event import Shard, Start
from penstock.group_ports import no_pending_list
from penstock.ports import GroupInfo, MemberInfo, MemberOptions, PendingInfo
from penstock.signals import Signal


class RedisShardGroups(RedisGroups):
    """Groups on one server. Arguments as for `RedisBackend`."""

    async def own(self, stream: Shard, group: str, member: MemberOptions) -> RedisShardMember:
        """See `ports.ShardGroups.own`."""
        await asyncio.to_thread(preload)
        name, incarnation = member.name or own_name(), new_incarnation(member.lease)
        owner = RedisShardMember(self, stream, group, name, member)
        try:
            shards = [stream._replace(index=index) for index in range(stream.of)]
            made = await owner.holdings.found(shards, member.start)
            now = self.clock.monotonic()
            await take_name(
                self, stream.stream, group, name, incarnation, member.lease, lambda _: False
            )
            owner.begin(incarnation, now)
        except BaseException:
            owner.abandon()
            raise
        if not made and member.start.kind != "oldest":
            self.observers(_start_ignored(stream.stream, group, member))
        return owner

    async def join(
        self, shards: Sequence[Shard], group: str, options: MemberOptions
    ) -> RedisMember:
        """See `ports.EventGroups.join`.

        Raises:
            ConfigError: a group of that name shares the shards of one of the streams; or as there.
        """
        for shard in shards:
            await self._refuse_sharing(shard, group)
        return await super().join(shards, group, options)

    async def create_group(self, shard: Shard, group: str, start: Start) -> bool:
        """See `ports.EventGroups.create_group`; ConfigError where one shares shards."""
        await self._refuse_sharing(shard, group)
        return await super().create_group(shard, group, start)

    async def pending(self, shard: Shard, group: str, limit: int) -> Sequence[PendingInfo]:
        """See `ports.EventGroups.pending`; ConfigError where one shares shards."""
        try:
            return await super().pending(shard, group, limit)
        except NotFound:
            if group in await self.sharing(Keys.of(shard)):
                raise no_pending_list(shard, group) from None
            raise

    async def groups(self, shard: Shard) -> Sequence[GroupInfo]:
        """See `ports.EventGroups.groups`; those that share shards are among them."""
        sharing = await self._sharing(shard)
        try:
            return [*await super().groups(shard), *sharing]
        except NotFound:
            if sharing:
                return sharing
            raise

    async def drop(self, shard: Shard, group: str) -> bool:
        """See `ports.EventGroups.drop`; for a group that shares shards too."""
        keys, base = Keys.of(shard), Keys(shard.stream)
        verb = "drop a group of"
        shared = await self.link.call("HDEL", keys.positions, group, verb=verb, key=keys.stream)
        await self.link.call("UNLINK", base.roster(group), verb=verb, key=keys.stream)
        return await super().drop(shard, group) or bool(shared)

    async def reset_group(
        self, shard: Shard, group: str, start: Start, *, force: bool = False
    ) -> None:
        """See `ports.EventGroups.reset_group`; for a group that shares shards too."""
        if group in await self.sharing(Keys.of(shard)):
            await reset_share(self.link, self.clock, shard, group, start, force=force)
        else:
            await super().reset_group(shard, group, start, force=force)

    async def sharing(self, keys: Keys) -> list[str]:
        """The names of the groups that share the shard of *keys* with others."""
        names = await self.link.call(
            "HKEYS", keys.positions, verb="list groups of", key=keys.stream
        )
        return [text(name) for name in names]

    async def _refuse_sharing(self, shard: Shard, group: str) -> None:
        share = Keys.of(shard).share(group)
        if await self.link.call("EXISTS", share, verb="join a group of"):
            raise ConfigError(
                f"a group shares either single events or whole shards, and {group!r} of "
                f"{shard.stream!r} shares shards; choose another name, or share='shards'"
            )

    async def _sharing(self, shard: Shard) -> list[GroupInfo]:
        keys = Keys.of(shard)
        wire, patience = await self.link.wire(), self.address.timeout
        with mapped(self.address.place, verb="list groups of", key=keys.stream):
            flat = await wire.call("HGETALL", keys.positions, timeout=patience)
            found: list[GroupInfo] = []
            for name, position in zip(flat[::2], flat[1::2], strict=True):
                group = text(name)
                shares = [Keys.of(one).share(group) for one in _others(shard)]
                replies = await wire.call_many(
                    [
                        ("HMGET", keys.share(group), "owner", "counted", "count"),
                        ("HGETALL", Keys(shard.stream).roster(group)),
                        ("XINFO", "STREAM", keys.stream),
                        ("XLEN", keys.letters(group)),
                        ("XRANGE", keys.stream, b"(" + position, "+", "COUNT", 1),
                        ("TIME",),
                        *(("HGET", share, "owner") for share in shares),
                    ],
                    timeout=patience,
                )
                info = _sharing_info(shard, group, position, replies)
                found.append(await _with_lag(wire, keys.stream, info, position, replies))
        return found


def _others(shard: Shard) -> list[Shard]:
    """The other shards, where who owns none is listed: beside the first."""
    return [shard._replace(index=n) for n in range(1, shard.of)] if shard.index == 0 else []


def _sharing_info(shard: Shard, group: str, position: bytes, replies: list[Any]) -> GroupInfo:
    """A group that shares shards, but for how far it is behind."""
    (owner, *_), roster, _, dead, following, (seconds, _), *owners = replies
    since = int(following[0][0].partition(b"-")[0]) / 1000 if following else float(seconds)
    busy = {text(one) for one in (owner, *owners) if one}
    beats = {text(name): text(beat) for name, beat in zip(roster[::2], roster[1::2], strict=True)}
    return GroupInfo(
        name=group,
        shard=shard,
        lag=None,
        pending=0,
        parked=0,
        dead=dead if isinstance(dead, int) else 0,
        last=position_or_none(position),
        members=tuple(
            _member(name, beat, float(seconds), standby=name not in busy)
            for name, beat in beats.items()
            if name == text(owner or b"") or (shard.index == 0 and name not in busy)
        ),
        lag_seconds=max(0.0, float(seconds) - since),
    )


def _member(name: str, beat: str, now: float, *, standby: bool) -> MemberInfo:
    age, beating = age_of(beat, now), is_beating(beat, now)
    return MemberInfo(name, 0, age, beating, resting=is_resting(beat), standby=standby)


async def _with_lag(
    wire: Wire, key: str, info: GroupInfo, position: bytes, replies: list[Any]
) -> GroupInfo:
    """The group with its lag: behind what was committed, by the last counted place before that."""
    (_, counted, count), _, stream, _, following, *_ = replies
    if isinstance(stream, ReplyError):  # no event has been there yet
        return info._replace(lag=0, deliveries=0)
    about = dict(zip(stream[::2], stream[1::2], strict=True))
    added, length = about[b"entries-added"], about[b"length"]
    lag: int | None = 0
    if following and counted is not None:
        beyond = 0 if counted == position else await entries_between(wire, key, counted, position)
        gone = max(int(count), added - length)  # up to there nothing is left to count
        lag = None if beyond is None else added - gone - beyond
    elif following:
        lag = await entries_between(wire, key, position, b"+")
    lag = None if lag is None else max(0, min(lag, length))  # single ones may be gone
    return info._replace(lag=lag, deliveries=None if lag is None else added - lag)


def _start_ignored(stream: str, group: str, member: MemberOptions) -> Signal:
    message = (
        f"group {group!r} of {stream!r} exists and goes on where it stands; "
        f"start={member.start} applies to new groups alone"
    )
    return Signal("start-ignored", message, stream=stream, group=group)
