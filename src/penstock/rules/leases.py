"""Leases: who is dead, by heartbeats that stopped, and whether oneself must be taken for dead.

Does        judge heartbeats by the watcher's own monotonic clock, and one's own beats likewise.
Does not    beat, read heartbeats, take over or read a clock: the backends do, `now` is handed in.
Invariants  1. nobody is dead before one whole lease of this watcher has passed over one and the
               same value; so no step of a wall clock kills or keeps anyone.
            2. what `observe` returns holds the value that was seen: the take-over is fenced by it.
            3. a member counts its lease from when a confirmed beat was *sent*, a watcher from when
               it *saw* the beat, which is later: the member knows of its lapse first.
Cost        one dict look-up per member and look (every quarter lease), none per event.
Used by     backends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

STRUCK: Final = "struck"
"""The heartbeat of a member that was taken for dead; whoever sees it may take what is left."""

LOOKS: Final = 4
"""Beats and looks in one lease: one may be late or lost without killing anyone."""


class LeaseWatch:
    """Watches the heartbeats of others; one for each place where members are listed.

    Args:
        lease: how long, in seconds, one value may stand before its member is dead.
    """

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._seen: dict[str, tuple[str, float]] = {}

    def observe(
        self, now: float, beats: Mapping[str, str], leases: Mapping[str, float] | None = None
    ) -> list[tuple[str, str]]:
        """Take a look; the members that are dead by it, each with the value that was seen.

        A member or a value that is new counts from *now*; a member that is missing is forgotten;
        one whose value is `STRUCK` is dead at once.

        Args:
            now: the watcher's monotonic clock, in seconds.
            beats: every watched member's heartbeat, without the watcher's own.
            leases: the leases of members whose own is known, in seconds; else the watcher's.
        """
        seen: dict[str, tuple[str, float]] = {}
        for member, value in beats.items():
            known = self._seen.get(member)
            if known is None or known[0] != value:
                known = (value, now + (leases or {}).get(member, self._lease))
            seen[member] = known
        self._seen = seen
        return [(m, v) for m, (v, due) in seen.items() if v == STRUCK or now >= due]

    def due(self, now: float) -> float | None:
        """When after *now* the next of those last seen is dead if nothing changes; None: nobody."""
        return min(
            (due for v, due in self._seen.values() if due > now and v != STRUCK), default=None
        )

    def reset(self) -> None:
        """Count everything anew: after a reconnect, nobody knows what was missed."""
        self._seen.clear()


class BeatGuard:
    """A member's own side: whether its beats still hold.

    Args:
        lease: how long, in seconds, after *sending* a confirmed beat the next one may come.
    """

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._last: float | None = None
        self._sent: float | None = None

    def sent(self, now: float) -> None:
        """A beat leaves at *now*. Until the first is confirmed, the lease counts from the first."""
        if self._sent is None:
            self._sent = now

    def confirmed(self, sent_at: float) -> None:
        """The beat that was sent at *sent_at* stands; a late word about an older one is nothing."""
        if self._last is None or sent_at > self._last:
            self._last = sent_at

    @property
    def good_until(self) -> float:
        """Until when nobody can count this member dead, by its own monotonic clock."""
        counted_from = self._sent if self._last is None else self._last
        return float("inf") if counted_from is None else counted_from + self._lease

    def lapsed(self, now: float) -> bool:
        """Whether a beat at *now* comes too late: others may already count this member dead."""
        counted_from = self._sent if self._last is None else self._last
        return counted_from is not None and now > counted_from + self._lease

    def reset(self) -> None:
        """A new incarnation begins: nothing was sent yet."""
        self._last = self._sent = None
