"""Letters: the dead letters of groups on Redis, of whichever kind the group is.

Does        list, count, replay and drop them.
Does not    write them: members do, in the step that acks the event.
Invariants  1. a replayed letter is in the dead letters, or the group's to handle: never both, never
               neither. So asking again is harmless.
Used by     `groups.RedisGroups`.
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.backends.letter_format import HEADER, letter_of
from penstock.backends.redis.keys import Keys
from penstock.backends.redis.letter_scripts import LETTERS_AT_ONCE, REPLAY
from penstock.backends.redis.link import Link
from penstock.event import Position, Shard
from penstock.ports import DeadLetter


class RedisLetters:
    """What groups have given up. A part of `RedisBackend`."""

    link: Link

    async def letters(
        self, shard: Shard, group: str, after: Position | None, limit: int
    ) -> Sequence[DeadLetter]:
        """See `ports.Letters.letters`."""
        dead = Keys.of(shard).letters(group)
        first = "-" if after is None else f"({after}"
        reply = await self.link.call(
            "XRANGE", dead, first, "+", "COUNT", limit, verb="read dead letters of", key=dead
        )
        return [letter_of(shard, group, entry) for entry in reply]

    async def count_letters(self, shard: Shard, group: str) -> int:
        """See `ports.Letters.count_letters`."""
        dead = Keys.of(shard).letters(group)
        return int(await self.link.call("XLEN", dead, verb="count dead letters of", key=dead))

    async def replay(self, shard: Shard, group: str, ids: Sequence[Position]) -> int:
        """See `ports.Letters.replay`. In pages; broken off, it can be called again."""
        keys, done = Keys.of(shard), 0
        names = [keys.letters(group), keys.replay(group)]
        for page in _pages(ids):
            done += await self.link.run(REPLAY, names, group, HEADER, *page, verb="replay to")
        return done

    async def drop_letters(self, shard: Shard, group: str, ids: Sequence[Position]) -> int:
        """See `ports.Letters.drop_letters`."""
        dead, done = Keys.of(shard).letters(group), 0
        for page in _pages(ids):
            done += await self.link.call("XDEL", dead, *page, verb="drop dead letters of", key=dead)
        return done


def _pages(ids: Sequence[Position]) -> list[list[str]]:
    texts = [str(position) for position in ids]
    return [texts[at : at + LETTERS_AT_ONCE] for at in range(0, len(texts), LETTERS_AT_ONCE)]
