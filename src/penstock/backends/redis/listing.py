"""Listing: which streams a server holds.

Does        scan for keys that are streams, in pages; tell a sharded stream by its own name, once.
Does not    describe them, or name the keys that are kept beside streams.
Invariants  1. the pattern is about names: a shard's own key is not one.
            2. one page costs the server well under a millisecond; other work goes on between.
Source      Redis SCAN … TYPE.
"""

from __future__ import annotations

import re
from typing import Final

from penstock.backends.redis.keys import Keys
from penstock.backends.redis.link import Link
from penstock.rules.globs import glob, literal_prefix

_PAGE: Final = 1000  # keys that one SCAN looks at
_BESIDE: Final = b"penstock:{"
_SHARD: Final = re.compile(r"(.+):\d+", re.DOTALL)


async def stream_names(link: Link, pattern: str, limit: int | None) -> list[str]:
    """The names of streams that match the glob *pattern*, sorted.

    *limit*: at most so many; which ones, where there are more, is the server's choice.
    """
    wanted = glob(pattern)
    begin = (literal_prefix(pattern) + "*").encode("utf-8", "surrogateescape")
    names: set[str] = set()
    cursor = b"0"
    while True:
        cursor, keys = await link.call(
            "SCAN", cursor, "COUNT", _PAGE, "TYPE", "stream", "MATCH", begin, verb="list"
        )
        found = [
            key.decode("utf-8", "surrogateescape") for key in keys if not key.startswith(_BESIDE)
        ]
        names.update(name for name in await _without_shards(link, found) if wanted.fullmatch(name))
        if cursor == b"0" or (limit is not None and len(names) >= limit):
            return sorted(names)[:limit]


async def _without_shards(link: Link, keys: list[str]) -> list[str]:
    """The names of the streams that *keys* are, or are shards of."""
    bases = {key: match[1] for key in keys if (match := _SHARD.fullmatch(key))}
    sharded: dict[str, bool] = {}
    for base in set(bases.values()):
        meta = Keys(base).meta
        count = await link.call("HGET", meta, "shards", verb="list", key=meta)
        sharded[base] = count is not None and int(count) > 1
    return [bases[key] if sharded.get(bases.get(key, "")) else key for key in keys]
