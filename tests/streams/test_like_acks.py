"""Acks that nobody calls: after a delay, and never."""

from __future__ import annotations

from typing import Any

import pytest

from penstock import Client, ConfigError, Signal, connect
from penstock.event import Shard
from streams.helping import fill, nothing_comes, numbers, soon, take
from streams.test_group import crash

pytestmark = pytest.mark.one_loop


async def pending(client: Client, stream: str, group: str) -> int:
    """How many events of the group are pending, over all members."""
    infos = await client.backend.groups(Shard(stream))
    return sum(info.pending + info.parked for info in infos if info.name == group)


@pytest.mark.conformance("CR-023", "PU-034", "SS-037")
async def test_without_acks_nothing_is_ever_pending(client: Client) -> None:
    """Each event comes once, also what was fetched ahead; nobody keeps what was not handled."""
    stream = client.stream("orders")
    await fill(stream, 50)
    async with stream.group("billing", acks="none", member="bob") as group:
        assert not hasattr(group, "ack")
        found = numbers(await take(group, 10))
        assert await pending(client, "orders", "billing") == 0
        found += numbers(await take(group, 40))
        assert found == list(range(50))
    async with stream.group("billing", acks="none", member="bob") as group:
        await nothing_comes(group, 0.1)
        assert await pending(client, "orders", "billing") == 0


@pytest.mark.conformance("CR-023", "SS-037")
async def test_what_was_read_ahead_without_acks_is_told_when_its_member_leaves(
    client: Client, signals: list[Signal]
) -> None:
    """Nobody gets it, and nothing is silent; what was handed out is not counted."""
    stream = client.stream("orders")
    await fill(stream, 50)
    async with stream.group("billing", acks="none") as group:
        await take(group, 10)
        await soon(lambda: group.statistics().fetched == 50, "it has read ahead")
    async with stream.group("billing") as group:
        await nothing_comes(group, 0.1)
    [told] = [signal for signal in signals if signal.kind == "events-dropped"]
    assert (told.stream, told.group, told.count) == ("orders", "billing", 40)


@pytest.mark.conformance("CR-028")
async def test_what_a_name_left_behind_does_not_stay_pending_without_acks(
    client: Client, url: str
) -> None:
    """It was pending under explicit acks; taken up with none, it is handed out and let go."""
    await fill(client.stream("orders"), 5)
    async with connect(url) as other:
        crashed = other.stream("orders").group("billing", member="bob", lease=0.3)
        await crashed.__aenter__()
        await take(crashed, 5)
        await crash(crashed)
        async with client.stream("orders").group(
            "billing", member="bob", acks="none", lease=0.3
        ) as group:
            assert sorted(numbers(await take(group, 5))) == list(range(5))
            await soon(lambda: _none_pending(client), "nothing stays pending")


async def _none_pending(client: Client) -> bool:
    return not await pending(client, "orders", "billing")


@pytest.mark.conformance("SS-038")
async def test_delayed_acks_come_by_themselves(client: Client) -> None:
    """Some time after each event was handed out; there is no ack to call."""
    stream = client.stream("orders")
    await fill(stream, 3)
    async with stream.group("billing", acks="delayed", ack_delay=0.3) as group:
        assert not hasattr(group, "ack")
        await take(group, 3)
        assert len(await group.pending()) == 3
        await soon(lambda: _nothing_pending(group), "they are acked")
    with pytest.raises(ConfigError):
        stream.group("billing", acks="delayed", ack_delay=-1.0)


async def _nothing_pending(group: Any) -> bool:
    return not await group.pending()
