"""Pulses: the heartbeats of one member, one for each of its streams, as the event loop sees them.

Does        have the heart beat for each; say whether one of them has lapsed; tell the thread that
            beats that the loop turns.
Does not    beat (`heart.py`), or begin anew after a lapse: the member does.
Invariants  1. where one stream's beat has lapsed, the whole member has.
            2. the loop counts as turning from the first beat on, until `stop`.
Used by     `member.RedisMember`.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from penstock.backends.redis.heart import Pulse
from penstock.event import Shard
from penstock.ports import MemberOptions

if TYPE_CHECKING:
    from penstock.backends.redis.groups import RedisGroups


class Pulses:
    """The heartbeats of one member.

    Args:
        groups: the backend, with the heart.
        name: the member's name.
        options: how the member behaves.
        wake: set when one lapses.
    """

    def __init__(
        self, groups: RedisGroups, name: str, options: MemberOptions, wake: asyncio.Event
    ) -> None:
        self._heart = groups.heart
        self._clock = groups.clock
        self._name = name
        self._options = options
        self._wake = wake
        self._pulses: dict[Shard, Pulse] = {}
        self._turner: asyncio.TimerHandle | None = None

    @property
    def lapsed(self) -> bool:
        """Whether this incarnation is over."""
        return any(pulse.lapsed for pulse in self._pulses.values())

    @property
    def good_until(self) -> float:
        """See `ports.EventMember.good_until`."""
        return min(pulse.guard.good_until for pulse in self._pulses.values())

    @property
    def shards(self) -> list[Shard]:
        """Where it beats."""
        return list(self._pulses)

    def add(self, shard: Shard, beats: str, incarnation: str) -> None:
        """Beat in one more stream, or anew in one, as *incarnation*."""
        self.remove(shard)
        now, loop = self._clock.monotonic(), asyncio.get_running_loop()
        lease, hold = self._options.lease, self._options.hold
        pulse = Pulse(beats, self._name, incarnation, lease, hold, now)
        self._pulses[shard] = pulse
        self._heart.add(pulse, lambda: _wake(loop, self._wake))
        if self._turner is None:
            self._turn()

    def remove(self, shard: Shard) -> None:
        """Beat in one stream less."""
        if (pulse := self._pulses.pop(shard, None)) is not None:
            self._heart.remove(pulse)

    def stop(self) -> None:
        """Beat no more; whether it has lapsed can still be asked."""
        for pulse in self._pulses.values():
            self._heart.remove(pulse)
        if self._turner is not None:
            self._turner.cancel()

    def lapse(self) -> None:
        """This incarnation is over, whatever was confirmed."""
        for pulse in self._pulses.values():
            pulse.late = True
        self._wake.set()

    def may_be_dead(self) -> bool:
        """Whether others may have taken what is ours: seen here too, before the heart can say."""
        now = self._clock.monotonic()
        return self.lapsed or any(pulse.guard.lapsed(now) for pulse in self._pulses.values())

    def _turn(self) -> None:
        """The event loop turns: tell the thread that beats."""
        now = self._clock.monotonic()
        for pulse in self._pulses.values():
            pulse.turned = now
        every = min(1.0, self._options.lease / 4, self._options.hold / 4)
        self._turner = asyncio.get_running_loop().call_later(every, self._turn)


def _wake(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    """From the thread that beats; the loop may be closed by now."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(event.set)
