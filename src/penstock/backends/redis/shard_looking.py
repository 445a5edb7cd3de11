"""ShardLooking: who is a member of a group that shares shards, and which shards are free.

Does        look at members and shards in one round trip; strike the dead; find streams that grew.
Does not    take, give or make shards: `holdings.py` does.
Invariants  1. who beats is alive; whose beat stood still for a lease is struck, by a script that is
               given the beat that was seen.
            2. a shard is free where nobody owns it, or its beat stood still for a lease, or is of
               an incarnation that is no member any more: whoever strikes a member frees all its
               shards for everybody, also for those who have not watched for a lease themselves.
            3. shards are looked at before members: who takes a shard was a member before that.
Cost        one round trip a look, for all shards.
Source      DESIGN.md, "Members are leased, not events".
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import TYPE_CHECKING, Any, Final

from penstock.backends.redis.beats import incarnation_of, is_resting, lease_of
from penstock.backends.redis.edge import ReplyError, mapped
from penstock.backends.redis.held import Owner, Seen
from penstock.backends.redis.keys import Keys
from penstock.backends.redis.replies import text
from penstock.backends.redis.shard_scripts import STRIKE
from penstock.event import Shard
from penstock.rules.leases import LeaseWatch
from penstock.signals import Kind

if TYPE_CHECKING:
    from penstock.backends.redis.groups import RedisGroups

BEAT_FIELD: Final = "beat"
"""The field of a shard's hash that its owner beats."""

_MOVED: Final = 0
"""What `STRIKE` answers where the member has beaten since."""


class ShardLooking:
    """The looks of one member.

    Args:
        groups: the backend.
        stream: the stream, as any of its shards.
        group: the group's name.
        name: the member's own name.
        lease: its own lease, in seconds.
        signal: tells observers: kind, message, count.
    """

    def __init__(  # noqa: PLR0917 - made by Holdings alone
        self,
        groups: RedisGroups,
        stream: Shard,
        group: str,
        name: str,
        lease: float,
        signal: Callable[[Kind, str, int | None], None],
    ) -> None:
        self._link = groups.link
        self._clock = groups.clock
        self._stream = stream.stream
        self._home = Keys(stream.stream)
        self._group = group
        self._name = name
        self._lease = lease
        self._signal = signal
        self._members = LeaseWatch(lease)
        self._owners = LeaseWatch(lease)
        self.shards = [stream._replace(index=index) for index in range(stream.of)]

    def reset(self) -> None:
        """Nobody knows what was missed: count every lease anew."""
        self._members.reset()
        self._owners.reset()

    async def look(self, held: Container[Shard], is_ours: Callable[[str], bool]) -> Seen:
        """Look at everything; *held* are this member's own, *is_ours*: so is whoever beats so."""
        flat, count, shares, kept = await self._ask()
        looked = self.shards[:]
        self._grow(int(count or 1))
        beats = {text(name): text(beat) for name, beat in zip(flat[::2], flat[1::2], strict=True)}
        owners = {
            shard: Owner(text(owner or b""), text(beat or b""), int(epoch or 0))
            for shard, (_, owner, beat, epoch) in zip(looked, shares, strict=True)
        }
        there = await self._living(beats)
        return Seen(
            [*there],
            [name for name, beat in beats.items() if is_resting(beat) and name != self._name],
            owners,
            self._free(owners, there, held, is_ours),
            [
                shard
                for shard, (token, *_), is_kept in zip(looked, shares, kept, strict=True)
                if token is None or not is_kept
            ],
        )

    async def _ask(self) -> tuple[list[Any], Any, list[Any], list[Any]]:
        """Members and their beats, the number of shards, who owns each, and what is kept of it."""
        wire, keys = await self._link.wire(), [Keys.of(shard) for shard in self.shards]
        fields = ("token", "owner", BEAT_FIELD, "epoch")
        with mapped(self._link.address.place, verb="look at the members of", key=self._stream):
            replies = await wire.call_many(
                [
                    *(("HMGET", k.share(self._group), *fields) for k in keys),
                    *(("HEXISTS", k.positions, self._group) for k in keys),
                    ("HGET", self._home.meta, "shards"),
                    ("HGETALL", self._home.roster(self._group)),
                ],
                timeout=self._link.address.timeout,
            )
            for reply in replies:
                if isinstance(reply, ReplyError):
                    raise reply
        *rest, count, flat = replies
        return flat, count, rest[: len(keys)], rest[len(keys) :]

    def _grow(self, count: int) -> None:
        """The stream may have more shards by now; they are looked at next."""
        known = len(self.shards)
        if known > 1 or self.shards[0].of > 1:
            self.shards += [Shard(self._stream, index, count) for index in range(known, count)]

    async def _living(self, beats: dict[str, str]) -> dict[str, str]:
        """Those whose beats moved; the dead are struck."""
        others = {name: beat for name, beat in beats.items() if name != self._name}
        leases = {name: lease_of(beat, self._lease) for name, beat in others.items()}
        roster, living = self._home.roster(self._group), dict(beats)
        for name, beat in self._members.observe(self._clock.monotonic(), others, leases):
            status = await self._link.run(STRIKE, [roster], name, beat, "", verb="look at")
            if status == _MOVED:
                continue
            del living[name]
            if status == 1:
                text_ = f"member {name!r} stopped beating; its shards are free for {self._name!r}"
                self._signal("member-taken-over", f"{text_} and others", None)
        return living

    def _free(
        self,
        owners: Mapping[Shard, Owner],
        living: Mapping[str, str],
        held: Container[Shard],
        is_ours: Callable[[str], bool],
    ) -> list[Shard]:
        """What may be taken."""
        others = {shard: one.beat for shard, one in owners.items() if shard not in held}
        members = {incarnation_of(beat) for beat in living.values()}
        watched = {
            str(shard.index): beat
            for shard, beat in others.items()
            if beat and incarnation_of(beat) in members and not is_ours(beat)
        }
        leases = {index: lease_of(beat, self._lease) for index, beat in watched.items()}
        dead = dict(self._owners.observe(self._clock.monotonic(), watched, leases))
        return [s for s in others if str(s.index) in dead or str(s.index) not in watched]
