"""History: what happened in a run, as plain values that the checker judges.

Does        hold attempts, outcomes, handlings, faults, samples and the broker's own account; make
            them of journal lines.
Does not    judge, or read files.
Invariants  1. an append without any outcome (its producer was killed) counts as unknown.
            2. times are seconds of one monotonic clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Outcome = str
"""``ok``, ``fail`` (certainly not stored) or ``unknown``."""


class Attempt(NamedTuple):
    """An event that somebody tried to append: `seq` counts within its producer and key."""

    id: str
    who: str
    key: str
    seq: int
    at: float
    outcome: Outcome = "unknown"
    level: str = "server"


class Handling(NamedTuple):
    """One handling of one event by one member.

    `end` is None where it was not done; `released`: handed back, or known not to be its own.
    """

    group: str
    who: str
    id: str
    start: float
    end: float | None = None
    deliveries: int = 1
    position: tuple[int, int] = (0, 0)
    acked: float | None = None
    released: float | None = None
    shard: int = 0


class Fault(NamedTuple):
    """One fault. `targets`: incarnations, ``*`` for all; `allows`: duplicates, by group."""

    kind: str
    start: float
    heal: float
    targets: tuple[str, ...] = ()
    allows: Mapping[str, int] = {}
    loses_group: bool = False
    why: str = ""

    def touches(self, who: str) -> bool:
        """Whether the process *who* may have been silent because of it."""
        return "*" in self.targets or who in self.targets


class Lag(NamedTuple):
    """The machine, or a process, stood still though nobody had stopped it."""

    who: str
    start: float
    end: float


class Missed(NamedTuple):
    """Acks of one member that found nothing to ack."""

    group: str
    who: str
    at: float
    count: int


class Sample(NamedTuple):
    """What was measured at one moment: pending events by member, memory, open files."""

    at: float
    group: str = ""
    pending: Mapping[str, int] = {}
    who: str = ""
    rss: int = 0
    files: int = 0


class DeadEntry(NamedTuple):
    """A dead letter."""

    group: str
    id: str
    attempts: int
    reason: str = ""


@dataclass
class History:
    """One run. `streams`: every stored event by stream, in the broker's order."""

    attempts: dict[str, Attempt] = field(default_factory=dict)
    handlings: list[Handling] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    lags: list[Lag] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    dead: list[DeadEntry] = field(default_factory=list)
    joined: list[tuple[float, str, str]] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)
    left: dict[str, list[str]] = field(default_factory=dict)
    consumers: dict[str, int] = field(default_factory=dict)
    missed: list[Missed] = field(default_factory=list)
    reported: dict[str, int] = field(default_factory=dict)
    crashes: list[str] = field(default_factory=list)
    drained: dict[str, float | None] = field(default_factory=dict)
    calm: float = math.inf
    forgiven_before: float = -math.inf

    @property
    def groups(self) -> list[str]:
        """All groups, in a fixed order."""
        return sorted({handling.group for handling in self.handlings} | set(self.drained))

    def of(self, group: str) -> list[Handling]:
        """The handlings of one group, by their start."""
        return sorted((h for h in self.handlings if h.group == group), key=lambda h: h.start)

    def done(self, group: str) -> set[str]:
        """What one group has handled to its end."""
        return {h.id for h in self.handlings if h.group == group and h.end is not None}

    def buried(self, group: str) -> set[str]:
        """What one group has among its dead letters."""
        return {dead.id for dead in self.dead if dead.group == group}

    def had_heirs(self, group: str, fault: Fault) -> bool:
        """Whether others were there when the fault began; where nobody wrote it down, they were."""
        there = [who for at, of, who in self.joined if of == group and at < fault.start]
        return not self.joined or any(who not in fault.targets for who in there)

    def unexplained(self) -> list[Lag]:
        """Where the machine stood still: a process that we had stopped ourselves says nothing."""
        return [
            lag
            for lag in self.lags
            if not any(
                lag.who in fault.targets and fault.start < lag.end and lag.start < fault.heal
                for fault in self.faults
            )
        ]

    def lag_between(self, start: float, end: float) -> float:
        """Seconds of [start, end] in which the machine stood still, as far as anybody noticed."""
        spans = sorted(
            (max(lag.start, start), min(lag.end, end))
            for lag in self.unexplained()
            if lag.end > start and lag.start < end
        )
        total, reached = 0.0, start
        for begin, finish in spans:
            total += max(0.0, finish - max(begin, reached))
            reached = max(reached, finish)
        return total


@dataclass
class Reader:
    """Makes a history of journal lines, in any order of processes, in order within each."""

    history: History = field(default_factory=History)
    _open: dict[tuple[str, str], int] = field(default_factory=dict)
    _groups: dict[str, str] = field(default_factory=dict)

    def read(self, lines: Iterable[dict[str, Any]]) -> None:
        """Take lines in."""
        for line in lines:
            getattr(self, f"_on_{line['what'].replace('-', '_')}", _ignore)(line)

    def _on_try(self, line: dict[str, Any]) -> None:
        attempt = Attempt(line["id"], line["who"], line["k"], line["s"], line["t"])
        self.history.attempts.setdefault(attempt.id, attempt)

    def _on_ok(self, line: dict[str, Any]) -> None:
        self._outcome(line, "ok")

    def _on_fail(self, line: dict[str, Any]) -> None:
        self._outcome(line, "fail")

    def _on_unknown(self, line: dict[str, Any]) -> None:
        self._outcome(line, "unknown")

    def _outcome(self, line: dict[str, Any], outcome: Outcome) -> None:
        for id_ in line["ids"]:
            attempt = self.history.attempts[id_]
            level = line.get("level", "server")
            self.history.attempts[id_] = attempt._replace(outcome=outcome, level=level)

    def _on_joined(self, line: dict[str, Any]) -> None:
        self._groups[line["who"]] = line["group"]
        self.history.joined.append((line["t"], line["group"], line["who"]))

    def _on_start(self, line: dict[str, Any]) -> None:
        who, id_ = line["who"], str(line["id"])
        self._open[who, id_] = len(self.history.handlings)
        self.history.handlings.append(
            Handling(
                self._groups[who],
                who,
                id_,
                line["t"],
                deliveries=line.get("d", 1),
                position=position(line.get("pos", "0-0")),
                shard=line.get("shard", 0),
            )
        )

    def _on_done(self, line: dict[str, Any]) -> None:
        self._change(line, end=line["t"])

    def _on_ack(self, line: dict[str, Any]) -> None:
        self._change(line, acked=line["t"])

    def _on_nack(self, line: dict[str, Any]) -> None:
        self._change(line, released=line["t"])

    def _on_lease_lost(self, line: dict[str, Any]) -> None:
        self._change(line, released=line["t"])

    def _change(self, line: dict[str, Any], **values: float) -> None:
        at = self._open[line["who"], str(line["id"])]
        self.history.handlings[at] = self.history.handlings[at]._replace(**values)

    def _on_lag(self, line: dict[str, Any]) -> None:
        self.history.lags.append(Lag(line["who"], line["from"], line["t"]))

    def _on_signal(self, line: dict[str, Any]) -> None:
        group, count = self._groups.get(line["who"], line.get("group", "")), line.get("count")
        if line["kind"] == "acks-missed":
            self.history.missed.append(Missed(group, line["who"], line["t"], count))
        if line["kind"].startswith("trimmed") and count:
            self.history.reported[group] = self.history.reported.get(group, 0) + count

    def _on_crash(self, line: dict[str, Any]) -> None:
        self.history.crashes.append(f"{line['who']}: {line['error']}")


def position(text: str) -> tuple[int, int]:
    """A position that compares."""
    first, _, second = text.partition("-")
    return int(first), int(second or 0)


def _ignore(_: dict[str, Any]) -> None:
    """A line that is for people."""
