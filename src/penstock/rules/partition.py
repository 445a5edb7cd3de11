"""Which shard a key belongs to: for ever, on every machine, in every release.

Does        hash a key of a stream, and any plain value that partitions a stage.
Does not    use Python's own hash, which differs between processes.
Invariants  1. text and bytes go to the partition that has the number of their shard.
            2. other values are hashed by their MessagePack form, maps (with text for keys) in the
               order of their keys: what is written in one way goes to one place.
Source      CRC-32 (ISO 3309), as zlib has it: at C speed everywhere, spread evenly enough for
            shards; its name is stored with a sharded stream.
"""

from __future__ import annotations

from typing import Any, Final
from zlib import crc32

import msgspec

from penstock.errors import ConfigError

HASH: Final = "crc32"
"""The name of the hash."""

_encode = msgspec.msgpack.Encoder(order="deterministic").encode


def shard_of(key: str | bytes, shards: int) -> int:
    """The number, from 0, of the shard that *key* belongs to."""
    raw = key.encode("utf-8", "surrogateescape") if isinstance(key, str) else key
    return crc32(raw) % shards


def partition_of(value: Any, count: int) -> int:
    """The number, from 0, of the partition of *count* that *value* belongs to.

    Raises:
        ConfigError: it is no plain value: nothing that MessagePack can write.
    """
    if isinstance(value, str | bytes):
        return shard_of(value, count)
    try:
        return crc32(_encode(value)) % count
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ConfigError(
            f"a value to partition by must be a plain one (text, bytes, numbers, dates, lists, "
            f"maps with text for keys, structs); got {type(value).__name__}: give the dispatcher "
            f"a key= or hash="
        ) from error
