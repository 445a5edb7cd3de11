"""`group.stop`: nothing more is taken, what was not yielded goes back, the rest is settled."""

from __future__ import annotations

import asyncio

import pytest

from penstock import END, Client, ClosedError
from streams.helping import fill, numbers, soon

pytestmark = pytest.mark.one_loop


async def test_what_was_not_yielded_goes_back_at_once_and_the_rest_is_settled(
    client: Client,
) -> None:
    """Another member has it, uncounted, while the first one still works; its ack counts."""
    stream = client.stream("orders")
    await fill(stream, 20)
    async with stream.group("billing") as group:
        in_hand = await anext(group)
        await group.stop()
        await group.stop()
        assert [event async for event in group] == []
        await fill(stream, 5, first=20)
        async with stream.group("billing") as other:
            taken = [await asyncio.wait_for(anext(other), 10.0) for _ in range(24)]
            assert sorted(numbers(taken)) == list(range(1, 25))
            assert {event.attempts for event in taken} == {0}
            other.ack(taken)
            group.ack(in_hand)
            await group.flush()
            await other.flush()

            async def nothing_pending() -> bool:
                return await group.pending() == []

            await soon(nothing_pending, "all is acked")


async def test_stopping_ends_whoever_waits(client: Client) -> None:
    """A step of the iteration that waits ends, and so does a batch."""
    stream = client.stream("orders")
    await fill(stream, 1)
    async with stream.group("billing") as group:
        group.ack(await anext(group))
        waiting = [asyncio.create_task(anext(group, None)) for _ in range(2)]
        await asyncio.sleep(0.05)
        await group.stop()
        assert await asyncio.gather(*waiting) == [None, None]
    with pytest.raises(ClosedError):
        await stream.group("billing").stop()


async def test_a_member_whose_end_is_reached_is_given_nothing_more(client: Client) -> None:
    """While its program stays in the block: what comes then is the others'."""
    stream = client.stream("orders")
    await fill(stream, 3)
    async with stream.group("billing", until=END) as ended:
        async for event in ended:
            ended.ack(event)
        async with stream.group("billing") as other:
            await fill(stream, 20, first=3)
            taken = [await asyncio.wait_for(anext(other), 10.0) for _ in range(20)]
            assert sorted(numbers(taken)) == list(range(3, 23))
            other.ack(taken)
