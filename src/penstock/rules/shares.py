"""Shares: how many shards each member of a shard-sharing group should own.

Does        spread shards evenly over living members, moving as few as can be.
Does not    know who is alive, or move anything: a member gives up or takes by what it is told.
Invariants  1. the shares of those awake add up to the number of shards, and differ by at most one.
            2. whoever owns more keeps the larger share, so that nothing moves without need.
            3. who rests is due nothing, unless all do: then each keeps what it has.
            4. the same for everybody who sees the same owners: no leader is needed.
Cost        per change of members or owners; nothing per event.
Used by     backends with shard groups.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping


def fair_shares(
    owned: Mapping[str, int], shards: int, resting: Collection[str] = ()
) -> dict[str, int]:
    """How many of *shards* each living member should own.

    Args:
        owned: how many each living member owns now, by name.
        shards: how many there are in all, owned or not.
        resting: members whose program hangs.
    """
    awake = [name for name in owned if name not in resting]
    if not awake:
        return dict(owned)
    least, larger = divmod(shards, len(awake))
    ranked = sorted(awake, key=lambda name: (-owned[name], name))
    shares = {name: least + (rank < larger) for rank, name in enumerate(ranked)}
    return {name: shares.get(name, 0) for name in owned}
