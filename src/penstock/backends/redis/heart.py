"""Heart: the thread that beats for the members of a client, beside the event loop.

Does        beat one counter per member and stream, O(1), four times a lease; notice that a beat
            was refused (the member was taken for dead) or came too late.
Does not    decide who is dead (`rules.leases`), or touch any event.
Invariants  1. a blocked event loop does not stop the beats, until it has not turned for `hold`.
            2. what is told to the loop is two flags; the thread never waits for the loop.
            3. without members there is no thread.
Source      reliability notes 1.5: the heartbeat must not share the loop's fate.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from penstock.backends.redis.control import close_sync, sync_client
from penstock.backends.redis.group_scripts import BEAT
from penstock.backends.redis.keys import as_stored
from penstock.backends.redis.link import Address
from penstock.clock import Backoff, Clock
from penstock.rules.leases import BeatGuard

if TYPE_CHECKING:
    import redis


class Pulse:
    """One member in one stream: what the thread and the loop tell each other.

    Attributes:
        struck: the server refused a beat: others have taken this member's events.
        late: no beat was confirmed for a whole lease: others may have.
        turned: when the event loop last turned, by the clock.
        note: what the beat ends in; `said`: what it ended in last.
    """

    def __init__(  # noqa: PLR0917 - a record
        self, key: str, member: str, incarnation: str, lease: float, hold: float, now: float
    ) -> None:
        self.key = key
        self.member = member
        self.incarnation = incarnation
        self.lease = lease
        self.hold = hold
        self.turned = now
        self.struck = False
        self.late = False
        self.counter = 0
        self.note = self.said = ""
        self.due = now
        self.guard = BeatGuard(lease)
        self.guard.confirmed(now)

    @property
    def lapsed(self) -> bool:
        """Whether the member must begin a new incarnation."""
        return self.struck or self.late


class Heart:
    """Beats for all members of one client.

    Args:
        address: where the server is; the thread has a connection of its own.
        clock: only its `monotonic` is used, from the thread.
        wake: called from the thread when a pulse has lapsed.
    """

    def __init__(self, address: Address, clock: Clock) -> None:
        self._address = address
        self._clock = clock
        self._pulses: list[tuple[Pulse, Callable[[], None]]] = []
        self._thread: threading.Thread | None = None
        self._changed = threading.Event()
        self._stopping = False
        self._backoff = Backoff(first=0.05, cap=0.5)

    def add(self, pulse: Pulse, wake: Callable[[], None]) -> None:
        """Beat for *pulse* from now on; *wake* is called, from the thread, when it lapses."""
        self._pulses = [*self._pulses, (pulse, wake)]
        if self._thread is None:
            self._stopping = False
            self._thread = threading.Thread(target=self._run, name="penstock-heart", daemon=True)
            self._thread.start()
        self._changed.set()

    def remove(self, pulse: Pulse) -> None:
        """Beat for it no more."""
        self._pulses = [pair for pair in self._pulses if pair[0] is not pulse]
        self._changed.set()

    def say(self, pulse: Pulse, note: str) -> None:
        """End the beats of *pulse* in *note* from now on; it beats at once."""
        pulse.note = note
        self._changed.set()

    def stop(self) -> threading.Thread | None:
        """End the thread; the one to wait for."""
        self._stopping = True
        self._changed.set()
        thread, self._thread = self._thread, None
        return thread

    def _run(self) -> None:
        client = sync_client(self._address)
        try:
            while not self._stopping:
                self._changed.wait(self._pause())
                self._changed.clear()
                self._beat_all(client)
        finally:
            close_sync(client)

    def _pause(self) -> float | None:
        """Seconds until the next beat is due; None: there is nothing to beat for."""
        if not self._pulses:
            return None
        now = self._clock.monotonic()
        dues = [0.0 if p.note != p.said else p.due for p, _ in self._pulses]
        return max(0.001, min(dues) - now)

    def _beat_all(self, client: redis.Redis) -> None:
        now = self._clock.monotonic()
        self._hurry(now)
        due = [pair for pair in self._pulses if pair[0].due <= now and not pair[0].lapsed]
        for pulse, wake in self._pulses:
            if pulse.lapsed:
                pulse.due = now + pulse.lease
            elif pulse.guard.lapsed(now):
                pulse.late = True
                wake()
        due = [pair for pair in due if not pair[0].late and now - pair[0].turned <= pair[0].hold]
        replies = self._send(client, [pulse for pulse, _ in due], now)
        for (pulse, wake), reply in zip(due, replies, strict=False):
            if reply == 0:
                pulse.struck = True
                wake()
            elif reply == 1:  # an error reply confirms nothing, of this member alone
                pulse.guard.confirmed(now)
        for pulse, _ in self._pulses:
            if pulse.due <= now:
                pulse.due = now + (pulse.lease / 4 if replies else self._backoff.next())

    def _hurry(self, now: float) -> None:
        """Whoever has something else to say beats now."""
        for pulse, _ in self._pulses:
            if pulse.note != pulse.said:
                pulse.due, pulse.said = now, pulse.note

    def _send(self, client: redis.Redis, pulses: list[Pulse], now: float) -> list[Any]:
        """One round trip for all; nothing if the server cannot be reached."""
        if not pulses:
            return []
        from redis.exceptions import NoScriptError, ReadOnlyError, RedisError

        for pulse in pulses:
            pulse.counter += 1
            pulse.guard.sent(now)
        try:
            replies = self._pipeline(client, pulses)
            if any(isinstance(reply, NoScriptError) for reply in replies):
                client.script_load(BEAT.text)
                replies = self._pipeline(client, pulses)
        except (RedisError, OSError):
            return []
        if any(isinstance(reply, ReadOnlyError) for reply in replies):
            client.connection_pool.disconnect()  # a replica now: the next one finds the master
        self._backoff.reset()
        return replies

    @staticmethod
    def _pipeline(client: redis.Redis, pulses: list[Pulse]) -> list[Any]:
        pipeline = cast("Any", client).pipeline(transaction=False)
        for pulse in pulses:
            args = (as_stored(pulse.member), pulse.incarnation, pulse.counter, pulse.said)
            pipeline.evalsha(BEAT.sha, 1, as_stored(pulse.key), *args)
        return pipeline.execute(raise_on_error=False)
