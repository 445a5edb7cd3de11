"""Write many events, pipelined: `send` waits for room alone, a receipt for one event's place."""

import asyncio

import penstock


async def main() -> None:
    async with penstock.connect() as client:
        measurements = client.stream("measurements")

        # At most so many events may be without an outcome; at that many, `send` waits.
        async with measurements.writer(max_pending=1000) as writer:
            for number in range(5000):
                await writer.send({"sensor": number % 7, "value": number / 10})

            receipt = await writer.send({"sensor": 0, "value": -1.0}, receipt=True)
            position = await receipt  # where this very event stands
            found = await measurements.read_range(position, position)
            print("receipt:", found[0].value)

            # All earlier sends are stored, or this raises what became of which.
            await writer.flush()
            print("stored:", writer.statistics().stored, "pending:", writer.statistics().pending)

            try:
                await writer.send({"sensor": {"nested": True}})
            except penstock.EncodeError as error:  # nothing of it was sent; the writer goes on
                print("refused:", error)
        # Leaving the block flushes, too.

        positions = await measurements.append_many([{"sensor": 1, "value": 0.5}] * 3)
        print("appended at once:", len(positions), "in order:", positions == sorted(positions))


asyncio.run(main())

# Prints:
#  | receipt: {'sensor': '0', 'value': '-1.0'}
#  | stored: 5001 pending: 0
#  | refused: the value of field 'sensor' must be str, bytes, int or float, got dict; …
#  | appended at once: 3 in order: True
