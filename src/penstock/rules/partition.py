"""Which shard a key belongs to: for ever, on every machine, in every release.

Does        hash a key.
Does not    use Python's own hash, which differs between processes.
Source      CRC-32 (ISO 3309), as zlib has it: at C speed everywhere, spread evenly enough for
            shards; its name is stored with a sharded stream.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

HASH: Final = "crc32"
"""The name of the hash."""


def shard_of(key: str | bytes, shards: int) -> int:
    """The number, from 0, of the shard that *key* belongs to."""
    raw = key.encode("utf-8", "surrogateescape") if isinstance(key, str) else key
    return crc32(raw) % shards
