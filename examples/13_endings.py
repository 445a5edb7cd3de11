"""Where reading ends: `until`, `receive`, and a look at a range."""

import asyncio

import penstock
from penstock import END, OLDEST, after, idle


async def main() -> None:
    async with penstock.connect() as client:
        steps = client.stream("steps", type=int)
        places = await steps.append_many([1, 2, 3, 4])

        # END is the newest event when the block begins: what comes later is left for the next.
        async with steps.reader(start=OLDEST, until=END) as reader:
            await steps.append(5)
            print("END:", [event.value async for event in reader])

        # A position; it is still read.
        async with steps.reader(start=OLDEST, until=places[1]) as reader:
            print("position:", [event.value async for event in reader])

        # Nothing for so many seconds.
        async with steps.reader(start=after(places[2]), until=idle(0.2)) as reader:
            print("idle:", [event.value async for event in reader])

        # One at a time, with a time limit: None when nothing came.
        async with steps.reader(start=after(places[3])) as reader:
            for _ in range(2):
                event = await reader.receive(timeout=0.3)
                print("receive:", event and event.value)

        # No cursor at all: from here to there, both included, either way round.
        print("range:", [event.value for event in await steps.read_range(places[1], places[2])])
        newest = await steps.read_range(limit=2, reverse=True)
        print("newest two:", [event.value for event in newest])


asyncio.run(main())

# Prints:
#  | END: [1, 2, 3, 4]
#  | position: [1, 2]
#  | idle: [4, 5]
#  | receive: 5
#  | receive: None
#  | range: [2, 3]
#  | newest two: [5, 4]
