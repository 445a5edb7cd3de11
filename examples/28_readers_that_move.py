"""Readers that move: seek, more streams, a position to keep, and what was trimmed past them."""

import asyncio

import penstock
from penstock import END, OLDEST, PositionLost, after


async def main() -> None:
    async with penstock.connect() as client:
        steps, notes = client.stream("steps", type=int), client.stream("notes", type=str)
        places = await steps.append_many(list(range(10)))
        await notes.append("hello")

        async with steps.reader(start=OLDEST, until=END) as reader:
            print("first:", [event.value for event in await reader.fetch(3)])
            await reader.seek(after(places[6]))  # forwards or backwards, at once
            print("behind the seventh:", [event.value async for event in reader])
            await reader.add_stream(notes)
            print("of another stream:", [event.value async for event in reader])
            await reader.seek(after(places[1]), stream=steps)
            await reader.receive()
            kept = reader.position  # a text: in a file, in a database

        # Another program, or this one after a restart.
        async with client.reader([steps, notes], start=kept, until=END) as reader:
            print("goes on with:", [event.value async for event in reader])

        # What is trimmed before it was read is told once; then reading goes on.
        await steps.trim(max_events=2, acked_only=False)
        async with client.reader([steps, notes], start=kept, until=END) as reader:
            try:
                await reader.receive()
            except PositionLost as lost:
                print("lost:", lost.stream, "behind", places.index(lost_at(lost)))
            print("left:", [event.value async for event in reader])


def lost_at(lost: PositionLost) -> penstock.Position:
    return penstock.Position.parse(lost.wanted)


asyncio.run(main())

# Prints:
#  | first: [0, 1, 2]
#  | behind the seventh: [7, 8, 9]
#  | of another stream: ['hello']
#  | goes on with: [3, 4, 5, 6, 7, 8, 9]
#  | lost: steps behind 2
#  | left: [8, 9]
