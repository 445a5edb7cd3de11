"""Fetching: events from the backend into the inbox of a group's member, while there is room.

Does        fetch, filter, cut at the end; rest when the program hangs; let events out one by one
            while the breaker is open; take nothing new while the group has too many parked.
Does not    decide: how much is the sizer's business, what may go on the ledger's, when all is
            read `Ending`'s.
Invariants  1. in flight (fetched, not yet confirmed as acked) is at most `max_in_flight`, plus one
               fetch; where acks cannot be sent, fetching stops.
            2. what was fetched is in the inbox, in `_pages`, or was handed back.
            3. nothing is fetched while a page waits to be taken in: the backend may look at what
               is pending under this member's name, and would find it again.
            4. while it fetches nothing for long, no read of its own is under way.
Used by     `membership.Membership`.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from penstock.clock import Backoff, set_within
from penstock.errors import BackendUnavailable
from penstock.event import Event, Shard, Until
from penstock.ports import EventMember, GroupVanished, MemberLapsed, Page
from penstock.rules.filters import predicate
from penstock.rules.ledger import Ledger
from penstock.rules.sizing import FetchSizer
from penstock.streams.ending import Ending
from penstock.streams.failing import Failures, Tell
from penstock.streams.format import ShardOrigin
from penstock.streams.group_questions import events_of, is_handed_out
from penstock.streams.inbox import Inbox
from penstock.streams.settling import Settling

if TYPE_CHECKING:
    from penstock.streams.client import Client
    from penstock.streams.group_options import GroupOptions
    from penstock.streams.stream import Stream

T = TypeVar("T")

_PATIENCE: Final = 1.5
"""Seconds after which an event of ours that is due again has gone to another member."""


class Fetching(Generic[T]):
    """What fills the inbox of one member. Its parts are those of `Membership`."""

    def __init__(  # noqa: PLR0917 - made by Membership alone
        self,
        client: Client,
        options: GroupOptions,
        inbox: Inbox[Event[T]],
        ledger: Ledger,
        settling: Settling,
        failures: Failures,
        tell: Tell,
    ) -> None:
        self._client = client
        self._clock = client.clock
        self._options = options
        self._where = predicate(options.where)
        self._inbox = inbox
        self._ledger = ledger
        self._settling = settling
        self._failures = failures
        self._tell = tell
        self._sizer = FetchSizer(options.max_in_flight, options.max_in_flight_bytes)
        self._origins: dict[Shard, ShardOrigin] = {}
        self._pages: deque[Page] = deque()
        self._idles = isinstance(options.until, Until) and options.until.kind == "idle"
        self._found_nothing = self._full = self._alone = self._asks = False
        self.handles: dict[Shard, Stream[T]] = {}
        self.room = asyncio.Event()
        self.resting = self.crowded = False
        self.fetched = self.filtered = 0

    @property
    def noack(self) -> bool:
        """Whether what is new is held by nobody once it was fetched."""
        return self._options.acks == "none"

    def rest(self) -> None:
        """The program hangs: keep nothing for it until it asks again."""
        self.resting = True
        self.room.set()

    def asked(self) -> None:
        """The program asks, or has settled something."""
        self.resting = False
        self.room.set()

    def breaker_changed(self) -> None:
        """It opened or closed, or may let out another event."""
        self._inbox.let_out(0 if self._failures.breaker.open else None)
        self.room.set()

    def drop(self, stream: str) -> None:
        """Forget what was fetched of *stream* and not yet taken in."""
        self._pages = deque(page for page in self._pages if page.shard.stream != stream)

    async def run(self, member: EventMember, ending: Ending) -> None:
        """Fetch while there is room; what cannot be mended is raised at the next step."""
        backoff = Backoff()
        try:
            while not await self._ended(member, ending):
                try:
                    await self._step(member, ending)
                    backoff.reset()
                except BackendUnavailable:
                    self._sizer.lost()
                    ending.busy()
                    await self._clock.sleep(backoff.next())
            self._inbox.end()
            # What a read under way would be given is the others'; leaving hands back what it was.
            with suppress(BackendUnavailable):
                await (member.rest() if self.noack else self.empty(member))
        except Exception as error:  # noqa: BLE001 - whatever it is, every further step raises it
            self._inbox.end(error)

    async def _step(self, member: EventMember, ending: Ending) -> None:
        self._say_full()
        if self.resting:
            await self.empty(member)
            if self.resting:
                await self._until_room(ending)
        elif self._failures.breaker.open:
            await self._one_by_one(member, ending)
        else:
            self._alone = False
            events, size = self._in_flight()
            if limit := self._sizer.next(events, size):
                self.crowded = False
                await self._fetch(member, ending, limit, self._sizer.room(events, size) - limit)
            else:
                self.crowded = True
                if self._ledger.queued:
                    self._settling.hurry()
                await self._until_room(ending)

    async def _one_by_one(self, member: EventMember, ending: Ending) -> None:
        """The breaker is open: one event, when its time has come and the one before is settled."""
        if not self._alone:
            await self.empty(member)
            self._alone = True
        breaker, now = self._failures.breaker, self._clock.monotonic()
        if self._asks and (len(self._inbox) or not breaker.may_try(now)):
            self._asks = False  # what was found came while a read was under way
            await member.rest()
        elif not breaker.may_try(now):
            self._inbox.let_out(0)
            await self._until_room(ending, None if breaker.trying else breaker.try_at - now)
        elif len(self._inbox):
            self._inbox.let_out(1)
            await self._until_room(ending)
        else:
            self._inbox.let_out(1)
            await self._fetch(member, ending, 1, 0)

    async def empty(self, member: EventMember) -> None:
        """Hand back what nobody has seen, and have the backend give us nothing more."""
        if self.noack:
            return
        self._settling.hand_back(self._inbox.clear(), 0.0)
        while self._pages:
            await self._take_in(self._pages[0], None)
            self._pages.popleft()
        self._settling.hand_back(self._inbox.clear(), 0.0)
        await member.rest()
        self._asks = False

    def leave(self, signal: Tell) -> None:
        """Nobody sees what is not yielded: it comes again elsewhere, or is told to be lost."""
        left = self._inbox.clear()
        lost = Counter(e.stream for e in left if self.noack and e.deliveries == 1)
        for stream, count in lost.items():
            text = (
                f"a member without acks left with {count} events of {stream!r} that it had read "
                f"ahead; nobody gets them"
            )
            signal("events-dropped", text, stream, count)

    async def _until_room(self, ending: Ending, seconds: float | None = None) -> None:
        ending.busy()
        self.room.clear()
        await set_within(self.room, seconds)

    async def _fetch(self, member: EventMember, ending: Ending, limit: int, ahead: int) -> None:
        if not self._pages:
            await self._fetch_once(member, ending, limit, ahead)
        while self._pages:  # kept where taking in fails: nobody else has them
            await self._take_in(self._pages[0], ending)
            if self._pages:  # not, where its stream was removed meanwhile
                self._pages.popleft()

    async def _fetch_once(
        self, member: EventMember, ending: Ending, limit: int, ahead: int
    ) -> None:
        try:
            began = self._clock.monotonic()
            self._asks = True
            new = not self._settling.full
            pages = await member.fetch(limit, ending.wait(), ahead if new else 0, new=new)
        except MemberLapsed:
            self._ledger.lapse([] if self.noack else self._inbox.clear())
            return
        except GroupVanished as lost:
            self._lose(lost.stream)
            return
        self._found_nothing = not pages
        if not pages:
            ending.nothing_came(began)
        self._pages.extend(pages)

    async def _take_in(self, page: Page, ending: Ending | None) -> None:
        """Make events of a page and put those that are wanted into the inbox."""
        origin = await self._origin(page.shard)
        if origin is None:  # its stream was removed, and all that was pending handed back
            return
        events: list[Event[T]] = events_of(page, origin, self._ledger)
        if not events:
            return
        self.fetched += len(events)
        company = None if page.counts is None else _company(page)
        self._ledger.fetched(origin, events, company)
        self._failures.came(events)
        self._sizer.seen(len(events), 0, max(event.size for event in events))
        wanted = events
        if ending is not None and not page.shard.replay:
            wanted = self._cut(page, events, ending)
        if self._where is not None:
            unwanted = [event for event in wanted if not self._where(event)]
            self._done_with(unwanted)
            self.filtered += len(unwanted)
            wanted = [event for event in wanted if self._ledger.in_hand(event)]
        self._inbox.put(wanted, _by_object(wanted, company) if company else None)

    def _done_with(self, events: list[Event[T]]) -> None:
        """Ack what nobody wants, unless nobody holds it."""
        pending = [e for e in events if not self.noack or e.deliveries > 1]
        self._ledger.ack(pending)
        self._ledger.forget(events)

    def _cut(self, page: Page, events: list[Event[T]], ending: Ending) -> list[Event[T]]:
        """*events* up to the end; others, or a later member, will have what lies behind it.

        Not at once: we would be given it again while we still read up to the end.
        """
        wanted = ending.cut(page.shard, events, new=page.counts is None)
        if len(wanted) < len(events):
            kept = {event.entry_id for event in wanted}
            beyond = [event for event in events if event.entry_id not in kept]
            self._settling.hand_back(beyond, 0.0 if ending.reached() else 1.0)
        return wanted

    async def _origin(self, shard: Shard) -> ShardOrigin | None:
        handle = self.handles.get(shard._replace(replay=False))
        if handle is None:
            return None
        origin = self._origins.get(shard)
        if origin is None:
            origin = await handle.origin(shard.index)
            if shard._replace(replay=False) not in self.handles:
                return None
            origin = self._origins.setdefault(shard, origin)
            self._ledger.open(origin, shard)
        return origin

    async def _ended(self, member: EventMember, ending: Ending) -> bool:
        """Whether all that this member was to read was handed out, and none is due again.

        Not before the program asks for more: then it has told of its failures.
        """
        if self._found_nothing:
            for shard, target in list(ending.targets.items()):
                if await is_handed_out(self._client.backend, member, shard, target):
                    ending.passed(shard)
        while ending.reached() and not self._failures.breaker.open:
            if self._failures.waits_for(self._clock.monotonic(), _PATIENCE):
                return False
            if self._inbox.waiting and not len(self._inbox):
                return True
            if not ending.targets and self._idles:  # it counts from when the program has nothing
                ending.busy()
                return False
            self._inbox.dry()
            self.room.clear()
            await self.room.wait()  # what was handed out may fail yet
        return False

    def _in_flight(self) -> tuple[int, int]:
        return self._ledger.events + self._ledger.queued, self._ledger.bytes

    def _say_full(self) -> None:
        if self._settling.full and not self._full:
            text = (
                f"{self._options.max_parked} events of the group wait to be tried again, which is "
                f"the most: what fails stays with this member, and it takes nothing new"
            )
            self._tell("parked-full", text, next(iter(self.handles)).stream, 0)
        self._full = self._settling.full

    def _lose(self, stream: str) -> None:
        """The group was made anew: nothing that came before can be acked."""
        self._inbox.sift(lambda event: event.stream != stream)
        self._settling.lose(stream)


def _company(page: Page) -> dict[bytes, int]:
    """Those of a page that have one, by id."""
    counts = page.counts or ()
    return {entry[0]: row[2] for entry, row in zip(page.entries, counts, strict=True) if row[2]}


def _by_object(events: list[Event[Any]], company: dict[bytes, int]) -> dict[int, int]:
    return {id(e): company[e.entry_id] for e in events if e.entry_id in company}
