"""Groups that share shards, in memory: the reference for `ports.ShardGroups`.

Does        give each shard to one living member, in order from what was committed, and keep what
            its owner commits.
Does not    know single events: a position stands for everything up to it.
Invariants  1. only the owner of the present epoch commits, and an epoch is never used twice.
            2. a shard is given up by its owner, or taken from the dead; never from the living.
            3. position and state change in one step.
Cost        per fetch: one pass over the owned shards. Shares are computed when members or owners
            have changed, not per fetch.
Used by     memory.
Source      Kafka's cooperative rebalance and generation fencing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from penstock.backends.memory_members import LeasedMember, Tenant
from penstock.backends.memory_store import Key, Place, Store, key_behind, padded
from penstock.errors import ConfigError, LeaseLost
from penstock.event import OLDEST, Position, Shard, Start
from penstock.ports import MemberOptions, Ownership, Page, Rebalanced
from penstock.rules.leases import LOOKS, LeaseWatch
from penstock.rules.shares import fair_shares


class MemoryShardMember(LeasedMember):
    """One member of a group that shares shards. Only the owner of an epoch can commit."""

    _team: ShardGroup
    _tenant: Tenant

    def __init__(self, place: Place, stream: Shard, group: str, options: MemberOptions) -> None:
        shards = tuple(Shard(stream.stream, index, stream.of) for index in range(stream.of))
        super().__init__(place, shards, group, options)
        self._stream = stream.stream
        self._begun = False
        self._read: dict[Shard, Key] = {}
        self._watch = LeaseWatch(options.lease)
        self._settled = 0
        self._turn = 0

    @property
    def owned(self) -> Mapping[Shard, Ownership]:
        """The shards that this member owns now."""
        with self._place.store.lock:
            slots = {shard: self._slot(shard) for shard in self._read}
            return {s: slot.ownership() for s, slot in slots.items() if slot.owner is self._tenant}

    async def fetch(self, limit: int, wait: float) -> Sequence[Page]:
        """The next entries of owned shards; see `ports.ShardMember.fetch`.

        Cancelled: nothing is skipped.

        Raises:
            Rebalanced: shards came or went, also because this member was taken for dead, or
                because the group was lost and made anew; `owned` is already the new state.
        """
        self._check_open()
        clock = self._place.clock
        deadline = clock.monotonic() + wait
        await asyncio.sleep(0)  # a fetch that never waits must not starve the beats of its loop
        while True:
            self._check_open()
            self._bell.clear()
            now = clock.monotonic()
            try:
                with self._place.store.lock:
                    pages = self._collect(limit, now)
            finally:
                self._tell()
            if pages or now >= deadline:
                return pages
            await self._bell.wait(clock, min(deadline, self._look_at) - now)

    async def commit(
        self, shard: Shard, epoch: int, position: Position, state: bytes | None = None
    ) -> None:
        """Everything up to *position* is done; kept with *state* in one step.

        Raises:
            LeaseLost: another epoch owns the shard; nothing was kept.
        """
        with self._place.store.lock:
            slot = self._slot(shard)
            if self._vanished() or slot.owner is not self._tenant or slot.epoch != epoch:
                raise LeaseLost(
                    f"a commit must name the epoch that owns the shard, got {epoch} for shard "
                    f"{shard.index} of {shard.stream!r}, owned in epoch {slot.epoch}; "
                    f"drop what came of it, its new owner repeats from what was committed",
                    positions=(str(position),),
                )
            slot.committed, slot.state = padded(position, 0), state

    def _collect(self, limit: int, now: float) -> list[Page]:
        self._raise_if_gone(now)
        self._tenant.active = now
        if now >= self._look_at:
            self._look(now)
        if self._settled != self._team.version:
            self._settle()
        self._turn += 1
        shards = list(self._read)
        turn = self._turn % len(shards) if shards else 0
        pages: list[Page] = []
        for shard in shards[turn:] + shards[:turn]:
            log = self._place.store.made(shard)
            at = log.behind(self._read[shard], limit)
            if entries := log.entries[at]:
                self._read[shard] = log.keys[at][-1]
                pages.append(Page(shard, entries, None, self._slot(shard).epoch))
                limit -= len(entries)
        return pages

    def _raise_if_gone(self, now: float) -> None:
        if self._vanished():
            text = "the group was lost with what was committed; made anew, it begins at the oldest"
            self._notice("group-lost", text, self._stream)
            self._begin(now)
        elif self._is_struck():
            self._lapse(now, "its heartbeat was struck")
        # What is still read from, and no longer owned, was taken: by `_lapse`, or just above.
        lost = [shard for shard in self._read if self._slot(shard).owner is not self._tenant]
        if lost:
            self._read = {s: key for s, key in self._read.items() if s not in lost}
            raise Rebalanced((), lost)

    def _look(self, now: float) -> None:
        others = {n: t.beat for n, t in self._team.members.items() if n != self._name}
        for name, value in self._watch.observe(now, others):
            count = self._team.strike(name, value)
            if count is not None:
                text = f"member {name!r} is dead: its heartbeat stood still for one lease; its "
                self._notice("member-taken-over", f"{text}{count} shards are free", self._stream)
                self._ring()
        death = self._watch.due(now)
        quarter = now + self._options.lease / LOOKS
        self._look_at = quarter if death is None else min(quarter, death)

    def _settle(self) -> None:
        """Give up what is over the fair share, take what is free below it."""
        team = self._team
        surplus = len(self._read) - team.shares()[self._name]
        lost = list(self._read)[len(self._read) - surplus :] if surplus > 0 else []
        gained = team.free(self._shards)[: max(0, -surplus)]
        for shard in lost:
            del self._read[shard]
            team.give_up(shard.index)
        for shard in gained:
            slot = team.take(shard.index, self._tenant, next(self._place.store.numbers))
            self._read[shard] = slot.committed or slot.start
        self._settled = team.version
        if lost or gained:
            self._ring()
            raise Rebalanced(gained, lost)

    def _slot(self, shard: Shard) -> Slot:
        return self._team.slots[shard.index]

    def _ring(self) -> None:
        self._place.store.ring_all(self._stream)

    def _group_now(self) -> ShardGroup | None:
        stream = self._place.store.streams.get(self._stream)
        return None if stream is None else stream.shard_groups.get(self._group)

    def _vanished(self) -> bool:
        return self._group_now() is not self._team

    def _begin(self, now: float) -> None:
        store, start = self._place.store, OLDEST if self._begun else self._options.start
        if not self._begun or self._vanished():
            self._team = self._made_team(store, start)
        self._new_incarnation(now)
        old = self._team.members.get(self._name)
        if old is not None:
            self._team.drop_member(old)
        self._tenant = Tenant(self._name, self._options.lease)
        self._team.join(self._tenant)
        self._sit(self._tenant, now)
        self._begun = True
        self._settled = 0
        self._look_at = now
        self._watch.reset()
        self._ring()

    def _made_team(self, store: Store, start: Start) -> ShardGroup:
        team = self._group_now()
        if team is None:
            slots = [Slot(key_behind(start, store.made(shard))) for shard in self._shards]
            team = ShardGroup(str(start), slots)
            store.streams[self._stream].shard_groups[self._group] = team
        elif len(team.slots) != len(self._shards):
            raise ConfigError(
                f"members of group {self._group!r} must agree on the shards of {self._stream!r}: "
                f"the group shares {len(team.slots)}, got {len(self._shards)}"
            )
        elif not self._begun and team.start != str(start):
            text = f"the group exists and goes on where it stands; {start} is not applied"
            self._notice("start-ignored", text, self._stream)
        return team

    def _seated(self) -> Iterator[Tenant | None]:
        if self._begun and not self._vanished():
            yield self._team.members.get(self._name)

    def _others(self) -> Mapping[str, Tenant]:
        group = self._group_now()
        tenant = None if group is None else group.members.get(self._name)
        return {} if tenant is None else {self._stream: tenant}

    def _give_back(self, now: float) -> None:
        if not self._vanished():
            self._team.drop_member(self._tenant)

    def _lapse(self, now: float, why: str) -> None:
        self._notice("member-lapsed", f"a new incarnation begins: {why}", self._stream)
        self._avoid_namesake()
        self._begin(now)
        self._bell.ring()


class Slot:
    """One shard of a group: who owns it in which epoch, and what was committed."""

    def __init__(self, start: Key) -> None:
        self.start = start
        self.owner: Tenant | None = None
        self.epoch = 0
        self.committed: Key | None = None
        self.state: bytes | None = None

    def ownership(self) -> Ownership:
        """What its owner has to know."""
        committed = None if self.committed is None else Position(self.committed)
        return Ownership(self.epoch, committed, self.state)


class ShardGroup:
    """One group of one stream. Pure: every verb is one step under the store's lock.

    `version` moves with every change of members or owners: who has settled it need not look again.
    """

    def __init__(self, start: str, slots: list[Slot]) -> None:
        self.start = start
        self.slots = slots
        self.members: dict[str, Tenant] = {}
        self.version = 0

    def join(self, tenant: Tenant) -> None:
        """Add a member; it owns nothing yet."""
        self.members[tenant.name] = tenant
        self.version += 1

    def drop_member(self, tenant: Tenant) -> int:
        """Strike a member off; how many shards are free by it."""
        if self.members.get(tenant.name) is tenant:
            del self.members[tenant.name]
        left = [slot for slot in self.slots if slot.owner is tenant]
        for slot in left:
            slot.owner = None
        self.version += 1
        return len(left)

    def strike(self, name: str, seen: str) -> int | None:
        """Take *name* for dead if its heartbeat still is *seen*; how many shards are free by it."""
        tenant = self.members.get(name)
        return None if tenant is None or tenant.beat != seen else self.drop_member(tenant)

    def shares(self) -> Mapping[str, int]:
        """How many shards each member should own."""
        owned = Counter(slot.owner.name for slot in self.slots if slot.owner is not None)
        return fair_shares({name: owned[name] for name in self.members}, len(self.slots))

    def free(self, shards: Sequence[Shard]) -> list[Shard]:
        """Those of *shards* that nobody owns."""
        return [shard for shard in shards if self.slots[shard.index].owner is None]

    def give_up(self, index: int) -> None:
        """Leave a shard to whoever is due for it."""
        self.slots[index].owner = None
        self.version += 1

    def take(self, index: int, tenant: Tenant, epoch: int) -> Slot:
        """Make *tenant* the owner of a free shard."""
        slot = self.slots[index]
        slot.owner, slot.epoch = tenant, epoch
        self.version += 1
        return slot

    def needed(self, index: int) -> Key:
        """The first key that the group still needs: acked-only trimming leaves it, and the rest."""
        slot = self.slots[index]
        done = slot.committed or slot.start
        return (done[0], done[1] + 1)
