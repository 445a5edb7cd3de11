"""Claim: the road of groups that share shards is 1.5 times as fast as that of shared events.

By the ports, without what the API does for either: pages of 1000 by XREAD, and a position committed
in a fenced step; against XREADGROUP and XACK of every event, of which the server keeps an entry.
"""

from __future__ import annotations

import time

from bench_groups import fill
from common import Claim, main

import penstock
from penstock.event import OLDEST, Position, Shard
from penstock.ports import EventMember, MemberOptions, Rebalanced, ShardMember


async def shards(port: int, events: int) -> float:
    """XREAD, one commit a page."""
    async with penstock.connect(f"redis://127.0.0.1:{port}") as client:
        await fill(client, "shards", events)
        member: ShardMember = await client.backend.own(
            Shard("shards"), "bench", MemberOptions(OLDEST)
        )
        seen, began = 0, time.perf_counter()
        while seen < events:
            try:
                pages = await member.fetch(1000, 1.0, 1000)
            except Rebalanced:
                began = time.perf_counter()
                continue
            for page in pages:
                seen += len(page.entries)
                await member.commit(page.shard, page.epoch, Position.of(page.entries[-1][0]))
        took = time.perf_counter() - began
        await member.leave()
        await client.stream("shards").destroy()
    return took


async def shared(port: int, events: int) -> float:
    """XREADGROUP, one XACK of each page."""
    async with penstock.connect(f"redis://127.0.0.1:{port}") as client:
        await fill(client, "shared", events)
        member: EventMember = await client.backend.join(
            [Shard("shared")], "bench", MemberOptions(OLDEST)
        )
        seen, began = 0, time.perf_counter()
        while seen < events:
            for page in await member.fetch(1000, 1.0, 1000):
                seen += len(page.entries)
                await member.ack(page.shard, [entry[0] for entry in page.entries])
        took = time.perf_counter() - began
        await member.leave()
        await client.stream("shared").destroy()
    return took


if __name__ == "__main__":
    contestants = {"XREAD + commit": shards, "XREADGROUP + XACK": shared}
    claim = Claim("XREAD + commit", "XREADGROUP + XACK", 1.5)
    main("shards", contestants, [claim], 200_000)
