"""Appends as a user of another client would, its settings untouched: `redis-py` or `coredis`.

``single``: one XADD at a time in each of many tasks, retries as the client has them by default.
``pipeline``: batches; one that failed is sent again, as its caller cannot know more.

Run by a Python that has them and not us. Prints how many appends were reported as stored.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

BATCH = 500
TASKS = 100

Append = Callable[[Any, range], Awaitable[None]]


async def redis_py_pipeline(client: Any, numbers: range) -> None:
    pipeline = client.pipeline(transaction=False)
    for number in numbers:
        pipeline.xadd(STREAM, {"n": number})
    await pipeline.execute()


async def redis_py_single(client: Any, numbers: range) -> None:
    for number in numbers:
        await client.xadd(STREAM, {"n": number})


async def coredis_pipeline(client: Any, numbers: range) -> None:
    async with client.pipeline(transaction=False) as pipeline:
        for number in numbers:
            pipeline.xadd(STREAM, field_values={"n": number})


async def coredis_single(client: Any, numbers: range) -> None:
    for number in numbers:
        await client.xadd(STREAM, field_values={"n": number})


async def repeated(append: Append, client: Any, numbers: range) -> int:
    """Until it is reported as done."""
    while True:
        try:
            await append(client, numbers)
        except Exception as error:  # noqa: BLE001 - whatever it raises, it may or may not be stored
            print(repr(error)[:200], file=sys.stderr)
        else:
            return len(numbers)


async def main(library: str, how: str, url: str, appends: int) -> int:
    if library == "redis-py":
        import redis.asyncio

        client: Any = redis.asyncio.Redis.from_url(url)
    else:
        import coredis

        client = coredis.Redis.from_url(url)
    append = globals()[f"{library.replace('-', '_')}_{how}"]
    async with client:
        if how == "pipeline":
            batches = [range(at, at + BATCH) for at in range(0, appends, BATCH)]
            return sum([await repeated(append, client, batch) for batch in batches])
        ones = [range(at, at + 1) for at in range(appends)]
        gate = asyncio.Semaphore(TASKS)

        async def one(numbers: range) -> int:
            async with gate:
                return await repeated(append, client, numbers)

        return sum(await asyncio.gather(*map(one, ones)))


LIBRARY, HOW, URL, STREAM, APPENDS = sys.argv[1:]
print(json.dumps({"reported": asyncio.run(main(LIBRARY, HOW, URL, int(APPENDS)))}))
