"""``append(expect=)`` and ``only_if_exists``: appends with a condition."""

from __future__ import annotations

import asyncio
import time

import pytest

from penstock import Client, ConfigError, ConflictError, NotFound, Position, connect
from streams.helping import everything, numbers

pytestmark = pytest.mark.one_loop


async def test_only_the_expected_position_is_built_upon(client: Client) -> None:
    """Of ten writers that saw the same, one wins; the others hear where the stream stands."""
    stream = client.stream("account")
    first = await stream.append({"n": 0}, expect="empty")
    tries = (stream.append({"n": n}, expect=first) for n in range(1, 11))
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    (won,) = [one for one in outcomes if isinstance(one, Position)]
    lost = [one for one in outcomes if isinstance(one, ConflictError)]
    assert [error.position for error in lost] == [won] * 9
    with pytest.raises(ConflictError, match="expected to be none"):
        await stream.append({"n": 99}, expect="empty")
    assert len(await everything(stream)) == 2


async def test_a_counter_that_retries_loses_no_step(client: Client, url: str) -> None:
    """Optimistic locking, by two clients: every step is made once."""
    await client.stream("steps").append({"n": 0})

    async def step(stream: object, times: int) -> None:
        for _ in range(times):
            while True:
                (last,) = await stream.read_range(reverse=True, limit=1)  # type: ignore[attr-defined]
                try:
                    value = {"n": int(last.value["n"]) + 1}
                    await stream.append(value, expect=last.position)  # type: ignore[attr-defined]
                except ConflictError:
                    continue
                break

    async with connect(url) as other:
        await asyncio.gather(step(client.stream("steps"), 20), step(other.stream("steps"), 20))
    assert numbers(await everything(client.stream("steps"))) == list(range(41))


async def test_an_expectation_is_about_one_shard(client: Client) -> None:
    """That of the key; without one it is refused before anything is sent."""
    stream = client.stream("orders", shards=4)
    first = await stream.append({"n": 1}, key="k")
    with pytest.raises(ConfigError, match="expect is about one shard, and 'orders' has 4"):
        await stream.append({"n": 2}, expect=first)
    await stream.append({"n": 2}, key="k", expect=first)
    with pytest.raises(ConfigError, match="expect must be a position or 'empty', got 7"):
        await stream.append({"n": 3}, key="k", expect=7)  # type: ignore[call-overload]
    assert await stream.length() == 2


async def test_only_if_exists(client: Client) -> None:
    """Nothing is made, marks neither; with the stream it appends, in every shard."""
    stream = client.stream("orders", shards=3)
    with pytest.raises(NotFound):
        await stream.append({"n": 0}, key="a", only_if_exists=True)
    with pytest.raises(NotFound):
        await stream.info()
    await stream.append({"n": 0}, key="a")
    for n in range(1, 10):
        await stream.append({"n": n}, key=f"k{n}", only_if_exists=True)
    assert await stream.length() == 10


async def test_a_timestamp_is_metadata_and_never_the_entry_id(client: Client) -> None:
    """Positions go by the time of appending, whatever the event says of itself."""
    stream = client.stream("orders")
    before = time.time()
    position = await stream.append({"n": 1}, timestamp=4_000_000_000.5)
    later = await stream.append({"n": 2}, timestamp=1.0)
    assert (before - 60) * 1000 < position[0] <= later[0] < (time.time() + 60) * 1000
    assert position < later
    events = await everything(stream)
    assert [event.timestamp for event in events] == [4_000_000_000.5, 1.0]
