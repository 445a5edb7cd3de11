"""When events are acked, and what becomes of those that nobody acks."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from penstock import END, Client, ConfigError, Group, LeaseLost, Retry, Signal, connect
from penstock.event import Shard
from streams.helping import PATIENCE, fill, nothing_comes, number, numbers, soon, take

pytestmark = pytest.mark.one_loop


async def pending(client: Client, name: str = "billing") -> int:
    """How many events members of the group hold."""
    return len(await client.backend.pending(Shard("orders"), name, 1000))


@pytest.mark.conformance("SS-038")
async def test_delayed_acks_come_by_themselves(client: Client) -> None:
    """When the delay is over, not before; and there is no `ack` to call."""
    stream = client.stream("orders")
    await fill(stream, 3)
    async with stream.group("billing", acks="delayed", ack_delay=0.6) as group:
        assert not isinstance(group, Group)
        assert not hasattr(group, "ack")
        begun = time.monotonic()
        await take(group, 2)
        await group.flush()
        assert await pending(client) >= 2

        async def acked() -> bool:
            return group.statistics().acked == 2

        await soon(acked, "acked")
        assert time.monotonic() - begun >= 0.55


@pytest.mark.conformance("SS-043")
async def test_delayed_acks_of_a_block_that_fails_are_not_sent(client: Client) -> None:
    """What went wrong comes again; a block that ends well has done all that it was given."""
    stream = client.stream("orders")
    await fill(stream, 4)

    async def fails() -> None:
        async with stream.group("billing", acks="delayed", retry=Retry(first=0.0)) as group:
            await take(group, 2)
            raise LookupError

    with pytest.raises(LookupError):
        await fails()
    async with stream.group("billing", acks="delayed", until=END) as group:
        assert sorted([number(event) async for event in group]) == [0, 1, 2, 3]
    async with stream.group("billing") as group:
        await nothing_comes(group, 0.6)


@pytest.mark.conformance("CR-023", "SS-037")
async def test_with_no_acks_nothing_is_kept(client: Client, url: str) -> None:
    """At most once: neither a failure nor a crash brings an event back."""
    stream = client.stream("orders")
    await fill(stream, 3)

    async def fails() -> None:
        async with stream.group("billing", acks="none") as group:
            assert numbers(await take(group, 3)) == [0, 1, 2]
            assert group.statistics().in_flight == 0
            raise LookupError

    with pytest.raises(LookupError):
        await fails()
    assert await pending(client) == 0
    await fill(stream, 1, first=3)
    async with connect(url) as other, other.stream("orders").group("billing") as group:
        assert numbers(await take(group, 1)) == [3]


async def test_without_acks_what_is_in_flight_is_bounded(client: Client) -> None:
    """What was read ahead counts until it is handed out."""
    stream = client.stream("orders")
    await fill(stream, 500)
    async with stream.group("billing", acks="none", max_in_flight=100) as group:
        await take(group, 1)
        await soon(lambda: group.statistics().buffered >= 64, "read ahead")
        await asyncio.sleep(0.1)
        assert group.statistics().fetched <= 200
        assert sorted(numbers(await take(group, 499))) == list(range(1, 500))


async def test_acks_must_be_one_of_three(client: Client) -> None:
    """And a delay is no negative time."""
    stream = client.stream("orders")
    with pytest.raises(ConfigError, match="acks must be"):
        stream.group("billing", acks="sometimes")  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="ack_delay"):
        stream.group("billing", acks="delayed", ack_delay=-1.0)
    with pytest.raises(ConfigError, match="max_parked"):
        stream.group("billing", max_parked=0)


async def test_a_program_that_hangs_keeps_nothing(client: Client, signals: list[Signal]) -> None:
    """After `hold` its event, counted, and all that was read ahead, uncounted, go to another."""
    stream = client.stream("orders")
    await fill(stream, 20)
    options = {"hold": 0.6, "retry": Retry(first=0.0)}
    async with stream.group("billing", **options) as hung:
        stuck = await anext(hung)
        await soon(lambda: hung.statistics().fetched == 20, "read ahead")
        async with stream.group("billing") as other:
            events = await take(other, 20)
            attempts = {number(event): event.attempts for event in events}
            assert attempts == {number(stuck): 1} | dict.fromkeys(range(1, 20), 0)
            other.ack(events)
            await other.flush()
        assert "hold-expired" in [signal.kind for signal in signals]
        with pytest.raises(LeaseLost):
            hung.ack(stuck)
        await fill(stream, 1, first=20)
        assert numbers(await take(hung, 1)) == [20], "it goes on when it asks again"


async def test_a_group_that_is_lost_while_its_member_rests_is_mended(client: Client) -> None:
    """When the program asks again, not before: then all comes again."""
    stream = client.stream("orders")
    await fill(stream, 2)
    async with stream.group("billing", hold=0.4, lease=0.4) as group:
        await anext(group)
        await soon(lambda: group.statistics().expired == 1, "it rests")
        await stream.drop_group("billing")
        async with asyncio.timeout(PATIENCE):
            while group.statistics().acked < 2:
                if (event := await group.receive(0.2)) is not None:
                    with contextlib.suppress(LeaseLost):  # of the group that is gone
                        group.ack(event)
                await group.flush()


async def test_a_program_that_is_slow_loses_nothing(client: Client, url: str) -> None:
    """Each event takes longer than what is in hand may; none is given to the other member."""
    stream = client.stream("orders")
    await fill(stream, 4)
    async with connect(url) as second:
        slow = stream.group("billing", hold=1.2)
        async with slow, second.stream("orders").group("billing") as other:
            taken = [await anext(slow)]
            stolen = await other.receive(0.1)
            for _ in range(3):
                await asyncio.sleep(0.5)
                slow.ack(taken[-1])
                if (event := await slow.receive(0.5)) is not None:
                    taken.append(event)
            assert {event.deliveries for event in taken} == {1}
            assert all(event is None or event.deliveries == 1 for event in [stolen])


async def test_full_hands_and_no_ack_are_told(client: Client, signals: list[Signal]) -> None:
    """Once, after one lease; and again only when something has moved in between."""
    stream = client.stream("orders")
    await fill(stream, 50)
    async with stream.group("billing", max_in_flight=10, lease=0.4) as group:
        events = await take(group, 8)

        def stalls() -> int:
            return [signal.kind for signal in signals].count("stalled")

        await soon(lambda: stalls() == 1, "told")
        await asyncio.sleep(0.6)
        assert stalls() == 1
        group.ack(events)
        await group.flush()
        await soon(lambda: stalls() == 2, "told again")


async def test_too_many_parked_stay_with_the_member(client: Client, signals: list[Signal]) -> None:
    """It takes nothing new until what is due has made room; then all is handled."""
    stream = client.stream("orders")
    await fill(stream, 40)
    retry = Retry(attempts=99, first=1.5, cap=1.5, jitter=0.0, breaker=0)
    options = {"max_parked": 4, "max_in_flight": 8, "retry": retry}
    async with asyncio.timeout(3 * PATIENCE), stream.group("billing", **options) as group:
        for event in await take(group, 6):
            group.nack(event)
        await soon(lambda: "parked-full" in [signal.kind for signal in signals], "told")
        (info,) = await stream.groups()
        assert info.parked == 4
        fetched = group.statistics().fetched
        assert fetched < 40
        await asyncio.sleep(0.3)
        assert group.statistics().fetched == fetched, "nothing new is taken"
        seen: set[int] = set()
        while len(seen) < 40:
            event = await anext(group)
            seen.add(number(event))
            group.ack(event)
        await group.flush()
    (info,) = await stream.groups()
    assert (info.pending, info.parked) == (0, 0)


async def test_several_tasks_share_one_group(client: Client) -> None:
    """Each event goes to one of them."""
    stream = client.stream("orders")
    await fill(stream, 200)
    found: list[int] = []

    async with stream.group("billing", until=END) as group:

        async def work() -> None:
            async for event in group:
                found.append(number(event))
                await asyncio.sleep(0)
                group.ack(event)

        async def batches() -> None:
            async for batch in group.batches(size=7):
                found.extend(numbers(batch))
                group.ack(batch)

        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(work(), work(), batches())
    assert sorted(found) == list(range(200))
