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
from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from penstock.backends.redis.cursor import BLOCK, GRACE
from penstock.backends.redis.edge import ConnectionLost, ReplyError, mapped, refused
from penstock.backends.redis.group_scripts import ACK, LEAVE, PARK
from penstock.backends.redis.heart import Pulse
from penstock.backends.redis.joining import make_group, new_incarnation
from penstock.backends.redis.keys import PARKED, Keys, stream_key
from penstock.backends.redis.link import Link
from penstock.backends.redis.replies import by_name, pages, position_or_none, text
from penstock.backends.redis.scripts import PAGE
from penstock.backends.redis.takeovers import CHECKED, Takeovers
from penstock.backends.redis.wire import Arg, Wire
from penstock.errors import BackendError, LeaseLost, NotFound
from penstock.event import OLDEST, Position, Shard
from penstock.ports import GroupVanished, MemberLapsed, MemberOptions, Page
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
        self._shards = {stream_key(shard).encode(): shard for shard in shards}
        self._keys = {shard: Keys.of(shard) for shard in shards}
        self._group = group
        self._name = name
        self._options = options
        self._incarnation = incarnation
        self._pulses: dict[Shard, Pulse] = {}
        self._ours = {incarnation}
        self._takeovers = Takeovers(groups, self._keys, group, name, options, self._signal)
        self._reading: asyncio.Future[Any] | None = None
        self._asked = 0.0
        self._wake = asyncio.Event()
        self._turner: asyncio.TimerHandle | None = None
        self._gone = False

    @property
    def name(self) -> str:
        """The consumer's name."""
        return self._name

    @property
    def lapsed(self) -> bool:
        """Whether this incarnation is over."""
        return self._takeovers.lapsed or any(pulse.lapsed for pulse in self._pulses.values())

    def begin(self, *, used: bool) -> None:
        """Beat from now on; *used*: the name may have pending events, which come first."""
        now = self._groups.clock.monotonic()
        loop = asyncio.get_running_loop()
        for shard, keys in self._keys.items():
            lease, hold = self._options.lease, self._options.hold
            beats = keys.beats(self._group)
            pulse = Pulse(beats, self._name, self._incarnation, lease, hold, now)
            self._pulses[shard] = pulse
            self._groups.heart.add(pulse, lambda: _wake(loop, self._wake))
        self._takeovers.begin(self._incarnation, used=used)
        self._turn()

    @property
    def good_until(self) -> float:
        """See `ports.EventMember.good_until`."""
        return min(pulse.guard.good_until for pulse in self._pulses.values())

    def lapse(self) -> None:
        """See `ports.EventMember.lapse`."""
        for pulse in self._pulses.values():
            pulse.late = True
        self._wake.set()

    def tell_known(self, known: Callable[[Shard], Container[bytes]]) -> None:
        """See `ports.EventMember.tell_known`."""
        self._takeovers.known = known

    async def fetch(self, limit: int, wait: float, ahead: int = 0) -> Sequence[Page]:
        """See `ports.EventMember.fetch`."""
        clock = self._groups.clock
        deadline = clock.monotonic() + wait
        while True:
            if self.lapsed:
                await self._begin_anew()
                raise MemberLapsed(f"member {self._name!r} was taken for dead")
            with mapped(self._own.address.place, verb="read", key=self._any_key()):
                try:
                    if found := await self._takeovers.find(
                        min(limit, PAGE), quiet=self._reading is None
                    ):
                        return found
                    pause = min(deadline, self._takeovers.next_look) - clock.monotonic()
                    found = await self._new(limit, max(0.0, pause), ahead)
                except ReplyError as error:
                    await self._on_refusal(error)
                    continue
                except BackendError as error:
                    if not isinstance(error.__cause__, ReplyError):
                        raise
                    await self._on_refusal(error.__cause__)
                    continue
            if found or clock.monotonic() >= deadline:
                return found

    async def ack(self, shard: Shard, ids: Sequence[bytes], *, fenced: bool = False) -> int:
        """See `ports.EventMember.ack`. May be called again when the outcome is not known."""
        keys = self._keys[shard]
        if fenced or self._may_be_dead():
            return await self._ack_fenced(keys, ids)
        chunks = [ids[at : at + 1000] for at in range(0, len(ids), 1000)]
        wire = await self._link.wire()
        commands: list[tuple[Arg, ...]] = [
            ("XACK", keys.stream, self._group, *chunk) for chunk in chunks
        ]
        with mapped(self._link.address.place, verb="ack in", key=keys.stream):
            replies = await wire.call_many(commands, timeout=BLOCK)
        for reply in replies:
            if isinstance(reply, ReplyError):
                raise refused(reply, verb="ack in", key=keys.stream)
        return sum(replies)

    async def park(
        self, shard: Shard, ids: Sequence[bytes], delay: float, *, failed: bool
    ) -> Sequence[bytes]:
        """See `ports.EventMember.park`."""
        keys = self._keys[shard]
        names = [keys.stream, keys.parked(self._group), keys.attempts(self._group)]
        kept: list[bytes] = []
        for at in range(0, len(ids), CHECKED):
            args = (self._group, self._name, PARKED, int(delay * 1000), int(failed))
            chunk = ids[at : at + CHECKED]
            try:
                kept += await self._link.run(PARK, names, *args, *chunk, verb="hand back to")
            except NotFound:  # the group is gone: nothing is ours, and the next fetch says so
                return kept
        return kept

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
            await self._end_reading()
            for keys in self._keys.values():
                await self._hand_back(keys)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """See `ports.EventMember.abandon`."""
        self._gone = True
        for pulse in self._pulses.values():
            self._groups.heart.remove(pulse)
        if self._turner is not None:
            self._turner.cancel()
        self._own.close()

    async def _new(self, limit: int, wait: float, ahead: int) -> list[Page]:
        """New events; the read goes on in the background when *wait* is over."""
        if self._reading is None:
            self._read(await self._own.wire(), limit)
        reading = self._reading
        assert reading is not None
        if not await self._wait_for(reading, wait):
            if self._groups.clock.monotonic() - self._asked > BLOCK + GRACE:
                self._lost_contact()
            return []
        self._reading = None
        try:
            found = pages(reading.result(), self._shards)
        except ConnectionLost:
            self._lost_contact()
            raise
        busy = found and ahead >= limit and not self._takeovers.wants_quiet
        if busy and (wire := self._own.now) is not None:
            self._read(wire, limit)  # the server works while the program does
        return found

    def _read(self, wire: Wire, limit: int) -> None:
        names = [stream_key(shard) for shard in self._shards.values()]
        each = max(1, limit // len(names))
        head = ("XREADGROUP", "GROUP", self._group, self._name, "COUNT", each)
        block = ("BLOCK", int(BLOCK * 1000))
        self._reading = wire.send(*head, *block, "STREAMS", *names, *(">" for _ in names))
        self._asked = self._groups.clock.monotonic()

    async def _wait_for(self, reading: asyncio.Future[Any], wait: float) -> bool:
        """Whether the read is done within *wait* seconds; a lapse ends the waiting."""
        if reading.done():
            return True
        self._wake.clear()
        woken = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait((reading, woken), timeout=wait, return_when="FIRST_COMPLETED")
        finally:
            woken.cancel()
        return reading.done()

    async def _on_refusal(self, error: ReplyError) -> None:
        """The group may be gone: make it anew from the oldest event, and say so."""
        if error.code not in ("NOGROUP", "UNBLOCKED"):
            raise error
        self._reading = None
        for shard in self._keys:
            if await make_group(self._link, shard, self._group, OLDEST):
                for pulse in self._pulses.values():
                    pulse.late = True  # the next fetch begins anew, when it can
                message = (
                    f"group {self._group!r} of {shard.stream!r} was lost ({error.code}) and has "
                    f"been made anew from the oldest event; what was acked before comes again"
                )
                self._signal("group-lost", message, shard, None)
                raise GroupVanished(shard.stream, "the oldest event")

    async def _begin_anew(self) -> None:
        """A new incarnation under the same name; what the old one was reading is not used."""
        incarnation = new_incarnation(self._options.lease)
        for shard, pulse in self._pulses.items():
            beat = await self._enter(shard, incarnation)
            if beat != "joined":
                raise LeaseLost(
                    f"member {self._name!r} of group {self._group!r} was taken for dead, and "
                    f"another has taken its name meanwhile; close this one"
                )
            self._groups.heart.remove(pulse)
        self._incarnation = incarnation
        self._drop_reading()
        if self.lapsed:
            message = f"member {self._name!r} could not beat for a lease; it begins anew"
            self._signal("member-lapsed", message, next(iter(self._keys)), None)
        self.begin(used=True)

    async def _enter(self, shard: Shard, incarnation: str) -> str:
        """Take our name again, from nobody or from an earlier incarnation of ours."""
        self._ours.add(incarnation)
        beat = seen = ""
        while beat != "joined" and beat.rpartition(":")[0] in {"", *self._ours}:
            beat = await self._groups.enter(shard, self._group, self._name, incarnation, seen)
            seen = beat
        return beat

    def _lost_contact(self) -> None:
        """What the server gave us may not have come: look into our pending list."""
        self._drop_reading()
        self._takeovers.lost_contact()

    def _drop_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        self._reading = None
        if self._own.now is not None:
            self._own.now.end()

    async def _end_reading(self) -> None:
        """End a blocked read, so that the server gives us nothing more."""
        reading, wire = self._reading, self._own.now
        if reading is None or wire is None:
            return
        if wire.client_id:
            with suppress(BackendError):  # without the right to it, the read ends by itself
                await self._link.call("CLIENT", "UNBLOCK", wire.client_id, verb="leave")
        await asyncio.wait((reading,), timeout=BLOCK + GRACE)

    async def _hand_back(self, keys: Keys) -> None:
        names = [keys.stream, keys.beats(self._group), keys.parked(self._group)]
        args = (self._group, self._name, self._incarnation, PARKED, PAGE)
        while await self._link.run(LEAVE, names, *args, verb="leave a group of") > 0:
            pass

    async def _ack_fenced(self, keys: Keys, ids: Sequence[bytes]) -> int:
        done = 0
        names = [keys.stream, keys.attempts(self._group)]
        for at in range(0, len(ids), CHECKED):
            args = (self._group, self._name, *ids[at : at + CHECKED])
            try:
                done += await self._link.run(ACK, names, *args, verb="ack in")
            except NotFound:  # the group is gone: nothing is ours, and the next fetch says so
                return done
        return done

    def _may_be_dead(self) -> bool:
        """Whether others may have taken what is ours: seen here too, before the heart can say."""
        now = self._groups.clock.monotonic()
        return self.lapsed or any(pulse.guard.lapsed(now) for pulse in self._pulses.values())

    def _turn(self) -> None:
        """The event loop turns: tell the thread that beats."""
        now = self._groups.clock.monotonic()
        for pulse in self._pulses.values():
            pulse.turned = now
        every = min(1.0, self._options.lease / 4, self._options.hold / 4)
        if self._turner is not None:
            self._turner.cancel()
        if not self._gone:
            self._turner = asyncio.get_running_loop().call_later(every, self._turn)

    def _signal(self, kind: Kind, message: str, shard: Shard, count: int | None) -> None:
        self._groups.observers(Signal(kind, message, shard.stream, self._group, self._name, count))

    def _any_key(self) -> str:
        return next(iter(self._keys)).stream


def _wake(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    """From the thread that beats; the loop may be closed by now."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(event.set)
