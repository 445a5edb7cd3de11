"""StreamShare: one stream's shards, as far as this member owns them.

Does        fetch; follow what comes and goes; give up what others are due, when nothing of it is in
            a hand; commit.
Does not    judge failures or watch the time: `shard_membership.py` does, for all streams.
Invariants  1. of a shard that is to be given up nothing is handed out any more; it goes when what
               was in a hand is done and committed.
            2. one commit of a shard at a time; what is not confirmed is sent again as it was.
            3. what came of a lost shard is dropped: its new owner repeats it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from penstock.clock import Backoff, Clock, set_within
from penstock.errors import BackendError, BackendUnavailable, LeaseLost
from penstock.event import OLDEST, Event, Shard
from penstock.ports import MemberOptions, Page, Rebalanced, ShardMember, ShardsCame
from penstock.streams.ending import Ending
from penstock.streams.format import ShardOrigin
from penstock.streams.shard_work import ShardWork

if TYPE_CHECKING:
    from penstock.streams.stream import Stream

T = TypeVar("T")

_FULL: Final = 0.1
"""Seconds between looks after the shards while there is no room for more events."""


_NEAR: Final = 0.2
"""Seconds that a fetch waits where all may have been read: for what was taken back of the dead."""


class Shelf(Protocol[T]):
    """What all streams of a member share. `ShardMembership` is one.

    `resting`: whether the program hangs, so that the member is due no shard.
    """

    resting: bool

    def room(self) -> tuple[int, int]:
        """How many events to fetch next, and for how many more there is room."""
        ...

    def crowded(self, work: ShardWork[T]) -> bool:
        """Whether so much of a shard waits that nothing more of it is fetched."""
        ...

    async def arrived(self, work: ShardWork[T], events: list[Event[T]]) -> None:
        """Events of a shard came that may be handed out."""
        ...

    def withdraw(self, work: ShardWork[T]) -> list[Event[T]]:
        """Take what is of *work* out of the inbox."""
        ...

    def stays(self, work: ShardWork[T]) -> bool:
        """Whether something of *work* is in the inbox that cannot be taken out of it."""
        ...

    def again(self, events: list[Event[T]]) -> None:
        """These may be handed out after all."""
        ...

    def gone(self, work: ShardWork[T]) -> None:
        """A shard is not owned any more."""
        ...

    def rested(self) -> bool:
        """Whether nothing is left to hand out, and nothing in a hand may still come back."""
        ...

    def ended(self) -> None:
        """A stream has been read to its end."""
        ...

    def committed(self, count: int) -> None:
        """So many events are done and committed: there is room."""
        ...

    def missed(self, work: ShardWork[T], count: int) -> None:
        """So many events were done, and could not be committed."""
        ...


class StreamShare(Generic[T]):
    """One stream.

    Args:
        backend: whose port `own` makes the member.
        stream: which.
        group: the group's name.
        options: how the member behaves.
        shelf: what all streams share.
        clock: for pauses.
        room: set when there may be room again.
    """

    def __init__(  # noqa: PLR0917 - made by ShardMembership alone
        self,
        backend: Any,
        stream: Stream[T],
        group: str,
        options: MemberOptions,
        shelf: Shelf[T],
        clock: Clock,
        room: Callable[[], asyncio.Event],
    ) -> None:
        self._backend = backend
        self.stream = stream
        self._group = group
        self._options = options
        self._shelf = shelf
        self._clock = clock
        self._room = room
        self._member: ShardMember | None = None
        self._ending: Ending | None = None
        self._committing = asyncio.Lock()
        self._asked_at = 0.0
        self._joined = Shard(stream.name)
        self._pages: deque[Page] = deque()
        self.works: dict[Shard, ShardWork[T]] = {}
        self.ended = self.stopped = self._quiet = self._moves = False

    @property
    def member(self) -> ShardMember:
        """The member; it has joined."""
        assert self._member is not None
        return self._member

    @property
    def shards(self) -> list[Shard]:
        """Every shard of the stream, whoever owns it."""
        return [self.stream.shard(index) for index in range(self.stream.shards)]

    async def open(self, until: Any) -> None:
        """Become a member."""
        await self.stream.format()
        self._ending = await Ending.anchor(
            self._backend, self.shards, until, self._clock, shared=True
        )
        try:
            await self.join()
        except ShardsCame:  # between the look and now
            await self.stream.look_again()
            await self.open(until)

    async def came(self, count: int) -> None:
        """The stream is in so many shards now; see `opening.Closable.on_shards`."""
        if count > len(self.shards) or (count > 1 and self._joined.of == 1):
            await self.stream.look_again()
            self._moves = self._joined.of == 1

    async def join(self) -> None:
        """Become a member, again after `leave`."""
        self._joined = self.shards[0]
        self._member = await self._backend.own(self._joined, self._group, self._options)
        if self._shelf.resting:
            self.member.rest(True)

    async def run(self) -> None:
        """Fetch, and look after the shards, also behind the end; raises what cannot be mended."""
        backoff = Backoff()
        while True:
            try:
                if self._moves:
                    await self._move_over()
                if not self.ended and await self._ended():
                    self.ended = True
                    self._shelf.ended()
                if self.stopped:
                    await self._wind_down()
                    return
                await self._step()
                backoff.reset()
            except BackendUnavailable:
                assert self._ending is not None
                self._ending.busy()
                await self._clock.sleep(backoff.next())

    async def commit(self) -> None:
        """Commit what is done, and wait until it is confirmed.

        Raises:
            BackendError: not confirmed; the next call sends the same again.
        """
        for work in list(self.works.values()):
            await self.commit_of(work)

    async def commit_of(self, work: ShardWork[T]) -> None:
        """The same, of one shard; it may be lost by that."""
        while work.changed and self.works.get(work.shard) is work:
            await self._commit(work)

    async def leave(self) -> None:
        """Commit, and give up every shard."""
        await self.commit()
        await self.member.leave()
        for shard in list(self.works):
            self._drop(shard)

    def abandon(self) -> None:
        """Go without a word: others take over after a lease."""
        if self._member is not None:
            self._member.abandon()
        for shard in list(self.works):
            self._drop(shard)

    async def _move_over(self) -> None:
        """The stream was not there, and is in shards now: leave the one, share the others."""
        assert self._ending is not None
        await self.leave()
        self._ending.passed(Shard(self.stream.name))
        self._options = self._options._replace(start=OLDEST)  # it is all new to the group
        await self.join()
        self._moves = False

    async def _step(self) -> None:
        """Fetch once, and do what that calls for."""
        assert self._ending is not None
        await self._take_in()
        limit, more = (0, 0) if self.ended else self._shelf.room()
        if not limit:
            self._ending.busy()
            room = self._room()
            room.clear()
            await set_within(room, min(_FULL, self._options.lease / 8))
        began = self._clock.monotonic()
        near = _NEAR if self._ending.reached() else self._ending.wait()
        wait = near if limit else 0.0
        try:
            pages = await self.member.fetch(limit, wait, max(0, more - limit), self._paused())
        except Rebalanced as change:
            self._quiet = False
            self._follow(change)
            return
        self._quiet = not pages and limit > 0
        if self._quiet:
            self._ending.nothing_came(began)
        self._pages.extend(pages)
        await self._take_in()
        await self._give_up()

    def _paused(self) -> set[Shard]:
        """Shards of which nothing more is wanted now, or at all."""
        assert self._ending is not None
        ended = self._ending.past(self.works)
        crowded = [work.shard for work in self.works.values() if self._shelf.crowded(work)]
        return {*ended, *crowded, *(shard._replace(replay=True) for shard in crowded)}

    async def _take_in(self) -> None:
        """Take in what was fetched; kept where that fails, for it is not fetched again."""
        while self._pages:
            page = self._pages[0]
            form = await self.stream.format()  # known, but for the first events of a stream
            work = self.works.get(page.shard._replace(replay=False))
            if work is not None and work.epoch == page.epoch:
                work.origin.read_as(form)
                work.replay_origin.read_as(form)
                await self._take_in_page(work, page)
            self._pages.popleft()

    async def _take_in_page(self, work: ShardWork[T], page: Page) -> None:
        assert self._ending is not None
        shard, now = work.shard, self._clock.monotonic()
        events = work.take_in(page, now)
        if not page.shard.replay:
            wanted = self._ending.cut(shard, events)
            if len(wanted) < len(events):  # behind the end: they stay open, and go with the shard
                kept = set(map(id, wanted))
                work.beyond += [event for event in events if id(event) not in kept]
            events = wanted
        await self._shelf.arrived(work, events)

    def _follow(self, change: Rebalanced) -> None:
        """Shards came or went."""
        for shard in change.lost:
            self._drop(shard)
        owned, name, now = self.member.owned, self.stream.name, self._clock.monotonic()
        for shard in change.gained:
            if shard in owned:
                self._drop(shard)
                own, replayed = (ShardOrigin(name, shard.index) for _ in range(2))
                self.works[shard] = ShardWork(shard, owned[shard], own, replayed, now)

    def _drop(self, shard: Shard) -> None:
        work = self.works.pop(shard, None)
        if work is not None:
            self._shelf.withdraw(work)
            self._shelf.gone(work)

    async def _give_up(self) -> None:
        """Release what others are due, once nothing of it is in a hand."""
        yielding = self.member.yielding
        for shard, work in list(self.works.items()):
            if shard in yielding:
                work.back += self._shelf.withdraw(work)
                work.yielding = True
                if work.in_hand <= 0 and not self._shelf.stays(work):
                    await self.commit_of(work)
                    if self.works.get(shard) is work and work.in_hand <= 0:
                        await self.member.release(shard)
            elif work.yielding:
                work.yielding = False
                back, work.back = work.back, []
                self._shelf.again(work.lanes.admit(back))

    async def _wind_down(self) -> None:
        """Hand out nothing more; give up each shard when nothing of it is in a hand.

        What is given up is nobody's until others are due more: so this member is due nothing.
        """
        self.member.rest(True)
        while self.works:
            for work in list(self.works.values()):
                work.back += self._shelf.withdraw(work)
                if work.in_hand <= 0:
                    await self.commit_of(work)
                    if work.in_hand <= 0:
                        await self.member.release(work.shard)
                        self._drop(work.shard)
            room = self._room()
            room.clear()
            await set_within(room, _FULL)
        await self.member.leave()

    async def _commit(self, work: ShardWork[T]) -> None:
        async with self._committing:
            todo = work.next_commit(self._clock.monotonic())
            if todo is None or self.works.get(work.shard) is not work:
                return
            position, along = todo
            try:
                await self.member.commit(work.shard, work.epoch, position, work.state, along)
            except LeaseLost:
                self._drop(work.shard)
                self._shelf.missed(work, work.done - work.confirmed)
                return
            self._shelf.committed(work.committed())

    async def _ended(self) -> bool:
        """Whether all that was to be read is handed out, by this member or by others."""
        ending = self._ending
        assert ending is not None
        if not ending.targets:
            return ending.reached() and self._quiet and self._shelf.rested()
        now = self._clock.monotonic()
        if now >= self._asked_at:
            self._asked_at = now + 0.2
            for shard, target in list(ending.targets.items()):
                try:
                    done = await self.member.progress(shard)
                    left = await self._backend.read_range(shard, done, target, 2, False)
                except BackendError:
                    continue
                ids = [entry[0] for entry in left]
                if not ids or (done is not None and ids == [done.raw]):
                    ending.passed(shard)
        return False
