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
from collections.abc import Container, Iterator, Mapping, Sequence

from penstock.backends.letter_format import letter_parts, without_position
from penstock.backends.memory_log import ZERO, Key, StoredLog, key_behind
from penstock.backends.memory_members import LeasedMember, Tenant
from penstock.backends.memory_shard_group import ShardGroup, Slot
from penstock.backends.memory_store import Place, Store
from penstock.errors import ConfigError, LeaseLost
from penstock.event import OLDEST, Position, Shard, Start
from penstock.ports import Along, MemberOptions, Ownership, Page, Rebalanced
from penstock.rules.leases import LOOKS, LeaseWatch


class MemoryShardMember(LeasedMember):
    """One member of a group that shares shards. Only the owner of an epoch can commit."""

    _team: ShardGroup
    _tenant: Tenant

    def __init__(self, place: Place, stream: Shard, group: str, options: MemberOptions) -> None:
        shards = tuple(Shard(stream.stream, index, stream.of) for index in range(stream.of))
        super().__init__(place, shards, group, options)
        self._stream = stream.stream
        self._begun = self._resting = False
        self._read: dict[Shard, Key] = {}
        self._replayed: dict[Shard, Key] = {}
        self._ownerships: dict[Shard, Ownership] = {}
        self._yielding: dict[Shard, float] = {}
        self._watch = LeaseWatch(options.lease)
        self._settled = 0
        self._turn = 0

    @property
    def owned(self) -> Mapping[Shard, Ownership]:
        """The shards that this member owns now."""
        with self._place.store.lock:
            return {s: kept for s, kept in self._ownerships.items() if self._owns(s)}

    @property
    def yielding(self) -> Sequence[Shard]:
        """See `ports.ShardMember.yielding`."""
        return tuple(self._yielding)

    @property
    def good_until(self) -> float:
        """See `ports.ShardMember.good_until`."""
        return self._guard.good_until

    def lapse(self) -> None:
        """See `ports.ShardMember.lapse`."""
        with self._place.store.lock:
            self._lapse(self._place.clock.monotonic(), "it said so")
        self._tell()

    def rest(self, resting: bool) -> None:
        """See `ports.ShardMember.rest`."""
        with self._place.store.lock:
            self._resting = resting
            self._team.rest(self._tenant, resting)
            self._ring()

    async def fetch(
        self, limit: int, wait: float, ahead: int = 0, paused: Container[Shard] = ()
    ) -> Sequence[Page]:
        """The next entries of owned shards; see `ports.ShardMember.fetch`.

        Cancelled: nothing is skipped.

        Raises:
            Rebalanced: shards came or went, also because this member was taken for dead, or
                because the group was lost and made anew; `owned` is already the new state.
        """
        self._check_open()
        clock = self._place.clock
        deadline = clock.monotonic() + wait
        before = self.yielding
        await asyncio.sleep(0)  # a fetch that never waits must not starve the beats of its loop
        while True:
            self._check_open()
            self._bell.clear()
            now = clock.monotonic()
            try:
                with self._place.store.lock:
                    pages = self._collect(limit, now, paused)
            finally:
                self._tell()
            if pages or now >= deadline or self.yielding != before:
                return pages
            await self._bell.wait(clock, min(deadline, self._look_at) - now)

    async def commit(
        self,
        shard: Shard,
        epoch: int,
        position: Position,
        state: bytes | None = None,
        along: Along | None = None,
    ) -> None:
        """Everything up to *position* is done; kept with *state*, and *along*, in one step.

        Raises:
            LeaseLost: another epoch owns the shard; nothing was kept.
        """
        clock, along = self._place.clock, along or Along()
        with self._place.store.lock:
            slot = self._slot(shard)
            if self._vanished() or slot.owner is not self._tenant or slot.epoch != epoch:
                raise LeaseLost(
                    f"a commit must name the epoch that owns the shard, got {epoch} for shard "
                    f"{shard.index} of {shard.stream!r}, owned in epoch {slot.epoch}; "
                    f"drop what came of it, its new owner repeats from what was committed",
                    positions=(str(position),),
                )
            self._bury(self._place.store.made(shard), along, clock.time())
            slot.keep(position, state, along.notes, clock.monotonic())
            self._ownerships[shard] = slot.ownership(clock.monotonic())

    def _bury(self, log: StoredLog, along: Along, time: float) -> None:
        """Keep dead letters, and remove from the replay log what is done."""
        replays = log.replays.get(self._group, StoredLog())
        rows: list[list[bytes]] = []
        for burial in along.burials:
            entry = replays.get(Position.of(burial.id)) if burial.replay else None
            position = burial.id if entry is None else entry[1][1]
            rows.append(letter_parts(burial, position, time))
        if rows:
            log.dead.setdefault(self._group, StoredLog()).append(rows, int(time * 1000))
        replays.remove(Position.of(one) for one in along.replayed)

    async def release(self, shard: Shard) -> None:
        """See `ports.ShardMember.release`."""
        with self._place.store.lock:
            if self._owns(shard):
                self._team.give_up(shard.index)
                self._ring()

    async def progress(self, shard: Shard) -> Position | None:
        """See `ports.ShardMember.progress`."""
        with self._place.store.lock:
            done = self._slot(shard).committed or self._slot(shard).start
            return None if done == ZERO else Position(done)

    def _owns(self, shard: Shard) -> bool:
        return shard in self._read and self._slot(shard).owner is self._tenant

    def _collect(self, limit: int, now: float, paused: Container[Shard]) -> list[Page]:
        self._raise_if_gone(now)
        self._tenant.active = now
        if now >= self._look_at:
            self._look(now)
        lease = self._options.lease
        if self._settled != self._team.version or any(
            now - since >= lease for since in self._yielding.values()
        ):
            self._settle(now)
        self._turn += 1
        shards = [s for s in self._read if s not in self._yielding]
        turn = self._turn % len(shards) if shards else 0
        pages: list[Page] = []
        for shard in shards[turn:] + shards[:turn]:
            slot, replay = self._slot(shard), shard._replace(replay=True)
            own = self._place.store.made(shard)
            replays = own.replays.get(self._group, StoredLog())
            for at, read, log in ((shard, self._read, own), (replay, self._replayed, replays)):
                if at in paused:
                    continue
                found = log.behind(read[at], limit)
                if entries := log.entries[found]:
                    read[at] = log.keys[found][-1]
                    entries = without_position(entries) if at.replay else entries
                    pages.append(Page(at, entries, None, slot.epoch))
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
            for shard in lost:
                self._forget(shard)
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

    def _settle(self, now: float) -> None:
        """Name what is over the fair share, give up what was named a lease ago, take what is free.

        What was named and is within the share again is kept.
        """
        team = self._team
        surplus = len(self._read) - team.shares()[self._name]
        named = [shard for shard in self._yielding if shard in self._read]
        named += [shard for shard in reversed(self._read) if shard not in named]
        named = named[: max(0, surplus)]
        self._yielding = {shard: self._yielding.get(shard, now) for shard in named}
        lost = [s for s, since in self._yielding.items() if now - since >= self._options.lease]
        gained = team.free(self._shards)[: max(0, -surplus)]
        for shard in lost:
            self._forget(shard)
            team.give_up(shard.index)
        for shard in gained:
            slot = team.take(shard.index, self._tenant, next(self._place.store.numbers))
            self._read[shard] = slot.committed or slot.start
            self._replayed[shard._replace(replay=True)] = ZERO
            self._ownerships[shard] = slot.ownership(now)
        self._settled = team.version
        if lost or gained:
            self._settled = 0  # by what it has changed it may be due another one
            self._ring()
            raise Rebalanced(gained, lost)

    def _forget(self, shard: Shard) -> None:
        """Read it no more."""
        del self._read[shard], self._replayed[shard._replace(replay=True)]
        self._ownerships.pop(shard, None)
        self._yielding.pop(shard, None)

    def _slot(self, shard: Shard) -> Slot:
        return self._team.slots[shard.index]

    def _ring(self) -> None:
        self._place.store.ring_all(self._stream)

    def _group_now(self) -> ShardGroup | None:
        stream = self._place.store.streams.get(self._stream)
        return None if stream is None else stream.sharing(self._shards[0]).get(self._group)

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
        self._tenant.resting = self._resting
        self._team.join(self._tenant)
        self._sit(self._tenant, now)
        self._begun = True
        self._settled = 0
        self._look_at = now
        self._watch.reset()
        self._ring()

    def _made_team(self, store: Store, start: Start) -> ShardGroup:
        team = self._group_now()
        store.check_join(self._shards[0])
        for shard in self._shards:
            log = store.log(shard)
            if log is not None and self._group in log.event_groups:
                raise ConfigError(
                    f"a group shares either single events or whole shards, and {self._group!r} of "
                    f"{self._stream!r} shares events; choose another name, or share='events'"
                )
        if team is None:
            logs = [store.made(shard) for shard in self._shards]
            stream = store.streams[self._stream]
            start = stream.start_of(self._shards[0], self._group, start)
            team = ShardGroup(str(start), [Slot(key_behind(start, log)) for log in logs])
            stream.sharing(self._shards[0])[self._group] = team
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
