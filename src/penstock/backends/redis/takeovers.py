"""Takeovers: pending events that are, or become, this member's to handle.

Does        find parked events that are due, judge who is dead, and claim in pages: our own pending
            events, those of the dead, those of foreign consumers that are idle for too long.
Does not    read new events (`member.py`), or judge by a clock other than our own monotonic one.
Invariants  1. a claim is fenced: by our own heartbeat, and by the beat that was seen of the dead.
            2. pages are at most what the caller has room for; a claim goes on until it is empty.
            3. a struck member is remembered until its blocked read cannot be given events any more.
Source      DESIGN.md, "Members are leased, not events"; reliability notes 1.5, 1.6.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Container, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from penstock.backends.redis.beats import family_of, lease_of
from penstock.backends.redis.claims import Claim, run_claim
from penstock.backends.redis.cursor import BLOCK, GRACE
from penstock.backends.redis.group_scripts import LOOK
from penstock.backends.redis.keys import PARKED, Keys
from penstock.backends.redis.recovery import Recovery
from penstock.backends.redis.replies import by_name, text
from penstock.errors import BackendError, NotFound
from penstock.event import Shard
from penstock.ports import GroupVanished, MemberOptions, Page
from penstock.rules.leases import STRUCK, LeaseWatch
from penstock.signals import Kind, counted

if TYPE_CHECKING:
    from penstock.backends.redis.groups import RedisGroups

LOOK_EVERY: Final = 0.5
"""Seconds between looks for what others have handed back: they notice well within a second."""

CHECKED: Final = 500
"""Ids of an owner-checked call: each costs a look-up in the pending list, some microseconds."""

_BURY_AFTER: Final = 60.0
"""Seconds, and ten leases, for which a struck member is remembered: its blocked read, on a server
that does not know yet that it is gone, may still be given events; they are found by its name."""


class Takeovers:
    """The claims of one member.

    Args:
        groups: the backend.
        keys: the names of each stream.
        group: the group's name.
        name: the member's name.
        options: how the member behaves.
        signal: tells observers: kind, message, shard, count.
    """

    def __init__(  # noqa: PLR0917 - made by RedisMember alone
        self,
        groups: RedisGroups,
        keys: Mapping[Shard, Keys],
        group: str,
        name: str,
        options: MemberOptions,
        signal: Callable[[Kind, str, Shard, int | None], None],
    ) -> None:
        self._link = groups.link
        self.recovery = Recovery(groups.link, keys, group, name, options, signal)
        self._clock = groups.clock
        self._keys = keys
        self._group = group
        self._name = name
        self._options = options
        self._signal = signal
        self._watches = {shard: LeaseWatch(options.lease) for shard in keys}
        self._claims: deque[Claim] = deque()
        self._struck: dict[tuple[Shard, str], float] = {}
        self._taken: dict[tuple[Shard, str], int] = {}
        self._next_beats = self._next_renewal = self._looked = 0.0
        self._met: Exception | None = None  # by `keep`; the next `find` raises it
        self._foreign: set[Shard] = set()
        self._next_foreign: dict[tuple[Shard, str], float] = {}
        self._again: float | None = None
        self._lost_at = float("-inf")
        self._remembered = max(10 * options.lease, _BURY_AFTER)
        self._incarnation = ""
        self.next_look = 0.0
        self.lapsed = False
        self.known: Callable[[Shard], Container[bytes]] = lambda _: ()

    @property
    def wants_quiet(self) -> bool:
        """Whether our own pending list is to be looked into: no read may be under way then.

        What such a read has been given stands in that list too, and would be handed out twice.
        """
        due = self._again is not None and self._clock.monotonic() >= self._again
        own = bool(self._claims) and self._claims[0].owner == self._name
        return due or own or bool(self.recovery.unowned)

    @property
    def may_be_given(self) -> bool:
        """Whether a read that was lost may yet be served, and be given events under our name."""
        return self._clock.monotonic() - self._lost_at < self._remembered

    def begin(self, incarnation: str, *, used: bool) -> None:
        """A new incarnation; *used*: its name may have pending events, which come first."""
        self._incarnation = incarnation
        self.recovery.family = family_of(incarnation)
        self._claims.clear()
        self.lapsed = False
        if used:
            self.lost_contact()

    def lost_contact(self) -> None:
        """A reply was lost: what the server gave us may stand in our pending list alone.

        It is looked at now, and once more when a read that the server still believes in, on the
        connection that broke, must have ended: until then it may be given events.
        """
        for watch in self._watches.values():
            watch.reset()
        self.own_first()
        self._lost_at = self._clock.monotonic()
        self._again = self._clock.monotonic() + BLOCK + GRACE

    async def find(self, limit: int, *, quiet: bool) -> list[Page]:
        """What is to be handled before anything new: own, due, dead; empty if there is nothing.

        *quiet*: no read is under way.
        """
        with self._careful():
            return await self._find(limit, quiet)

    async def stray(self, limit: int) -> Page | None:
        """A page of what stands under our name alone: the program has not heard of it.

        Only while no read is under way.
        """
        with self._careful():
            return await self._stray(limit)

    @contextmanager
    def _careful(self) -> Generator[None]:
        """What a claim or a look gave us may stand in our pending list alone: look there next."""
        try:
            yield
        except asyncio.CancelledError:
            self.own_first()
            raise
        except BackendError:
            self.lost_contact()
            raise

    async def keep(self, lost: Callable[[], None], tidy: Callable[[], Awaitable[None]]) -> None:
        """Look after the groups while nobody fetches, for the program's hands are full.

        Until cancelled. *lost* is called when a group was lost; the next `find` raises it, and
        whatever else nobody foresaw. *tidy* is what else is to be done now and then.
        """
        pace = min(LOOK_EVERY, self._options.lease / 4)
        while True:
            await self._clock.sleep(pace)
            try:
                with suppress(BackendError):  # it is tried again
                    await tidy()
                now = self._clock.monotonic()
                if now >= self._looked + 2 * pace and self._met is None:
                    await self._look_on(now)
            except GroupVanished as vanished:
                self._met = vanished
                lost()
            except BackendError:
                continue  # the next fetch meets it too, and says so
            except Exception as error:  # noqa: BLE001 - a fault of ours must not look like silence
                self._met = error

    async def _look_on(self, now: float) -> None:
        try:
            for shard in [shard for shard in self._keys if not shard.replay]:
                await self.recovery.tend(shard)
            if now >= self._next_beats:
                self._next_beats = now + self._options.lease / 4
                for shard in list(self._keys):
                    await self._look(shard, 0, True)
                await self.recovery.repark()
            await self._renew(now)
        except NotFound:
            await self.recovery.remake()

    async def _find(self, limit: int, quiet: bool) -> list[Page]:
        if self._met is not None:
            met, self._met = self._met, None
            raise met
        if quiet and (page := await self._stray(limit)):
            return [page]
        if found := await self._look_all(limit):
            return found
        while self._claims and self._claims[0].owner != self._name:
            if page := await self._take(self._claims.popleft(), limit):
                return [page]
        return []

    async def _stray(self, limit: int) -> Page | None:
        while self.wants_quiet:
            if self.recovery.unowned:  # also what was found between two pages
                await self.recovery.drop_unowned(self.known)
                continue
            self._look_again()
            if page := await self._take(self._claims.popleft(), limit):
                return page
        return None

    def own_first(self) -> None:
        """Our own pending list is to be looked through, from its beginning, before all else."""
        others = [claim for claim in self._claims if claim.owner != self._name]
        own = [Claim(shard, self._name, "own") for shard in self._keys]
        self._claims = deque(own + others)

    def _look_again(self) -> None:
        if self._again is not None and self._clock.monotonic() >= self._again:
            self._again = None
            self.own_first()

    async def _look_all(self, limit: int) -> list[Page]:
        now = self._looked = self._clock.monotonic()
        if now < self.next_look:
            return []
        self.next_look = now + min(LOOK_EVERY, self._options.lease / 4)
        watch = now >= self._next_beats
        if watch:
            self._next_beats = now + self._options.lease / 4
        for shard in [shard for shard in self._keys if not shard.replay]:
            await self.recovery.tend(shard)
        due = [await self._look(shard, limit, watch) for shard in list(self._keys)]
        await self.recovery.repark()
        await self._renew(now)
        self.next_look = min([self.next_look, *self._dues(now)])
        if any(len(page.entries) >= min(limit, CHECKED) for page in due):
            self.next_look = now  # there may be more
        return [page for page in due if page.entries]

    def _dues(self, now: float) -> Iterator[float]:
        """When parked events are due that were not when this look began."""
        return (now + pause for pause in self.recovery.due.values() if pause > 0)

    async def _renew(self, now: float) -> None:
        """While consumers that go by idle time are in a group, keep our own events young."""
        if self._foreign and now >= self._next_renewal:
            self._next_renewal = now + self._options.lease / 3
            for shard in list(self._foreign):
                await self.recovery.renew(shard)

    async def _look(self, shard: Shard, limit: int, watch: bool) -> Page:
        """Take parked events that are due; on request, see who is dead."""
        if (keys := self._keys.get(shard)) is None:  # left meanwhile
            return Page(shard, [], [])
        group = self._group
        names = [keys.stream, keys.beats(group), keys.parked(group), keys.attempts(group)]
        args = (group, self._name, PARKED, min(limit, CHECKED), int(watch), self._incarnation)
        reply = await self._link.run(LOOK, names, *args, verb="read", key=keys.stream)
        gone, entries, counts, beats, consumers, parked = reply
        if gone:
            self.recovery.tell_pending(shard, gone)
        if watch and shard in self._keys:
            self._judge(shard, beats, [by_name(about) for about in consumers], parked)
        return Page(shard, entries, [tuple(row) for row in counts])

    def _judge(
        self, shard: Shard, flat: list[bytes], consumers: list[dict[str, Any]], parked: int
    ) -> None:
        """Queue the claims that this look gives cause for."""
        now = self._clock.monotonic()
        beats = {text(name): text(beat) for name, beat in zip(flat[::2], flat[1::2], strict=True)}
        pending = {text(about["name"]): about["pending"] for about in consumers}
        beats.pop(self._name, None)
        self._struck = {
            (where, name): since
            for (where, name), since in self._struck.items()
            if where != shard or beats.get(name) == STRUCK  # else it is another one by now
        }
        if pending.get(PARKED, 0) > parked:
            self.recovery.untimed.setdefault(shard, "-")
        leases = {name: lease_of(beat, self._options.lease) for name, beat in beats.items()}
        queued = {(claim.shard, claim.owner) for claim in self._claims}
        for name, seen in self._watches[shard].observe(now, beats, leases):
            if (shard, name) in queued:
                pass
            elif seen != STRUCK or pending.get(name):
                self._claims.append(Claim(shard, name, seen))
            else:
                self._bury_later(shard, name, now)
        foreign = {name for name in pending if name not in (*beats, self._name, PARKED)}
        self._judge_foreign(shard, {name for name in foreign if pending[name]}, now)
        if foreign and shard not in self._foreign:
            self._foreign.add(shard)
            message = (
                f"consumers that are not of Penstock are in group {self._group!r} of "
                f"{shard.stream!r}; what they hold is taken over by idle time alone"
            )
            self._signal("foreign-consumer", message, shard, len(foreign))
        if not foreign:
            self._foreign.discard(shard)

    def _judge_foreign(self, shard: Shard, names: set[str], now: float) -> None:
        """One that never beat is taken from by idle time alone: each event's own, page by page."""
        idle = max(self._options.lease, self._options.foreign_idle)
        for name in names:
            if now >= self._next_foreign.get((shard, name), 0.0):
                self._next_foreign[shard, name] = now + idle / 8
                self._claims.append(Claim(shard, name, "foreign", idle=int(idle * 1000)))
        if not names:
            self._next_foreign.clear()

    def _bury_later(self, shard: Shard, name: str, now: float) -> None:
        since = self._struck.setdefault((shard, name), now)
        if now - since > self._remembered:
            del self._struck[shard, name]
            self._claims.append(Claim(shard, name, "bury"))

    async def _take(self, claim: Claim, limit: int) -> Page | None:
        """One page of a claim; the rest stays queued.

        What the program holds of its own, or has acked and not yet heard of, is left alone.
        """
        known = self.known(claim.shard) if claim.owner == self._name else ()
        try:
            reply = await self._run(claim, limit)
        except BaseException:
            if claim.shard in self._keys:
                self._claims.appendleft(claim)
            raise
        if claim.shard not in self._keys:  # left meanwhile, with all that was pending there
            return None
        if reply is None or reply[0] != b"claimed":
            self._on_ended(claim, reply and reply[0])
            return None
        _, entries, counts, gone, last = reply
        who = (claim.shard, claim.owner)
        self._taken[who] = self._taken.get(who, 0) + len(entries)
        cursor = "(" + text(last) if claim.owner == self._name else "-"
        self._claims.appendleft(claim._replace(cursor=cursor))
        if gone:
            self.recovery.tell_pending(claim.shard, gone)
        rows = [(entry, tuple(row)) for entry, row in zip(entries, counts, strict=True)]
        rows = [row for row in rows if row[0][0] not in known]
        return (
            Page(claim.shard, [row[0] for row in rows], [row[1] for row in rows]) if rows else None
        )

    async def _run(self, claim: Claim, limit: int) -> Any:
        who = (self._group, self._name, self._incarnation)
        return await run_claim(self._link, self._keys[claim.shard], claim, *who, limit)

    def _on_ended(self, claim: Claim, status: bytes | None) -> None:
        taken = self._taken.pop((claim.shard, claim.owner), 0)
        if status == b"lapsed":
            self.lapsed = True
        elif (
            claim.fence != "foreign" and claim.owner != self._name and (taken or status == b"empty")
        ):
            message = (
                f"member {claim.owner!r} stopped beating; {self._name!r} took over "
                f"{counted(taken)} of it"
            )
            self._signal("member-taken-over", message, claim.shard, taken)

    def add(self, shard: Shard, *, used: bool) -> None:
        """Look at one more shard; *used*: it may have pending events under our name."""
        self._watches[shard] = LeaseWatch(self._options.lease)
        if used:
            self._claims.appendleft(Claim(shard, self._name, "own"))

    def remove(self, shard: Shard) -> None:
        """Look at one shard less."""
        del self._watches[shard]
        self._foreign.discard(shard)
        self.recovery.remove(shard)
        self._claims = deque(claim for claim in self._claims if claim.shard != shard)
        self._struck = {who: at for who, at in self._struck.items() if who[0] != shard}
        self._taken = {who: count for who, count in self._taken.items() if who[0] != shard}
