"""Claim: ``group.batches(1000)`` with acks is at least as fast as a hand-written redis-py loop.

The loop is what people write: XREADGROUP of 1000, XACK of what came, again. Ours also beats,
watches the others, knows what it holds, and takes over from the dead.
"""

from __future__ import annotations

import time

from common import VALUE, Claim, main

import penstock


async def fill(client: penstock.Client, name: str, events: int) -> None:
    """A stream with *events* events."""
    stream = client.stream(name)
    await stream.destroy()
    async with stream.writer() as writer:
        for _ in range(events):
            await writer.send({"v": VALUE})


async def ours(port: int, events: int) -> float:
    """A member of a group, in batches of 1000, each acked."""
    async with penstock.connect(f"redis://127.0.0.1:{port}") as client:
        await fill(client, "ours", events)
        seen = 0
        async with client.stream("ours").group("bench") as group:
            began = time.perf_counter()
            async for batch in group.batches(1000):
                seen += len(batch)
                group.ack(batch)
                if seen == events:
                    break
            await group.flush()
            took = time.perf_counter() - began
        await client.stream("ours").destroy()
    return took


async def redis_py(port: int, events: int) -> float:
    """redis-py over hiredis: read 1000, ack 1000."""
    import redis.asyncio

    async with penstock.connect(f"redis://127.0.0.1:{port}") as filler:
        await fill(filler, "theirs", events)
    seen = 0
    async with redis.asyncio.Redis(port=port) as client:
        await client.xgroup_create("theirs", "bench", "0")
        began = time.perf_counter()
        while seen < events:
            reply = await client.xreadgroup("bench", "me", {"theirs": ">"}, count=1000, block=1000)
            entries = reply[0][1] if isinstance(reply, list) else next(iter(reply.values()))[0]
            await client.xack("theirs", "bench", *[entry[0] for entry in entries])
            seen += len(entries)
        took = time.perf_counter() - began
        await client.delete("theirs")
    return took


if __name__ == "__main__":
    contestants = {"group.batches(1000) + ack": ours, "redis-py loop": redis_py}
    claim = Claim("group.batches(1000) + ack", "redis-py loop", 1.0)
    main("groups", contestants, [claim], 200_000)
