"""Joining: what a group and a member begin with.

Does        say where a group begins; name members; make what their beats begin with.
Does not    make groups (`recovery.py`), beat, or hand out events.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Sequence

from penstock.backends.redis.cursor import BLOCK
from penstock.backends.redis.edge import ReplyError
from penstock.backends.redis.keys import Keys
from penstock.backends.redis.link import Link
from penstock.backends.redis.wire import Arg
from penstock.errors import BackendError
from penstock.event import Shard, Start
from penstock.rules.gaps import before_time


async def join_replay(link: Link, keys: Keys, group: str) -> bool:
    """Whether there are replayed events of the group; their own group is made if it is gone."""
    try:
        await link.call(
            "XGROUP", "CREATE", keys.stream, group, "0", verb="join a group of", key=keys.stream
        )
    except BackendError as error:
        if not isinstance(error.__cause__, ReplyError):
            raise
        return error.__cause__.code == "BUSYGROUP"
    return True


async def replayed(link: Link, shards: Sequence[Shard], group: str) -> list[Shard]:
    """Those of *shards*, which are of replayed events, that are there."""
    asks: list[tuple[Arg, ...]] = [("EXISTS", Keys.of(shard, group).stream) for shard in shards]
    there = await (await link.wire()).call_many(asks, timeout=BLOCK)
    return [shard for shard, exists in zip(shards, there, strict=True) if exists == 1]


def group_start(start: Start) -> bytes | str:
    """Behind which id a group begins: an id, ``0``, or ``$``, which the server makes one."""
    match start.kind:
        case "oldest":
            return "0"
        case "newest":
            return "$"
        case "after":
            assert start.position is not None
            return start.position.raw
        case "at":
            assert start.time is not None
            return before_time(start.time).raw


def new_incarnation(lease: float) -> str:
    """What a member's beats begin with: a token, and the lease that it asks for."""
    return f"{secrets.token_hex(4)}:{int(lease * 1000)}"


def own_name() -> str:
    """A name that nobody else has had, and that tells people where the member is."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
