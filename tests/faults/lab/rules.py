"""Rules: what the offline checker holds a history to, rule by rule.

Does        return one sentence for every breach; empty where a rule holds.
Does not    read anything but the history and the promise; print.
Invariants  each rule is pure, and costs O(n log n) at most.
Source      the eleven rules of the reliability notes, 4.2; Jepsen's total-queue; Kafka's kafkatest.

Rule 3 (what recovered) and 11 (blame) are figures: they are in `figures.py`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

from faults.lab.history import Fault, Handling, History
from faults.lab.promise import Promise

Rule = Callable[[History, Promise], Iterator[str]]

SHOWN = 5
"""How many offenders a breach names."""


def promised(history: History, promise: Promise) -> set[str]:
    """The events that must not be lost."""
    return {
        attempt.id
        for attempt in history.attempts.values()
        if attempt.outcome == "ok"
        and attempt.level in promise.levels
        and attempt.at >= history.forgiven_before
    }


def lost(history: History, promise: Promise, group: str) -> set[str]:
    """What was promised, and is neither handled nor among the dead letters of *group*."""
    return promised(history, promise) - history.done(group) - history.buried(group)


def rule_1_nothing_lost(history: History, promise: Promise) -> Iterator[str]:
    """What was confirmed is handled; a cell that promises nothing shows loss."""
    for group in history.groups:
        missing = lost(history, promise, group)
        if promise.shows_loss:
            if not missing:
                yield f"{group}: this cell must lose something, and lost nothing: no fault bit"
        elif promise.reports_loss:
            reported = history.reported.get(group, 0)
            if len(missing) > reported:
                yield f"{group}: {len(missing)} lost, of which {reported} were reported"
        elif missing:
            yield f"{group}: {len(missing)} confirmed events lost: {named(missing)}"


def rule_2_nothing_invented(history: History, _: Promise) -> Iterator[str]:
    """Nothing is handled, or stored, that nobody appended."""
    for group in history.groups:
        strange = {h.id for h in history.of(group)} - history.attempts.keys()
        if strange:
            yield f"{group}: {len(strange)} events handled that nobody appended: {named(strange)}"


def rule_3_all_end(history: History, _: Promise) -> Iterator[str]:
    """Everything that is stored reaches an end in each group: handled, or a dead letter."""
    for group in history.groups:
        left = history.left.get(group)
        if left:
            yield f"{group}: {len(left)} events are stuck in the group: {named(left)}"


def rule_4_duplicates_bounded(history: History, promise: Promise) -> Iterator[str]:
    """An event is handled again only where a fault found it in flight."""
    for group in history.groups:
        excess, allowed = duplicates(history, group), allowed_duplicates(history, group, promise)
        if excess > allowed:
            again = [i for i, n in done_counts(history, group).items() if n > 1]
            yield f"{group}: {excess} duplicates, {allowed} allowed: {named(again)}"


def rule_5_order(history: History, promise: Promise) -> Iterator[str]:
    """Appends are stored in order; keys are handled in order; a member goes forward."""
    if wrong := _stored_behind(history):
        yield f"{len(wrong)} events are stored behind later ones of their key: {named(wrong)}"
    for group in history.groups:
        if group not in promise.ordered:
            yield from _members_go_forward(history, group)
        elif wrong := _begun_early(history, group):
            yield (
                f"{group}: {len(wrong)} events begun before the one before was done: {named(wrong)}"
            )


def rule_6_one_owner(history: History, promise: Promise) -> Iterator[str]:
    """No event is in two hands at once, while both could believe that it was theirs."""
    for group in history.groups:
        by_event: dict[str, list[Handling]] = defaultdict(list)
        for handling in history.of(group):
            by_event[handling.id].append(handling)
        shared = [
            (first, second)
            for several in by_event.values()
            for first, second in pairwise(several)
            if first.who != second.who
            and second.start < _released(first, promise)
            and not _was_silent(history, promise, first.who, second.start)
        ]
        if shared:
            first, second = shared[0]
            yield (
                f"{group}: {len(shared)} events in two living hands, such as {first.id}: "
                f"{first.who} had it when {second.who} began it"
            )


def rule_7_acks_follow(history: History, promise: Promise) -> Iterator[str]:
    """Acks come after the handling, and from him who has the event; dead letters after all else."""
    for group in history.groups:
        early = [
            h.id
            for h in history.of(group)
            if h.acked is not None and (h.end is None or h.acked < h.end)
        ]
        if early:
            yield f"{group}: {len(early)} events acked before they were handled: {named(early)}"
    for missed in history.missed:
        if not _was_silent(history, promise, missed.who, missed.at):
            yield (
                f"{missed.group}: {missed.count} acks of {missed.who} found nothing to ack, though "
                f"nothing had touched it: another acked what it held"
            )
    for dead in history.dead:
        if dead.attempts < promise.attempts and not dead.reason.startswith("Reject"):
            yield (
                f"{dead.group}: {dead.id} is a dead letter after {dead.attempts} of "
                f"{promise.attempts} attempts"
            )


def rule_8_bounded(history: History, promise: Promise) -> Iterator[str]:
    """What is pending, in memory and open is bounded; no dead consumers are left."""
    for sample in history.samples:
        over = {who: n for who, n in sample.pending.items() if n > promise.in_flight}
        if over:
            yield f"{sample.group}: more than {promise.in_flight} in flight: {over}"
            break
    by_process: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for sample in history.samples:
        if sample.who:
            by_process[sample.who].append((sample.rss, sample.files))
    for who, figures in by_process.items():
        yield from _grown(who, figures, promise)
    if promise.litter is not None:
        for group, count in history.consumers.items():
            allowed = promise.members.get(group, 0) + promise.litter
            if count > allowed:
                yield f"{group}: {count} consumers are left, {allowed} allowed"


def rule_9_alive(history: History, promise: Promise) -> Iterator[str]:
    """All drains in the end; no stall with nothing broken; nobody ends by himself."""
    for crash in history.crashes:
        yield f"a process ended by itself: {crash}"
    for group, at in history.drained.items():
        if at is None:
            yield f"{group}: not drained by the deadline"
    for group in history.groups:
        seconds, since = longest_stall(history, group)
        if seconds > promise.stall * promise.slow:
            yield f"{group}: no progress for {seconds:.1f} s with nothing broken, from {since:.1f}"
        for fault, seconds in takeovers(history, group):
            late = fault.start, fault.start + seconds
            in_time = seconds - history.lag_between(*late) <= promise.takeover
            if in_time or not history.had_heirs(group, fault):
                continue
            if _alone(history, fault, fault.start + promise.takeover):
                yield f"{group}: what a dead member held was taken over after {seconds:.1f} s"


def rule_10_outcomes(history: History, promise: Promise) -> Iterator[str]:
    """Stored, not stored and unknown are each the truth; nothing is stored twice."""
    counts = Counter(history.stored)
    sure = promised(history, promise)
    if history.stored and not promise.shows_loss and not promise.reports_loss:
        finished = set.intersection(*(history.done(group) for group in history.groups))
        gone = sure - counts.keys() - finished  # what all have finished may be trimmed
        if gone:
            yield f"{len(gone)} events confirmed, and not in the stream: {named(gone)}"
    liars = [i for i in counts if i in history.attempts and history.attempts[i].outcome == "fail"]
    if liars:
        yield f"{len(liars)} events reported as not stored are in the stream: {named(liars)}"
    twice = [i for i, n in counts.items() if n > 1]
    if twice:
        yield f"{len(twice)} events are in the stream more than once: {named(twice)}"


RULES: dict[str, Rule] = {
    "1 nothing lost": rule_1_nothing_lost,
    "2 nothing invented": rule_2_nothing_invented,
    "3 all end": rule_3_all_end,
    "4 duplicates bounded": rule_4_duplicates_bounded,
    "5 order": rule_5_order,
    "6 one owner": rule_6_one_owner,
    "7 acks follow": rule_7_acks_follow,
    "8 bounded": rule_8_bounded,
    "9 alive": rule_9_alive,
    "10 outcomes": rule_10_outcomes,
}


# --- what the rules, and the figures, are made of ----------------------------------------------


def done_counts(history: History, group: str) -> Counter[str]:
    """How often each event was handled to its end."""
    return Counter(h.id for h in history.handlings if h.group == group and h.end is not None)


def duplicates(history: History, group: str) -> int:
    """How many handlings were not the first of their event."""
    counts = done_counts(history, group)
    return sum(counts.values()) - len(counts)


def allowed_duplicates(history: History, group: str, promise: Promise) -> int:
    """What was in flight at the faults, summed up.

    A process that stood still for nearly a lease, though nobody had stopped it, is one more; where
    it was the lab, whose networks all go through, each member is.
    """
    still = sum(
        len({h.who for h in history.of(group)}) if lag.who == "lab" else 1
        for lag in history.unexplained()
        if lag.end - lag.start > 0.7 * promise.lease
    )
    in_flight = sum(fault.allows.get(group, 0) for fault in history.faults)
    return in_flight + still * promise.in_flight


def longest_stall(history: History, group: str) -> tuple[float, float]:
    """The longest time without progress in which nothing was broken, and when it began.

    Where the machine stood still, the clock of this stands still too. Looked at until the load
    ends (`History.calm`): after that, nothing may be left to do.
    """
    done = sorted(h.end for h in history.of(group) if h.end is not None and h.end <= history.calm)
    longest, began = 0.0, 0.0
    for before, after in pairwise(done):
        if after - before <= longest:
            continue
        for start, end in _healthy(history, before, after):
            seconds = end - start - history.lag_between(start, end)
            if seconds > longest:
                longest, began = seconds, start
    return longest, began


def disorder(history: History, promise: Promise, group: str) -> list[str]:
    """The events that stand, or were handled, in another order than they were sent in."""
    early = _begun_early(history, group) if group in promise.ordered else []
    return _stored_behind(history) + early


def takeovers(history: History, group: str) -> list[tuple[Fault, float]]:
    """How long after each death the last event of the dead was in another hand."""
    handlings = history.of(group)
    found: list[tuple[Fault, float]] = []
    for fault in history.faults:
        if fault.kind != "kill member":
            continue
        dropped = {
            h.id
            for h in handlings
            if h.who in fault.targets and h.end is None and h.released is None
        }
        again = [
            min((h.start for h in handlings if h.id == id_ and h.start > fault.start), default=None)
            for id_ in dropped
        ]
        taken = [at - fault.start for at in again if at is not None]
        if taken:
            found.append((fault, max(taken)))
    return found


def named(ids: Iterable[str]) -> str:
    """The first few of several, for a sentence."""
    some = sorted(ids)
    return ", ".join(some[:SHOWN]) + (" …" if len(some) > SHOWN else "")


def _healthy(history: History, start: float, end: float) -> Iterator[tuple[float, float]]:
    """The parts of [start, end] in which no fault was on."""
    reached = start
    for fault in sorted(history.faults, key=lambda f: f.start):
        if fault.heal <= reached or fault.start >= end:
            continue
        if fault.start > reached:
            yield reached, fault.start
        reached = fault.heal
    if reached < end:
        yield reached, end


def _alone(history: History, fault: Fault, until: float) -> bool:
    """Whether nothing else was broken *until* the dead one's events should have been taken over."""
    return not any(f != fault and f.start < until and f.heal > fault.start for f in history.faults)


def _stored_behind(history: History) -> list[str]:
    """What breaks this: each producer's events of one key stand in the order of its sends."""
    newest: dict[tuple[str, str], int] = {}
    seen: set[str] = set()
    wrong: list[str] = []
    for id_ in history.stored:
        attempt = history.attempts.get(id_)
        if attempt is None or id_ in seen:
            continue
        seen.add(id_)
        lane = attempt.who, attempt.key
        if attempt.seq < newest.get(lane, -1):
            wrong.append(id_)
        newest[lane] = max(newest.get(lane, -1), attempt.seq)
    return wrong


def _begun_early(history: History, group: str) -> list[str]:
    """What breaks this: per producer and key, none is begun before the one before was done.

    A dead letter is a gap.
    """
    buried = history.buried(group)
    first_start: dict[str, float] = {}
    first_done: dict[str, float] = {}
    for handling in history.of(group):
        first_start.setdefault(handling.id, handling.start)
        if handling.end is not None:
            at = first_done.get(handling.id, handling.end)
            first_done[handling.id] = min(at, handling.end)
    lanes: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
    for id_ in first_start:
        if (attempt := history.attempts.get(id_)) is not None and id_ not in buried:
            lanes[attempt.who, attempt.key].append((attempt.seq, id_))
    return [
        after
        for lane in lanes.values()
        for (_, before), (_, after) in pairwise(sorted(lane))
        if before in first_done and first_start[after] < first_done[before]
    ]


def _members_go_forward(history: History, group: str) -> Iterator[str]:
    """What a member is given for the first time comes in the stream's order.

    A group that was lost and made anew goes back once.
    """
    latest: dict[tuple[str, int], tuple[int, int]] = {}
    back: Counter[tuple[str, int]] = Counter()
    for handling in history.of(group):
        if handling.deliveries != 1 or handling.position == (0, 0):
            continue
        road = handling.who, handling.shard
        if handling.position < latest.get(road, (0, 0)):
            back[road] += 1
        latest[road] = handling.position
    allowed = sum(fault.loses_group for fault in history.faults)
    wrong = {road: times for road, times in back.items() if times > allowed}
    if wrong:
        yield f"{group}: members went back in the stream, {allowed} times allowed: {wrong}"


def _released(handling: Handling, promise: Promise) -> float:
    """Until when the hand that began it may have held it; one that never ended held it long."""
    ends = [at for at in (handling.end, handling.released) if at is not None]
    return min(ends, default=handling.start + promise.lease / 2)


def _was_silent(history: History, promise: Promise, who: str, until: float) -> bool:
    """Whether a fault, or a machine that stood still, may have kept a member from beating.

    It is looked for in the two leases before *until*: so long may a watcher have looked.
    """
    since = until - 2 * promise.lease * promise.slow - 1.0
    if any(f.touches(who) and f.start < until and f.heal > since for f in history.faults):
        return True
    still = [lag for lag in history.unexplained() if lag.end > since and lag.start < until]
    return any(lag.end - lag.start > promise.lease / 4 for lag in still)


def _grown(who: str, figures: list[tuple[int, int]], promise: Promise) -> Iterator[str]:
    """What grew from the first third of a run to its last."""
    third = len(figures) // 3
    if third < 3:
        return
    early = sorted(figures[third : 2 * third])[third // 2]
    late = sorted(figures[-third:])[third // 2]
    if late[0] - early[0] > promise.growth:
        yield f"{who}: memory grew by {(late[0] - early[0]) >> 20} MiB"
    if late[1] - early[1] > 16:
        yield f"{who}: {late[1] - early[1]} files more are open"
