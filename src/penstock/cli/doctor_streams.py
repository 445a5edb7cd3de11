"""The doctor's checks of streams and groups, whoever made them.

Does        judge what `survey` saw, each fault under a name of its own.
Does not    ask, or mend: `penstock rescue` takes what is stranded.
Invariants  1. a member of ours that beats is alive, however long it holds its events.
            2. what is merely large is a warning; what is lost, or moves no more, is bad.
Source      reliability notes 1.4 to 1.6, 1.11; the issues of other clients, by their symptoms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from penstock.backends.redis.beats import is_beating, is_resting
from penstock.cli.findings import Finding
from penstock.cli.survey import PAGE, Group, Seen, Sharing

LAGGING: Final = 100_000
"""Events of lag that are worth a word: a minute or so of a brisk stream."""

LONG: Final = 100_000
"""Events of a stream from which on it should say how much it keeps."""

MANY_PENDING: Final = 10_000
"""Pending entries of a group: ours has no more in flight by default, and each costs 85 bytes."""

MANY_CONSUMERS: Final = 100
"""Consumers that read nothing any more, and are still there."""

FUTURE: Final = 86_400_000
"""Milliseconds that an id may be ahead of the server's clock: more is no clock that steps."""

EXHAUSTED: Final = 1 << 63
"""Milliseconds of an id near the end of all ids: no later one can be explicit, soon none at all."""


def of_stream(seen: Seen, now: int, idle: float) -> Iterator[Finding]:
    """Everything about one stream key; *now* in milliseconds, *idle* in seconds."""
    if seen.kind != "stream":
        text = f"it was marked as a stream, and holds a {seen.kind} now: appends are refused"
        yield Finding("bad", "wrong-type", seen.key, text)
        return
    yield from _ids(seen, now)
    if seen.length >= LONG and not any(name.startswith("retention") for name in seen.marks):
        text = f"{seen.length:,} events and no retention: it grows until memory is full"
        yield Finding("warn", "no-retention", seen.key, text)
    for group in seen.groups:
        yield from _group(seen, group, idle)
    for sharing in seen.sharing:
        yield from _shared(seen, sharing, now / 1000)


def shared_names(streams: Sequence[Seen], waiting: int) -> Iterator[Finding]:
    """More connections that wait in XREADGROUP than there are consumers: some share a name."""
    consumers = {
        (group.name, one.name)
        for seen in streams
        for group in seen.groups
        for one in group.consumers
    }
    if waiting > len(consumers):
        text = (
            f"{waiting} connections wait in XREADGROUP, and there are {len(consumers)} consumers: "
            f"some share a name, and each takes the others' entries for its own when it starts; "
            f"or some of them are dead. Give every process a name of its own"
        )
        yield Finding("bad", "shared-consumer-name", "", text)


def _ids(seen: Seen, now: int) -> Iterator[Finding]:
    ms, _ = seen.last
    if ms >= EXHAUSTED:
        text = "its last id is near the largest there is: it takes no more; go on under a new name"
        yield Finding("bad", "id-exhaustion", seen.key, text)
    elif ms > now + FUTURE:
        days = (ms - now) / FUTURE
        text = f"its last id is {days:,.0f} days ahead of the clock: trimming by age is wrong"
        yield Finding("warn", "future-ids", seen.key, text)


def _group(seen: Seen, group: Group, idle: float) -> Iterator[Finding]:
    about = f"{seen.key}/{group.name}"
    yield from _stranded(about, group, idle)
    yield from _overtaken(seen, about, group)
    if not group.consumers and group.lag != 0 and group.last < seen.last:
        text = f"{_count(group.lag)} wait, and nobody reads: start a consumer, or delete the group"
        yield Finding("warn", "no-consumers", about, text)
    elif (group.lag or 0) >= LAGGING:
        yield _lagging(about, group.lag or 0)
    if group.pending >= MANY_PENDING:
        text = f"{group.pending:,} entries are pending: taken and not acked, and each costs memory"
        yield Finding("warn", "pending-growth", about, text)
    gone = [
        one for one in group.consumers if not one.pending and one.idle > 86_400 and not one.ours
    ]
    if len(gone) >= MANY_CONSUMERS:
        text = f"{len(gone)} consumers have read nothing for a day: XGROUP DELCONSUMER removes them"
        yield Finding("warn", "abandoned-consumers", about, text)


def _shared(seen: Seen, group: Sharing, now: float) -> Iterator[Finding]:
    """A group that shares shards, behind in one of them; a member lives while it beats."""
    if group.last >= seen.last:
        return
    about = f"{seen.key}/{group.name}"
    living = [beat for beat in group.beats.values() if is_beating(beat, now)]
    if not living:
        text = f"{_count(group.lag)} wait, and nobody reads: start a member, or delete the group"
        yield Finding("warn", "no-consumers", about, text)
    elif all(is_resting(beat) for beat in living):
        text = (
            f"{_count(group.lag)} wait, and the programs of all {len(living)} members hang: none "
            f"has asked for an event, or settled one, for its `hold`"
        )
        yield Finding("warn", "all-resting", about, text)
    elif (group.lag or 0) >= LAGGING:
        yield _lagging(about, group.lag or 0)


def _lagging(about: str, lag: int) -> Finding:
    text = f"{lag:,} events behind: add members, or see what holds them up"
    return Finding("warn", "lagging", about, text)


def _stranded(about: str, group: Group, idle: float) -> Iterator[Finding]:
    """Taken, not acked, and with nobody who will."""
    ours = {one.name for one in group.consumers if one.ours}
    old = {name: count for name, count in group.old.items() if name not in ours}
    if old:
        more = "at least " if sum(group.old.values()) >= PAGE else ""
        text = (
            f"{more}{sum(old.values()):,} entries are pending for more than {idle:g} s: taken, "
            f"and never acked; nobody gets them by reading on: penstock rescue"
        )
        yield Finding("bad", "stranded-pending", about, text)
    for one in group.consumers:
        if one.pending and one.idle >= idle and not one.ours:
            text = (
                f"it has read nothing for {one.idle:,.0f} s and holds {one.pending:,} entries; do "
                f"not delete it, that would drop them: penstock rescue"
            )
            yield Finding("bad", "dead-consumer", f"{about}/{one.name}", text)


def _overtaken(seen: Seen, about: str, group: Group) -> Iterator[Finding]:
    """Trimming that went past what the group had not read, or not acked."""
    behind = seen.first is None or group.last < seen.first
    if behind and group.read is not None and seen.added is not None:
        lost = max(0, seen.added - seen.length - group.read)
        if lost:
            text = f"{lost:,} entries were trimmed before the group read them: lost to it"
            yield Finding("bad", "overtaken-group", about, text)
    if group.lowest is not None and (seen.first is None or group.lowest < seen.first):
        text = "entries that are pending were trimmed: they come as nothing, and are lost to it"
        yield Finding("bad", "trimmed-pending", about, text)


def _count(lag: int | None) -> str:
    return "an unknown number of entries" if lag is None else f"{lag:,} entries"
