"""Claim: ``writer.send`` is at least 4 times redis-py's pipeline, and 0.35 times redis-benchmark.

redis-benchmark is C and sends one prepared command; ours encodes each value, and stores none twice.
"""

from __future__ import annotations

import asyncio
import time

from common import VALUE, Claim, has_redis_benchmark, main, redis_benchmark

import penstock


async def ours(port: int, events: int) -> float:
    """One idempotent writer."""
    async with penstock.connect(f"redis://127.0.0.1:{port}") as client:
        stream = client.stream("ours")
        began = time.perf_counter()
        async with stream.writer() as writer:
            for _ in range(events):
                await writer.send({"v": VALUE})
        took = time.perf_counter() - began
        assert await stream.length() == events
        await stream.destroy()
    return took


async def redis_py(port: int, events: int) -> float:
    """redis-py's pipeline, 500 commands at a time, over hiredis."""
    import redis.asyncio

    async with redis.asyncio.Redis(port=port) as client:
        count = max(500, events // 5)  # it is slow: a fifth of the events says as much
        began = time.perf_counter()
        for _ in range(count // 500):
            pipeline = client.pipeline(transaction=False)
            for _ in range(500):
                pipeline.xadd("theirs", {"v": VALUE})
            await pipeline.execute()
        took = time.perf_counter() - began
        await client.delete("theirs")
    return took * events / count


async def c_benchmark(port: int, events: int) -> float:
    """The server's own load generator."""
    took = await asyncio.to_thread(redis_benchmark, port, events)
    async with penstock.connect(f"redis://127.0.0.1:{port}") as client:
        await client.redis.delete("redis-benchmark")
    return took


if __name__ == "__main__":
    contestants = {"writer.send": ours, "redis-py pipeline": redis_py}
    claims = [Claim("writer.send", "redis-py pipeline", 4.0)]
    if has_redis_benchmark():
        contestants["redis-benchmark -P 500 -c 1"] = c_benchmark
        claims.append(Claim("writer.send", "redis-benchmark -P 500 -c 1", 0.35))
    else:
        print("redis-benchmark is not installed (Debian: redis-tools): that claim is not looked at")
    main("appends", contestants, claims, 200_000)
