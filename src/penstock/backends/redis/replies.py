"""Replies: what RESP2 answers mean, as values of the ports.

Does        read XINFO, XPENDING and pages of entries.
Does not    send anything.
Invariants  1. fields are looked up by name: servers differ in which they send, and in what order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from penstock.backends.letter_format import without_position
from penstock.backends.redis.beats import is_beating
from penstock.backends.redis.keys import PARKED
from penstock.event import Position, Shard
from penstock.ports import GroupInfo, MemberInfo, Page


def by_name(flat: Sequence[Any]) -> dict[str, Any]:
    """A flat reply (name, content, name, content, …) as a dict."""
    return {name.decode(): content for name, content in zip(flat[::2], flat[1::2], strict=True)}


def text(reply: Any) -> str:
    """A bulk string as text."""
    return reply.decode("utf-8", "surrogateescape") if isinstance(reply, bytes) else str(reply)


def position_or_none(raw: bytes | None) -> Position | None:
    """A position; None for nothing, and for 0-0, which stands before everything."""
    return None if raw is None or raw == b"0-0" else Position.of(raw)


def pages(reply: Any, shards: dict[bytes, Shard]) -> list[Page]:
    """The pages of an XREAD or XREADGROUP reply, without those of other shards; nil means none."""
    return [Page(shards[key], entries) for key, entries in reply or () if key in shards]


def plain(found: Sequence[Page]) -> list[Page]:
    """Pages with the events' own fields alone."""
    return [
        page._replace(entries=without_position(page.entries)) if page.shard.replay else page
        for page in found
    ]


def failures(kept: bytes | None) -> int:
    """How often an event has failed, as it is kept: ``count`` or ``count:company``."""
    return int(kept.partition(b":")[0]) if kept else 0


def group_info(shard: Shard, about: dict[str, Any], replies: Sequence[Any]) -> GroupInfo:
    """A group, from XINFO GROUPS, and what else was asked; the parking consumer is no member.

    *replies*: XINFO CONSUMERS, the beats, the oldest pending and the next entry (or nothing), the
    lengths of stream and dead letters, the mark, the server's time.
    """
    consumers, flat, oldest, following, length, dead, mark, (seconds, _) = replies
    beats = {text(name): text(beat) for name, beat in zip(flat[::2], flat[1::2], strict=True)}
    members = [member_info(by_name(consumer), beats, float(seconds)) for consumer in consumers]
    parked = next((member.pending for member in members if member.name == PARKED), 0)
    lag = 0 if not following else about.get("lag")
    since = int(following[0][0].partition(b"-")[0]) / 1000 if following else float(seconds)
    return GroupInfo(
        name=text(about["name"]),
        shard=shard,
        lag=None if lag is None else min(lag, length),  # it may still count what was trimmed
        pending=about["pending"] - parked,
        parked=parked,
        last=position_or_none(about["last-delivered-id"]),
        members=tuple(member for member in members if member.name != PARKED),
        pending_age=oldest[0][2] / 1000 if oldest else None,
        lag_seconds=max(0.0, float(seconds) - since),
        dead=dead,
        mark=position_or_none(mark),
        deliveries=about.get("entries-read"),
    )


def member_info(about: dict[str, Any], beats: dict[str, str], now: float) -> MemberInfo:
    """A member, from XINFO CONSUMERS and the heartbeats."""
    name = text(about["name"])
    beat = beats.get(name)
    beating = None if beat is None else is_beating(beat, now)
    return MemberInfo(name, about["pending"], about["idle"] / 1000, beating)
