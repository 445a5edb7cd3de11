"""A client that is closed while something hurries it leaves no connection open."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis

from penstock import OLDEST, Client, ClosedError, Group, Reader, connect
from penstock.backends.redis.link import Address, Link
from penstock.clock import SystemClock
from penstock.observers import Observers
from penstock.testing import TcpProxy
from streams.helping import PATIENCE, soon

pytestmark = pytest.mark.one_loop

TURNS = 60
"""Turns of the event loop within which a close on this machine is over, and some more."""


def _open(url: str) -> int:
    """Connections of the clients that these tests make."""
    with redis.Redis.from_url(url) as client:
        admin: Any = client
        return sum(one["name"] == "leaver" for one in admin.client_list())


async def _busy(url: str) -> tuple[Client, Reader[Any], Group[Any]]:
    """A client, and what it has open."""
    client = connect(url, client_name="leaver")
    await client.__aenter__()
    stream = client.stream("orders")
    await stream.append({"n": 1})
    reader = await stream.reader(start=OLDEST).__aenter__()
    group = await stream.group("g", lease=0.5).__aenter__()
    control: Any = client.redis
    await control.ping()
    return client, reader, group


async def test_a_close_that_is_cancelled_closes_all_connections(embedded_url: str) -> None:
    """At whichever of its turns: a connection that nobody closes ends with the process alone."""
    kept: list[Any] = []  # or the garbage collector would close what we forgot
    for turns in range(1, TURNS, 2):
        kept.append(await _busy(embedded_url))
        closing = asyncio.create_task(kept[-1][0].aclose())
        for _ in range(turns):
            await asyncio.sleep(0)
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
    await soon(lambda: _open(embedded_url) == 0, f"{len(kept)} clients are closed", 30.0)


async def test_a_link_that_is_closed_while_it_connects_keeps_nothing(embedded_url: str) -> None:
    port = int(embedded_url.rpartition(":")[2])
    async with TcpProxy(("127.0.0.1", port)) as proxy:
        proxy.delay = 0.2
        address = Address("127.0.0.1", proxy.port, client_name="leaver")
        link = Link(address, SystemClock(), Observers())
        connecting = asyncio.create_task(link.wire())
        await soon(lambda: proxy.connections, "it connects", PATIENCE)
        link.close()
        with pytest.raises(ClosedError):
            await connecting
        assert link.now is None
