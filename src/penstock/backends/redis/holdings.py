"""Holdings: which shards one member owns on Redis, and which it takes and gives up.

Does        look at who lives and who owns what; strike the dead; take what is free up to the fair
            share; name what is above it, and give that up in the end; make lost shards anew.
Does not    read entries or commit: `shard_reading.py` and `shard_member.py` do.
Invariants  1. a shard is taken by a script that is given the beat that was seen, or none.
            2. what is above the share is given up when it was released, or after one lease.
            3. a shard that was lost with what was committed is made anew at once by whoever owned
               it, where he knows it to stand; by others after a lease, at the oldest entry.
Cost        one round trip every half second (a quarter lease, if that is less), for all shards.
Source      DESIGN.md, "Members are leased, not events"; Kafka's cooperative rebalance.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from penstock.backends.redis.beats import RESTING, incarnation_of
from penstock.backends.redis.cursor import start_id
from penstock.backends.redis.heart import Pulse
from penstock.backends.redis.held import Held, Mark, Owner
from penstock.backends.redis.keys import Keys
from penstock.backends.redis.shard_looking import BEAT_FIELD, ShardLooking
from penstock.backends.redis.shard_reading import Place
from penstock.backends.redis.shard_scripts import FOUND, GIVE, STRIKE, TAKE
from penstock.backends.redis.takeovers import LOOK_EVERY
from penstock.errors import ConfigError
from penstock.event import OLDEST, Position, Shard, Start
from penstock.ports import MemberOptions, Ownership, ShardsCame
from penstock.rules.shares import fair_shares
from penstock.rules.unread import NOWHERE, Unread
from penstock.signals import Kind

if TYPE_CHECKING:
    from penstock.backends.redis.groups import RedisGroups


class Holdings:
    """The shards of one member.

    Args:
        groups: the backend.
        stream: the stream, as any of its shards.
        group: the group's name.
        name: the member's name.
        options: how the member behaves.
        wake: called from the thread that beats when a beat was refused or came too late.
        signal: tells observers: kind, message, count.
    """

    def __init__(  # noqa: PLR0917 - made by RedisShardMember alone
        self,
        groups: RedisGroups,
        stream: Shard,
        group: str,
        name: str,
        options: MemberOptions,
        wake: Callable[[], None],
        signal: Callable[[Kind, str, int | None], None],
    ) -> None:
        self._groups = groups
        self._link = groups.link
        self._clock = groups.clock
        self._stream = stream.stream
        self._home = Keys(stream.stream)
        self._group = group
        self._name = name
        self._options = options
        self._wake = wake
        self._signal = signal
        self._looking = ShardLooking(groups, stream, group, name, options.lease, signal)
        self._missing: dict[Shard, float] = {}
        self._marks: dict[Shard, Mark] = {}
        self._incarnation = ""
        self._ours: set[str] = set()
        self._roster: Pulse | None = None
        self._gone: list[Shard] = []
        self._came: list[Shard] = []
        self._resting = False
        self.held: dict[Shard, Held] = {}
        self.yielding: dict[Shard, float] = {}
        self.next_look = 0.0

    @property
    def pulses(self) -> list[Pulse]:
        """Everything that beats for this member."""
        first = [] if self._roster is None else [self._roster]
        return [*first, *(held.pulse for held in self.held.values())]

    @property
    def lapsed(self) -> bool:
        """Whether this incarnation is over, or none has begun."""
        now = self._clock.monotonic()
        struck = self._roster is None or self._roster.struck
        return struck or any(p.late or p.guard.lapsed(now) for p in self.pulses)

    def keys(self, shard: Shard) -> Keys:
        """The names of a shard."""
        return Keys.of(shard)

    def tries(self, incarnation: str) -> None:
        """The name is being taken as *incarnation*: it is ours, whether we hear of it or not."""
        self._ours.add(incarnation)

    def begin(self, incarnation: str, now: float) -> None:
        """The name was taken at *now*: beat for it."""
        self._incarnation = incarnation
        self.tries(incarnation)
        self._roster = self._pulse(self._home.roster(self._group), self._name, now)
        self.rest(self._resting)

    def rest(self, resting: bool) -> None:
        """Be due no shard, or the share again: the others are told at once."""
        self._resting = resting
        self.next_look = 0.0
        if self._roster is not None:
            self._groups.heart.say(self._roster, RESTING if resting else "")

    def end(self) -> None:
        """Beat no more; what was owned is remembered, but not owned any more."""
        for pulse in self.pulses:
            self._groups.heart.remove(pulse)
        self._roster = None
        self._looking.reset()
        self._gone += [self._drop(shard) for shard in list(self.held)]

    def told(self) -> tuple[list[Shard], list[Shard]]:
        """The shards that came, and those that went, since this was asked last."""
        came, gone = [shard for shard in self._came if shard in self.held], self._gone
        self._came, self._gone = [], []
        return came, gone

    def is_ours(self, beat: str) -> bool:
        """Whether *beat* is of one of this member's incarnations."""
        return incarnation_of(beat) in self._ours

    def lost_contact(self) -> None:
        """Nobody knows what was missed: count every lease anew."""
        self._looking.reset()

    async def found(self, shards: Iterable[Shard], start: Start) -> bool:
        """Make what is missing of *shards*; whether anything was.

        Raises:
            ConfigError: the group shares single events.
        """
        statuses = [await self._found(shard, await self._begins(shard, start)) for shard in shards]
        return b"made" in statuses

    async def look(self) -> tuple[list[Shard], list[Shard]]:
        """Look, if it is time; the shards that came, and those that went.

        What came or went before this was broken off, the next one tells.
        """
        self._gone += [self._drop(s) for s, held in list(self.held.items()) if held.pulse.struck]
        now = self._clock.monotonic()
        if not self._gone and not self._came and now >= self.next_look:
            await self._share_out(now)
        return self.told()

    async def _share_out(self, now: float) -> None:
        """Give up what is above the share, or take what it lacks."""
        self.next_look = now + min(LOOK_EVERY, self._options.lease / 4)
        seen = await self._looking.look(self.held, self.is_ours)
        await self._mend(seen.missing, now)
        free = set(seen.free)
        owned = Counter(one.name for s, one in seen.owners.items() if s not in free)
        living = {name: owned[name] for name in {*seen.living, self._name}}
        living[self._name] = len(self.held)
        resting = [*seen.resting, *([self._name] if self._resting else [])]
        surplus = (
            len(self.held) - fair_shares(living, len(self._looking.shards), resting)[self._name]
        )
        await self._shrink(max(0, surplus), now)
        lacking = -surplus
        for shard in seen.free:
            owner = seen.owners[shard]
            if lacking > 0 and await self._take(shard, owner.beat):
                lacking -= 1
            elif lacking <= 0 and self._is_stray(owner):
                await self._give_again(shard, owner)

    def _is_stray(self, owner: Owner) -> bool:
        """Whether this incarnation seems to own what it does not hold: a reply was lost."""
        return incarnation_of(owner.beat) == self._incarnation

    async def _give_again(self, shard: Shard, owner: Owner) -> None:
        """Give up what was given up already, or taken, and nobody heard: else it waits a lease."""
        names, args = [self.keys(shard).share(self._group)], (owner.epoch, self._incarnation)
        await self._link.run(GIVE, names, *args, verb="give up")

    async def give(self, shard: Shard) -> None:
        """Give a shard up; the next look says that it went, also where that was not confirmed.

        If it was given up, it may be another's by now; if not, its beat is ours, and stands still.
        """
        held = self.held.get(shard)
        if held is None:
            return
        args = (held.ownership.epoch, held.incarnation)
        given = False
        try:
            await self._link.run(GIVE, [held.keys.share(self._group)], *args, verb="give up")
            given = True
        finally:
            if self.held.get(shard) is held:
                self._gone.append(self._drop(shard))
                if given:
                    del self._marks[shard]

    async def go(self) -> None:
        """Give up everything, and be nobody's member."""
        for shard in list(self.held):
            await self.give(shard)
        args = (self._name, "", self._incarnation)
        await self._link.run(STRIKE, [self._home.roster(self._group)], *args, verb="leave")

    def _drop(self, shard: Shard) -> Shard:
        """Own it no more; remember where it stood."""
        held = self.held.pop(shard)
        self._groups.heart.remove(held.pulse)
        self._marks[shard] = held.mark
        self.yielding.pop(shard, None)
        return shard

    async def _mend(self, missing: list[Shard], now: float) -> None:
        """Make anew what the server has lost; what others owned, when they have not for a lease."""
        for shard in missing:
            if (held := self.held.get(shard)) is not None:
                held.pulse.struck = True  # the next look makes it anew, from where it stands here
        missing = [shard for shard in missing if shard not in self.held]
        self._missing = {shard: self._missing.get(shard, now) for shard in missing}
        due = [
            shard
            for shard, since in self._missing.items()
            if shard in self._marks or now - since >= self._options.lease
        ]
        made = [shard for shard in due if await self.found([shard], OLDEST)]
        known = [shard for shard in made if shard in self._marks]
        if made:
            text_ = (
                f"{len(made)} shards of group {self._group!r} were lost with what was committed, "
                f"and have been made anew: {len(known)} where this member knows them to stand, if "
                f"the stream is the same, the others from the oldest event"
            )
            self._signal("group-lost", text_, len(made))

    async def _shrink(self, surplus: int, now: float) -> None:
        """Name what is above the share; give up what was named a lease ago."""
        named = [shard for shard in self.yielding if shard in self.held]
        named += [shard for shard in reversed(self.held) if shard not in named]
        self.yielding = {shard: self.yielding.get(shard, now) for shard in named[:surplus]}
        late = [s for s, since in self.yielding.items() if now - since >= self._options.lease]
        for shard in late:
            await self.give(shard)

    async def _begins(self, shard: Shard, start: Start) -> str:
        """Behind what a new group begins; ``$``: behind the end, as the server finds it."""
        if start.kind != "oldest" and shard.of > 1:
            base = self._home.positions
            if await self._link.call("HEXISTS", base, self._group, verb="join a group of"):
                return "0-0"  # it was there before the stream was: everything is new to it
        if start.kind == "newest":
            return "$"
        raw = await start_id(self._link, shard, start)
        return raw.decode() if b"-" in raw else f"{raw.decode()}-0"

    async def _found(self, shard: Shard, start: str) -> bytes:
        """Make a shard, unless it is there; where this member remembers it, from there."""
        keys, mark = self.keys(shard), self._marks.get(shard)
        names = [keys.stream, keys.share(self._group), keys.positions, keys.meta]
        args = (self._group, start, secrets.token_hex(8), *(mark or ("", "0-0", 0)))
        reply = await self._link.run(FOUND, names, *args, verb="join a group of", key=keys.stream)
        if reply[0] == b"events":
            raise ConfigError(
                f"a group shares either single events or whole shards, and {self._group!r} of "
                f"{self._stream!r} shares events; choose another name, or share='events'"
            )
        if reply[0] == b"sharded":
            raise ShardsCame(self._stream)
        return reply[0]

    async def _take(self, shard: Shard, beat: str) -> bool:
        """Own a shard, if nobody was quicker."""
        keys, sent = self.keys(shard), self._clock.monotonic()
        share = keys.share(self._group)
        names = [keys.stream, share, keys.positions]
        args = (self._group, self._name, self._incarnation, beat)
        reply = await self._link.run(TAKE, names, *args, verb="own a shard of", key=keys.stream)
        if reply[0] != b"taken":
            return False
        held = Held(shard, keys, self._incarnation, self._pulse(share, BEAT_FIELD, sent))
        self.held[shard] = held
        self._marks.pop(shard, None)
        self._fill(held, reply)
        self._came.append(shard)
        return True

    def _fill(self, held: Held, reply: list[Any]) -> None:
        _, epoch, position, was_kept, state, notes, age, counted, count, last, added, other = reply
        committed = Position.of(position) if was_kept else None
        held.ownership = Ownership(
            int(epoch), Position.of(position), committed, state, notes, age / 1000
        )
        held.mark = Mark(position, last, int(added))
        known = Position.of(counted) if counted else None
        unread = Unread(Position.of(position), Position.of(last), known, int(count or 0))
        replay = held.keys.replay(self._group)
        nothing = Unread(NOWHERE, NOWHERE, None, 0)
        held.places = [
            Place(held.keys.stream, held.shard, int(epoch), position, unread),
            Place(replay, held.shard._replace(replay=True), int(epoch), b"0-0", nothing),
        ]
        if other:
            text_ = (
                f"{self._stream!r} is another stream by now than the one that group "
                f"{self._group!r} has read; it is read from its oldest event"
            )
            self._signal("group-lost", text_, None)

    def _pulse(self, key: str, field: str, now: float) -> Pulse:
        lease, hold = self._options.lease, self._options.hold
        pulse = Pulse(key, field, self._incarnation, lease, hold, now)
        self._groups.heart.add(pulse, self._wake)
        return pulse
