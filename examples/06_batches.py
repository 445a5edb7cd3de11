"""Batches: the fast path. Lists of events in, one ack for the whole list out."""

import asyncio

import penstock
from penstock import END, idle


async def store(rows: list[int]) -> None:
    """What you would do with many at once: one INSERT, one upload, one call."""
    print(f"stored {len(rows)} rows, {rows[0]} to {rows[-1]}")


async def main() -> None:
    async with penstock.connect() as client:
        readings = client.stream("readings", type=int)
        await readings.append_many(list(range(2500)))

        # Up to `size` events: what comes within `within` seconds of the first of them.
        async with readings.group("store", until=END) as group:
            async for batch in group.batches(size=1000, within=1.0):
                await store([event.value for event in batch])
                group.ack(batch)  # a plain call: acks are sent in batches, too
            await group.flush()
            print("acked:", group.statistics().acked)

        # Readers have batches as well. idle(s): end when nothing has come for s seconds.
        async with readings.reader(start=penstock.OLDEST, until=idle(0.5)) as reader:
            total = 0
            async for batch in reader.batches(size=500):
                total += sum(event.value for event in batch)
        print("sum:", total)


asyncio.run(main())

# Prints:
#  | stored 1000 rows, 0 to 999
#  | stored 1000 rows, 1000 to 1999
#  | stored 500 rows, 2000 to 2499
#  | acked: 2500
#  | sum: 3123750
