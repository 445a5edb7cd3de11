"""Promise: what a cell of the lab holds a run to.

Does        name the bounds, and how they grow where the machine is slow.
Does not    measure: `calibration.py` does; judge: `rules.py` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Promise:
    """What must hold.

    Attributes:
        levels: appends that were confirmed at one of these levels are never lost.
        shows_loss: this cell promises nothing, and must show that its fault bites.
        reports_loss: what is lost must have been reported by the groups, event by event.
        ordered: groups in which each key is handled in the order of its sends.
        lease: seconds.
        in_flight: events that one member holds at most, one fetch included.
        stall: seconds without progress, with nothing broken, that are too many.
        throughput: events a second that a drain is reckoned with.
        attempts: failures after which an event is a dead letter.
        slow: how many times slower than a desk's machine this one is; bounds of time grow by it.
        litter: consumers that may be left in a group beside the living.
        growth: bytes that a process may grow in a long run.
    """

    levels: frozenset[str] = frozenset({"server", "fsync", "replicas"})
    shows_loss: bool = False
    reports_loss: bool = False
    ordered: frozenset[str] = frozenset()
    lease: float = 1.0
    in_flight: int = 100
    stall: float = 3.0
    throughput: float = 100.0
    attempts: int = 5
    slow: float = 1.0
    litter: int | None = None
    growth: int = 64 * 1024 * 1024
    members: Mapping[str, int] = field(default_factory=dict)

    @property
    def takeover(self) -> float:
        """Seconds from a death until the last event of the dead is in another hand.

        One and a half leases and a poll; a slow machine makes the poll longer, and no lease.
        """
        return 1.5 * self.lease + self.lease / 4 * self.slow
