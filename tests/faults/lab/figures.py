"""Figures: what a run has to show beside right and wrong, and who is to blame.

Does        count faults, events, duplicates and what recovered; measure stalls, recoveries and
            take-overs; say of each lost event where it was last seen; put it in words and in JSON.
Does not    judge: `rules.py` does.
"""

from __future__ import annotations

import bisect
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from faults.lab.history import Fault, History
from faults.lab.promise import Promise
from faults.lab.rules import (
    RULES,
    allowed_duplicates,
    disorder,
    done_counts,
    duplicates,
    longest_stall,
    lost,
    takeovers,
)


@dataclass
class Verdict:
    """What became of a run. `breaches` is empty if every rule holds."""

    cell: str = ""
    server: str = ""
    seconds: float = 0.0
    slow: float = 1.0
    still: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)
    appended: int = 0
    confirmed: int = 0
    refused: int = 0
    unknown: int = 0
    recovered: int = 0
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    blame: dict[str, str] = field(default_factory=dict)
    breaches: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether every rule holds."""
        return not self.breaches

    def plain(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {"good": self.good, **asdict(self)}


def judge(history: History, promise: Promise, *, cell: str = "", server: str = "") -> Verdict:
    """Hold *history* to *promise*."""
    outcomes = Counter(attempt.outcome for attempt in history.attempts.values())
    unknown = {a.id for a in history.attempts.values() if a.outcome == "unknown"}
    verdict = Verdict(cell=cell, server=server, slow=round(promise.slow, 2))
    verdict.still = round(sum(lag.end - lag.start for lag in history.unexplained()), 2)
    verdict.faults = dict(Counter(fault.kind for fault in history.faults))
    verdict.appended = len(history.attempts)
    verdict.confirmed, verdict.refused = outcomes["ok"], outcomes["fail"]
    verdict.unknown, verdict.recovered = len(unknown), len(unknown & set(history.stored))
    for group in history.groups:
        verdict.groups[group] = _of_group(history, promise, group)
        for id_ in sorted(lost(history, promise, group))[:20]:
            verdict.blame[f"{group} {id_}"] = blame(history, group, id_)
    for name, rule in RULES.items():
        if breaches := list(rule(history, promise)):
            verdict.breaches[name] = breaches
    return verdict


def blame(history: History, group: str, id_: str) -> str:
    """Where a lost event was last seen: who lost it."""
    if history.stored and id_ not in history.stored:
        return "not in the stream: the server lost it, or it was trimmed"
    if id_ in history.left.get(group, ()):
        return "in the group, not finished: nobody took it"
    begun = [h.who for h in history.handlings if h.group == group and h.id == id_]
    if begun:
        return f"begun by {', '.join(begun)}, never done, and acked: the client lost it"
    return "acked and never handled: the client lost it"


def recoveries(history: History, group: str) -> list[tuple[Fault, float]]:
    """How long after each fault's end the group made progress again; by fault."""
    done = sorted(h.end for h in history.of(group) if h.end is not None)
    found: list[tuple[Fault, float]] = []
    for fault in history.faults:
        at = bisect.bisect_left(done, fault.heal)
        if at < len(done):
            found.append((fault, done[at] - fault.heal))
    return found


def report(verdict: Verdict) -> str:
    """A verdict for people."""
    head = f"{verdict.cell} on {verdict.server}: {'good' if verdict.good else 'BAD'}"
    machine = f"counts as {verdict.slow} times slower, and stood still for {verdict.still} s"
    lines = [
        f"{head}, {verdict.seconds:.0f} s, this machine {machine}",
        f"  faults      {sum(verdict.faults.values())}: "
        + ", ".join(f"{kind} {count}" for kind, count in sorted(verdict.faults.items())),
    ]
    events = (
        f"{verdict.appended} appended: {verdict.confirmed} confirmed, {verdict.refused} refused"
    )
    lines.append(
        f"  events      {events}, {verdict.unknown} unknown, {verdict.recovered} recovered"
    )
    for group, about in verdict.groups.items():
        lines.append(
            f"  {group:<11} {about['handled']} handled, lost {about['lost']}, duplicates "
            f"{about['duplicates']} of {about['allowed']} in flight at faults, "
            f"{about['disorder']} order violations, longest stall {about['stall']} s, "
            f"slowest recovery {about['recovery']} s, slowest take-over {about['takeover']} s"
        )
    lines += [f"  note        {note}" for note in verdict.notes]
    lines += [f"  blame       {what}: {why}" for what, why in verdict.blame.items()]
    for rule, breaches in verdict.breaches.items():
        lines += [f"  RULE {rule}: {breach}" for breach in breaches]
    return "\n".join(lines)


def _of_group(history: History, promise: Promise, group: str) -> dict[str, Any]:
    recovered = recoveries(history, group)
    taken = takeovers(history, group)
    return {
        "handled": len(done_counts(history, group)),
        "lost": len(lost(history, promise, group)),
        "duplicates": duplicates(history, group),
        "allowed": allowed_duplicates(history, group, promise),
        "disorder": len(disorder(history, promise, group)),
        "reported": history.reported.get(group, 0),
        "stall": round(longest_stall(history, group)[0], 2),
        "recovery": round(max((seconds for _, seconds in recovered), default=0.0), 2),
        "recoveries": _by_kind(recovered),
        "takeover": round(max((seconds for _, seconds in taken), default=0.0), 2),
        "takeovers": _by_kind(taken),
        "drained": history.drained.get(group),
    }


def _by_kind(found: list[tuple[Fault, float]]) -> dict[str, float]:
    slowest: dict[str, float] = {}
    for fault, seconds in found:
        slowest[fault.kind] = max(slowest.get(fault.kind, 0.0), round(seconds, 3))
    return slowest
