"""Replies: what RESP2 answers mean, as values of the ports.

Does        read XINFO, XPENDING and pages of entries.
Does not    send anything.
Invariants  1. fields are looked up by name: servers differ in which they send, and in what order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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


def failures(kept: bytes | None) -> int:
    """How often an event has failed, as it is kept: ``count`` or ``count:company``."""
    return int(kept.partition(b":")[0]) if kept else 0


def split_dead(page: Page) -> tuple[Page, list[bytes]]:
    """*page* without the entries that were trimmed, and their ids."""
    dead = [entry[0] for entry in page.entries if entry[1] is None]
    if not dead:
        return page, dead
    kept = [i for i, entry in enumerate(page.entries) if entry[1] is not None]
    counts = None if page.counts is None else [page.counts[i] for i in kept]
    return Page(page.shard, [page.entries[i] for i in kept], counts), dead


def group_info(shard: Shard, about: dict[str, Any], members: tuple[MemberInfo, ...]) -> GroupInfo:
    """A group, from XINFO GROUPS; the consumer that owns parked events is not a member."""
    parked = next((member.pending for member in members if member.name == PARKED), 0)
    return GroupInfo(
        name=text(about["name"]),
        shard=shard,
        lag=about.get("lag"),
        pending=about["pending"] - parked,
        parked=parked,
        last=position_or_none(about["last-delivered-id"]),
        members=tuple(member for member in members if member.name != PARKED),
    )


def member_info(about: dict[str, Any], beats: dict[str, str]) -> MemberInfo:
    """A member, from XINFO CONSUMERS and the heartbeats."""
    name = text(about["name"])
    beat = beats.get(name)
    beating = None if beat is None else beat != "struck"
    return MemberInfo(name, about["pending"], about["idle"] / 1000, beating)
