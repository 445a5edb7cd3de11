"""Claims: events to take over, a page at a time.

Does        say whose events, and on what condition; take a page of them.
Does not    decide when, or from whom: `takeovers.py` does.
Invariants  1. a claim is fenced: by our own heartbeat, and by the beat that was seen of the dead.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from penstock.backends.redis.group_scripts import BURY, CLAIM
from penstock.backends.redis.keys import Keys
from penstock.backends.redis.link import Link
from penstock.event import Shard


class Claim(NamedTuple):
    """Events to take over: whose, and on what condition.

    `fence`: ``own``, ``foreign``, ``bury``, or the beat that was seen. `idle` in milliseconds.
    """

    shard: Shard
    owner: str
    fence: str
    cursor: str = "-"
    idle: int = 0


async def run_claim(  # noqa: PLR0917 - made for Takeovers alone
    link: Link, keys: Keys, claim: Claim, group: str, member: str, incarnation: str, limit: int
) -> Any:
    """One page of *claim* for *member*; None for one that was to be forgotten."""
    if claim.fence == "bury":
        names = [keys.stream, keys.beats(group)]
        await link.run(BURY, names, group, claim.owner, verb="read")
        return None
    names = [keys.stream, keys.beats(group), keys.attempts(group)]
    who = (group, member, incarnation, claim.owner, claim.fence)
    return await link.run(
        CLAIM, names, *who, claim.idle, claim.cursor, limit, verb="read", key=keys.stream
    )
