"""Typed streams: JSON that is checked on its way out of the stream, and unions told apart."""

import asyncio

import msgspec

import penstock
from penstock import END, OLDEST


class Paid(msgspec.Struct, tag="paid"):
    order: int
    cents: int


class Shipped(msgspec.Struct, tag="shipped"):
    order: int
    parcel: str = ""


async def main() -> None:
    async with penstock.connect() as client:
        # A Struct, a dataclass, a TypedDict, bytes, or a tagged union of Structs.
        events = client.stream("orders", type=Paid | Shipped)
        await events.append(Paid(7, cents=995), name="order.paid")
        await events.append(Shipped(7, parcel="RX-12"), name="order.shipped")

        # Layout and codec are stored with the stream: a handle that asks for nothing adopts them.
        await client.stream("orders").append({"type": "shipped", "order": "eight"})

        async with events.reader(start=OLDEST, until=END) as reader:
            async for event in reader:
                try:
                    match event.value:
                        case Paid(order, cents):
                            print(f"{order} paid {cents / 100:.2f}")
                        case Shipped(order, parcel):
                            print(f"{order} shipped as {parcel}")
                except penstock.DecodeError as error:  # theirs to mend; the reader goes on
                    print("undecodable:", error)
                    print("its bytes:", event.payload)


asyncio.run(main())

# Prints:
#  | 7 paid 9.95
#  | 7 shipped as RX-12
#  | undecodable: event … of stream 'orders' is undecodable: Expected `int`, got `str` …
#  | its bytes: b'{"type":"shipped","order":"eight"}'
