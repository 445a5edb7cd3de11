"""Claim: a group that shares shards is at least 1.5 times as fast as one that shares events.

The same loop of ``batches(1000)`` with acks, on one stream and one member. The one reads with XREAD
and commits a position; the other's server keeps a pending entry for each event until its ack.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from bench_groups import fill
from common import Claim, main

import penstock


def sharing(share: str) -> Callable[[int, int], Awaitable[float]]:
    """A member in batches of 1000, each acked."""

    async def run(port: int, events: int) -> float:
        async with penstock.connect(f"redis://127.0.0.1:{port}") as client:
            await fill(client, share, events)
            seen = 0
            async with client.stream(share).group("bench", share=share) as group:
                began = 0.0
                async for batch in group.batches(1000):
                    began = began or time.perf_counter()
                    seen += len(batch)
                    group.ack(batch)
                    if seen == events:
                        break
                await group.flush()
                took = time.perf_counter() - began
            await client.stream(share).destroy()
        return took

    return run


if __name__ == "__main__":
    contestants = {"shards": sharing("shards"), "events": sharing("events")}
    main("shards", contestants, [Claim("shards", "events", 1.5)], 200_000)
