"""RedisMember: one member of a group that shares events.

Does        fetch what is this member's to handle: its own pending events, parked ones that are
            due, those of the dead, new ones; ack, park and leave through the backend's scripts.
Does not    hold events, count room, or decide when an event was held too long: `streams` does.
Invariants  1. new events are read on a connection of its own; what was read when a reply was lost
               is found in the pending list after the reconnect.
            2. a dead member's events are taken by a script that is given the beat that was seen.
            3. after a lapse, the next fetch raises MemberLapsed, and acks are owner-checked.
            4. a blocking read that a fetch did not wait for is not lost: the next fetch has it.
Source      Redis XREADGROUP, XPENDING, XCLAIM; DESIGN.md, "Members are leased, not events".
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from penstock.backends.redis.beats import family_of
from penstock.backends.redis.edge import ConnectionLost, ReplyError, mapped
from penstock.backends.redis.joining import (
    Naming,
    Replays,
    join_replay,
    new_incarnation,
    take_names,
)
from penstock.backends.redis.keys import Keys, as_stored, stream_key
from penstock.backends.redis.link import Link
from penstock.backends.redis.outcomes import Outcomes
from penstock.backends.redis.pulses import Pulses
from penstock.backends.redis.reads import Reads
from penstock.backends.redis.recovery import Mark
from penstock.backends.redis.replies import by_name, pages, plain, position_or_none, text
from penstock.backends.redis.scripts import PAGE
from penstock.backends.redis.takeovers import Takeovers
from penstock.errors import BackendError, LeaseLost, NotFound
from penstock.event import Position, Shard, Start
from penstock.ports import Death, GroupVanished, MemberLapsed, MemberOptions, Page
from penstock.signals import Kind, Signal

if TYPE_CHECKING:
    from penstock.backends.redis.groups import RedisGroups


class RedisMember:
    """One member. Made by `RedisGroups.join`."""

    def __init__(  # noqa: PLR0917 - made by RedisGroups.join alone
        self,
        groups: RedisGroups,
        own: Link,
        shards: Sequence[Shard],
        group: str,
        name: str,
        options: MemberOptions,
        incarnation: str,
    ) -> None:
        self._groups = groups
        self._link = groups.link
        self._own = own
        self._shards = {as_stored(stream_key(shard)): shard for shard in shards}
        self._keys = {shard: Keys.of(shard) for shard in shards}
        self._group = group
        self._name = name
        self._options = options
        self._incarnation = incarnation
        self._takeovers = Takeovers(groups, self._keys, group, name, options, self._signal)
        self._wake = asyncio.Event()
        self._pulses = Pulses(groups, name, options, self._wake)
        care = self._takeovers.recovery
        family = family_of(incarnation)
        self._outcomes = Outcomes(groups.link, group, name, family, care.tell_pending)
        head = ("XREADGROUP", "GROUP", group, name)
        ways = (own, groups.link, groups.clock, self._wake)
        self._reads = Reads(*ways, head, options.noack, care.checks, care.checked)
        self._replays = Replays(groups, group, name, options.lease)
        self._keeping: asyncio.Task[None] | None = None
        self._tidying, self._parts = asyncio.Lock(), asyncio.Lock()
        self._parting: deque[tuple[Shard, Keys, str]] = deque()
        self._gone = self._rests = False

    @property
    def name(self) -> str:
        """The consumer's name."""
        return self._name

    @property
    def marks(self) -> dict[Shard, Mark]:
        """Up to where each group has acked everything, as this member last saw it."""
        return self._takeovers.recovery.marks

    @property
    def lapsed(self) -> bool:
        """Whether this incarnation is over."""
        return self._takeovers.lapsed or self._pulses.lapsed

    def begin(self, *, used: bool) -> None:
        """Beat from now on; *used*: the name may have pending events, which come first."""
        for shard, keys in self._keys.items():
            self._pulses.add(shard, keys.beats(self._group), self._incarnation)
        self._takeovers.begin(self._incarnation, used=used)
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._takeovers.keep(self.lapse, self._tidy))

    @property
    def good_until(self) -> float:
        """See `ports.EventMember.good_until`."""
        return self._pulses.good_until

    def lapse(self) -> None:
        """See `ports.EventMember.lapse`."""
        self._pulses.lapse()

    def tell_known(self, known: Callable[[Shard], Container[bytes]]) -> None:
        """See `ports.EventMember.tell_known`."""
        self._takeovers.known = known

    async def fetch(
        self, limit: int, wait: float, ahead: int = 0, *, new: bool = True
    ) -> Sequence[Page]:
        """See `ports.EventMember.fetch`."""
        try:
            return await self._fetch(limit, wait, ahead, new)
        except GroupVanished:
            self.lapse()  # the next fetch begins anew, when it can
            raise

    async def _fetch(self, limit: int, wait: float, ahead: int, new: bool) -> Sequence[Page]:
        clock = self._groups.clock
        async with self._tidying:
            self._rests = False
        deadline = clock.monotonic() + wait
        while True:
            if self.lapsed:
                await self._begin_anew()
                raise MemberLapsed(f"member {self._name!r} was taken for dead")
            with mapped(self._own.address.place, verb="read", key=self._any_key()):
                try:
                    await self._join_replays()
                    if found := await self._takeovers.find(
                        min(limit, PAGE), quiet=not self._reads.under_way
                    ):
                        return plain(found)
                    pause = min(deadline, self._takeovers.next_look) - clock.monotonic()
                    found = await self._new(limit, max(0.0, pause), ahead, new)
                except ReplyError as error:
                    await self._on_refusal(error)
                    continue
                except BackendError as error:
                    if not isinstance(error.__cause__, ReplyError):
                        raise
                    await self._on_refusal(error.__cause__)
                    continue
            if found or clock.monotonic() >= deadline:
                return plain(found)

    async def ack(self, shard: Shard, ids: Sequence[bytes], *, fenced: bool = False) -> int:
        """See `ports.EventMember.ack`. May be called again when the outcome is not known."""
        if (keys := self._keys.get(shard)) is None:
            return 0
        if fenced or shard.replay or self._may_be_dead():
            return await self._outcomes.ack_own(keys, ids, replayed=shard.replay)
        return await self._outcomes.ack(keys, ids)

    async def park(
        self,
        shard: Shard,
        ids: Sequence[bytes],
        delay: float,
        *,
        failed: bool,
        company: int = 0,
        most: int = 0,
    ) -> Sequence[bytes]:
        """See `ports.EventMember.park`."""
        if (keys := self._keys.get(shard)) is None:
            return []
        how = (delay, company if failed else -1, most)
        return await self._outcomes.park(shard, keys, ids, *how)

    async def bury(self, shard: Shard, deaths: Sequence[Death]) -> Sequence[bytes]:
        """See `ports.EventMember.bury`."""
        if (keys := self._keys.get(shard)) is None:
            return []
        dead = Keys.of(shard._replace(replay=False)).letters(self._group)
        return await self._outcomes.bury(keys, dead, shard, deaths)

    async def rest(self) -> None:
        """See `ports.EventMember.rest`."""
        self._rests = True
        async with self._tidying:
            with suppress(NotFound):  # the group is gone: the next fetch meets it too, and mends it
                await self._end_read()
                for page in self._given():
                    await self._hand_back(page)
                await self._hand_back_strays()

    async def add(self, shards: Sequence[Shard], start: Start | None = None) -> None:
        """See `ports.EventMember.add`."""
        await self._part()  # what was left before may be among them
        new = [shard for shard in shards if shard not in self._keys]
        try:
            for shard in new:
                made = await self._groups.make(shard, self._group, start or self._options.start)
                self.marks[shard] = made
            who = (self._group, self._name, self._incarnation, self._options.lease)
            await take_names(self._groups, new, *who)
            for shard in new:
                self._sit(shard, used=self._options.name is not None)
            await self._reads.end()
        except BaseException:  # all or nothing
            self._leave_shards(new)
            raise

    async def remove(self, shards: Sequence[Shard]) -> None:
        """See `ports.EventMember.remove`."""
        self._leave_shards(shards)
        await self._part()

    async def progress(self, shard: Shard) -> Position | None:
        """See `ports.EventMember.progress`."""
        reply = await self._link.call(
            "XINFO", "GROUPS", stream_key(shard), verb="describe", key=shard.stream
        )
        for about in map(by_name, reply):
            if text(about["name"]) == self._group:
                return position_or_none(about["last-delivered-id"])
        return None

    async def leave(self) -> None:
        """See `ports.EventMember.leave`."""
        self._gone = True
        try:
            await self._end_read()
            given = self._takeovers.may_be_given
            for shard, keys in self._keys.items():
                await self._outcomes.hand_back(shard, keys, self._incarnation, given=given)
            await self._part()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """See `ports.EventMember.abandon`."""
        self._gone = True
        self._pulses.stop()
        if self._keeping is not None:
            self._keeping.cancel()
        self._own.close()

    async def _new(self, limit: int, wait: float, ahead: int, fresh: bool) -> list[Page]:
        """New events; the read goes on in the background when *wait* is over."""
        reads = self._reads
        wire = await self._own.wire() if fresh and not reads.under_way else None
        if not reads.under_way and (wire is None or self._pulses.may_be_dead()):
            await self._groups.clock.sleep(wait)  # who may be dead: the heart will say
            return []
        if wire is not None:
            reads.send(wire, list(self._names()), limit)
        if not await reads.answered(wait):
            if reads.overdue:
                self._lost_contact()
            return []
        try:
            found = pages(reads.take(), self._shards)
        except ConnectionLost:
            self._lost_contact()
            raise
        busy = found and fresh and ahead >= limit and not self._takeovers.wants_quiet
        if busy and (wire := self._own.now) is not None and not self._pulses.may_be_dead():
            reads.send(wire, list(self._names()), limit)  # the server works while the program does
        return found

    def _given(self) -> list[Page]:
        """What a read that was ended was given."""
        if not self._reads.under_way:
            return []
        try:
            return pages(self._reads.take(), self._shards)
        except ConnectionLost:
            self._lost_contact()
        except ReplyError:
            pass  # the group may be gone: the next fetch meets it too
        return []

    async def _hand_back(self, page: Page) -> None:
        ids = [entry[0] for entry in page.entries]
        try:
            await self.park(page.shard, ids, 0.0, failed=False)
        except BaseException:
            self._takeovers.own_first()  # nobody else would look for what was not handed back
            raise

    async def _hand_back_strays(self) -> None:
        """Hand back what stands under our name alone: nobody else would look for it."""
        while not self._reads.under_way and (page := await self._takeovers.stray(PAGE)):
            await self._hand_back(page)

    def _leave_shards(self, shards: Sequence[Shard]) -> None:
        """Be no member there any more; what is pending there is handed back by `_part`."""
        for one in shards:
            for shard in (one, one._replace(replay=True)):
                if (keys := self._forget(shard)) is not None:
                    self._parting.append((shard, keys, self._incarnation))

    async def _end_read(self) -> None:
        """End the read that is under way; one that is not answered may be given events yet."""
        if not await self._reads.end():
            self._lost_contact()

    async def _part(self) -> None:
        """Hand back what is pending in the shards that were left; again, if that broke off."""
        async with self._parts:
            if self._parting:
                await self._end_read()
            while self._parting:
                given = self._takeovers.may_be_given
                await self._outcomes.hand_back(*self._parting[0], given=given)
                self._parting.popleft()

    async def _tidy(self) -> None:
        """Look again, while nobody fetches, for what an old read may have been given."""
        await self._part()
        if self._rests and not self._gone:
            async with self._tidying:
                if self._rests:
                    await self._hand_back_strays()

    def _names(self) -> Iterator[str]:
        return (keys.stream for keys in self._keys.values())

    async def _join_replays(self) -> None:
        """Be a member for what the group was handed back of its dead letters, once there is any."""
        replays = {shard._replace(replay=True) for shard in self._keys if not self._options.noack}
        missing = [shard for shard in replays if shard not in self._keys]
        for shard in await self._replays.joined(missing, self._incarnation):
            if shard._replace(replay=False) in self._keys:  # not left meanwhile
                self._sit(shard, used=True)
                await self._reads.end()

    def _sit(self, shard: Shard, *, used: bool) -> None:
        """Be a member of one more shard; *used*: it may have pending events under our name."""
        self._keys[shard] = keys = Keys.of(shard, self._group)
        self._shards[as_stored(keys.stream)] = shard
        self._takeovers.add(shard, used=used)
        self._pulses.add(shard, keys.beats(self._group), self._incarnation)

    def _forget(self, shard: Shard) -> Keys | None:
        """Be a member of one shard less; its keys, if it was one."""
        if (keys := self._keys.pop(shard, None)) is None:
            return None
        del self._shards[as_stored(keys.stream)]
        self._pulses.remove(shard)
        self._takeovers.remove(shard)
        return keys

    async def _on_refusal(self, error: ReplyError) -> None:
        """The group may be gone: make it anew where it had acked everything, and say so."""
        if error.code not in ("NOGROUP", "UNBLOCKED"):
            raise error
        for shard in list(self._keys):
            if shard.replay and not await join_replay(self._link, self._keys[shard], self._group):
                self._forget(shard)
        await self._takeovers.recovery.remake()

    async def _begin_anew(self) -> None:
        """A new incarnation under the same name; what the old one was reading is not used."""
        incarnation = new_incarnation(self._options.lease, family_of(self._incarnation))
        who = (self._group, self._name, self._options.lease)
        for shard in self._pulses.shards:
            if not await Naming(self._groups, shard, *who).taken(incarnation):
                raise LeaseLost(
                    f"member {self._name!r} of group {self._group!r} was taken for dead, and "
                    f"another has taken its name meanwhile; close this one"
                )
        self._incarnation = incarnation
        self._reads.drop()
        message = f"member {self._name!r} could not beat for a lease; it begins anew"
        self._signal("member-lapsed", message, next(iter(self._keys)), None)
        self.begin(used=True)

    def _lost_contact(self) -> None:
        """What the server gave us may not have come: look into our pending list."""
        self._reads.drop()
        self._takeovers.lost_contact()

    def _may_be_dead(self) -> bool:
        """Whether others may have taken what is ours."""
        return self.lapsed or self._pulses.may_be_dead()

    def _signal(self, kind: Kind, message: str, shard: Shard, count: int | None) -> None:
        self._groups.observers(Signal(kind, message, shard.stream, self._group, self._name, count))

    def _any_key(self) -> str:
        return next(iter(self._keys)).stream
