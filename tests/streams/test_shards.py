"""Groups that share shards: what a member is given, what becomes of it, and what it leaves."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from penstock import (
    END,
    NEWEST,
    Client,
    ConfigError,
    Event,
    Group,
    LeaseLost,
    Reject,
    Retry,
    RetryLater,
    Signal,
    Stream,
    after,
    connect,
)
from streams.helping import PATIENCE, fill, nothing_comes, number, numbers, soon, take

pytestmark = pytest.mark.one_loop

AT_ONCE = Retry(first=0.0, jitter=0.0)
LATER = Retry(first=30.0, cap=30.0, jitter=0.0)


async def filled(client: Client, count: int, shards: int = 1) -> Stream[Any]:
    """A stream with the numbers from 0 on, keyed by themselves modulo 4."""
    stream = client.stream("orders", shards=shards)
    for n in range(count):
        await stream.append({"n": n}, key=f"k{n % 4}")
    return stream


@contextlib.asynccontextmanager
async def joined(stream: Stream[Any], **options: Any) -> AsyncGenerator[Group[Any]]:
    """A member."""
    async with stream.group("billing", share="shards", **options) as group:
        yield group


async def rest_of(stream: Stream[Any], **options: Any) -> list[Event[Any]]:
    """What the group still has to give, to another member; acked."""
    found: list[Event[Any]] = []
    async with joined(stream, until=END, **options) as group:
        async for event in group:
            found.append(event)
            group.ack(event)
    return found


# --- what is given ---------------------------------------------------------------------------


async def test_a_shard_comes_in_order_and_goes_on_where_it_stands(client: Client) -> None:
    """Nothing that was acked comes again, also when the acks were out of order."""
    stream = await filled(client, 10)
    async with joined(stream) as group:
        events = await take(group, 8)
        assert [(e.deliveries, e.attempts) for e in events] == [(1, 0)] * 8
        assert numbers(events) == list(range(8))
        for event in (events[5], events[0], events[7], events[2]):
            group.ack(event)
    assert numbers(await rest_of(stream)) == [1, 3, 4, 6, 8, 9]
    assert numbers(await rest_of(stream)) == []


async def test_shards_are_spread_and_each_event_comes_once(client: Client) -> None:
    """Two members share four shards; a key's events come in order, whoever has them."""
    stream = client.stream("orders", shards=4)
    async with joined(stream) as one, joined(stream) as two:
        found: dict[str, list[int]] = defaultdict(list)
        by: dict[str, set[int]] = defaultdict(set)

        async def consume(name: str, group: Group[Any]) -> None:
            async for event in group:
                assert event.key is not None
                found[event.key].append(number(event))
                by[name].add(event.shard)
                group.ack(event)

        working = [asyncio.create_task(consume(n, g)) for n, g in (("1", one), ("2", two))]
        count = 0
        async with asyncio.timeout(PATIENCE):
            while count < 400 or len(by) < 2:  # until shards have moved, and both have some
                await stream.append({"n": count}, key=f"k{count % 16}")
                count += 1
                await asyncio.sleep(0.01 if count > 400 else 0.0)
        await soon(lambda: sum(map(len, found.values())) >= count, "all come")
        for task in working:
            task.cancel()
    assert all(seen == sorted(set(seen)) for seen in found.values())
    assert sum(map(len, found.values())) == count


async def test_a_group_starts_where_its_first_member_says(
    client: Client, signals: list[Signal]
) -> None:
    """NEWEST is anchored on entry; an existing group goes on, and that is signalled."""
    stream = await filled(client, 3)
    async with joined(stream, start=NEWEST) as group:
        await stream.append({"n": 3})
        assert numbers(await take(group, 1)) == [3]
    assert numbers(await rest_of(stream, start=after("1-0"))) == [3]
    assert "start-ignored" in [signal.kind for signal in signals]


async def test_a_name_is_a_group_of_one_kind(client: Client) -> None:
    """Whichever came first on a stream, the other is refused."""
    stream = await filled(client, 1)
    async with stream.group("events"), joined(stream):
        with pytest.raises(ConfigError, match="shares"):
            await stream.group("events", share="shards").__aenter__()
        with pytest.raises(ConfigError, match="shares"):
            await stream.group("billing", share="events").__aenter__()


async def test_one_member_of_a_name(client: Client) -> None:
    """A second one waits a lease for the first to end, and is refused."""
    stream = await filled(client, 1)
    async with joined(stream, member="one", lease=0.4):
        with pytest.raises(ConfigError, match="name"):
            await stream.group("billing", share="shards", member="one", lease=0.4).__aenter__()


# --- failures --------------------------------------------------------------------------------


async def test_a_failing_key_waits_while_others_flow(client: Client) -> None:
    """Its later events come behind it, in order; with its failures counted."""
    stream = await filled(client, 12)
    seen: list[tuple[int, int]] = []
    async with joined(stream, retry=Retry(first=0.5, jitter=0.0), until=END) as group:
        async for event in group:
            seen.append((number(event), event.attempts))
            if number(event) == 1 and event.attempts < 2:
                group.nack(event)
            else:
                group.ack(event)
    others = [n for n, _ in seen if n % 4 != 1]
    assert others == [n for n in range(12) if n % 4 != 1]
    assert [row for row in seen if row[0] % 4 == 1] == [(1, 0), (1, 1), (1, 2), (5, 0), (9, 0)]
    assert seen.index((10, 0)) < seen.index((1, 1))
    assert numbers(await rest_of(stream)) == []


async def test_attempts_and_due_times_survive_their_member(client: Client) -> None:
    """They go with the commit: the next owner counts on, and waits as long."""
    stream = await filled(client, 8)
    async with joined(stream, retry=Retry(first=0.6, jitter=0.0)) as group:
        events = await take(group, 8)
        group.nack(events[0])
        group.ack(events[1:4])
        group.ack(events[5:])
    found = await rest_of(stream)
    assert sorted(numbers(found)) == [0, 4]
    first = next(event for event in found if number(event) == 0)
    assert first.attempts == 1
    assert numbers(found).index(0) < numbers(found).index(4)


async def test_dead_letters(client: Client, signals: list[Signal]) -> None:
    """What failed too often, or was rejected, is kept with its cause; its key goes on."""
    stream = await filled(client, 8)
    seen: list[int] = []
    async with joined(stream, retry=Retry(attempts=2, first=0.0, jitter=0.0), until=END) as group:
        async for event in group:
            seen.append(number(event))
            if number(event) == 0:
                group.fail(event, ValueError("no"))
            elif number(event) == 1:
                group.fail(event, Reject("never"))
            else:
                group.ack(event)
    assert [n for n in seen if n % 4 == 0] == [0, 0, 4]
    assert [n for n in seen if n % 4 == 1] == [1, 5]
    shard = stream.shard(0)
    backend: Any = client.backend
    letters = await backend.letters(shard, "billing", None, 10)
    assert [(letter.error, letter.reason, letter.attempts) for letter in letters] == [
        ("Reject", "never", 1),
        ("ValueError", "no", 2),
    ]
    assert numbers(await rest_of(stream)) == []
    assert "dead-lettered" in [signal.kind for signal in signals]
    assert await backend.replay(shard, "billing", [letter.id for letter in letters]) == 2
    again = await rest_of(stream)
    assert sorted(numbers(again)) == [0, 1]
    assert {event.attempts for event in again} == {0}
    assert await backend.count_letters(shard, "billing") == 0
    assert numbers(await rest_of(stream)) == []


async def test_retry_later_counts_no_failure(client: Client) -> None:
    """It comes back after that time."""
    stream = await filled(client, 2)
    async with joined(stream, until=END) as group:
        (first,) = await take(group, 1)
        group.fail(first, RetryLater(0.2))
        second, again = await take(group, 2)
        assert (number(second), number(again), again.attempts) == (1, 0, 0)
        group.ack([second, again])


async def test_what_is_held_too_long_fails(client: Client, signals: list[Signal]) -> None:
    """Its late ack is refused; extended, it is not."""
    stream = await filled(client, 2)
    async with joined(stream, hold=0.6, retry=AT_ONCE) as group:
        first, second = await take(group, 2)
        for _ in range(8):
            await asyncio.sleep(0.12)
            group.extend(second)
        (again,) = await take(group, 1)
        assert (number(again), again.attempts) == (0, 1)
        with pytest.raises(LeaseLost):
            group.ack(first)
        group.ack([again, second])
        await group.flush()
    assert "hold-expired" in [signal.kind for signal in signals]
    assert numbers(await rest_of(stream)) == []


async def test_an_exception_counts_a_failure_for_what_was_in_hand(client: Client) -> None:
    """Once; what was not yielded comes again uncounted. Cancellation counts none."""
    stream = await filled(client, 4)
    with contextlib.suppress(RuntimeError):
        async with joined(stream, retry=AT_ONCE) as group:
            await take(group, 2)
            raise RuntimeError
    found = await rest_of(stream)
    assert [(number(e), e.attempts) for e in sorted(found, key=number)] == [
        (0, 1),
        (1, 1),
        (2, 0),
        (3, 0),
    ]


# --- acks ------------------------------------------------------------------------------------


async def test_acks_none_and_delayed(client: Client) -> None:
    """Committed before they are handed out; and some time after."""
    stream = await filled(client, 3)
    async with stream.group("none", share="shards", acks="none") as group:
        await take(group, 2)
    async with stream.group("none", share="shards") as group:
        await nothing_comes(group)
    async with stream.group("late", share="shards", acks="delayed", ack_delay=0.1) as group:
        await take(group, 2)
        await soon(lambda: group.statistics().acked == 2, "acked after the delay")


async def test_filters_and_batches(client: Client) -> None:
    """What is filtered out is done; batches come in order."""
    stream = await filled(client, 20)
    seen: list[int] = []
    async with joined(stream, where=lambda e: number(e) % 2 == 0, until=END) as group:
        async for batch in group.batches(4):
            seen += numbers(batch)
            group.ack(batch)
    assert seen == list(range(0, 20, 2))
    assert group.statistics().filtered == 10
    assert numbers(await rest_of(stream)) == []


async def test_streams_come_and_go(client: Client) -> None:
    """While the member runs; what is not acked of one that goes comes again elsewhere."""
    orders = await filled(client, 2)
    other = client.stream("others")
    await fill(other, 2, 10)
    async with joined(orders) as group:
        first = await take(group, 2)
        await group.add_stream(other)
        second = await take(group, 2)
        assert numbers(second) == [10, 11]
        group.ack([*first, second[0]])
        await group.remove_stream(other)
        with pytest.raises(LeaseLost):
            group.ack(second[1])
    async with other.group("billing", share="shards") as group:
        assert numbers(await take(group, 1)) == [11]


# --- moves -----------------------------------------------------------------------------------


async def test_a_shard_moves_gently(url: str, client: Client) -> None:
    """It goes when what is in hand is done, and nothing comes twice; leaving gives it at once."""
    stream = await filled(client, 40, shards=2)
    async with connect(url) as elsewhere, joined(stream, lease=20.0) as one:
        seen: list[int] = []
        held = await take(one, 4)
        two = elsewhere.stream("orders").group("billing", share="shards", lease=20.0)
        async with two:
            assert await two.receive(0.9) is None  # one holds events of the shard that is to go
            seen += numbers(held)
            one.ack(held)
            first = await two.receive(5.0)  # much less than a lease
            seen.append(number(first))
            two.ack([first] if first else [])

            async def drain(group: Group[Any]) -> None:
                while len(seen) < 40:
                    if (event := await group.receive(0.1)) is not None:
                        seen.append(number(event))
                        group.ack(event)

            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(drain(one), drain(two))
            await asyncio.gather(nothing_comes(one, 0.5), nothing_comes(two, 0.5))
            assert sorted(seen) == list(range(40))
        await stream.append({"n": 40}, key="k0")
        await stream.append({"n": 41}, key="k1")
        async with asyncio.timeout(PATIENCE):
            assert sorted(numbers(await take(one, 2))) == [40, 41]


async def test_standbys_take_over_an_unsharded_stream(url: str, client: Client) -> None:
    """One live member; when it leaves, another goes on within a second."""
    stream = await filled(client, 4)
    async with connect(url) as elsewhere:
        one = stream.group("billing", share="shards")
        two = elsewhere.stream("orders").group("billing", share="shards")
        async with two:
            async with one:
                owner, standby = (one, two)
                first = await owner.receive(1.5)
                if first is None:
                    owner, standby = two, one
                    first = await owner.receive(PATIENCE)
                assert number(first) == 0
                assert await standby.receive(0.1) is None
                owner.ack([first] if first else [])
                await owner.flush()
            if owner is one:
                assert number(await two.receive(PATIENCE)) in (1, 0)


async def test_lag_and_pending(client: Client) -> None:
    """Lag counts from what is committed; pending are this member's."""
    stream = await filled(client, 6)
    async with joined(stream) as group:
        events = await take(group, 3)
        group.ack(events[:2])
        await group.flush()
        assert (await group.pending(2))[0].position == events[2].position
        group.ack(events[2])
        group.ack(await take(group, 3))
        await group.flush()
        assert await group.lag() == 0


async def test_a_group_that_shares_shards_is_looked_at_and_refuses_what_it_has_not(
    client: Client,
) -> None:
    """Listed with its lag, members and dead letters; no pending list; one kind to a name."""
    stream = await filled(client, 3)
    async with joined(stream, retry=Retry(attempts=1)) as group:
        assert await group.lag() == 3
        events = await take(group, 3)
        group.fail(events[0], ValueError("no"))
        group.ack(events[1:])
        await group.flush()
        (info,) = await stream.groups()
        assert (info.name, info.lag, info.dead, info.pending) == (group.name, 0, 1, 0)
        assert [(one.name, one.beating) for one in info.members] == [(group.member, True)]
        with pytest.raises(ConfigError, match="shares shards"):
            await client.backend.pending(stream.shard(0), group.name, 10)
        with pytest.raises(ConfigError, match="shares shards"):
            await stream.create_group(group.name)
    assert await client.stream(stream.name).drop_group(group.name)
    assert await stream.groups() == []


async def test_a_batch_that_failed_comes_back_in_halves(client: Client) -> None:
    """Only what failed alone becomes a dead letter: the poison, and nothing else."""
    stream = client.stream("orders")
    await fill(stream, 8)
    sizes: list[int] = []
    async with joined(stream, retry=Retry(attempts=2, first=0.0, jitter=0.0), until=END) as group:
        async for batch in group.batches(8, within=0.2):
            sizes.append(len(batch))
            if 5 in numbers(batch):
                group.fail(batch, ValueError("no"))
            else:
                group.ack(batch)
    assert sizes[0] == 8
    assert 1 in sizes
    backend: Any = client.backend
    (letter,) = await backend.letters(stream.shard(0), "billing", None, 10)
    assert letter.error == "ValueError"
    assert numbers(await rest_of(stream)) == []


async def test_when_everything_fails_nothing_is_given_up(
    client: Client, signals: list[Signal]
) -> None:
    """Events are tried one by one until one succeeds; then all flow again."""
    stream = client.stream("orders")
    await fill(stream, 12)
    tries = 0
    retry = Retry(attempts=1, first=0.05, cap=0.1, jitter=0.0, breaker=4)
    async with joined(stream, retry=retry, until=END) as group:
        async for event in group:
            tries += 1
            if tries <= 8:
                group.fail(event, OSError("down"))
            else:
                group.ack(event)
    kinds = [signal.kind for signal in signals]
    assert "breaker-opened" in kinds
    assert "breaker-closed" in kinds
    backend: Any = client.backend
    given_up = await backend.count_letters(stream.shard(0), "billing")
    assert given_up == 3  # before it opened
    assert numbers(await rest_of(stream)) == []
