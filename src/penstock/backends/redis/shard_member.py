"""RedisShardMember: one member of a group that shares shards.

Does        fetch what its shards hold, in order; commit, give up and leave by fenced scripts.
Does not    know single events, or decide who owns what: `holdings.py` does.
Invariants  1. a page is handed out only while the shard's lease certainly holds.
            2. a commit names epoch and incarnation, and a number that grows: a late one, or one
               that is sent again, changes nothing.
            3. after a lapse everything is dropped, and owned anew in another epoch.
Source      Redis XREAD; DESIGN.md, "Members are leased, not events".
"""

from __future__ import annotations

import asyncio
from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING

from penstock.backends.letter_format import letter_parts, without_position
from penstock.backends.redis.edge import mapped
from penstock.backends.redis.held import Held, Mark
from penstock.backends.redis.holdings import Holdings
from penstock.backends.redis.joining import new_incarnation
from penstock.backends.redis.keys import Keys
from penstock.backends.redis.replies import position_or_none
from penstock.backends.redis.shard_joining import take_name
from penstock.backends.redis.shard_reading import Place, ShardReading
from penstock.backends.redis.shard_scripts import COMMIT, COMMIT_WITH_LETTERS
from penstock.backends.redis.wire import Arg
from penstock.errors import BackendUnavailable, ClosedError, LeaseLost, PenstockError
from penstock.event import Position, Shard
from penstock.ports import Along, MemberOptions, Ownership, Page, Rebalanced
from penstock.signals import Kind, Signal

if TYPE_CHECKING:
    from penstock.backends.redis.groups import RedisGroups


class RedisShardMember:
    """One member. Made by `RedisShardGroups.own`."""

    def __init__(
        self, groups: RedisGroups, stream: Shard, group: str, name: str, options: MemberOptions
    ) -> None:
        self._groups = groups
        self._link = groups.link
        self._clock = groups.clock
        self._stream = stream.stream
        self._group = group
        self._name = name
        self._options = options
        self._woken = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._holdings = Holdings(
            groups, stream, group, name, options, self._wake_from_thread, self._signal
        )
        own = groups.another_link()
        self._reading = ShardReading(own, self._link, self._clock, self._on_lost, self._on_other)
        self._others: list[Shard] = []
        self._turner: asyncio.TimerHandle | None = None
        self._gone = False

    @property
    def name(self) -> str:
        """The member's name."""
        return self._name

    @property
    def owned(self) -> Mapping[Shard, Ownership]:
        """See `ports.ShardMember.owned`."""
        return {shard: held.ownership for shard, held in self._holdings.held.items()}

    @property
    def yielding(self) -> Sequence[Shard]:
        """See `ports.ShardMember.yielding`."""
        return tuple(self._holdings.yielding)

    @property
    def good_until(self) -> float:
        """See `ports.ShardMember.good_until`."""
        return min((pulse.guard.good_until for pulse in self._holdings.pulses), default=0.0)

    @property
    def holdings(self) -> Holdings:
        """What it owns, for `RedisShardGroups.own`."""
        return self._holdings

    def begin(self, incarnation: str, now: float) -> None:
        """The name was taken at *now*: beat from now on."""
        self._holdings.begin(incarnation, now)
        self._turn()

    def lapse(self) -> None:
        """See `ports.ShardMember.lapse`."""
        for pulse in self._holdings.pulses:
            pulse.late = True
        self._woken.set()

    def rest(self, resting: bool) -> None:
        """See `ports.ShardMember.rest`."""
        self._holdings.rest(resting)
        self._woken.set()

    async def fetch(
        self, limit: int, wait: float, ahead: int = 0, paused: Container[Shard] = ()
    ) -> Sequence[Page]:
        """See `ports.ShardMember.fetch`. Cancelled: nothing is skipped."""
        deadline = self._clock.monotonic() + wait
        before = self.yielding
        while True:
            self._check_open()
            self._woken.clear()
            await self._look_after()
            now = self._clock.monotonic()
            if self.yielding != before:
                return []
            pause = max(0.0, min(deadline, self._holdings.next_look) - now)
            try:
                with mapped(self._link.address.place, verb="read", key=self._stream):
                    found = await self._reading.next(
                        self._places(paused), limit, pause, ahead, self._woken
                    )
            except BackendUnavailable:
                self._holdings.lost_contact()
                raise
            if found := self._good(found):
                return found
            if self._clock.monotonic() >= deadline:
                await asyncio.sleep(0)
                return []

    async def commit(
        self,
        shard: Shard,
        epoch: int,
        position: Position,
        state: bytes | None = None,
        along: Along | None = None,
    ) -> None:
        """See `ports.ShardMember.commit`."""
        along = along or Along()
        held = self._holdings.held.get(shard)
        if held is None or held.ownership.epoch != epoch:
            raise _not_owner(shard, epoch, position)
        asked = (position, state, along)
        if held.asked != asked:
            held.asked = asked
            held.number += 1
        status, *told = await self._link.run(
            COMMIT_WITH_LETTERS if along.burials else COMMIT,
            self._commit_keys(held.keys),
            *self._commit_args(held, position, state, along),
            verb="commit in",
            key=held.keys.stream,
        )
        if status == b"other":
            held.pulse.struck = True
            self._woken.set()
            raise _not_owner(shard, epoch, position)
        held.asked = None
        held.ownership = Ownership(epoch, position, position, state, along.notes)
        last, added = (told[0] or held.mark.last, told[1]) if told else held.mark[1:]
        held.mark = Mark(position.raw, last, added)

    async def release(self, shard: Shard) -> None:
        """See `ports.ShardMember.release`."""
        await self._holdings.give(shard)
        self._woken.set()

    async def progress(self, shard: Shard) -> Position | None:
        """See `ports.ShardMember.progress`."""
        keys = self._holdings.keys(shard)
        reply = await self._link.call(
            "HGET", keys.positions, self._group, verb="describe", key=keys.stream
        )
        return position_or_none(reply)

    async def leave(self) -> None:
        """See `ports.ShardMember.leave`."""
        if self._gone:
            return
        self._gone = True
        try:
            await self._holdings.go()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """See `ports.ShardMember.abandon`."""
        self._gone = True
        self._holdings.end()
        if self._turner is not None:
            self._turner.cancel()
        self._reading.close()
        self._woken.set()

    async def _look_after(self) -> None:
        """Begin anew where this incarnation is over; take and give up shards."""
        holdings = self._holdings
        if holdings.lapsed:
            await self._begin_anew()
            gained, lost = holdings.told()
        else:
            others, self._others = self._others, []
            for shard in others:  # its log is another one by now: own it anew, from there
                await holdings.give(shard)
            gained, lost = await holdings.look()
        if gained or lost:
            raise Rebalanced(gained, lost)

    async def _begin_anew(self) -> None:
        """A new incarnation under the same name; what the old one owned it does not own."""
        if self._holdings.pulses:  # else this is not the first try
            text = f"member {self._name!r} was taken for dead, or could not beat for a lease; "
            self._signal("member-lapsed", text + "it begins anew", None)
        self._holdings.end()
        incarnation, now = new_incarnation(self._options.lease), self._clock.monotonic()
        ours = self._holdings.is_ours
        self._holdings.tries(incarnation)
        try:
            await take_name(
                self._groups, self._stream, self._group, self._name, incarnation, 0.0, ours
            )
        except PenstockError:  # the next fetch tries again; what was owned is lost anyway
            _, lost = self._holdings.told()
            if lost:
                raise Rebalanced((), lost) from None
            raise
        self._holdings.begin(incarnation, now)

    def _places(self, paused: Container[Shard]) -> list[Place]:
        holdings = self._holdings
        return [
            place
            for shard, held in holdings.held.items()
            if shard not in holdings.yielding
            for place in held.places
            if place.shard not in paused
        ]

    def _good(self, found: list[Page]) -> list[Page]:
        """The pages of shards whose lease holds at this moment; else they are not ours to use."""
        if not found:
            return []
        if self._clock.monotonic() >= self.good_until:
            self.lapse()  # also where a beat is confirmed yet: what is dropped here was read
            return []
        return [
            page._replace(entries=without_position(page.entries)) if page.shard.replay else page
            for page in found
        ]

    def _commit_keys(self, keys: Keys) -> list[str]:
        group = self._group
        share, letters, replay = keys.share(group), keys.letters(group), keys.replay(group)
        return [keys.stream, share, keys.positions, letters, replay]

    def _commit_args(
        self, held: Held, position: Position, state: bytes | None, along: Along
    ) -> list[Arg]:
        counted = held.unread.kept(position)
        args: list[Arg] = [
            self._group,
            held.ownership.epoch,
            held.incarnation,
            held.number,
            position.raw,
            int(state is not None),
            state or b"",
            along.notes,
            counted[0].raw if counted else b"",
            counted[1] if counted else 0,
            len(along.replayed),
            *along.replayed,
        ]
        now = self._clock.time()
        for burial in along.burials:
            parts = letter_parts(burial, burial.id, now)
            args += [int(burial.replay), len(parts), *parts]
        return args

    def _turn(self) -> None:
        """The event loop turns: tell the thread that beats."""
        now = self._clock.monotonic()
        for pulse in self._holdings.pulses:
            pulse.turned = now
        every = min(1.0, self._options.lease / 4, self._options.hold / 4)
        if self._turner is not None:
            self._turner.cancel()
        if not self._gone:
            self._turner = self._loop.call_later(every, self._turn)

    def _on_lost(self, shard: Shard, count: int) -> None:
        text = (
            f"{count} events of {self._stream!r} were trimmed or removed before group "
            f"{self._group!r} had read them; they are lost to it"
        )
        self._signal("trimmed-pending", text, count)

    def _on_other(self, shard: Shard) -> None:
        self._others.append(shard)
        self._woken.set()

    def _wake_from_thread(self) -> None:
        """The loop may be closed by now."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._woken.set)

    def _check_open(self) -> None:
        if self._gone:
            raise ClosedError(f"member {self._name!r} of group {self._group!r} has left")

    def _signal(self, kind: Kind, message: str, count: int | None) -> None:
        signal = Signal(kind, message, self._stream, self._group, self._name, count)
        self._groups.observers(signal)


def _not_owner(shard: Shard, epoch: int, position: Position) -> LeaseLost:
    return LeaseLost(
        f"a commit must name the epoch that owns the shard, and {epoch} does not own shard "
        f"{shard.index} of {shard.stream!r} any more; drop what came of it, its owner repeats "
        f"from what was committed",
        positions=(str(position),),
    )
