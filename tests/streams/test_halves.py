"""A batch that failed as a whole comes back in halves; one event alone is to blame at last."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from penstock import END, Client, Reject, Retry, Signal
from penstock.event import Shard
from streams.helping import fill, number, numbers, take

pytestmark = pytest.mark.one_loop

AT_ONCE = Retry(first=0.0, jitter=0.0, attempts=2, breaker=0)


async def halve(client: Client, bad: set[int], count: int, **options: Any) -> list[list[int]]:
    """Handle *count* events in batches; one that holds what is bad fails as a whole."""
    stream = client.stream("orders")
    await fill(stream, count)
    failed: list[list[int]] = []
    async with stream.group("billing", until=END, **options) as group:
        async for batch in group.batches(size=1000, within=0.2):
            if bad.isdisjoint(numbers(batch)):
                group.ack(batch)
            else:
                failed.append(numbers(batch))
                group.fail(batch, ValueError("one of them"))
    return failed


async def given_up(client: Client) -> list[tuple[int, int]]:
    """Number and attempts of the dead letters."""
    letters = await client.backend.letters(Shard("orders"), "billing", None, 100)
    return [(int(letter.raw[1]), letter.attempts) for letter in letters]


async def test_only_what_failed_alone_is_given_up(client: Client) -> None:
    """Out of a batch of 64, in at most seven rounds; the 63 others are acked."""
    failed = await halve(client, {37}, 64, retry=AT_ONCE)
    assert [number for number, _ in await given_up(client)] == [37]
    sizes = [len(batch) for batch in failed]
    assert all(37 in batch for batch in failed)
    assert sizes == sorted(sizes, reverse=True)
    assert all(after <= (before + 1) // 2 for before, after in itertools.pairwise(sizes))
    assert sizes[-1] == 1
    (info,) = await client.stream("orders").groups()
    assert (info.pending, info.parked) == (0, 0)


async def test_a_batch_that_is_rejected_is_halved_too(client: Client) -> None:
    """Who rejects a batch has not said which event it was."""
    stream = client.stream("orders")
    await fill(stream, 8)
    async with stream.group("billing", until=END, retry=AT_ONCE) as group:
        async for batch in group.batches(size=8, within=0.2):
            if 5 in numbers(batch):
                group.fail(batch, Reject("not five"))
            else:
                group.ack(batch)
    assert [number for number, _ in await given_up(client)] == [5]


async def test_a_block_that_fails_with_a_batch_gives_nothing_up(client: Client) -> None:
    """Each time it counts once, for all of the batch; they come back in smaller ones."""
    stream = client.stream("orders")
    await fill(stream, 8)
    sizes: list[int] = []

    async def fails() -> None:
        async with stream.group("billing", retry=AT_ONCE) as group:
            async for batch in group.batches(size=8, within=0.5):
                if 5 in numbers(batch):
                    sizes.append(len(batch))
                    raise ValueError("one of them")
                group.ack(batch)

    while not await given_up(client):
        assert len(sizes) < 10
        with pytest.raises(ValueError, match="one of them"):
            await fails()
    assert [number for number, _ in await given_up(client)] == [5]
    assert sizes[0] > sizes[-1] == 1


async def test_single_events_are_alone_in_any_case(client: Client, signals: list[Signal]) -> None:
    """One by one, there is nothing to halve."""
    stream = client.stream("orders")
    await fill(stream, 3)
    async with stream.group("billing", retry=AT_ONCE) as group:
        first = await take(group, 3)
        group.fail(first, ValueError("all"))  # in one call: a batch
        again = await take(group, 3)
        assert {event.attempts for event in again} == {1}
        for event in again:
            group.fail(event, ValueError(f"{number(event)}"))
        await group.flush()
    assert sorted(await given_up(client)) == [(0, 2), (1, 2), (2, 2)]
    assert sum(signal.count or 0 for signal in signals if signal.kind == "dead-lettered") == 3
