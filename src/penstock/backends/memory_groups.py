"""Groups that share events, in memory: the reference for `ports.EventGroups`.

Does        hand each event to one living member at a time, until it is acked.
Does not    order events across members, or decide when handling failed: the API does.
Invariants  1. only the dead are robbed: a take-over is fenced by the heartbeat that was seen.
            2. nothing stands between taking events and returning them: a cancelled fetch has
               taken none.
Cost        per fetch: one pass over the shards; a look at the others every quarter lease.
Used by     memory.
Source      Redis' XREADGROUP, XACK, XCLAIM as the redis backend uses them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Container, Iterator, Mapping, Sequence

from penstock.backends.letter_format import without_position
from penstock.backends.memory_log import ZERO, Key, StoredLog, key_behind
from penstock.backends.memory_members import LeasedMember, Tenant
from penstock.backends.memory_pending import EventGroup, Holder
from penstock.backends.memory_store import Place
from penstock.errors import ConfigError
from penstock.event import OLDEST, Position, Shard, Start
from penstock.ports import Death, GroupVanished, MemberLapsed, MemberOptions, Page, ParkedFull
from penstock.rules.leases import LOOKS, STRUCK, LeaseWatch


class MemoryEventMember(LeasedMember):
    """One member of a group that shares events."""

    def __init__(
        self, place: Place, shards: Sequence[Shard], group: str, options: MemberOptions
    ) -> None:
        super().__init__(place, shards, group, options)
        self._seats: dict[Shard, Seat] = {}
        self._lapsed = False
        self._turn = 0

    @property
    def good_until(self) -> float:
        """For ever: who strikes a member here does it in the same process, and it knows at once."""
        return float("inf")

    def lapse(self) -> None:
        """Nothing: see `good_until`."""

    def tell_known(self, known: Callable[[Shard], Container[bytes]]) -> None:
        """Nothing: no reply is ever lost here."""

    async def fetch(
        self, limit: int, wait: float, ahead: int = 0, *, new: bool = True
    ) -> Sequence[Page]:
        """Events for this member, at most *limit*; see `ports.EventMember.fetch`."""
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
                    pages = self._collect(limit, now, new)
                    wake = self._wake_at(deadline, limit)
            finally:
                self._tell()
            if pages or now >= deadline:
                return pages
            await self._bell.wait(clock, wake - now)

    def ack(self, shard: Shard, ids: Sequence[bytes], *, fenced: bool = False) -> Awaitable[int]:
        """Ack events; how many were still pending. *fenced*: only those that are still its own."""
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        with self._place.store.lock:
            seat = self._seat_in_place(shard)
            owner = seat.holder if seat and fenced else None
            done.set_result(seat.group.ack(ids, owner) if seat else 0)
            if seat and shard.replay:
                _forget_acked(seat.group, ids)
        return done

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
        """Hand events back, due after *delay* seconds; see `ports.EventMember.park`."""
        with self._place.store.lock:
            seat = self._seat_in_place(shard)
            if seat is None:
                return []
            own = [entry_id for entry_id in ids if seat.group.holds(seat.holder, entry_id)]
            room = max(0, most - len(seat.group.parked.held)) if most else len(own)
            due = self._place.clock.monotonic() + delay
            kept = seat.group.park(seat.holder, own[:room], due, failed, company)
            self._place.store.ring(shard)
        if own[room:]:
            raise ParkedFull(kept, own[room:])
        return kept

    async def bury(self, shard: Shard, deaths: Sequence[Death]) -> Sequence[bytes]:
        """Move events to the dead letters; the ids that were still its own."""
        with self._place.store.lock:
            seat, log = self._seat_in_place(shard), self._place.store.log(shard)
            if seat is None or log is None:
                return []
            letters, time = log.dead.setdefault(self._group, StoredLog()), self._place.clock.time()
            bury, holder, replayed = seat.group.bury, seat.holder, shard.replay
            done = [
                (death.id, bury(holder, death, time, letters, replayed=replayed))
                for death in deaths
            ]
            lost = sum(buried is None for _, buried in done)
            if lost:
                self._notice_trimmed(shard, lost)
            if shard.replay:
                _forget_acked(seat.group, [death.id for death in deaths])
        self._tell()
        return [entry_id for entry_id, buried in done if buried is not False]

    async def rest(self) -> None:
        """Nothing: no read goes on when a fetch is over."""

    async def add(self, shards: Sequence[Shard], start: Start | None = None) -> None:
        """Be a member for *shards* too; see `ports.EventMember.add`."""
        clock, lease = self._place.clock, self._options.lease
        watch, deadline = LeaseWatch(lease), clock.monotonic() + lease
        new = [shard for shard in shards if shard not in self._seats]
        self._place.store.attach(self._bell, new)
        while new:
            now = clock.monotonic()
            with self._place.store.lock:
                bearers = {f"{s.stream}[{s.index}]": t for s in new if (t := self._bearer(s))}
                for at, _ in watch.observe(now, bearers):
                    del bearers[at]
                if not bearers:
                    self._shards += tuple(new)
                    for shard in new:
                        self._begin_at(shard, now, start or self._options.start)
                    break
            if now >= deadline:
                raise ConfigError(
                    f"a member name must be borne by one living member, and {self._name!r} lives "
                    f"in group {self._group!r} of {next(iter(bearers))}"
                )
            await clock.sleep(min(lease / LOOKS, deadline - now))
        self._tell()
        self._bell.ring()

    async def remove(self, shards: Sequence[Shard]) -> None:
        """Leave *shards*: hand back what is pending there, uncounted."""
        now = self._place.clock.monotonic()
        with self._place.store.lock:
            for shard in {*shards, *(shard._replace(replay=True) for shard in shards)}:
                self._give_back_at(shard, now)
                self._seats.pop(shard, None)
                self._place.store.ring(shard)
            self._shards = tuple(self._seats)

    async def progress(self, shard: Shard) -> Position | None:
        """Up to where the group has handed out; None: nothing yet."""
        with self._place.store.lock:
            seat = self._seat_in_place(shard)
            return Position(seat.group.last) if seat and seat.group.last != ZERO else None

    def _collect(self, limit: int, now: float, new: bool) -> list[Page]:
        self._raise_what_happened(now)
        self._join_replays(now)
        if now >= self._look_at:
            self._look(now)
        seats = list(self._seats.items())
        self._tell_lost_in_all()
        self._turn += 1
        turn = self._turn % len(seats)
        seats = seats[turn:] + seats[:turn]
        pages: list[Page] = []
        again = (Seat.backlogged, Seat.due, Seat.orphaned)
        for source in (*again, None) if new else again:
            for shard, seat in seats:
                page = (
                    self._new(shard, seat, limit, now)
                    if source is None
                    else self._again(shard, seat, source(seat, now), limit, now)
                )
                if page.entries:
                    pages.append(page)
                    limit -= len(page.entries)
        return pages

    def _new(self, shard: Shard, seat: Seat, limit: int, now: float) -> Page:
        noack = self._options.noack and not shard.replay
        entries = seat.group.give_new(seat.holder, limit, now, noack=noack)
        return Page(shard, without_position(entries) if shard.replay else entries)

    def _again(
        self, shard: Shard, seat: Seat, ids: Iterator[bytes], limit: int, now: float
    ) -> Page:
        given, lost = seat.group.give_again(seat.holder, ids, limit, now)
        if lost:
            self._notice_trimmed(shard, lost)
        entries = [row[1] for row in given]
        counts = [row[2] for row in given]
        return Page(shard, without_position(entries) if shard.replay else entries, counts)

    def _notice_trimmed(self, shard: Shard, lost: int) -> None:
        text = "pending events were trimmed or removed before they were acked"
        self._notice("trimmed-pending", text, shard.stream, lost)

    def _join_replays(self, now: float) -> None:
        """Be a member for what the group was handed back of its dead letters, once there is any."""
        for shard in list(self._seats):
            replay = shard._replace(replay=True)
            if replay not in self._seats and self._group_now(replay) is not None:
                self._shards += (replay,)
                self._begin_at(replay, now, OLDEST)

    def _beat(self, now: float) -> None:
        super()._beat(now)
        self._tell_lost_in_all()  # a member whose hands are full does not fetch

    def _tell_lost_in_all(self) -> None:
        for shard, seat in self._seats.items():
            if not shard.replay:
                self._tell_lost(shard, *seat.group.take_lost())

    def _tell_lost(self, shard: Shard, unread: int | None, parked: int) -> None:
        if unread != 0:
            text = "events were trimmed or removed before the group came to them"
            self._notice("trimmed-unread", text, shard.stream, unread)
        if parked:
            self._notice_trimmed(shard, parked)

    def _raise_what_happened(self, now: float) -> None:
        for shard, seat in list(self._seats.items()):
            if shard.replay and self._group_now(shard) is not seat.group:
                del self._seats[shard]  # dropped with its group; joined anew if there is another
                self._shards = tuple(self._seats)
            elif self._group_now(shard) is not seat.group:
                start = self._begin_at(shard, now, OLDEST).place
                text = f"the group was lost with all that was pending; made anew from {start}"
                self._notice("group-lost", text, shard.stream)
                raise GroupVanished(shard.stream, start)
        if self._is_struck():
            self._lapse(now, "its heartbeat was struck")
        if self._lapsed:
            self._lapsed = False
            raise MemberLapsed(f"member {self._name!r} of group {self._group!r} was taken for dead")
        for seat in self._seats.values():
            seat.holder.active = now

    def _look(self, now: float) -> None:
        deaths: list[float | None] = []
        for shard, seat in self._seats.items():
            seat.group.sweep()
            others = {n: t.beat for n, t in seat.group.members.items() if n != self._name}
            for name, value in seat.watch.observe(now, others):
                count = seat.group.strike(name, value)
                if count is not None:
                    text = f"member {name!r} is dead: its heartbeat stood still for one lease"
                    self._notice("member-taken-over", text, shard.stream, count)
                    self._place.store.ring(shard)  # the idle help to carry what it held
            deaths.append(seat.watch.due(now))
        quarter = now + self._options.lease / LOOKS
        self._look_at = min([quarter, *(at for at in deaths if at is not None)])

    def _wake_at(self, deadline: float, limit: int) -> float:
        # Without room nothing could be taken, so nothing that falls due is worth waking for.
        dues = [seat.group.next_due() for seat in self._seats.values()] if limit > 0 else []
        return min([deadline, self._look_at, *(due for due in dues if due is not None)])

    def _group_now(self, shard: Shard) -> EventGroup | None:
        log = self._log_now(shard)
        return None if log is None else log.event_groups.get(self._group)

    def _log_now(self, shard: Shard) -> StoredLog | None:
        log = self._place.store.log(shard)
        return log.replays.get(self._group) if log is not None and shard.replay else log

    def _bearer(self, shard: Shard) -> str | None:
        """The beat of whoever lives under this member's name."""
        group = self._group_now(shard)
        tenant = group.members.get(self._name) if group is not None else None
        return None if tenant is None or tenant.beat == STRUCK else tenant.beat

    def _seat_in_place(self, shard: Shard) -> Seat | None:
        seat = self._seats.get(shard)
        return seat if seat is not None and self._group_now(shard) is seat.group else None

    def _begin(self, now: float) -> None:
        self._new_incarnation(now)
        for shard in self._shards:
            self._begin_at(shard, now, self._options.start)

    def _begin_at(self, shard: Shard, now: float, start: Start) -> EventGroup:
        """Begin an incarnation there. Only a group that is new to everybody begins at *start*."""
        store = self._place.store
        if shard not in self._seats:
            store.check_join(shard)
        log = self._log_now(shard) or store.made(shard)
        group = log.event_groups.get(self._group)
        if group is None:
            start = store.streams[shard.stream].start_of(shard, self._group, start)
            group = EventGroup(log, str(start), self._place_in(log, self._seats.get(shard), start))
            log.event_groups[self._group] = group
        elif shard not in self._seats and group.start != str(start):
            text = f"the group exists and goes on where it stands; {start} is not applied"
            self._notice("start-ignored", text, shard.stream)
        holder = group.members.setdefault(self._name, Holder(self._name, self._options.lease))
        self._sit(holder, now)
        self._seats[shard] = Seat(group, holder, LeaseWatch(self._options.lease))
        self._look_at = now
        return group

    @staticmethod
    def _place_in(log: StoredLog, seat: Seat | None, start: Start) -> Key:
        """Behind which key the group begins.

        Only one that is new to its member begins where that says. Made anew after a loss, it goes
        on where everything was acked, or at the oldest of another log: nothing retained is skipped.
        """
        if seat is None:
            return key_behind(start, log)
        return seat.group.mark() if seat.group.log is log else ZERO

    def _seated(self) -> Iterator[Tenant | None]:
        for shard, seat in self._seats.items():
            if self._group_now(shard) is seat.group:
                yield seat.group.members.get(self._name)

    def _others(self) -> Mapping[str, Tenant]:
        groups = {shard: self._group_now(shard) for shard in self._shards}
        found = {
            f"{s.stream}[{s.index}]": g.members.get(self._name) for s, g in groups.items() if g
        }
        return {at: tenant for at, tenant in found.items() if tenant is not None}

    def _give_back(self, now: float) -> None:
        for shard in self._shards:
            self._give_back_at(shard, now)

    def _give_back_at(self, shard: Shard, now: float) -> None:
        seat = self._seat_in_place(shard)
        if seat is not None:
            seat.group.park(seat.holder, list(seat.holder.held), now, failed=False)
            del seat.group.members[self._name]

    def _lapse(self, now: float, why: str) -> None:
        self._notice("member-lapsed", f"a new incarnation begins: {why}", self._shards[0].stream)
        self._lapsed = True
        self._avoid_namesake()
        self._new_incarnation(now)
        for shard in self._shards:
            if self._seat_in_place(shard):  # a lost group is made anew by fetch, which says so
                self._begin_at(shard, now, OLDEST)
        self._bell.ring()


def _forget_acked(group: EventGroup, ids: Sequence[bytes]) -> None:
    """What was replayed is not kept any longer than anybody needs it."""
    group.log.remove(Position.of(entry_id) for entry_id in ids if not group.is_held(entry_id))


class Seat:
    """A member's side of one group: what it looks at, and what it was given before it began."""

    def __init__(self, group: EventGroup, holder: Holder, watch: LeaseWatch) -> None:
        self.group = group
        self.holder = holder
        self.watch = watch
        self._backlog = deque(sorted(holder.held, key=lambda entry_id: holder.held[entry_id][0]))

    def backlogged(self, now: float) -> Iterator[bytes]:
        """What is pending under its own name since before it began."""
        while self._backlog:
            entry_id = self._backlog.popleft()
            if self.group.holds(self.holder, entry_id):
                yield entry_id

    def due(self, now: float) -> Iterator[bytes]:
        """Parked events that are due."""
        return self.group.due(now)

    def orphaned(self, now: float) -> Iterator[bytes]:
        """What the dead hold."""
        return self.group.orphaned()
