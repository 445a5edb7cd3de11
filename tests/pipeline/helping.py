"""What the tests of Apps share: types, and conditions with deadlines."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

import msgspec

from penstock import END, OLDEST, Client, Event

PATIENCE = 20.0
"""Seconds for what should take a few hundredths of one; less than a lease, which mends much."""


class Order(msgspec.Struct):
    """What comes in."""

    number: int
    customer: str = ""


class Invoice(msgspec.Struct):
    """What goes out."""

    number: int


async def soon(condition: Callable[[], Any], what: str, within: float = PATIENCE) -> None:
    """Return as soon as *condition* holds; fail after *within* seconds."""
    deadline = time.monotonic() + within
    while True:
        held = condition()
        if inspect.isawaitable(held):
            held = await held
        if held:
            return
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        await asyncio.sleep(0.005)


async def stored(client: Client, stream: str, type_: Any = None) -> list[Event[Any]]:
    """All that a stream holds."""
    async with client.stream(stream, type=type_).reader(start=OLDEST, until=END) as reader:
        return [event async for event in reader]


async def orders(client: Client, count: int, first: int = 0) -> None:
    """Append orders, numbered from *first* on."""
    stream = client.stream("orders", type=Order)
    await stream.append_many([Order(n) for n in range(first, first + count)])


async def pending(client: Client, stream: str, group: str) -> int:
    """How many events of a group are handed out or parked, and not acked."""
    infos = await client.stream(stream).groups()
    return sum(info.pending for info in infos if info.name == group)
