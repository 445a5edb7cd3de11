"""A stream that others made: read as plain fields, shared by a group, never changed in form."""

import asyncio

import penstock
from penstock import END, OLDEST


async def main() -> None:
    async with penstock.connect() as client:
        # Somebody else's program: any Redis client, any key. `client.redis` is redis-py.
        await client.redis.xadd("legacy:orders:7", {"id": "1", "note": "by hand"})
        await client.redis.xadd("legacy:orders:7", {"raw": b"\xff\x00"})

        # A name of theirs may be anything; names that Penstock creates may not end in ':7'.
        try:
            client.stream("legacy:orders:7")
        except penstock.ConfigError as error:
            print("refused:", str(error).partition(",")[0])
        legacy = client.stream("legacy:orders:7", foreign=True)

        async with legacy.reader(start=OLDEST, until=END) as reader:
            async for event in reader:
                print(event.value, "key:", event.key, "fields:", event.fields)

        # What we append looks like theirs.
        await legacy.append({"id": 2})
        print(list((await client.redis.xrange("legacy:orders:7"))[-1][1].items()))

        async with legacy.group("billing", until=END) as group:
            async for event in group:
                group.ack(event)
        print("marked:", (await legacy.info()).marks)  # it is still theirs


asyncio.run(main())

# Prints:
#  | refused: a stream's name must not end in ':' and digits
#  | {'id': '1', 'note': 'by hand'} key: None fields: ((b'id', b'1'), (b'note', b'by hand'))
#  | {'raw': '\udcff\x00'} key: None fields: ((b'raw', b'\xff\x00'),)
#  | [(b'id', b'2')]
#  | marked: None
