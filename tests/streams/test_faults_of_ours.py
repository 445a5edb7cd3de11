"""An error that nobody foresaw, in the background of a group, is raised where events are taken."""

from __future__ import annotations

import asyncio

import pytest

from penstock import Client, connect
from penstock.backends.redis.takeovers import Takeovers
from penstock.streams.settling import Settling
from penstock.streams.shard_membership import ShardMembership
from penstock.streams.stream_share import StreamShare
from penstock.streams.watching import Watch
from streams.helping import PATIENCE, fill, take

pytestmark = pytest.mark.one_loop

PLACES = [
    ("events", Watch, "_release"),
    ("events", Settling, "flush"),
    ("shards", ShardMembership, "flush"),
    ("shards", ShardMembership, "_look_for_progress"),
    ("shards", StreamShare, "_step"),
]


@pytest.mark.parametrize(("share", "where", "what"), PLACES)
async def test_it_is_raised_at_the_next_step(
    client: Client, monkeypatch: pytest.MonkeyPatch, share: str, where: type, what: str
) -> None:
    stream = client.stream("orders")
    await fill(stream, 1)

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    async with stream.group("g", share=share, lease=0.4) as group:  # type: ignore[call-overload]
        group.ack(await anext(group))
        monkeypatch.setattr(where, what, broken)
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(anext(group), PATIENCE)
        monkeypatch.undo()


async def test_what_looks_after_groups_says_so_too(
    servers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the program's hands are full, somebody else looks: his error comes then."""
    met = asyncio.Event()

    async def broken(*_: object) -> None:
        met.set()
        raise ZeroDivisionError

    async with connect(servers) as client:
        stream = client.stream("orders")
        await fill(stream, 4)
        async with stream.group("g", lease=0.4, max_in_flight=2) as group:
            events = await take(group, 2)
            monkeypatch.setattr(Takeovers, "_look_on", broken)
            await asyncio.wait_for(met.wait(), PATIENCE)
            monkeypatch.undo()
            group.ack(events)
            with pytest.raises(ZeroDivisionError):
                await take(group, 2)
