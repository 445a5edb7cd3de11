"""The server's wall clock steps: nobody dies of it, and nothing waits for a time that is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.lab.wall_clock import WallClock
from faults.machinery import STREAM, FaultyServer, add, settled, take, watched
from penstock import Retry
from support.servers import embedded_binary, redis_binary

pytestmark = pytest.mark.one_loop


@pytest.mark.parametrize("binary", [embedded_binary, redis_binary], ids=["valkey", "redis7"])
async def test_what_waits_for_its_time_does_not_wait_for_a_clock_that_went_back(
    binary: Callable[[], Path], tmp_path: Path
) -> None:
    """Parked an hour ahead; the clock is set right; it comes when it would have come."""
    server = FaultyServer(binary(), tmp_path, aof=False)
    try:
        clock = WallClock(tmp_path)
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    server.env = clock.env
    clock.step(3600.0)
    await asyncio.to_thread(server.start)
    try:
        async with (
            watched(server.url) as (client, signals),
            client.stream(STREAM).group("g", lease=0.6, retry=Retry(first=0.4)) as group,
        ):
            add(server.url, range(3))
            for event in await take([group], 3):
                group.nack(event)
            await group.flush()
            clock.step(0.0)
            again = await take([group], 3)
            group.ack(again)
            await group.flush()
            await settled(server.url)
        assert "member-lapsed" not in {signal.kind for signal in signals}
    finally:
        server.stop()
