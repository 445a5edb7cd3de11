"""Signals: what happened that no caller waited for, as plain values.

Does        name every kind of signal, and hold the table of them.
Does not    log, count or send anywhere: observers do.
Invariants  1. a signal is a fact, made once per batch or rarer, never once per event.
            2. it holds no payload, key or secret.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, NamedTuple

import msgspec

Severity = Literal["info", "warning", "error"]

Kind = Literal[
    "connected",
    "disconnected",
    "server-refuses",
    "start-ignored",
    "member-lapsed",
    "member-taken-over",
    "group-lost",
    "group-left-behind",
    "nacked",
    "undecodable",
    "dead-lettered",
    "breaker-opened",
    "breaker-closed",
    "parked-full",
    "parked-untimed",
    "stalled",
    "hold-expired",
    "acks-missed",
    "confirmed-lost",
    "session-reset",
    "trimmed-pending",
    "trimmed-unread",
    "foreign-consumer",
    "cap-dropped",
    "group-absent",
    "not-tended",
    "shards-not-followed",
    "events-dropped",
    "events-returned",
    "greedy-consumer",
    "protocol-error",
    "stage-failed",
    "stage-restarted",
    "stage-waiting",
    "subscription-refused",
    "unhandled-message",
    "handler-ended",
    "handler-left",
    "drain-late",
]

SEVERITY: Final[dict[Kind, Severity]] = {
    "connected": "info",
    "disconnected": "warning",
    "server-refuses": "warning",
    "start-ignored": "info",
    "member-lapsed": "warning",
    "member-taken-over": "warning",
    "group-lost": "error",
    "group-left-behind": "warning",
    "nacked": "info",
    "undecodable": "warning",
    "dead-lettered": "warning",
    "breaker-opened": "error",
    "breaker-closed": "info",
    "parked-full": "warning",
    "parked-untimed": "warning",
    "stalled": "warning",
    "hold-expired": "warning",
    "acks-missed": "warning",
    "confirmed-lost": "error",
    "session-reset": "warning",
    "trimmed-pending": "error",
    "trimmed-unread": "error",
    "foreign-consumer": "info",
    "cap-dropped": "error",
    "group-absent": "warning",
    "not-tended": "info",
    "shards-not-followed": "warning",
    "events-dropped": "warning",
    "events-returned": "info",
    "greedy-consumer": "warning",
    "protocol-error": "error",
    "stage-failed": "error",
    "stage-restarted": "warning",
    "stage-waiting": "warning",
    "subscription-refused": "warning",
    "unhandled-message": "warning",
    "handler-ended": "error",
    "handler-left": "warning",
    "drain-late": "warning",
}
"""How grave each kind is: those of streams, in the order of an event's life, of stages, of Apps."""


class Signal(msgspec.Struct, frozen=True, omit_defaults=True):
    """One fact: *kind* says what, *message* says it in a sentence.

    Attributes:
        kind: one of `SEVERITY`'s keys.
        message: what happened and what it means, for people.
        stream, group, member, stage: where; ``""`` if it does not apply.
        count: how many events it is about; None if it does not apply or cannot be known.
    """

    kind: Kind
    message: str
    stream: str = ""
    group: str = ""
    member: str = ""
    count: int | None = None
    stage: str = ""

    @property
    def severity(self) -> Severity:
        """How grave it is."""
        return SEVERITY[self.kind]


Observer = Callable[[Signal], None]
"""Takes each signal as it happens; must not wait."""


def counted(count: int) -> str:
    """``1 event``, ``2 events``: for messages."""
    return f"{count} event{'' if count == 1 else 's'}"


class GroupStatistics(NamedTuple):
    """A member at one moment; events since it joined.

    Attributes:
        fetched: given by the backend.
        yielded: handed to the program: deliveries.
        acked: done.
        nacked: failed, or handed back by the program.
        expired: held longer than `hold`.
        filtered: acked unseen, as `where` does not want them.
        missed: acks that found nothing to ack.
        buffered: fetched, and not yet yielded.
        in_flight: held now: what is buffered, and what the program has.
        in_flight_bytes: the size of those.
        dead_lettered: given up.
        undecodable: what the codec did not read.
        takeovers: dead members that this one took over from.
        claimed: events that it took over with them; where shards are shared, those are read again.
        lost: trimmed or removed, unread or while pending; as far as that can be counted.
    """

    fetched: int
    yielded: int
    acked: int
    nacked: int
    expired: int
    filtered: int
    missed: int
    buffered: int
    in_flight: int
    in_flight_bytes: int
    dead_lettered: int = 0
    undecodable: int = 0
    takeovers: int = 0
    claimed: int = 0
    lost: int = 0
