"""Shards with an owner each: a key in order, and a failing key that waits while others flow."""

import asyncio

import penstock
from penstock import END, Retry


async def main() -> None:
    async with penstock.connect() as client:
        orders = client.stream("orders", shards=2)
        for n in range(6):
            await orders.append({"n": n}, key=f"customer-{n % 3}")

        retry = Retry(first=0.2, jitter=0.0)
        seen: dict[str | None, list[str]] = {}
        async with orders.group("billing", share="shards", retry=retry, until=END) as group:
            async for event in group:
                tried = f"{event.value['n']}, failed {event.attempts}"
                seen.setdefault(event.key, []).append(tried)
                if event.value["n"] == "1" and event.attempts < 2:
                    group.fail(event, ValueError("not now"))  # its key waits, and no other
                else:
                    group.ack(event)
        for key in sorted(seen, key=str):
            print(key, seen[key])


asyncio.run(main())

# Prints:
#  | customer-0 ['0, failed 0', '3, failed 0']
#  | customer-1 ['1, failed 0', '1, failed 1', '1, failed 2', '4, failed 0']
#  | customer-2 ['2, failed 0', '5, failed 0']
