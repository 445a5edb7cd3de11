"""Placing, in memory: groups that are made, set elsewhere or dropped by hand, of either kind.

Does        make a group without joining it; set one elsewhere, unless a member lives; drop one.
Does not    join or hand out events.
Invariants  1. whether a member lives is seen by its beat that moves, as everywhere.
Used by     memory.
"""

from __future__ import annotations

from penstock.backends.memory_letters import MemoryLetters
from penstock.backends.memory_log import key_behind
from penstock.backends.memory_pending import EventGroup
from penstock.backends.memory_shard_group import ShardGroup
from penstock.backends.memory_store import Store
from penstock.errors import ConfigError, NotFound
from penstock.event import Shard, Start
from penstock.rules.leases import LOOKS, STRUCK


class MemoryPlacing(MemoryLetters):
    """What `MemoryBackend` does about the places of groups."""

    async def create_group(self, shard: Shard, group: str, start: Start) -> bool:
        """Make a group that shares events, and the stream if need be; False if it was there.

        Raises:
            ConfigError: a group of that name shares the stream's shards.
        """
        store = self._open_place.store
        with store.lock:
            store.check_join(shard)
            log = store.made(shard)
            stream = store.streams[shard.stream]
            if group in stream.sharing(shard):
                raise ConfigError(
                    f"a group shares either single events or whole shards, and {group!r} of "
                    f"{shard.stream!r} shares shards; choose another name"
                )
            if group in log.event_groups:
                return False
            start = stream.start_of(shard, group, start)
            log.event_groups[group] = EventGroup(log, str(start), key_behind(start, log))
        return True

    async def reset_group(
        self, shard: Shard, group: str, start: Start, *, force: bool = False
    ) -> None:
        """Set a group of either kind elsewhere; see `ports.EventGroups.reset_group`."""
        place, first = self._open_place, dict[str, str]()
        while True:
            with place.store.lock:
                now = place.clock.monotonic()
                found = _found(place.store, shard, group)
                members = [] if force else list(found.members.values())
                beating = [m for m in members if m.beating(now) and m.beat != STRUCK]
                for member in beating:
                    if first.setdefault(member.name, member.beat) != member.beat:
                        raise ConfigError(
                            f"a group is set elsewhere while nobody is in it, but member "
                            f"{member.name!r} of group {group!r} of {shard.stream!r} lives; end "
                            f"it first, or force it: its events then come again"
                        )
                if not beating:
                    self._place_anew(place.store, shard, group, start)
                    place.store.ring(shard)
                    return
            await place.clock.sleep(min(member.lease for member in beating) / LOOKS)

    async def drop(self, shard: Shard, group: str) -> bool:
        """Remove the group with all that is kept for it; False if there was none."""
        store = self._open_place.store
        with store.lock:
            log, stream = store.log(shard), store.streams.get(shard.stream)
            there = log is not None and log.event_groups.pop(group, None) is not None
            if stream is not None:
                there = stream.sharing(shard).pop(group, None) is not None or there
                stream.forget_lone(group)
            if log is not None:
                log.dead.pop(group, None)
                log.replays.pop(group, None)
            store.ring(shard)
        return there

    @staticmethod
    def _place_anew(store: Store, shard: Shard, group: str, start: Start) -> None:
        log = store.made(shard)
        found = _found(store, shard, group)
        if isinstance(found, ShardGroup):
            found.place(shard.index, key_behind(start, log))
        else:
            log.event_groups[group] = EventGroup(log, str(start), key_behind(start, log))


def _found(store: Store, shard: Shard, group: str) -> EventGroup | ShardGroup:
    log, stream = store.log(shard), store.streams.get(shard.stream)
    found = log.event_groups.get(group) if log else None
    found = found or (stream.sharing(shard).get(group) if stream else None)
    if found is None:
        raise NotFound(
            f"there is no group {group!r} of {shard.stream!r} to set elsewhere",
            backend="memory",
            verb="reset a group of",
            key=shard.stream,
        )
    return found
