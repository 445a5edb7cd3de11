"""Opening: a stream's marks, and the session that appends to it.

Does        run the scripts that check the keys, adopt or write the marks, and make a session.
Does not    append. The caller decides what to do with a session that is gone.
Invariants  1. of a stream in shards the marks under its own name rule; those beside each shard,
               in its slot, are a copy that the append script can see.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from penstock.backends.redis.keys import VERSION, Keys
from penstock.backends.redis.link import Link
from penstock.backends.redis.scripts import MARK, OPEN
from penstock.errors import BackendRejected, ConfigError
from penstock.ports import AppendOptions, Marks, ShardsCame
from penstock.rules.partition import HASH


class Open(NamedTuple):
    """What was found: the marks as stored, and whether the stream bears any (else: foreign)."""

    marks: Marks
    marked: bool


async def open_session(  # noqa: PLR0917 - one caller's state
    link: Link,
    keys: Keys,
    marks: Marks,
    options: AppendOptions,
    session: str,
    ttl: int,
    again: bool = False,
) -> Open:
    """See that the stream can be appended to as *marks* say.

    *ttl*: milliseconds that a new session lives on; 0: make none. A stream that has grown since
    *marks* were read answers with its number of shards now. *again*: it was opened before, so a
    retention that was changed since is adopted.

    Raises:
        ConfigError: the stream has other marks, or those of a newer version.
        ShardsCame: it was to be one log, and is in shards by now.
        BackendError: wrong type of key, no rights, not reachable.
    """
    existing, retention = int(options.only_if_exists), options.retention
    if keys.base is not None:
        shards, retention = await _mark(link, keys.base, marks, options, again)
        marks = marks._replace(shards=shards or marks.shards)
        existing = int(not shards)
    reply = await link.run(
        OPEN,
        [keys.stream, keys.meta, keys.session(session), keys.delayed],
        VERSION,
        marks.layout,
        marks.codec,
        marks.shards,
        int(options.foreign),
        existing,
        ttl,
        "" if keys.base is None else keys.stream.rpartition(":")[2],
        retention,
        int(again),
        verb="append to",
        key=keys.stream,
    )
    status, *about = _texts(reply)
    if status == "open":
        return Open(marks, bool(about[0]))
    if status == "other" and _are_shards(about, marks):
        raise ShardsCame(keys.stream)
    raise ConfigError(_refusal(keys.stream, status, about, marks))


async def _mark(
    link: Link, base: Keys, marks: Marks, options: AppendOptions, again: bool
) -> tuple[int, str]:
    """The number of shards and the retention as stored, now or before.

    Without shards (0) there is no such stream, nor shall be.
    """
    about = (VERSION, *marks, HASH, int(options.only_if_exists), options.retention, int(again))
    names = [base.stream, base.meta, base.delayed]
    status, *found = _texts(await link.run(MARK, names, *about, verb="append to", key=base.stream))
    if status == "marked":
        return int(found[0]), found[1]
    if status == "absent":
        return 0, ""
    raise ConfigError(_refusal(base.stream, status, found, marks))


def _are_shards(stored: list[Any], wanted: Marks) -> bool:
    """Whether a stream that was to be one log is in shards."""
    return wanted.shards == 1 and stored[:2] == [*wanted[:2]] and int(stored[2]) > 1


def _texts(reply: list[Any]) -> list[Any]:
    return [part.decode() if isinstance(part, bytes) else part for part in reply]


def _refusal(stream: str, status: str, about: list[Any], marks: Marks) -> str:
    wanted = f"layout {marks.layout!r}, codec {marks.codec!r}, shards {marks.shards}"
    match status:
        case "newer":
            return (
                f"stream {stream!r} was made by a newer Penstock (format {about[0]}), "
                f"this one knows format {VERSION}; update it"
            )
        case "unmarked":
            return (
                f"stream {stream!r} was made by others, so its layout must be 'fields', this "
                f"handle asks for {wanted}; open it without type, layout or codec"
            )
        case "taken":
            return (
                f"key {stream!r} must be free for a shard, and holds a stream of others; "
                f"rename that, or choose another name"
            )
        case "retention":
            return (
                f"stream {stream!r} has the retention {about[0]}, and this handle asks for "
                f"another; leave it out to adopt that, or change it with stream.set_retention()"
            )
        case "hash":
            return (
                f"stream {stream!r} spreads its keys by {about[0]!r}, this Penstock knows "
                f"{HASH!r}; update it"
            )
        case _:
            layout, codec, shards = about
            return (
                f"stream {stream!r} has layout {layout!r}, codec {codec!r}, shards {shards}; "
                f"this handle asks for {wanted}; leave those options out to adopt what is stored"
            )


async def open_bare(
    link: Link, keys: Keys, marks: Marks, options: AppendOptions, refusal: BackendRejected
) -> None:
    """As `open_session` without a session, for a user who must not run scripts.

    A new stream of plain fields stays unmarked, which means the same; another is marked by one
    HSET. Two programs that make one stream with different marks at the same moment are not told.

    Raises:
        ConfigError: the stream has other marks, or those of a newer version.
        BackendRejected: *refusal*, where marks would be in several slots.
    """
    if keys.base is not None or options.retention:
        raise refusal
    stored = await link.call(
        *("HMGET", keys.meta, "version", "layout", "codec", "shards"),
        verb="append to",
        key=keys.stream,
    )
    version, *found = _texts(stored)
    wanted = [marks.layout, marks.codec, str(marks.shards)]
    if version is not None and int(version) > VERSION:
        raise ConfigError(_refusal(keys.stream, "newer", [version], marks))
    if version is not None and _are_shards(found, marks):
        raise ShardsCame(keys.stream)
    if version is not None and found != wanted:
        raise ConfigError(_refusal(keys.stream, "other", found, marks))
    if version is None and marks.layout != "fields" and not options.foreign:
        if await link.call("XLEN", keys.stream, verb="append to", key=keys.stream):
            raise ConfigError(_refusal(keys.stream, "unmarked", [], marks))
        stamp = " ".join(wanted)
        pairs = ("layout", marks.layout, "codec", marks.codec, "shards", marks.shards)
        await link.call(
            *("HSET", keys.meta, "version", VERSION, *pairs, "stamp", stamp),
            verb="append to",
            key=keys.stream,
        )
