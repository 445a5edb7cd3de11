"""Retaining: the janitor that keeps of a stream what its retention says.

Does        trim, in the backend's one step that heeds what groups need; name groups that nobody
            works for and that stand in the way; say what was dropped at the cap.
Does not    run by itself: `tending.py` calls it, with the retention when it is this client's turn.
Invariants  1. a guarded limit never removes what a group has not acked.
            2. a group is named once in each time that it is absent for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from penstock.event import Position, Shard
from penstock.ports import GroupInfo, Retention, StreamInfo, Tended, TrimTo
from penstock.rules.retention import over
from penstock.signals import Kind, Signal

if TYPE_CHECKING:
    from penstock.streams.client import Client


class Janitor:
    """Keeps the streams of one client's program short."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._looked: dict[str, float] = {}
        self._alone: dict[tuple[str, str], float] = {}
        self._named: dict[tuple[str, str], float] = {}

    async def keep(self, name: str, tended: Tended) -> None:
        """Do what *tended* asks of this client."""
        retention = tended.retention
        if tended.dropped:
            text = (
                f"{tended.dropped} of the oldest events of {name!r} were dropped: it has reached "
                f"the cap of its retention"
            )
            self._signal("cap-dropped", text, name, count=tended.dropped)
        if retention is None or not retention.trims:
            return
        shards = [Shard(name, index, tended.shards) for index in range(tended.shards)]
        for limit in _limits(retention, tended.time):
            for shard in shards:
                await self._client.backend.trim(shard, limit)
        if retention.guarded:
            await self._name_absent(name, retention, tended, shards)

    async def _name_absent(
        self, name: str, retention: Retention, tended: Tended, shards: Sequence[Shard]
    ) -> None:
        """Now and then: does a group stand in the way that nobody works for?"""
        now = self._client.clock.monotonic()
        if now - self._looked.get(name, -retention.absent) < min(60.0, retention.absent / 4):
            return
        self._looked[name] = now
        info: StreamInfo | None = await self._client.backend.describe(name)
        if info is None or not over(retention, info.length, info.oldest, tended.time):
            return
        for shard in shards:
            for group in await self._client.backend.groups(shard):
                self._judge(name, group, retention.absent, now)

    def _judge(self, name: str, group: GroupInfo, absent: float, now: float) -> None:
        at = (name, group.name)
        idle = min((member.idle for member in group.members), default=None)
        if idle is None:
            idle = now - self._alone.setdefault(at, now)
        else:
            self._alone.pop(at, None)
        waiting = group.pending + group.parked + (group.lag or 0)
        if idle < absent or (not waiting and group.lag is not None):
            return
        if now - self._named.get(at, -absent) < absent:
            return
        self._named[at] = now
        text = (
            f"group {group.name!r} keeps events of {name!r} from being removed, and no member has "
            f"worked for it for {idle:.0f} s; start one, or drop the group"
        )
        self._signal("group-absent", text, name, group=group.name, count=waiting or None)

    def _signal(
        self, kind: Kind, text: str, name: str, *, group: str = "", count: int | None
    ) -> None:
        self._client.observers(Signal(kind, text, stream=name, group=group, count=count))


def _limits(retention: Retention, now: float) -> Iterator[TrimTo]:
    """What to trim to, at *now*, the server's time."""
    guarded = retention.guarded
    if retention.max_age is not None:
        oldest = Position((max(0, int((now - retention.max_age) * 1000)), 0))
        yield TrimTo(before=oldest, acked_only=guarded)
    if retention.max_events is not None:
        yield TrimTo(max_events=retention.max_events, acked_only=guarded)
    if retention.max_bytes is not None:
        yield TrimTo(max_bytes=retention.max_bytes, acked_only=guarded)
