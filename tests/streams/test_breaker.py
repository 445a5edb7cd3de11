"""The breaker: when everything fails, nothing is given up, and events are tried one by one."""

from __future__ import annotations

import asyncio
import itertools
import time

import pytest

from penstock import Client, Retry, Signal
from penstock.event import Shard
from streams.helping import PATIENCE, fill, number, soon

pytestmark = pytest.mark.one_loop

RETRY = Retry(attempts=1, first=0.1, cap=0.4, jitter=0.0, breaker=5)


async def test_an_outage_gives_nothing_up(client: Client, signals: list[Signal]) -> None:
    """What failed before it opened is given up; nothing behind; all is handled when it is over."""
    stream = client.stream("orders")
    await fill(stream, 40)
    down, tried, handled = True, list[float](), set[int]()
    async with asyncio.timeout(3 * PATIENCE), stream.group("billing", retry=RETRY) as group:
        async for event in group:
            if down:
                tried.append(time.monotonic())
                group.fail(event, ConnectionError("the shop is down"))
                down = len(tried) < 8
            else:
                handled.add(number(event))
                group.ack(event)
            if len(handled) == 36:
                break
        await group.flush()
        kinds = [signal.kind for signal in signals]
        assert kinds.count("breaker-opened") == 1
        assert kinds.count("breaker-closed") == 1
    gaps = [after - before for before, after in itertools.pairwise(tried[4:])]
    assert gaps[0] >= 0.09, "the first is tried after a pause"
    assert gaps[1] >= 0.19, "which doubles"
    assert gaps[2] >= 0.39
    assert await client.backend.count_letters(Shard("orders"), "billing") == 4


async def test_others_get_what_was_read_ahead(client: Client) -> None:
    """The failing may be this member's alone: what it has not handed out goes to the others."""
    stream = client.stream("orders")
    await fill(stream, 30)
    retry = Retry(attempts=9, first=20.0, cap=20.0, jitter=0.0, breaker=3)
    async with stream.group("billing", retry=retry) as broken:
        for _ in range(3):
            event = await anext(broken)
            broken.fail(event, ConnectionError("no way out of this network"))
        async with stream.group("billing") as healthy:
            seen: set[int] = set()
            async with asyncio.timeout(PATIENCE):
                while len(seen) < 27:
                    event = await anext(healthy)
                    seen.add(number(event))
                    healthy.ack(event)
        assert await broken.receive(0.1) is None


async def test_a_success_between_keeps_it_closed(client: Client, signals: list[Signal]) -> None:
    """Half of them failing is no outage."""
    stream = client.stream("orders")
    await fill(stream, 24)
    async with stream.group("billing", retry=RETRY) as group:
        for _ in range(24):
            event = await anext(group)
            if number(event) % 2:
                group.fail(event, ValueError("odd"))
            else:
                group.ack(event)
        await group.flush()
    assert "breaker-opened" not in [signal.kind for signal in signals]
    assert await client.backend.count_letters(Shard("orders"), "billing") == 12


async def test_it_can_be_turned_off(client: Client) -> None:
    """Then what fails often enough is given up, whatever the others do."""
    stream = client.stream("orders")
    await fill(stream, 30)
    async with stream.group("billing", retry=Retry(attempts=1, breaker=0)) as group:
        for _ in range(30):
            group.fail(await anext(group), ValueError("down"))

        async def all_given_up() -> bool:
            return await client.backend.count_letters(Shard("orders"), "billing") == 30

        await soon(all_given_up, "all are given up")
