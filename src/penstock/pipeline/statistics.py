"""Statistics: what an App's handlers have done so far."""

from __future__ import annotations

from typing import NamedTuple

from penstock.signals import GroupStatistics


class HandlerStatistics(NamedTuple):
    """One handler at one moment; events since the App was started.

    Attributes:
        running: calls under way.
        handled: events whose work is done: their acks are queued or sent.
        failed: failures that were counted, by event.
        rejected: events that the handler rejected, or that could not be decoded: dead letters.
        postponed: events that the handler asked to have again later.
        lost: events whose work was done too late: they were not in hand any more.
        written: results that were stored.
        abandoned: calls in threads that still run although nobody waits for them.
        group: its member of the group.
    """

    running: int
    handled: int
    failed: int
    rejected: int
    postponed: int
    lost: int
    written: int
    abandoned: int
    group: GroupStatistics
