"""Groups that share shards, as they are listed: who lives or stands by, how far they are behind."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from penstock import Client, Stream, connect
from penstock.cli.render import group_objects
from penstock.info import MemberInfo
from streams.helping import soon, take

pytestmark = pytest.mark.one_loop

SHORT: Any = {"share": "shards", "lease": 0.4}


async def filled(client: Client, count: int, shards: int) -> Stream[Any]:
    """A stream with the numbers from 0 on, keyed by themselves."""
    stream = client.stream("orders", shards=shards)
    for n in range(count):
        await stream.append({"n": n}, key=f"k{n}")
    return stream


async def members(stream: Stream[Any]) -> dict[str, MemberInfo]:
    """All that are listed, by name; of one that owns several shards, one line."""
    return {one.name: one for info in await stream.groups() for one in info.members}


async def test_the_lag_is_known_whatever_is_committed(client: Client) -> None:
    """Also in the middle of what was read at once, and out of order."""
    stream = await filled(client, 9, 1)
    async with stream.group("billing", share="shards") as group:
        events = await take(group, 9)
        for acked, behind in ((events[:4], 5), (events[6:7], 5), (events[4:6], 2)):
            group.ack(acked)
            await group.flush()
            assert await group.lag() == behind
    async with stream.group("billing", share="shards") as group:  # its owner knows it too
        assert await group.lag() == 2
        group.ack(await take(group, 1))
        await group.flush()
        await stream.append({"n": 9})
        assert await group.lag() == 2


async def test_members_without_a_shard_are_listed(client: Client, url: str) -> None:
    """Once, as standing by; whoever owns shards is listed with each of them."""
    stream = await filled(client, 4, 2)
    async with connect(url) as second:
        there = second.stream("orders")
        places = {"a": stream, "b": there, "c": there}
        groups = [at.group("billing", share="shards", member=n) for n, at in places.items()]
        async with groups[0], groups[1], groups[2]:

            async def spread() -> bool:
                found = await members(stream)
                return sorted(one.standby for one in found.values()) == [False, False, True]

            await soon(spread, "each shard has its owner")
            listed = [one.name for info in await stream.groups() for one in info.members]
            assert sorted(listed) == ["a", "b", "c"]
            shown = json.dumps(group_objects(await stream.groups()))
            assert shown.count('"standby"') == 1
            assert shown.count('"alive"') == 2


async def test_who_does_not_beat_is_shown_silent(client: Client) -> None:
    """By its own lease, whether or not anybody is there to strike it."""
    stream = await filled(client, 4, 2)
    group = stream.group("billing", member="gone", **SHORT)
    async with group:
        group.ack(await take(group, 4))
        await group.flush()
        for _ in range(5):
            await asyncio.sleep(0.2)
            assert (await members(stream))["gone"].beating
        for share in group._work._shares.values():  # type: ignore[attr-defined]
            share.member.abandon()

        async def silent() -> bool:
            return not (await members(stream))["gone"].beating

        await soon(silent, "it is seen")


async def test_who_rests_is_shown_resting(client: Client) -> None:
    """Until its program asks again."""
    stream = await filled(client, 2, 1)
    async with stream.group("billing", member="one", share="shards", hold=0.3) as group:
        await anext(group)

        async def resting() -> bool:
            return (await members(stream))["one"].resting

        await soon(resting, "it rests")
        assert '"resting"' in json.dumps(group_objects(await stream.groups()))
        await anext(group)

        async def awake() -> bool:
            return not await resting()

        await soon(awake, "it is awake")
