"""Describing: a stream as it stands, over all its keys; and how it is removed.

Does        ask about the marks, then about every shard, a round trip each; unlink all there is.
Does not    list groups: `groups.py` does.
Invariants  1. a stream is there when one of its keys is, when it is in shards and has marks, or
               when events wait for their time.
            2. the marks go last: a removal that broke off is found again, and ended.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from penstock.backends.redis.edge import ReplyError, mapped, refused
from penstock.backends.redis.keys import Keys
from penstock.backends.redis.link import Link
from penstock.backends.redis.replies import by_name, position_or_none, text
from penstock.backends.redis.wire import Arg
from penstock.errors import NotFound
from penstock.event import Position, Shard
from penstock.ports import Marks, StreamInfo
from penstock.rules.retention import Retention

_MARKS: Final = ("layout", "codec", "shards", "shard", "retention")


async def describe(link: Link, stream: str) -> StreamInfo | None:
    """See `ports.Log.describe`."""
    keys = Keys(stream)
    wire = await link.wire()
    with mapped(link.address.place, verb="describe", key=stream):
        stored, *about = await wire.call_many(
            [("HMGET", keys.meta, *_MARKS), *_questions(keys)], timeout=link.address.timeout
        )
        marks = _marks(stored)
        if marks is None or marks.shards == 1:
            return _stream_info(stream, marks, stored, [_shard_info(stream, about)])
        shards = [Keys.of(Shard(stream, n, marks.shards)) for n in range(marks.shards)]
        asked = [question for shard in shards for question in _questions(shard)]
        replies = await wire.call_many(asked, timeout=link.address.timeout)
    each = len(about)
    parts = [replies[at : at + each] for at in range(0, len(replies), each)]
    found = [_shard_info(one.stream, part) for one, part in zip(shards, parts, strict=True)]
    return _stream_info(stream, marks, stored, found)


async def destroy(link: Link, stream: str) -> bool:
    """See `ports.Log.destroy`."""
    info = await describe(link, stream)
    count = info.marks.shards if info is not None and info.marks is not None else 1
    there = info is not None and (count > 1 or info.delayed > 0)
    rosters = await _sharing(link, Keys.of(Shard(stream, 0, count)))
    for index in range(count):
        there |= await _destroy(link, Keys.of(Shard(stream, index, count)))
    if count > 1:
        base = Keys(stream)
        rosters = [base.roster(name) for name in rosters]
        await _destroy(link, base)  # a group may have been made before the stream was
        await link.call("UNLINK", *base.kept, *rosters, verb="destroy", key=stream)
    return there


async def _destroy(link: Link, keys: Keys) -> bool:
    """Remove one key with all that is kept beside it."""
    about = list(keys.kept)
    groups: list[Any] = []
    with contextlib.suppress(NotFound):
        groups = await link.call("XINFO", "GROUPS", keys.stream, verb="destroy", key=keys.stream)
    names = [text(by_name(group)["name"]) for group in groups]
    for name in (*names, *await _sharing(link, keys)):
        about += keys.of_group(name)
    await link.call("UNLINK", *about, verb="destroy", key=keys.stream)
    return bool(await link.call("UNLINK", keys.stream, verb="destroy", key=keys.stream))


async def _sharing(link: Link, keys: Keys) -> list[str]:
    """The groups that share shards, by what they have committed of this one."""
    names = await link.call("HKEYS", keys.positions, verb="destroy", key=keys.stream)
    return [text(name) for name in names]


class _ShardInfo(NamedTuple):
    """One key as it stands."""

    length: int
    added: int | None
    oldest: Position | None
    newest: Position | None
    groups: frozenset[str]
    bytes: int | None
    delayed: int


_NOTHING: Final = _ShardInfo(0, 0, None, None, frozenset(), 0, 0)
"""A shard that nothing was appended to."""


def _questions(keys: Keys) -> list[tuple[Arg, ...]]:
    key = keys.stream
    about = ("STREAM", "GROUPS")
    return [
        *(("XINFO", what, key) for what in about),
        ("MEMORY", "USAGE", key),
        ("HKEYS", keys.positions),
        ("ZCARD", keys.delayed),
    ]


def _shard_info(key: str, replies: Sequence[Any]) -> _ShardInfo | None:
    """What the server says about one key; None if there is none."""
    info, groups, size, sharing, delayed = replies
    delayed = 0 if isinstance(delayed, ReplyError) else delayed
    if isinstance(info, ReplyError):
        error = refused(info, verb="describe", key=key)
        if not isinstance(error, NotFound):
            raise error
        return _NOTHING._replace(delayed=delayed) if delayed else None
    about = by_name(info)
    first, last = about.get("first-entry"), about.get("last-entry")
    names = () if isinstance(groups, ReplyError) else map(by_name, groups)
    sharers = () if isinstance(sharing, ReplyError) else sharing
    return _ShardInfo(
        length=about["length"],
        added=about.get("entries-added"),
        oldest=position_or_none(first[0] if first else None),
        newest=position_or_none(last[0] if last else None),
        groups=frozenset([*(text(name["name"]) for name in names), *map(text, sharers)]),
        bytes=size if isinstance(size, int) else None,
        delayed=delayed,
    )


def _marks(stored: Any) -> Marks | None:
    """The marks of a stream; beside one shard lies a copy, and that key alone is one stream."""
    if isinstance(stored, ReplyError) or stored[0] is None:
        return None
    layout, codec, shards, shard, _ = stored
    return Marks(text(layout), text(codec), int(shards) if shard is None else 1)


def _stream_info(
    stream: str, marks: Marks | None, stored: Any, found: Sequence[_ShardInfo | None]
) -> StreamInfo | None:
    if found == [None]:
        return None
    parts = [one or _NOTHING for one in found]
    added = [one.added for one in parts if one.added is not None]
    sizes = [one.bytes for one in parts if one.bytes is not None]
    return StreamInfo(
        name=stream,
        marks=marks,
        length=sum(one.length for one in parts),
        added=sum(added) if len(added) == len(parts) else None,
        oldest=tuple(one.oldest for one in parts),
        newest=tuple(one.newest for one in parts),
        groups=len(frozenset[str]().union(*(one.groups for one in parts))),
        bytes=sum(sizes) if len(sizes) == len(parts) else None,
        delayed=sum(one.delayed for one in parts),
        retention=None if isinstance(stored, ReplyError) else Retention.read(stored[4]),
    )
