"""The public API as type checkers see it: checked by mypy, never run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, assert_type

import msgspec

import penstock
from penstock import END, NEWEST, OLDEST, Client, Event, Position, Stream, after, at, idle


class Order(msgspec.Struct):
    number: int
    state: str = "new"


async def appending(client: Client) -> None:
    orders = client.stream("orders")
    position = await orders.append({"id": 7, "price": 9.5, "raw": b"x", "state": "paid"})
    assert_type(position, Position)
    assert_type(str(position), str)
    assert_type(Position.parse("1-0"), Position)

    typed = client.stream("orders.v2", type=Order)
    assert_type(typed, Stream[Order])
    await typed.append(Order(7), key="customer-3", topic="eu", headers={"trace": "1"}, timeout=1.0)
    assert_type(await typed.append_many([Order(1), Order(2)]), list[Position])
    await typed.append({"number": 7})  # type: ignore[call-overload]


async def writing(typed: Stream[Order]) -> None:
    async with typed.writer(max_pending=10_000) as writer:
        await writer.send(Order(1))
        receipt = await writer.send(Order(2), receipt=True)
        assert_type(await receipt, Position)
        await writer.flush()


async def reading(typed: Stream[Order], untyped: Stream[dict[str, str]]) -> None:
    async with typed.reader(start=OLDEST, until=END) as reader:
        async for event in reader:
            assert_type(event, Event[Order])
            assert_type(event.value, Order)
            assert_type(event.key, str | None)
            assert_type(event.timestamp, float)
            assert_type(event.fields, tuple[tuple[bytes, bytes], ...])
    async with untyped.reader(start=NEWEST, until=idle(2.0)) as plain:
        one = await plain.receive(timeout=1.0)
        assert_type(one, Event[dict[str, str]] | None)
    async with typed.reader(start=after(Position.parse("1-0")), where="eu") as late:
        async for batch in late.batches(size=100, within=0.5):
            assert_type(batch, list[Event[Order]])
    typed.reader(start=at(datetime.now(UTC)), where=lambda event: event.value.number > 7)


async def sharing(typed: Stream[Order]) -> None:
    async with typed.group("billing", lease=2.0) as group:
        async for event in group:
            async with group.handling(event):
                assert_type(event.value, Order)
    async with typed.group("audit", member="alfred") as audit:
        async for batch in audit.batches(size=1000, within=0.05):
            assert_type(batch, list[Event[Order]])
            audit.ack(batch)
        await audit.flush()


async def connecting() -> None:
    async with penstock.connect("memory://") as client:
        assert_type(client, Client)
        assert_type(client.stream("orders"), Stream[Any])


def in_a_thread() -> None:
    with penstock.blocking("redis://localhost") as client:
        assert_type(client.stream("orders").append({"id": 7}), Position)
