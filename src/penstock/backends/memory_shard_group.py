"""A group that shares shards, in memory: who owns which, and what was committed.

Does        join and strike members, spread shards, fence commits, keep what goes with a position.
Does not    read, wait or beat: `memory_shards` does.
Invariants  1. an epoch is never used twice: it comes from the store's numbers.
            2. every verb is one step under the store's lock.
Used by     memory, memory_shards, memory_store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from penstock.backends.memory_log import ZERO, Key, StoredLog, padded
from penstock.backends.memory_members import Tenant
from penstock.event import Position, Shard
from penstock.info import GroupInfo, MemberInfo
from penstock.ports import Ownership
from penstock.rules.shares import fair_shares


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

    def rest(self, tenant: Tenant, resting: bool) -> None:
        """A member is due no shard, or its share again."""
        tenant.resting = resting
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
        resting = [name for name, tenant in self.members.items() if tenant.resting]
        return fair_shares({name: owned[name] for name in self.members}, len(self.slots), resting)

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

    def place(self, index: int, start: Key) -> None:
        """Set a shard elsewhere: nothing is kept of it, and whoever owned it owns it no more."""
        epoch = self.slots[index].epoch
        self.slots[index] = Slot(start)
        self.slots[index].epoch = epoch
        self.version += 1

    def info(self, name: str, shard: Shard, log: StoredLog, now: float, time: float) -> GroupInfo:
        """The group as it stands in one shard: it keeps no list of what is pending."""
        slot = self.slots[shard.index]
        done = slot.committed or slot.start
        dead = log.dead.get(name)
        following: int = log.behind(done, 0).start
        lag = len(log.keys) - following
        since: float = log.keys[following][0] / 1000 if lag else time
        return GroupInfo(
            name=name,
            shard=shard,
            lag=lag,
            pending=0,
            parked=0,
            last=None if done == ZERO else Position(done),
            members=self._listed(shard.index, now),
            lag_seconds=max(0.0, time - since),
            dead=len(dead.keys) if dead else 0,
            deliveries=log.added - lag,
        )

    def _listed(self, index: int, now: float) -> tuple[MemberInfo, ...]:
        """The owner of a shard; those that own none are listed beside the first."""
        busy = {slot.owner.name for slot in self.slots if slot.owner is not None}
        owner = self.slots[index].owner
        return tuple(
            MemberInfo(
                one.name,
                0,
                now - one.active,
                one.beating(now),
                resting=one.resting,
                standby=one.name not in busy,
            )
            for one in self.members.values()
            if one is owner or (index == 0 and one.name not in busy)
        )

    def needed(self, index: int) -> Key:
        """The first key that the group still needs: acked-only trimming leaves it, and the rest."""
        slot = self.slots[index]
        done = slot.committed or slot.start
        return (done[0], done[1] + 1)


class Slot:
    """One shard of a group: who owns it in which epoch, and what was committed."""

    def __init__(self, start: Key) -> None:
        self.start = start
        self.owner: Tenant | None = None
        self.epoch = 0
        self.committed: Key | None = None
        self.state: bytes | None = None
        self.notes = b""
        self.kept = 0.0

    def ownership(self, now: float) -> Ownership:
        """What its owner has to know, *now* by the monotonic clock."""
        if self.committed is None:
            return Ownership(self.epoch, Position(self.start), None, None)
        age, position = max(0.0, now - self.kept), Position(self.committed)
        return Ownership(self.epoch, position, position, self.state, self.notes, age)

    def keep(self, position: Key, state: bytes | None, notes: bytes, now: float) -> None:
        """Keep a position and what goes with it."""
        self.committed, self.state = padded(position, 0), state
        self.notes, self.kept = notes, now
