"""Survey: what a server holds of streams and groups, whoever made them, as plain values.

Does        ask for settings, connections, streams, groups, consumers and pending lists; page.
Does not    judge (`doctor_server`, `doctor_streams`), or change anything.
Invariants  1. nothing is read that is as long as a stream: summaries and pages alone.
            2. what must not be asked for is None, so that it can be said.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from penstock.backends.redis.keys import PARKED, Keys, as_stored

SCAN: Final = 1000
"""Keys that one SCAN looks at: under a millisecond of the server's time."""

PAGE: Final = 1000
"""Pending entries of a group that are looked at."""

Id = tuple[int, int]


class Consumer(NamedTuple):
    """A consumer: `idle` in seconds; `beat` is its heartbeat, None if it never was one of ours."""

    name: str
    pending: int
    idle: float
    beat: str | None

    @property
    def ours(self) -> bool:
        """Whether it is a member of ours that has not been struck."""
        return self.beat not in (None, "struck")


class Group(NamedTuple):
    """A group; `old` are consumers by entries that have been pending for long."""

    name: str
    pending: int
    lag: int | None
    read: int | None
    last: Id
    lowest: Id | None
    old: Mapping[str, int]
    consumers: Sequence[Consumer]


class Sharing(NamedTuple):
    """A group that shares shards, in one of them: up to where it has committed, and who beats.

    `lag` counts from the last page that was committed whole, so it is a page too much at most.
    """

    name: str
    last: Id
    lag: int | None
    beats: Mapping[str, str]


class Seen(NamedTuple):
    """A stream key; `kind` is what TYPE says, and only of a stream there is more."""

    key: str
    kind: str
    length: int = 0
    added: int | None = None
    first: Id | None = None
    last: Id = (0, 0)
    marks: Mapping[str, str] = {}
    groups: Sequence[Group] = ()
    sharing: Sequence[Sharing] = ()


async def stream_keys(redis: Any) -> AsyncIterator[str]:
    """Every stream on the server, but for what we keep beside streams."""
    async for key in _scan(redis, "*", "stream"):
        if not key.startswith("penstock:{"):
            yield key


async def marked_keys(redis: Any) -> AsyncIterator[str]:
    """Every key that we have marked as a stream, whatever it is now."""
    async for meta in _scan(redis, "penstock:{*:meta", None):
        yield meta.partition("}:")[2].removesuffix(":meta")


async def look(redis: Any, key: str, idle: float) -> Seen:
    """One stream with its groups; entries pending for *idle* seconds count as old."""
    raw = as_stored(key)
    kind = _text(await redis.type(raw))
    if kind != "stream":
        return Seen(key, kind)
    keys = Keys(key)
    info = await redis.xinfo_stream(raw)
    marks = await _hash(redis, keys.meta)
    first = info.get("first-entry")
    length, added = int(info["length"]), info.get("entries-added")
    groups = [await _group(redis, keys, about, idle) for about in await redis.xinfo_groups(raw)]
    shards = int(marks.get("shards", 1))
    return Seen(
        key,
        kind,
        length=length,
        added=added,
        first=_id(first[0]) if first and first[0] is not None else None,
        last=_id(info["last-generated-id"]),
        marks=marks,
        groups=groups,
        sharing=await _sharing(redis, key, shards, added, length),
    )


async def beats_of(redis: Any, key: str, group: str) -> Mapping[str, str]:
    """The heartbeats of a group's members, by name."""
    return await _hash(redis, Keys(key).beats(group))


def is_gone(error: Exception) -> bool:
    """Whether a stream or a group was removed between two questions about it."""
    said = str(error)
    return "no such key" in said.lower() or said.startswith("NOGROUP")


async def _sharing(
    redis: Any, key: str, shards: int, added: int | None, length: int
) -> list[Sharing]:
    """The groups that share this shard with others; their members are listed under the stream."""
    keys, base = Keys(key), Keys(key.rpartition(":")[0] if shards > 1 else key)
    found: list[Sharing] = []
    for name, last in (await _hash(redis, keys.positions)).items():
        beats = await _hash(redis, base.roster(name))
        (count,) = await redis.hmget(as_stored(keys.share(name)), ["count"])
        lag = None
        if count is not None and added is not None:
            lag = added - max(int(count), added - length)
        found.append(Sharing(name, _id(last), lag, beats))
    return found


async def _group(redis: Any, keys: Keys, about: Mapping[str, Any], idle: float) -> Group:
    raw, stream = about["name"], as_stored(keys.stream)
    name = _text(raw)
    beats = await beats_of(redis, keys.stream, name)
    consumers = [
        Consumer(
            _text(one["name"]), one["pending"], one["idle"] / 1000, beats.get(_text(one["name"]))
        )
        for one in await redis.xinfo_consumers(stream, raw)
    ]
    old: dict[str, int] = {}
    lowest = None
    if about["pending"]:
        summary = await redis.xpending(stream, raw)
        lowest = _id(summary["min"]) if summary["min"] is not None else None
        page = await redis.xpending_range(stream, raw, "-", "+", PAGE, idle=int(idle * 1000))
        for one in page:
            owner = _text(one["consumer"])
            old[owner] = old.get(owner, 0) + 1
    old.pop(PARKED, None)
    return Group(
        name,
        pending=about["pending"],
        lag=about.get("lag"),
        read=about.get("entries-read"),
        last=_id(about["last-delivered-id"]),
        lowest=lowest,
        old=old,
        consumers=[one for one in consumers if one.name != PARKED],
    )


async def _scan(redis: Any, pattern: str, kind: str | None) -> AsyncIterator[str]:
    cursor: Any = 0
    given: set[str] = set()
    while True:
        cursor, keys = await redis.scan(cursor, match=pattern, count=SCAN, _type=kind)
        for key in map(_text, keys):
            if key not in given:
                given.add(key)
                yield key
        if not int(cursor):
            return


def _id(raw: bytes | str) -> Id:
    ms, _, seq = _text(raw).partition("-")
    return int(ms), int(seq or 0)


def _text(raw: Any) -> str:
    return raw.decode("utf-8", "surrogateescape") if isinstance(raw, bytes) else str(raw)


async def _hash(redis: Any, key: str) -> dict[str, str]:
    flat: Mapping[Any, Any] = await redis.hgetall(as_stored(key))
    return {_text(name): _text(value) for name, value in flat.items()}
