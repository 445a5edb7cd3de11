"""A member of a group: what it is given, what becomes of it, and what it leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import pytest

from penstock import (
    END,
    NEWEST,
    Client,
    ClosedError,
    ConfigError,
    Event,
    Group,
    LeaseLost,
    Retry,
    Signal,
    Stream,
    after,
    connect,
    idle,
)
from penstock.ports import Outcome
from streams.helping import PATIENCE, fill, nothing_comes, number, numbers, soon, take
from support.meter import lost

AT_ONCE = Retry(first=0.0, jitter=0.0)
LATER = Retry(first=30.0, cap=30.0, jitter=0.0)


async def filled(client: Client, count: int) -> Stream[Any]:
    """A stream with the numbers from 0 on."""
    stream = client.stream("orders")
    await fill(stream, count)
    return stream


async def rest_of(stream: Stream[Any], **options: Any) -> list[Event[Any]]:
    """What the group still has to give, to another member; acked."""
    found: list[Event[Any]] = []
    async with stream.group("billing", until=END, **options) as group:
        async for event in group:
            found.append(event)
            group.ack(event)
    return found


async def nothing_is_left(stream: Stream[Any]) -> None:
    """The group has nothing more to give."""
    async with stream.group("billing") as group:
        await nothing_comes(group, 0.1)


# --- what is given ---------------------------------------------------------------------------


@pytest.mark.conformance("CR-017")
async def test_a_new_group_begins_at_the_oldest_event(client: Client) -> None:
    """And goes on where it stands: nothing that was acked comes again."""
    stream = await filled(client, 10)
    async with stream.group("billing") as group:
        events = await take(group, 6)
        assert all((e.deliveries, e.attempts) == (1, 0) for e in events)
        group.ack(events[:4])
    assert numbers(events) == list(range(6))
    assert sorted(numbers(await rest_of(stream))) == list(range(4, 10))
    await nothing_is_left(stream)


@pytest.mark.conformance("CR-017", "CR-026", "CR-031", "PU-031", "PU-065", "SS-034")
async def test_a_group_starts_where_its_first_member_says(
    client: Client, signals: list[Signal]
) -> None:
    """An existing one goes on; that another start is not applied is signalled."""
    stream = client.stream("orders")
    positions = await fill(stream, 5)
    async with stream.group("late", start=after(positions[2])) as late:
        assert numbers(await take(late, 2)) == [3, 4]
    async with stream.group("new", start=NEWEST) as new:
        await fill(stream, 1, first=5)
        assert numbers(await take(new, 1)) == [5]
        await nothing_comes(new, 0.05)
    async with stream.group("new", start=after(positions[0])) as again:
        assert numbers(await take(again, 1)) == [5]
    assert "start-ignored" in [signal.kind for signal in signals]


@pytest.mark.conformance("CR-022", "PU-029", "SS-027", "SS-033", "SS-048")
async def test_members_share_the_events(client: Client, url: str) -> None:
    """Each goes to one of them."""
    stream = await filled(client, 300)
    found: list[list[int]] = [[], []]

    async def work(source: Stream[Any], mine: list[int]) -> None:
        async with source.group("billing", until=END, max_in_flight=20) as group:
            async for event in group:
                mine.append(number(event))
                group.ack(event)
                await asyncio.sleep(0)

    async with connect(url) as other, asyncio.timeout(PATIENCE * 2):
        await asyncio.gather(work(stream, found[0]), work(other.stream("orders"), found[1]))
    assert sorted(found[0] + found[1]) == list(range(300))
    assert all(found)


@pytest.mark.conformance("PU-030")
async def test_groups_are_independent(client: Client) -> None:
    """Each sees everything."""
    stream = await filled(client, 5)
    async with stream.group("a") as a, stream.group("b") as b:
        for group in (a, b):
            assert numbers(await take(group, 5)) == list(range(5))


@pytest.mark.conformance("PU-052")
async def test_several_streams_are_shared_by_one_member(client: Client) -> None:
    """Acks go to the stream that each came from."""
    a, b = client.stream("a"), client.stream("b")
    await fill(a, 50)
    await fill(b, 5)
    async with client.group("billing", [a, b], until=END) as group:
        found = [event async for event in group if not group.ack(event)]
        await group.flush()
        assert await group.pending() == []
    for stream, count in ((a, 50), (b, 5)):
        assert numbers(e for e in found if e.stream == stream.name) == list(range(count))
        assert [info.pending for info in await stream.groups()] == [0]


@pytest.mark.conformance("PU-028")
async def test_where_acks_what_it_filters_out(client: Client) -> None:
    """Nobody else gets it."""
    stream = client.stream("orders")
    for n in range(20):
        await stream.append({"n": n}, topic="eu" if n % 4 == 0 else "us")
    async with stream.group("billing", where="eu", until=END) as group:
        found = [event async for event in group]
        group.ack(found)
        await group.flush()
        statistics = group.statistics()
        assert await group.pending() == []
        assert await group.lag() == 0
    assert numbers(found) == [0, 4, 8, 12, 16]
    assert (statistics.fetched, statistics.filtered, statistics.acked) == (20, 15, 20)
    await nothing_is_left(stream)


async def test_a_group_ends_when_all_up_to_the_end_is_settled(client: Client) -> None:
    """Or when nothing has come for so long."""
    stream = await filled(client, 3)
    async with stream.group("billing", until=END) as group, asyncio.timeout(PATIENCE):
        await fill(stream, 2, first=3)
        found = []
        async for event in group:
            found.append(number(event))
            group.ack(event)
    assert found[:3] == [0, 1, 2]
    async with stream.group("idle", until=idle(0.5)) as group, asyncio.timeout(PATIENCE):
        assert numbers([event async for event in group if not group.ack(event)]) == list(range(5))


# --- acks ------------------------------------------------------------------------------------


@pytest.mark.conformance("SS-039", "SS-040")
async def test_acks_are_sent_within_the_interval_by_themselves(client: Client) -> None:
    """And counted; until then the events are pending."""
    stream = await filled(client, 3)
    async with stream.group("billing", ack_interval=0.05) as group:
        events = await take(group, 3)
        assert [info.member for info in await group.pending()] == [group.member] * 3
        group.ack(events)

        async def none_is_pending() -> bool:
            return await group.pending() == []

        await soon(none_is_pending, "the acks are sent")
        assert group.statistics().acked == 3


async def test_a_flush_returns_when_acks_are_confirmed(client: Client) -> None:
    """Without an interval it is the only way; and doing nothing costs nothing."""
    stream = await filled(client, 6)
    async with stream.group("billing", ack_interval=None, max_in_flight=4) as group:
        group.ack(await take(group, 4))
        busy = time.process_time()
        await asyncio.sleep(0.2)
        assert time.process_time() - busy < 0.1
        assert group.statistics().acked == 0
        await group.flush()
        assert (group.statistics().acked, await group.pending()) == (4, [])
        assert numbers(await take(group, 2)) == [4, 5]


async def test_acking_twice_does_nothing(client: Client, signals: list[Signal]) -> None:
    """Neither before nor after it was sent, nor of an event that had failed before."""
    stream = await filled(client, 1)
    async with stream.group("billing", retry=AT_ONCE) as group:
        [event] = await take(group, 1)
        group.nack(event)
        [event] = await take(group, 1)
        for _ in range(2):
            group.ack(event)
            group.ack([event, event])
            await group.flush()
        assert (group.statistics().acked, group.statistics().missed) == (1, 0)
    assert "acks-missed" not in [signal.kind for signal in signals]


async def test_an_event_of_another_group_or_of_a_reader_is_refused(client: Client) -> None:
    """It is not this member's to settle."""
    stream = await filled(client, 1)
    async with (
        stream.group("a") as a,
        stream.group("b") as b,
        stream.reader(start=after("0-0")) as reader,
    ):
        [own], [foreign], [read] = await take(a, 1), await take(b, 1), await take(reader, 1)
        for event in (foreign, read):
            for verb in (a.ack, a.nack, a.extend):
                with pytest.raises(ConfigError, match="the group that it came from"):
                    verb(event)
        a.ack(own)


async def test_an_event_that_somebody_acked_meanwhile_is_reported(
    client: Client, signals: list[Signal]
) -> None:
    """Not silently taken for done."""
    stream = await filled(client, 2)
    async with stream.group("billing", member="alfred") as group:
        events = await take(group, 2)
        [shard] = {info.shard for info in await group.pending()}
        if client.url.scheme == "memory":
            member = group._work._member
            assert member is not None
            await member.ack(shard, [events[0].entry_id])
        else:
            await client.redis.xack("orders", "billing", events[0].entry_id)
        group.ack(events)
        await group.flush()
        assert (group.statistics().acked, group.statistics().missed) == (1, 1)
    [missed] = [signal for signal in signals if signal.kind == "acks-missed"]
    assert (missed.stream, missed.group, missed.member, missed.count) == (
        *("orders", "billing", "alfred"),
        1,
    )


# --- failures --------------------------------------------------------------------------------


@pytest.mark.conformance("PU-036")
async def test_a_nacked_event_comes_again_counted_after_its_delay(client: Client) -> None:
    """To any member, as often as it fails."""
    stream = await filled(client, 1)
    async with stream.group("billing") as group:
        for attempt in range(2):
            [event] = await take(group, 1)
            assert (event.attempts, event.deliveries) == (attempt, attempt + 1)
            nacked = time.monotonic()
            group.nack(event, delay=0.2, reason="not yet")
        assert group.statistics().nacked == 2
        [event] = await take(group, 1)
        assert 0.19 <= time.monotonic() - nacked < 2 + lost(nacked)
        with pytest.raises(LeaseLost):
            group.nack([event]) or group.ack(event)


async def test_the_delay_is_that_of_retry_where_none_is_given(client: Client) -> None:
    """By the attempts so far."""
    stream = await filled(client, 1)
    retry = Retry(first=0.1, cap=0.2, jitter=0.0)
    async with stream.group("billing", retry=retry) as group:
        [event] = await take(group, 1)
        for least in (0.1, 0.2):
            nacked = time.monotonic()
            group.nack(event)
            [event] = await take(group, 1)
            assert least - 0.01 <= time.monotonic() - nacked < least + 2 + lost(nacked)


async def test_handling_acks_what_went_well(client: Client) -> None:
    """On leaving, and gives the event."""
    stream = await filled(client, 2)
    async with stream.group("billing") as group:
        for event in await take(group, 2):
            async with group.handling(event) as same:
                assert same is event
        await group.flush()
        assert await group.pending() == []


async def test_handling_nacks_what_failed_and_the_error_goes_on_up(client: Client) -> None:
    """Counted once."""
    stream = await filled(client, 1)
    async with stream.group("billing", retry=AT_ONCE) as group:
        [event] = await take(group, 1)
        with pytest.raises(KeyError):
            async with group.handling(event):
                raise KeyError("work failed")
        [event] = await take(group, 1)
        assert event.attempts == 1

        async def hand_back_and_fail(failing: Event[Any]) -> None:
            async with group.handling(failing):
                group.nack(failing)
                raise KeyError("after it was handed back")

        with pytest.raises(KeyError):
            await hand_back_and_fail(event)
        [event] = await take(group, 1)
        assert event.attempts == 2
        assert group.statistics().nacked == 2


async def test_what_was_settled_inside_handling_is_left_so(client: Client) -> None:
    """Acked or nacked; an event that was taken away is said at the end."""
    stream = await filled(client, 2)
    async with stream.group("billing", retry=LATER) as group:
        first, second = await take(group, 2)
        async with group.handling(first):
            group.ack(first)
        async with group.handling(second):
            group.nack(second)
        await group.flush()
        assert (group.statistics().acked, group.statistics().nacked) == (1, 1)
        assert await group.pending() == []


async def test_a_handling_that_is_cancelled_counts_no_failure(client: Client) -> None:
    """The event stays in hand, and is handed back on leaving."""
    stream = await filled(client, 1)
    async with stream.group("billing") as group:
        [event] = await take(group, 1)

        async def work() -> None:
            async with group.handling(event):
                await asyncio.sleep(60)

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert group.statistics().nacked == 0
        assert group.statistics().in_flight == 1
    [again] = await rest_of(stream)
    assert again.attempts == 0


# --- hold ------------------------------------------------------------------------------------


async def test_what_is_held_too_long_is_released_and_a_late_ack_refused(
    client: Client, signals: list[Signal]
) -> None:
    """It counts as failed, comes again, and is signalled."""
    stream = await filled(client, 2)
    async with stream.group("billing", hold=0.2, retry=AT_ONCE) as group:
        slow, quick = await take(group, 2)
        group.ack(quick)
        [again] = await take(group, 1)
        assert (number(again), again.attempts) == (number(slow), 1)
        with pytest.raises(LeaseLost, match="hold") as error:
            group.ack(slow)
        assert error.value.positions == (str(slow.position),)
        with pytest.raises(LeaseLost):
            group.extend(slow)
        group.ack(again)
        await group.flush()
        assert group.statistics().expired == 1
        assert await group.pending() == []
    [expired] = [signal for signal in signals if signal.kind == "hold-expired"]
    assert (expired.count, expired.stream, expired.group) == (1, "orders", "billing")


@pytest.mark.conformance("PU-036")
async def test_extending_keeps_an_event_in_hand(client: Client) -> None:
    """For as long as the work goes on."""
    stream = await filled(client, 2)
    async with stream.group("billing", hold=0.5, retry=LATER) as group:
        kept, given_up = await take(group, 2)
        until = time.monotonic() + 0.9
        while time.monotonic() < until:
            group.extend(kept)
            await asyncio.sleep(0.05)
        group.ack(kept)
        with pytest.raises(LeaseLost):
            group.ack(given_up)
        await group.flush()
        assert (group.statistics().acked, group.statistics().expired) == (1, 1)


async def test_handling_says_when_the_event_was_lost_meanwhile(client: Client) -> None:
    """The work went well, and somebody does it again."""
    stream = await filled(client, 1)
    async with stream.group("billing", hold=0.1, retry=LATER) as group:
        [event] = await take(group, 1)

        async def work() -> None:
            async with group.handling(event):
                await soon(lambda: group.statistics().expired, "it is held too long")

        with pytest.raises(LeaseLost):
            await work()


# --- leaving ---------------------------------------------------------------------------------


@pytest.mark.conformance("CR-033", "PU-037", "SS-043")
async def test_leaving_sends_acks_and_hands_back_the_rest_uncounted(client: Client) -> None:
    """Another member has it within a second."""
    stream = await filled(client, 10)
    async with stream.group("billing", ack_interval=None) as giver:
        await soon(lambda: giver.statistics().fetched == 10, "it has everything")
        async with stream.group("billing") as taker:
            events = await take(giver, 4)
            giver.ack(events[:2])
            await nothing_comes(taker, 0.05)
            await giver.aclose()
            left = time.monotonic()
            given = await take(taker, 8)
            assert time.monotonic() - left < 1.5 + lost(left)
    assert sorted(numbers(given)) == list(range(2, 10))
    assert {event.attempts for event in given} == {0}


async def test_an_exception_out_of_the_block_counts_what_was_yielded_once(client: Client) -> None:
    """What was not yet yielded comes at once, uncounted; what was acked does not come."""
    stream = await filled(client, 5)

    async def fail() -> None:
        async with stream.group("billing", retry=AT_ONCE) as group:
            first, second, third = await take(group, 3)
            group.ack(first)
            group.nack(third)
            raise KeyError(number(second))

    with pytest.raises(KeyError):
        await fail()
    assert {number(e): e.attempts for e in await rest_of(stream)} == {1: 1, 2: 1, 3: 0, 4: 0}


async def test_cancellation_counts_no_failure(client: Client) -> None:
    """Everything is handed back as it was."""
    stream = await filled(client, 5)
    started = asyncio.Event()

    async def work() -> None:
        async with stream.group("billing") as group:
            await take(group, 3)
            started.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.wait_for(started.wait(), PATIENCE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    found = await rest_of(stream)
    assert {number(e): e.attempts for e in found} == dict.fromkeys(range(5), 0)


async def test_a_group_is_used_within_its_block(client: Client) -> None:
    """And opened once; those who wait when it closes are let go."""
    stream = await filled(client, 1)
    group = stream.group("billing")
    with pytest.raises(ClosedError, match="async with"):
        await group.receive(0)
    with pytest.raises(ClosedError):
        await group.lag()
    async with group:
        [event] = await take(group, 1)
        with pytest.raises(ClosedError, match="twice"):
            await group.__aenter__()
        waiting = asyncio.create_task(group.receive())
        await asyncio.sleep(0.01)
    assert await asyncio.wait_for(waiting, PATIENCE) is None
    for verb in (group.ack, group.nack, group.extend):
        with pytest.raises(ClosedError):
            verb(event)
    with pytest.raises(ClosedError, match="twice"):
        await group.__aenter__()
    await group.aclose()


# --- names -----------------------------------------------------------------------------------


@pytest.mark.conformance("CR-025", "PU-035", "SS-032", "SS-036", "SS-044")
async def test_a_name_that_is_taken_up_again_gets_its_own_pending_events_first(
    client: Client, url: str
) -> None:
    """As after a crash: there is nobody left who beats."""
    stream = await filled(client, 6)
    async with connect(url) as other:
        crashed = other.stream("orders").group("billing", member="bob", lease=0.4, max_in_flight=3)
        await crashed.__aenter__()
        assert numbers(await take(crashed, 3)) == [0, 1, 2]
        await crash(crashed)

        async with stream.group("billing", member="bob", lease=0.4) as bob:
            found = await take(bob, 6)
    assert numbers(found) == [0, 1, 2, 3, 4, 5]
    assert [event.deliveries for event in found] == [2, 2, 2, 1, 1, 1]


@pytest.mark.conformance("CR-027", "PU-035", "SS-049")
async def test_events_of_a_dead_member_are_taken_over(client: Client, url: str) -> None:
    """Within a lease and a half; that is signalled."""
    await filled(client, 3)
    told: list[Signal] = []
    async with connect(url) as other, connect(url, observer=told.append) as third:
        crashed = other.stream("orders").group("billing", member="bob", lease=0.5)
        await crashed.__aenter__()
        await take(crashed, 3)
        async with third.stream("orders").group("billing", member="alfred", lease=0.5) as alfred:
            await asyncio.sleep(0)
            await crash(crashed)
            died = time.monotonic()
            found = await take(alfred, 3)
            took = time.monotonic() - died
            await soon(lambda: any(s.kind == "member-taken-over" for s in told), "it is signalled")
            counted = alfred.statistics()
    assert sorted(numbers(found)) == [0, 1, 2]
    assert (counted.takeovers, counted.claimed, counted.lost) == (1, 3, 0)
    assert took < 0.75 + 1.0 + lost(died)
    assert {event.attempts for event in found} == {0}
    assert ["bob" in s.message for s in told if s.kind == "member-taken-over"] == [True]


async def crash(group: Group[Any]) -> None:
    """End a member as kill -9 would: no hand-back, no more beats."""
    work = group._work
    for task in work._tasks:
        task.cancel()
    await asyncio.gather(*work._tasks, return_exceptions=True)
    assert work._member is not None
    work._member.abandon()


async def test_a_second_living_member_of_one_name_is_refused(client: Client, url: str) -> None:
    """After it has waited for a lease; the first one is not disturbed."""
    stream = await filled(client, 2)
    async with stream.group("billing", member="bob", lease=0.4) as bob:
        async with connect(url) as other:
            with pytest.raises(ConfigError, match="bob"):
                await other.stream("orders").group("billing", member="bob", lease=0.4).__aenter__()
        assert numbers(await take(bob, 2)) == [0, 1]


# --- bounds ----------------------------------------------------------------------------------


@pytest.mark.conformance("SS-029", "SS-031")
async def test_no_more_than_max_in_flight_are_held(client: Client) -> None:
    """Fetched and not yet acked; as soon as some are acked, others come."""
    stream = await filled(client, 60)
    async with stream.group("billing", max_in_flight=10) as group:
        found = await take(group, 10)
        await nothing_comes(group, 0.1)
        assert group.statistics().in_flight == 10
        while len(found) < 60:
            group.ack(found[-2:])
            found += await take(group, 2)
            assert group.statistics().in_flight <= 10
        assert numbers(found) == list(range(60))


async def test_bytes_in_flight_are_bounded(client: Client) -> None:
    """After the first fetch, by the largest entry seen; one event is always allowed."""
    stream = client.stream("blobs", type=bytes)
    await stream.append_many([bytes(10_000)] * 200)
    async with stream.group("billing", max_in_flight_bytes=100_000) as group:
        await take(group, 64)
        await nothing_comes(group, 0.1)
    async with stream.group("tiny", max_in_flight_bytes=1, max_in_flight=1) as tiny:
        for _ in range(3):
            tiny.ack(await take(tiny, 1))
            await tiny.flush()


@pytest.mark.conformance("SS-027")
async def test_batches_are_full_or_what_came_in_time(client: Client) -> None:
    """And at most half of what may be in flight: the other half is read ahead."""
    stream = await filled(client, 25)
    async with stream.group("billing", until=END, max_in_flight=20) as group:
        for size in (0, 11):
            with pytest.raises(ConfigError, match=f"from 1 to 10, half of.*size={size}"):
                group.batches(size)
        with pytest.raises(ConfigError, match="within >= 0"):
            group.batches(1, -1)
        batches = []
        async for batch in group.batches(10, 0.5):
            batches.append(numbers(batch))
            group.ack(batch)
            await group.flush()
    assert batches == [[*range(10)], [*range(10, 20)], [*range(20, 25)]]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lease": 0.01}, "lease must be from 0.1"),
        ({"hold": 0}, "hold above 0"),
        ({"ack_interval": 0}, "ack_interval must be above 0"),
        ({"max_in_flight": 0}, "max_in_flight"),
        ({"max_in_flight_bytes": 0}, "max_in_flight_bytes"),
        ({"member": "two words"}, "member's name"),
        ({"member": ""}, "member's name"),
        ({"member": "@penstock:parked"}, "member's name"),
        ({"share": "keys"}, "share must be"),
        ({"where": 7}, "where must be"),
    ],
    ids=str,
)
@pytest.mark.one_loop
@pytest.mark.conformance("SS-031")
async def test_wrong_options_are_refused(options: dict[str, Any], said: str) -> None:
    """Before anything is started."""
    async with connect("memory://") as client:
        stream = client.stream("orders")
        with pytest.raises(ConfigError, match=said):
            stream.group("billing", **options)
        assert await client.backend.describe("orders") is None


@pytest.mark.one_loop
@pytest.mark.conformance("CR-021")
async def test_wrong_names_and_delays_are_refused() -> None:
    """With what was given."""
    async with connect("memory://") as client:
        stream = await filled(client, 1)
        for name in ("", "two words", "x" * 250, "ü", 7):
            with pytest.raises(ConfigError, match="group's name"):
                stream.group(name)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="at least one stream"):
            client.group("billing", [])
        async with stream.group("billing") as group:
            [event] = await take(group, 1)
            with pytest.raises(ConfigError, match=r"delay must be 0 .*-1"):
                group.nack(event, delay=-1)


# --- what is said ----------------------------------------------------------------------------


@pytest.mark.conformance("CR-024")
async def test_a_group_tells_its_lag_and_what_is_pending(client: Client) -> None:
    """Over all members; and a member what it was given."""
    stream = await filled(client, 30)
    async with (
        stream.group("another", max_in_flight=1),
        stream.group("billing", member="bob", max_in_flight=10) as group,
    ):
        events = await take(group, 10)
        assert await group.lag() == 20
        pending = await group.pending(limit=3)
        assert [info.position for info in pending] == [event.position for event in events[:3]]
        assert {(info.member, info.deliveries, info.attempts) for info in pending} == {
            ("bob", 1, 0)
        }
        statistics = group.statistics()
        assert (statistics.fetched, statistics.yielded, statistics.in_flight) == (10, 10, 10)
        assert statistics.in_flight_bytes == sum(event.size for event in events)
        assert group.member == "bob"
        assert "bob" in repr(group)
        [info] = [info for info in await stream.groups() if info.name == "billing"]
        assert (info.pending, info.lag) == (10, 20)


async def test_a_source_settles_outcomes(client: Client) -> None:
    """Done is acked, failed is counted, returned is not."""
    stream = await filled(client, 3)
    async with stream.group("billing", retry=AT_ONCE) as group:
        got: list[Event[Any]] = []
        while len(got) < 3:
            got += await group.fetch(3)
        done, failed, returned = got
        group.settle(
            [
                Outcome(done, "done"),
                Outcome(failed, "failed", KeyError("x")),
                Outcome(returned, "returned"),
            ]
        )
        again = {number(e): e.attempts for e in await take(group, 2)}
        assert again == {number(failed): 1, number(returned): 0}


async def test_a_lost_group_is_made_anew_and_everything_comes_again(
    client: Client, signals: list[Signal]
) -> None:
    """Rather than anything be skipped; late acks of before are refused, and it is signalled."""
    stream = await filled(client, 5)
    async with stream.group("billing", ack_interval=None) as group:
        before = await take(group, 5)
        group.ack(before[0])
        assert await stream.drop_group("billing")
        again = await take(group, 5)
        assert numbers(again) == [0, 1, 2, 3, 4]
        await group.flush()
        assert len(await group.pending()) == 5, "an ack of before the loss acks nothing after it"
        with pytest.raises(LeaseLost):
            group.ack(before[1])
        group.ack(again)
        await group.flush()
        assert await group.pending() == []
    assert "group-lost" in [signal.kind for signal in signals]
