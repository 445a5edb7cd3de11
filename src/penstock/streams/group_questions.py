"""Group questions: what a member asks the backend about its group, and makes of its answers.

Does        make events of pages; add up what the backend says by shard.
Does not    hold events, or change anything.
Used by     `membership`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from penstock.errors import BackendError
from penstock.event import Event, Position, Shard
from penstock.ports import EventMember, Page, PendingInfo
from penstock.rules.ledger import Ledger
from penstock.streams.format import ShardOrigin


def events_of(page: Page, origin: ShardOrigin, ledger: Ledger) -> list[Event[Any]]:
    """The events of a page, without those that are held already: found again after a lost reply."""
    if page.counts is None:
        return [
            Event(origin, entry[0], entry[1], 1, 0, len(b"".join(entry[1])))
            for entry in page.entries
        ]
    return [
        Event(origin, entry[0], entry[1], count, failed, len(b"".join(entry[1])))
        for entry, (count, failed, _) in zip(page.entries, page.counts, strict=True)
        if not ledger.holds(origin, entry[0])
    ]


async def lag_of(backend: Any, shards: Iterable[Shard], group: str) -> int | None:
    """Events that the group has not handed out yet; None where it cannot be known."""
    found = [await backend.groups(shard) for shard in shards]
    lags: list[int | None] = [info.lag for infos in found for info in infos if info.name == group]
    known = [lag for lag in lags if lag is not None]
    return sum(known) if len(known) == len(lags) else None


async def pending_of(
    backend: Any, shards: Iterable[Shard], group: str, limit: int
) -> list[PendingInfo]:
    """The oldest events that are handed out and not acked, over all members, by shard."""
    found = [await backend.pending(shard, group, limit) for shard in shards]
    return [info for infos in found for info in infos]


async def is_handed_out(backend: Any, member: EventMember, shard: Shard, target: Position) -> bool:
    """Whether nothing up to *target* is left to hand out; it may have been removed."""
    try:
        done = await member.progress(shard)
        left = await backend.read_range(shard, done, target, 2, False)
    except BackendError:
        return False
    return not any(done is None or Position.of(entry[0]) > done for entry in left)
