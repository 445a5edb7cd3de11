"""Failures: what becomes of an event whose handling failed, for its member and for the others."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from penstock import (
    END,
    BackendRejected,
    Client,
    DecodeError,
    Event,
    Reject,
    Retry,
    RetryLater,
    Signal,
    Stream,
    connect,
    idle,
)
from penstock.event import Shard
from penstock.ports import DeadLetter
from streams.helping import PATIENCE, fill, nothing_comes, number, numbers, put, take

pytestmark = pytest.mark.one_loop

AT_ONCE = Retry(first=0.0, jitter=0.0, attempts=3)


async def letters(stream: Stream[Any], group: str = "billing") -> list[DeadLetter]:
    """What the group has given up."""
    return list(await stream.client.backend.letters(Shard(stream.name), group, None, 1000))


async def handle(source: AsyncIterator[Event[Any]], group: Any, bad: set[int]) -> None:
    """Handle everything; what is bad fails."""
    async for event in source:
        with contextlib.suppress(LookupError):
            async with group.handling(event):
                refuse(event, bad)


def refuse(event: Event[Any], bad: set[int]) -> None:
    """What a handler does with what is bad."""
    if number(event) in bad:
        raise LookupError(f"no customer {number(event)}")


@pytest.mark.conformance("SS-051")
async def test_what_always_fails_goes_to_the_dead_letters(
    client: Client, signals: list[Signal]
) -> None:
    """After so many failures, with its cause; all others are handled, and nothing is pending."""
    stream = client.stream("orders")
    positions = await fill(stream, 10)
    async with stream.group("billing", retry=AT_ONCE, until=END) as group:
        await handle(group, group, {3, 7})
        await group.flush()
        statistics = group.statistics()
    found = await letters(stream)
    assert sorted(letter.position for letter in found) == [positions[3], positions[7]]
    assert {(letter.attempts, letter.error) for letter in found} == {(3, "LookupError")}
    assert {letter.reason for letter in found} == {"no customer 3", "no customer 7"}
    assert (statistics.nacked, statistics.dead_lettered, statistics.acked) == (6, 2, 8)
    (info,) = await stream.groups()
    assert (info.pending, info.parked) == (0, 0)
    kinds = [signal.kind for signal in signals]
    assert kinds.count("dead-lettered") == 2
    assert not any("no customer" in signal.message for signal in signals)


async def test_deliveries_are_no_failures(client: Client) -> None:
    """An event that was handed out often, and never failed, is nowhere near the dead letters."""
    stream = client.stream("orders")
    await fill(stream, 1)
    for _ in range(5):
        async with stream.group("billing", retry=Retry(attempts=2)) as group:
            (event,) = await take(group, 1)
            assert event.attempts == 0
    async with stream.group("billing", retry=Retry(attempts=2, first=0.0)) as group:
        (event,) = await take(group, 1)
        assert (event.deliveries, event.attempts) == (6, 0)
        group.nack(event)
        (event,) = await take(group, 1)
        group.ack(event)
    assert not await letters(stream)


async def test_a_delay_outlives_the_member(client: Client, url: str) -> None:
    """Another member gets the event when it is due, not before, though the first one has died."""
    stream = client.stream("orders")
    await fill(stream, 1)
    other = await connect(url).__aenter__()
    group = await other.stream("orders").group("billing", lease=0.5).__aenter__()
    (event,) = await take(group, 1)
    begun = time.monotonic()
    group.nack(event, delay=1.0, reason="not yet")
    await group.flush()
    group._work._member.abandon()  # type: ignore[attr-defined]
    async with stream.group("billing", lease=0.5) as taker:
        (event,) = await take(taker, 1)
        assert time.monotonic() - begun >= 0.95
        assert (event.attempts, event.deliveries) == (1, 2)
        taker.ack(event)
    for task in group._work._tasks:  # type: ignore[attr-defined]
        task.cancel()
    await asyncio.gather(*group._work._tasks, return_exceptions=True)  # type: ignore[attr-defined]
    await other.tender.aclose()
    await other.backend.aclose()


async def test_without_dead_letters_it_is_tried_for_ever(client: Client) -> None:
    """Also what its handler rejects."""
    stream = client.stream("orders")
    await fill(stream, 1)
    options: dict[str, Any] = {"retry": AT_ONCE, "dead_letters": False}
    async with stream.group("billing", **options) as group:
        for attempts in range(6):
            (event,) = await take(group, 1)
            assert event.attempts == attempts
            group.fail(event, Reject("never"))
    assert not await letters(stream)


async def test_reject_goes_there_at_once(client: Client) -> None:
    """Whatever `retry` says; and the breaker does not count it."""
    stream = client.stream("orders")
    await fill(stream, 30)
    async with stream.group("billing", until=END) as group:
        async for event in group:
            with pytest.raises(Reject):
                async with group.handling(event):
                    raise Reject(f"unknown customer {number(event)}")
    found = await letters(stream)
    assert [int(letter.raw[1]) for letter in found] == list(range(30))
    assert (found[7].error, found[7].reason) == ("Reject", "unknown customer 7")
    assert {letter.attempts for letter in found} == {1}


async def test_retry_later_counts_nothing(client: Client) -> None:
    """The event comes back after its time."""
    stream = client.stream("orders")
    await fill(stream, 1)
    async with stream.group("billing", retry=Retry(attempts=1)) as group:
        for _ in range(3):
            (event,) = await take(group, 1)
            assert event.attempts == 0
            begun = time.monotonic()
            group.fail(event, RetryLater(0.2))
        (event,) = await take(group, 1)
        assert time.monotonic() - begun >= 0.15
        group.ack(event)
    assert not await letters(stream)


class Order(msgspec.Struct):
    """What the typed stream holds."""

    id: int


async def test_an_undecodable_event_is_dead_lettered_with_its_bytes(
    client: Client, signals: list[Signal]
) -> None:
    """At once: trying again cannot mend it. The iteration goes on, and signals count it."""
    stream = client.stream("typed", type=Order)
    await stream.append(Order(1))
    await put(client, "typed", "p", b"\xffnot json", "extra", "kept")
    await stream.append(Order(2))
    seen = []
    async with stream.group("billing", until=END) as group:
        async for event in group:
            with contextlib.suppress(DecodeError):
                async with group.handling(event):
                    seen.append(event.value.id)
        assert group.statistics().undecodable == 1
    assert seen == [1, 2]
    (letter,) = await letters(stream)
    assert list(letter.raw) == [b"p", b"\xffnot json", b"extra", b"kept"]
    assert (letter.error, letter.attempts) == ("DecodeError", 1)
    (signal,) = [signal for signal in signals if signal.kind == "undecodable"]
    assert signal.count == 1


async def test_one_undecodable_event_of_a_batch_is_no_failure_of_the_others(
    client: Client,
) -> None:
    """It is known which of them it was."""
    stream = client.stream("typed", type=Order)
    await stream.append_many([Order(n) for n in range(5)])
    await put(client, "typed", "p", b"?")
    async with stream.group("billing", until=END, retry=AT_ONCE) as group:
        async for batch in group.batches(100, within=0.1):
            try:
                values = [event.value for event in batch]
            except DecodeError as error:
                group.fail(batch, error)
            else:
                assert len(values) == 5
                assert {event.attempts for event in batch} == {0}
                group.ack(batch)
        await group.flush()
        assert group.statistics().acked == 5
    assert len(await letters(stream)) == 1


async def test_an_exception_counts_what_was_yielded_and_not_settled_once(client: Client) -> None:
    """What was not yielded comes at once, uncounted; cancellation counts nothing."""
    stream = client.stream("orders")
    await fill(stream, 6)

    async def fails() -> None:
        async with stream.group("billing", retry=Retry(first=0.0)) as group:
            events = await take(group, 3)
            group.ack(events[0])
            group.nack(events[1], delay=0.0)
            raise LookupError

    with pytest.raises(LookupError):
        await fails()
    async with stream.group("billing") as group:
        events = await take(group, 5)
        counted = {number(event): event.attempts for event in events}
        assert counted == {1: 1, 2: 1, 3: 0, 4: 0, 5: 0}

        async def cancelled() -> None:
            async with stream.group("other") as cut:
                await take(cut, 2)
                taken.set()
                await asyncio.sleep(PATIENCE)

        taken = asyncio.Event()
        task = asyncio.create_task(cancelled())
        await taken.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        group.ack(events)
    async with stream.group("other") as other:
        assert {event.attempts for event in await take(other, 6)} == {0}


async def test_the_end_waits_for_failures_of_its_own(client: Client) -> None:
    """`END` and `idle` hand out again what failed here, when it is due, before they are reached."""
    stream = client.stream("orders")
    await fill(stream, 3)
    for until, name in ((END, "a"), (idle(0.1), "b")):
        seen: list[int] = []
        retry = Retry(first=0.6, jitter=0.0)
        async with stream.group(name, until=until, retry=retry) as group:
            async for event in group:
                seen.append(number(event))
                if event.attempts or number(event) != 1:
                    group.ack(event)
                else:
                    group.nack(event)
        assert seen == [0, 1, 2, 1], name


async def test_the_end_does_not_wait_for_what_others_hold(client: Client, url: str) -> None:
    """A failure that another member took is theirs."""
    stream = client.stream("orders")
    await fill(stream, 1)
    async with (
        asyncio.timeout(2 * PATIENCE),
        connect(url) as other,
        stream.group("billing", until=END) as group,
        other.stream("orders").group("billing") as taker,
    ):
        taken: Event[Any] | None = None
        while taken is None:  # either may be the first to see that it is due
            if (event := await group.receive(0.2)) is not None:
                group.nack(event, delay=0.2)
            taken = await taker.receive(0.2)
        assert [event async for event in group] == []
        taker.ack(taken)


async def test_a_refused_ack_surfaces_at_the_next_step(servers: str) -> None:
    """And at `flush` and at the exit: no retry can save it, and nobody awaits it."""
    async with connect(servers) as client:
        stream = client.stream("orders")
        await fill(stream, 3)
        await client.redis.execute_command(
            "ACL", "SETUSER", "weak", "on", ">pw", "~*", "+@all", "-xack"
        )

        async def acks() -> None:
            weak = connect(servers, user="weak", password="pw")
            async with weak, weak.stream("orders").group("billing", lease=0.5) as group:
                (event,) = await take(group, 1)
                group.ack(event)
                with pytest.raises(BackendRejected, match="xack"):
                    await group.flush()
                with pytest.raises(BackendRejected, match="xack"):
                    async with asyncio.timeout(PATIENCE):
                        await take(group, 3)

        with pytest.raises(BackendRejected, match="xack"):
            await acks()
        await client.redis.execute_command("ACL", "DELUSER", "weak")
        async with stream.group("billing", lease=0.5) as group:
            assert sorted(numbers(await take(group, 3))) == [0, 1, 2]
            await nothing_comes(group)
