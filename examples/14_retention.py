"""Retention: a stream grows until it is trimmed, and a trim keeps what a group still needs."""

import asyncio

import penstock


async def main() -> None:
    async with penstock.connect() as client:
        clicks = client.stream("clicks", type=int)
        places = await clicks.append_many(list(range(100)))

        async with clicks.group("statistics") as group:
            batch = await anext(group.batches(size=40, within=1.0))
            group.ack(batch)
            await group.flush()

            # 10 of the newest may stay, but the group has acked 40 alone: 60 are kept.
            print("removed:", await clicks.trim(max_events=10))
            print("left:", await clicks.length())

        # By position, guarded as well.
        print("removed:", await clicks.trim(before=places[90]), "of what nobody has read")

        # Without the guard: the group loses what it had not read.
        print("removed:", await clicks.trim(max_events=10, acked_only=False))

        # Without any group, a trim is a trim.
        await clicks.drop_group("statistics")
        print("removed:", await clicks.trim(max_events=3), "left:", await clicks.length())

        # Single events, and everything.
        print("removed:", await clicks.remove([places[99]]))
        print("destroyed:", await clicks.destroy(), "left:", await clicks.length())


asyncio.run(main())

# Prints:
#  | removed: 40
#  | left: 60
#  | removed: 0 of what nobody has read
#  | removed: 50
#  | removed: 7 left: 3
#  | removed: 1
#  | destroyed: True left: 0
