"""Groups that share shards: streams that come, go, or are made later; and events without acks."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgspec
import pytest

from penstock import (
    END,
    BackendUnavailable,
    Client,
    ClosedError,
    ConfigError,
    Retry,
    Stream,
    connect,
)
from streams.helping import PATIENCE, fill, number, numbers, soon, take

pytestmark = pytest.mark.one_loop

SHARED: Any = {"share": "shards", "lease": 20.0}


class Order(msgspec.Struct):
    n: int


async def keyed(client: Client, count: int, shards: int = 2) -> Stream[Any]:
    """A stream with the numbers from 0 on, over four keys."""
    stream = client.stream("orders", shards=shards)
    async with stream.writer() as writer:
        for n in range(count):
            await writer.send({"n": n}, key=f"k{n % 4}")
    return stream


# --- without acks ----------------------------------------------------------------------------


async def test_without_acks_no_more_is_read_ahead_than_may_be(client: Client) -> None:
    """It is nobody else's any more: so `max_in_flight` bounds what a crash loses."""
    stream = await keyed(client, 400)
    async with stream.group("g", acks="none", max_in_flight=20, **SHARED) as group:
        await take(group, 1)
        await soon(lambda: group.statistics().in_flight >= 20, "it reads ahead")
        await asyncio.sleep(0.1)
        assert group.statistics().fetched <= 1 + 2 * 20
        assert group.statistics().in_flight_bytes > 0
        assert max(numbers(await take(group, 399))) == 399
        assert group.statistics().in_flight_bytes == 0


async def test_without_acks_a_shard_that_moves_loses_nothing(client: Client, url: str) -> None:
    """What was read of it is handed out by who read it; the next owner goes on behind that."""
    stream = await keyed(client, 200)
    seen: list[int] = []
    async with stream.group("g", acks="none", **SHARED) as old:
        seen += numbers(await take(old, 10))
        await soon(lambda: old.statistics().fetched == 200, "all is read ahead")
        async with (
            connect(url) as second,
            second.stream("orders").group("g", acks="none", **SHARED) as new,
        ):
            taking = asyncio.ensure_future(take(new, 1))
            await asyncio.sleep(0.7)  # a look of either, at least
            seen += numbers(await take(old, 190))
            await soon(lambda: asyncio.sleep(0, bool(old.statistics().in_flight == 0)), "all read")
            while not taking.done():
                for n in range(200, 216):
                    await stream.append({"n": n}, key=f"k{n}")
                await asyncio.sleep(0.05)
            assert number(taking.result()[0]) >= 200
    assert sorted(seen) == list(range(200))


async def test_without_acks_a_commit_that_fails_loses_nothing(client: Client) -> None:
    """It is committed when that is possible again, and handed out then."""
    stream = await keyed(client, 40)
    async with stream.group("g", acks="none", max_in_flight=10, **SHARED) as group:
        inner: Any = group
        member = inner._work._shares["orders"].member
        commit, failures = member.commit, iter(range(5))

        async def unheard(*args: Any) -> None:
            if next(failures, None) is not None:
                raise BackendUnavailable("no answer")
            await commit(*args)

        member.commit = unheard
        assert sorted(numbers(await take(group, 40))) == list(range(40))
        assert next(failures, None) is None


@pytest.mark.parametrize("well", [True, False])
async def test_delayed_acks_are_sent_at_the_end_of_a_block_that_ends_well(
    client: Client, well: bool
) -> None:
    """It has done all that it was given; what one that fails was given comes again."""
    stream = await keyed(client, 4, 1)
    at_once = Retry(first=0.0, jitter=0.0)
    with contextlib.suppress(LookupError):
        async with stream.group("g", acks="delayed", retry=at_once, **SHARED) as group:
            await take(group, 3)
            if not well:
                raise LookupError
    left: list[int] = []
    async with stream.group("g", until=END, **SHARED) as again:
        async for event in again:
            left.append(number(event))
            again.ack(event)
    assert sorted(left) == ([3] if well else [0, 1, 2, 3])


# --- streams that are made later --------------------------------------------------------------


async def test_what_is_made_later_is_read_as_it_is_stored(client: Client, url: str) -> None:
    """The group was there first, and had to guess how its events would look."""
    async with client.stream("orders").group("g", **SHARED) as group, connect(url) as other:
        inner: Any = group
        await soon(lambda: inner._work._shares["orders"].works, "it owns the shard")
        await other.stream("orders", type=Order).append(Order(7))
        (event,) = await take(group, 1)
        assert event.value == {"n": 7}


async def test_what_came_while_the_stream_could_not_be_looked_at_is_kept(
    client: Client, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How the first events are stored must be asked for; they are fetched but once."""
    stream = client.stream("orders")
    async with stream.group("g", **SHARED) as group, connect(url) as other:
        look, failures = Stream.format, iter(range(3))

        async def unheard(self: Stream[Any]) -> Any:
            if self is stream and next(failures, None) is not None:
                raise BackendUnavailable("no answer")
            return await look(self)

        monkeypatch.setattr(Stream, "format", unheard)
        await fill(other.stream("orders"), 3)
        assert numbers(await take(group, 3)) == [0, 1, 2]
        assert next(failures, None) is None


# --- shards that go while little flows ----------------------------------------------------------


async def test_a_breaker_whose_tried_event_was_lost_tries_another(client: Client) -> None:
    """Nobody settles what is not in hand any more: without that nothing would ever flow again."""
    stream = await keyed(client, 6, 1)
    retry = Retry(first=0.05, cap=0.05, jitter=0.0, breaker=1)
    async with stream.group("g", retry=retry, **SHARED) as group:
        group.nack((await take(group, 1))[0])
        await take(group, 1)
        inner: Any = group
        assert inner._work.breaker.open
        inner._work._shares["orders"].member.lapse()
        group.ack(await take(group, 1))
        assert len(await take(group, 5)) == 5


# --- streams that come and go -----------------------------------------------------------------


async def test_a_member_that_rests_rests_in_a_new_stream_too(client: Client, url: str) -> None:
    """Else what is there would be a program's that hangs."""
    stream, more = await keyed(client, 4), client.stream("more")
    await fill(more, 3)
    async with stream.group("g", share="shards", lease=20.0, hold=0.3) as hung:
        await take(hung, 1)
        inner: Any = hung
        await soon(lambda: inner._work.resting, "it rests")
        await hung.add_stream(more)
        async with connect(url) as second, second.stream("more").group("g", **SHARED) as other:
            assert numbers(await take(other, 3)) == [0, 1, 2]


async def test_a_stream_that_is_added_twice_at_once_has_one_member(client: Client) -> None:
    stream, more = await keyed(client, 1), client.stream("more")
    await fill(more, 3)
    async with stream.group("g", **SHARED) as group:
        await asyncio.gather(group.add_stream(more), group.add_stream(more))
        (about,) = await more.groups()
        assert len(about.members) == 1
        await group.remove_stream(more)
        (about,) = await more.groups()
        assert about.members == ()


async def test_no_stream_is_taken_up_behind_the_end(client: Client) -> None:
    """Nobody would be handed its events."""
    stream, more = await keyed(client, 1), client.stream("more")
    async with stream.group("g", **SHARED) as group:
        await group.stop()
        with pytest.raises(ClosedError, match="read to its end"):
            await group.add_stream(more)


async def test_a_stream_is_not_taken_up_while_the_group_is_left(client: Client) -> None:
    """It had begun: nobody would ever leave it."""
    stream, more = await keyed(client, 1), client.stream("more")
    await fill(more, 1)
    group = stream.group("g", **SHARED)
    async with group:
        adding = asyncio.ensure_future(group.add_stream(more))
        await asyncio.sleep(0)
    with contextlib.suppress(ClosedError):  # or it was there before, and has been left
        await adding
    async with more.group("g", share="shards", lease=0.4) as other:
        assert numbers(await take(other, 1)) == [0]


async def test_the_last_stream_cannot_be_removed(client: Client) -> None:
    stream = await keyed(client, 1)
    async with stream.group("g", **SHARED) as group:
        with pytest.raises(ConfigError, match="one of several"):
            await group.remove_stream(stream)


async def test_what_is_left_after_a_stream_went_has_its_end(client: Client) -> None:
    """The one that had not been read to its end, by another member, is not waited for."""
    stream, more = await keyed(client, 2, 1), client.stream("more")
    await fill(more, 2)
    async with more.group("g", **SHARED) as other:
        await take(other, 1)
        async with client.group("g", [stream, more], until=END, **SHARED) as group:
            group.ack(await take(group, 2))
            inner: Any = group
            waiting = asyncio.ensure_future(group.receive(PATIENCE))
            await soon(lambda: inner._work._shares["orders"].ended, "one is read to its end")
            assert not waiting.done()
            await group.remove_stream(more)
            await soon(waiting.done, "the end", PATIENCE / 2)
            assert waiting.result() is None
