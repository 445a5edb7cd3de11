"""What clients do for their open streams by and by goes on after a server's refusals."""

from __future__ import annotations

import asyncio
import time

import pytest

from penstock import Client, Retention, Signal, connect
from streams.helping import everything, fill, numbers, soon

pytestmark = pytest.mark.one_loop


@pytest.mark.parametrize("url", ["embedded_server", "redis7_server"], indirect=True)
async def test_a_full_server_only_puts_off_what_is_due(client: Client, url: str) -> None:
    """Out of memory while events come due: signalled once, and they come when there is room."""
    heard: list[Signal] = []
    async with connect(url, observer=heard.append) as other:
        stream = other.stream("orders")
        await stream.append({"n": 1}, deliver_at=time.time() + 0.3)
        await client.redis.config_set("maxmemory", "1")
        try:

            def refused() -> bool:
                return any(one.kind == "not-tended" for one in heard)

            await soon(refused, "the refusal is signalled")
            await asyncio.sleep(0.3)
        finally:
            await client.redis.config_set("maxmemory", "0")

        async def moved() -> bool:
            return await stream.length() == 1

        await soon(moved, "it comes all the same")
        assert len([one for one in heard if one.kind == "not-tended"]) == 1


async def test_a_stream_at_its_cap_is_not_asked_without_rest(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is due finds no room: looked at twice a second, and moved when there is some."""
    stream = client.stream("orders", retention=Retention(cap=2))
    await stream.append({"n": 2}, deliver_at=time.time() + 0.2)
    await fill(stream, 2)
    looks = 0
    tend = client.backend.tend

    async def counted(name: str) -> object:
        nonlocal looks
        looks += 1
        return await tend(name)

    monkeypatch.setattr(client.backend, "tend", counted)
    await asyncio.sleep(1.2)
    assert looks <= 5
    await stream.trim(max_events=0)

    async def moved() -> bool:
        return numbers(await everything(stream)) == [2]

    await soon(moved, "it is moved into the room")
