"""Reads: the blocking read of a member, on a connection of its own.

Does        send it, wait for it, end it early.
Does not    decide when, or know what its answer means.
Invariants  1. one read at a time; one that nobody waited for is kept: its answer comes later.
            2. one that is ended has been answered: what it was given is known.
Used by     `member.RedisMember`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from penstock.backends.redis.cursor import BLOCK, GRACE
from penstock.backends.redis.edge import ReplyError
from penstock.backends.redis.keys import as_stored
from penstock.backends.redis.link import Link
from penstock.backends.redis.wire import Arg, Wire
from penstock.clock import Clock
from penstock.errors import BackendError

_AGAIN: Final = 0.25
"""Seconds until a read that should have ended is to be ended once more."""


class Reads:
    """The reads of one member.

    Args:
        own: the connection that they block.
        control: another one, over which they are ended.
        clock: for how long they have been waited for.
        wake: set to end a wait, not the read.
        head: the command up to its group and member.
        noack: what is given is held by nobody.
        checks: what goes before a read, in one write with it; `checked` has the answers.
        checked: told them, before the read's own answer is taken.
    """

    def __init__(  # noqa: PLR0917 - made by RedisMember alone
        self,
        own: Link,
        control: Link,
        clock: Clock,
        wake: asyncio.Event,
        head: Sequence[Arg],
        noack: bool,
        checks: Callable[[], list[tuple[Arg, ...]]],
        checked: Callable[[Sequence[Any]], None],
    ) -> None:
        self._own = own
        self._control = control
        self._clock = clock
        self._wake = wake
        self._head = tuple(head)
        self._tail: tuple[Arg, ...] = ("NOACK",) if noack else ()
        self._checks = checks
        self._checked = checked
        self._reading: asyncio.Future[Any] | None = None
        self._asked = 0.0
        self._each = 0
        self._behind = frozenset[bytes]()  # streams that gave as much as they might
        self._apart = False  # whether the last read was for these alone

    @property
    def under_way(self) -> bool:
        """Whether one was sent and its answer was not taken."""
        return self._reading is not None

    @property
    def overdue(self) -> bool:
        """Whether its answer should have come long ago, and nothing of it comes."""
        wire = self._own.now
        slow = wire is not None and wire.silence < BLOCK + GRACE
        return not slow and self._clock.monotonic() - self._asked > BLOCK + GRACE

    def send(self, wire: Wire, names: Sequence[str], limit: int) -> None:
        """Ask for new entries of the streams *names*, about *limit* in all.

        What is asked for is divided by the streams; so every other read is for those alone that
        have more to give: one that is busy is not slow because many are quiet.
        """
        behind = [name for name in names if as_stored(name) in self._behind]
        self._apart = 0 < len(behind) < len(names) and not self._apart
        some: Sequence[str] = behind if self._apart else names
        self._each = max(1, limit // len(some))
        block = () if self._apart else ("BLOCK", int(BLOCK * 1000))  # it would miss the others
        asked = ("COUNT", self._each, *block, *self._tail, "STREAMS", *some, *(">" for _ in some))
        self._reading = wire.send_many([*self._checks(), (*self._head, *asked)])
        self._asked = self._clock.monotonic()

    async def answered(self, wait: float) -> bool:
        """Whether the answer is there within *wait* seconds."""
        reading = self._reading
        assert reading is not None
        if reading.done():
            return True
        self._wake.clear()
        woken = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait((reading, woken), timeout=wait, return_when="FIRST_COMPLETED")
        finally:
            woken.cancel()
        return reading.done()

    def take(self) -> Any:
        """The answer; raises what came instead of one."""
        reading, self._reading = self._reading, None
        assert reading is not None
        *checks, answer = reading.result()
        self._checked(checks)
        if isinstance(answer, ReplyError):
            raise answer
        full = (key for key, entries in answer or () if len(entries) >= self._each)
        self._behind = frozenset(full)
        return answer

    def drop(self) -> None:
        """Forget it, and its connection: whatever it is given stands in the pending list."""
        if self._reading is not None:
            self._reading.cancel()
        self._reading = None
        if self._own.now is not None:
            self._own.now.end()

    async def end(self) -> bool:
        """Have the server answer now, with what there is; the answer is kept. Whether it came.

        One that has not reached the server yet, over its slower connection, is asked for again.
        Without the right to do so, or without an answer, it ends by itself within seconds.
        """
        reading, wire = self._reading, self._own.now
        if reading is None or reading.done() or wire is None:
            return reading is None or reading.done()
        deadline = self._clock.monotonic() + BLOCK + GRACE
        again = _AGAIN if wire.client_id else BLOCK + GRACE
        while not reading.done() and (left := deadline - self._clock.monotonic()) > 0:
            if again == _AGAIN:
                try:
                    await self._control.call("CLIENT", "UNBLOCK", wire.client_id, verb="leave")
                except BackendError:
                    again = BLOCK + GRACE
            await asyncio.wait((reading,), timeout=min(left, again))
        return reading.done()
