"""Dead letters through the API of groups: moved in one step, replayed to the group that failed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock import BackendRejected, Client, Retry, Stream, connect
from penstock.event import Shard
from penstock.ports import DeadLetter
from streams.helping import PATIENCE, fill, nothing_comes, number, numbers, soon, take

pytestmark = pytest.mark.one_loop

ONCE = Retry(attempts=1, breaker=0)


async def letters(stream: Stream[Any], group: str = "billing") -> list[DeadLetter]:
    """What the group has given up."""
    return list(await stream.client.backend.letters(Shard(stream.name), group, None, 1000))


async def give_up(stream: Stream[Any], count: int) -> list[DeadLetter]:
    """Fail so many events for good."""
    async with stream.group("billing", retry=ONCE) as group:
        for event in await take(group, count):
            group.fail(event, ValueError("no"))
        await group.flush()
    return await letters(stream)


async def test_a_replayed_event_is_as_it_was(client: Client) -> None:
    """Its value, key, id and headers; it has not failed, and comes to one member of that group."""
    stream = client.stream("orders")
    await stream.append({"n": 7}, key="k", id="id-7", topic="t", headers={"a": "b"})
    (letter,) = await give_up(stream, 1)
    await stream.trim(max_events=0, acked_only=False)
    replay = client.backend.replay
    async with stream.group("billing") as waiting, stream.group("other") as stranger:
        assert await replay(Shard("orders"), "billing", [letter.id]) == 1
        assert await replay(Shard("orders"), "billing", [letter.id]) == 0
        (event,) = await take(waiting, 1)
        assert (number(event), event.key, event.id, event.topic) == (7, "k", "id-7", "t")
        assert event.headers == {"a": "b"}
        assert (event.attempts, event.deliveries) == (0, 1)
        waiting.ack(event)
        await waiting.flush()
        await nothing_comes(stranger, 0.1)
    async with stream.group("billing") as group:
        await nothing_comes(group, 0.7)


async def test_a_replayed_event_that_fails_again_is_a_letter_again(client: Client) -> None:
    """With the position of the event that it was made of."""
    stream = client.stream("orders")
    positions = await fill(stream, 1)
    (letter,) = await give_up(stream, 1)
    await client.backend.replay(Shard("orders"), "billing", [letter.id])
    (again,) = await give_up(stream, 1)
    assert again.position == letter.position == positions[0]
    assert (again.raw, again.attempts) == (letter.raw, 1)
    assert again.id > letter.id


async def test_what_was_replayed_to_a_member_that_dies_comes_to_another(
    client: Client, url: str
) -> None:
    """Replayed events are leased with their member like all others."""
    stream = client.stream("orders")
    await fill(stream, 3)
    found = await give_up(stream, 3)
    await client.backend.replay(Shard("orders"), "billing", [letter.id for letter in found])
    async with connect(url) as other:
        dead = other.stream("orders").group("billing", lease=0.5)
        await dead.__aenter__()
        await take(dead, 3)
        dead._work._member.abandon()  # type: ignore[attr-defined]
        async with stream.group("billing", lease=0.5) as group:
            events = await take(group, 3)
            assert sorted(numbers(events)) == [0, 1, 2]
            assert {event.attempts for event in events} == {0}
            group.ack(events)


async def test_without_memory_nothing_is_lost(servers: str) -> None:
    """A letter that cannot be kept leaves its event pending; acks get through meanwhile."""
    async with connect(servers) as client:
        stream = client.stream("orders")
        await fill(stream, 4)
        set_memory = client.redis.config_set
        async with asyncio.timeout(3 * PATIENCE), stream.group("billing", retry=ONCE) as group:
            events = await take(group, 4)
            try:
                await set_memory("maxmemory", "1")
                group.fail(events[0], ValueError("no"))
                group.ack(events[1:])
                with pytest.raises(BackendRejected):
                    await group.flush()
                assert await letters(stream) == []
                (pending,) = await group.pending()
                assert pending.position == events[0].position
            finally:
                await set_memory("maxmemory", "0")

            async def kept() -> bool:
                return len(await letters(stream)) == 1

            await soon(kept, "kept when there is memory again")
            assert await group.pending() == []
