"""A codec of one's own: four members, and a name that is stored with the stream."""

import asyncio
import struct
from typing import Literal

import penstock
from penstock import END, OLDEST


class Pairs:
    """Two numbers in 12 bytes."""

    name = "pairs"
    body: Literal["fields", "payload"] = "payload"  # it makes bytes; "fields" makes field pairs

    def encode(self, value: tuple[int, float]) -> bytes:
        try:
            return struct.pack("<id", *value)
        except struct.error as error:
            raise penstock.EncodeError(f"a value must be (int, float), got {value!r}") from error

    def decode(self, body: bytes) -> tuple[int, float]:
        try:
            return struct.unpack("<id", body)
        except struct.error as error:
            raise penstock.DecodeError(f"a value must have 12 bytes, got {len(body)}") from error


async def main() -> None:
    async with penstock.connect() as client:
        pairs = client.stream("pairs", codec=Pairs())
        await pairs.append((7, 0.5))

        async with pairs.reader(start=OLDEST, until=END) as reader:
            async for event in reader:
                print(event.value, len(event.payload), "bytes")

        try:
            await client.stream("pairs").append((8, 1.5))
        except penstock.ConfigError as error:
            print("refused:", error)


asyncio.run(main())

# Prints:
#  | (7, 0.5) 12 bytes
#  | refused: a codec by name must be one of fields, json, raw, got 'pairs'; give your own as …
