"""What both kinds of member share: a name that is theirs alone, and a lease that is kept.

Does        take a name (waiting for its last bearer to end), beat, find out that it was struck.
Does not    know events or shards: the two members begin, read and leave in their own way.
Invariants  1. one value of a heartbeat belongs to one incarnation; any other value means struck.
            2. a roster changes under the store's lock only.
            3. after `abandon` nothing of this member runs any more, and nothing was handed back.
Cost        one beat every quarter lease and member; nothing per event.
Used by     memory_groups, memory_shards.
"""

from __future__ import annotations

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

from penstock.backends.memory_store import Bell, Place
from penstock.errors import ClosedError, ConfigError
from penstock.event import Shard
from penstock.ports import MemberOptions
from penstock.rules.leases import LOOKS, STRUCK, BeatGuard, LeaseWatch
from penstock.signals import Kind, Signal


class Tenant:
    """A member as its group knows it: the heartbeat, and when it was last seen to do anything."""

    def __init__(self, name: str, lease: float) -> None:
        self.name = name
        self.lease = lease
        self.beat = ""
        self.beaten = 0.0
        self.active = 0.0
        self.resting = False

    def beating(self, now: float) -> bool:
        """Whether it has beaten within its own lease."""
        return self.beat != STRUCK and now < self.beaten + self.lease


class LeasedMember(ABC):
    """A member that is leased by its heartbeat, in every place where it is listed."""

    def __init__(
        self, place: Place, shards: Sequence[Shard], group: str, options: MemberOptions
    ) -> None:
        if not options.lease > 0:
            raise ConfigError(f"lease must be above 0 seconds, got {options.lease!r}")
        self._place = place
        self._shards = tuple(shards)
        self._group = group
        self._options = options
        self._name = options.name or f"member-{secrets.token_hex(8)}"
        self._bell = Bell()
        self._guard = BeatGuard(options.lease)
        self._beats = 0
        self._incarnation = 0
        self._value = ""
        self._look_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._notices: list[Signal] = []

    @property
    def name(self) -> str:
        """The name that the backend knows the member by."""
        return self._name

    async def enter(self) -> None:
        """Take the name in every place, and begin to beat.

        Waits up to one lease while a living member bears the name. Cancelled: not a member.

        Raises:
            ConfigError: it still lives after one lease.
        """
        self._place.store.attach(self._bell, self._shards)
        try:
            await self._take_name()
        except BaseException:
            self._place.store.detach(self._bell)
            raise
        self._tell()
        self._task = asyncio.get_running_loop().create_task(self._keep_beating())

    def abandon(self) -> None:
        """Vanish as a crash would: no leave, no hand-back, no more beats. For tests."""
        self._closed = True
        with self._place.store.lock:
            self._place.store.detach(self._bell)
        if self._task is not None:
            self._task.cancel()
        self._bell.ring()  # a fetch that waits ends, with ClosedError

    async def leave(self) -> None:
        """Give back everything, and go; a second call does nothing."""
        if self._closed:
            return
        with self._place.store.lock:
            if not self._is_struck():
                self._give_back(self._place.clock.monotonic())
            for shard in self._shards:
                self._place.store.ring(shard)
        self.abandon()
        if self._task is not None:
            await asyncio.wait([self._task])

    @abstractmethod
    def _begin(self, now: float) -> None:
        """Begin an incarnation in every place; the name is free there."""

    @abstractmethod
    def _seated(self) -> Iterable[Tenant | None]:
        """What stands under this member's name now, in every place that is still there."""

    @abstractmethod
    def _others(self) -> Mapping[str, Tenant]:
        """Who stands under this member's name, by place, whoever it is."""

    @abstractmethod
    def _give_back(self, now: float) -> None:
        """Hand everything back and strike the name off."""

    @abstractmethod
    def _lapse(self, now: float, why: str) -> None:
        """Begin a new incarnation because the old one was taken for dead."""

    async def _take_name(self) -> None:
        clock, lease = self._place.clock, self._options.lease
        watch, deadline = LeaseWatch(lease), clock.monotonic() + lease
        while True:
            self._bell.clear()
            now = clock.monotonic()
            with self._place.store.lock:
                bearers = {at: t.beat for at, t in self._others().items() if t.beat != STRUCK}
                for at, _ in watch.observe(now, bearers):
                    del bearers[at]
                if not bearers:
                    self._begin(now)
                    return
            if now >= deadline:
                raise ConfigError(
                    f"a member name must be borne by one living member, and {self._name!r} lives "
                    f"in group {self._group!r} of {next(iter(bearers))}; choose another name, "
                    f"or none to get one of its own"
                )
            await self._bell.wait(clock, min(lease / LOOKS, deadline - now))

    async def _keep_beating(self) -> None:
        clock = self._place.clock
        while True:
            await clock.sleep(self._options.lease / LOOKS)
            with self._place.store.lock:
                self._beat(clock.monotonic())
            self._tell()

    def _beat(self, now: float) -> None:
        if self._is_struck():
            self._lapse(now, "its heartbeat was struck")
        elif self._guard.lapsed(now):
            self._lapse(now, "it beat later than one lease after its last beat")
        else:
            self._move(now)

    def _move(self, now: float) -> None:
        """Beat once in every place."""
        self._beats += 1
        self._value = f"{self._incarnation}:{self._beats}"
        self._guard.sent(now)
        for tenant in self._seated():
            if tenant is not None:
                self._sit(tenant, now)
        self._guard.confirmed(now)

    def _sit(self, tenant: Tenant, now: float) -> None:
        """Make *tenant* this incarnation's own."""
        tenant.beat, tenant.beaten, tenant.active = self._value, now, now

    def _is_struck(self) -> bool:
        return any(tenant is None or tenant.beat != self._value for tenant in self._seated())

    def _new_incarnation(self, now: float) -> None:
        """Take a heartbeat that nobody ever had."""
        self._incarnation = next(self._place.store.numbers)
        self._beats = 0
        self._value = f"{self._incarnation}:0"
        self._guard.reset()
        self._guard.sent(now)
        self._guard.confirmed(now)

    def _avoid_namesake(self) -> None:
        """Take another name, if somebody else has taken ours up: two would strike each other."""
        if any(t.beat not in (STRUCK, self._value) for t in self._others().values()):
            self._name = f"{self._options.name or 'member'}-{secrets.token_hex(4)}"

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"member {self._name!r} of group {self._group!r} has left")

    def _notice(self, kind: Kind, message: str, stream: str, count: int | None = None) -> None:
        """Note a signal under the lock; `_tell` hands it on when the lock is released."""
        self._notices.append(Signal(kind, message, stream, self._group, self._name, count))

    def _tell(self) -> None:
        notices, self._notices = self._notices, []
        for signal in notices:
            self._place.observers(signal)
