"""Strays: what the server gave a member and nobody has in hand comes to somebody, and once."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from faults.machinery import (
    GROUP,
    STREAM,
    add,
    asked,
    pending_of,
    settled,
    soon,
    take,
    through_proxy,
    watched,
)
from faults.scenarios import leave_behind
from penstock import Group, Retry
from penstock.backends.redis import reads, takeovers
from penstock.errors import BackendUnavailable

pytestmark = pytest.mark.one_loop

LEASE = 0.4
PATIENCE = 20.0


@pytest.fixture
def soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second look at one's own pending events comes soon."""
    monkeypatch.setattr(takeovers, "BLOCK", 0.2)
    monkeypatch.setattr(takeovers, "GRACE", 0.1)


def number(event: Any) -> int:
    return int(event.value["n"])


def inner(group: Group[Any]) -> Any:
    """What works behind a group."""
    return group._work


# --- fetched, and not yet taken in -------------------------------------------------------------


@pytest.mark.usefixtures("soon_again")
async def test_a_page_that_waits_to_be_taken_in_is_not_handed_out_twice(servers: str) -> None:
    """Nothing is fetched while a page waits: so no look at one's own pending events finds it."""
    add(servers, range(20))
    async with through_proxy(servers) as (proxy, bad_url), watched(bad_url) as (client, _):
        group = client.stream(STREAM).group(GROUP, lease=LEASE)
        fetching = inner(group)._fetching
        origin, refused = fetching._origin, Counter[str]()

        async def unreachable(shard: Any) -> Any:
            refused["origins"] += 1
            if refused["origins"] < 4:
                proxy.cut()  # its own pending events are to be looked at
                await asyncio.sleep(0.05)
                raise BackendUnavailable("no", backend="redis", verb="open", key=STREAM)
            return await origin(shard)

        fetching._origin = unreachable
        async with group:
            seen = Counter[int]()
            for event in await take([group], 20):
                seen[number(event)] += 1
                group.ack(event)
            while (event := await group.receive(0.6)) is not None:
                seen[number(event)] += 1
                group.ack(event)
            assert refused["origins"] >= 4, "the fault did not bite"
            assert seen == Counter(range(20))
            await settled(servers)


async def test_what_waits_to_be_taken_in_is_dropped_when_the_member_lapses(servers: str) -> None:
    """Another has it by then: it is neither handed out nor acked by the one taken for dead."""
    add(servers, range(20))
    async with (
        watched(servers) as (client, signals),
        watched(servers) as (other, _),
    ):
        group = client.stream(STREAM).group(GROUP, lease=LEASE)
        fetching = inner(group)._fetching
        origin, waits = fetching._origin, asyncio.Event()

        async def slow(shard: Any) -> Any:
            await waits.wait()
            return await origin(shard)

        fetching._origin = slow
        async with group:
            await soon(lambda: fetching._pages, "a page waits")
            heart = client.backend.heart
            heart._beat_all = lambda _: time.sleep(0.01)
            async with other.stream(STREAM).group(GROUP, lease=LEASE) as heir:
                taken = await take([heir], 20)
                waits.set()
                assert await group.receive(0.3) is None, "handed out twice"
                del heart._beat_all
                heir.ack(taken)
                await heir.flush()
                assert await group.receive(0.3) is None
                await settled(servers)
    assert not [s for s in signals if s.kind == "acks-missed"]


# --- a member that rests -----------------------------------------------------------------------


async def hangs(group: Group[Any]) -> None:
    """The program takes one event and never returns, until the member rests."""
    assert await group.receive(PATIENCE) is not None
    await soon(lambda: inner(group)._fetching.resting, "it rests")


async def with_another(other: Any, count: int) -> list[int]:
    """What another member is given, acked."""
    async with other.stream(STREAM).group(GROUP, lease=LEASE) as heir:
        taken = await take([heir], count, ack=True)
        await heir.flush()
    return sorted(map(number, taken))


@pytest.mark.usefixtures("soon_again")
@pytest.mark.parametrize("reply", ["read", "hand-back"])
async def test_a_lost_reply_while_a_member_begins_to_rest_strands_nothing(
    servers: str, reply: str
) -> None:
    """Nobody asks this member for more: it looks itself, at once and when its old read is over."""
    add(servers, range(3))
    async with (
        through_proxy(servers) as (proxy, bad_url),
        watched(bad_url) as (client, _),
        watched(servers) as (other, _),
        client.stream(STREAM).group(GROUP, lease=5.0, hold=0.3, max_in_flight=50) as group,
    ):
        member = inner(group)._member
        rest, bitten = member.rest, list[int]()

        async def rests() -> None:
            if not bitten:
                bitten.append(1)
                if reply == "read":
                    proxy.pause("down")
                    add(servers, range(3, 6))
                    await soon(lambda: pending_of(servers, group.member) >= 3, "it is given more")
                    proxy.cut()
                    proxy.resume()
                else:
                    proxy.swallow_replies(1, when=lambda piece: b"*3" in piece[:3])
            await rest()
            proxy.swallow_replies(0)

        member.rest = rests
        await hangs(group)
        count = 6 if reply == "read" else 3
        assert await with_another(other, count) == list(range(count))
        assert bitten
        await settled(servers)


async def test_a_read_whose_end_is_not_answered_is_given_up(
    servers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it is given all the same is found by name, like that of any lost connection."""
    add(servers, range(3))
    async with (
        watched(servers) as (client, _),
        client.stream(STREAM).group(GROUP, lease=30.0) as group,
    ):
        group.ack(await take([group], 3))
        member = inner(group)._member
        await soon(lambda: member._reads.under_way, "a read blocks")
        monkeypatch.setattr(member._own.now, "client_id", 0)  # no right to end it
        monkeypatch.setattr(reads, "BLOCK", 0.1)
        monkeypatch.setattr(reads, "GRACE", 0.1)
        await group.stop()
        assert not member._reads.under_way


@asynccontextmanager
async def tried(url: str) -> AsyncIterator[Group[Any]]:
    """A member whose breaker is open, and that tries an event while it was looking for others."""
    add(url, range(3))
    retry = Retry(attempts=9, first=0.1, cap=30.0, jitter=0.0, breaker=3)
    async with (
        watched(url) as (client, _),
        client.stream(STREAM).group(GROUP, lease=LEASE, retry=retry) as group,
    ):
        for event in await take([group], 3):
            group.nack(event, delay=60.0 if number(event) else 0.5)
        async with asyncio.timeout(PATIENCE):
            event = await anext(group)
        assert inner(group)._failures.breaker.open
        yield group
        group.ack(event)


async def test_no_read_is_under_way_while_an_event_is_tried(servers: str) -> None:
    """It would be given an event that this member does not hand out for a long time."""
    async with tried(servers) as group, watched(servers) as (other, _):
        member = inner(group)._member
        await soon(lambda: not member._reads.under_way, "the read is ended", within=3.0)
        add(servers, range(3, 4))
        assert await with_another(other, 1) == [3]


async def test_stopping_while_an_event_is_tried_leaves_no_read(servers: str) -> None:
    async with tried(servers) as group:
        await group.stop()
        assert not inner(group)._member._reads.under_way


async def test_what_a_claim_brings_when_its_member_has_stopped_is_handed_back(
    servers: str,
) -> None:
    """Its reply is not waited for; what it took over is not kept until the member leaves."""
    leave_behind(servers, "dead", 5)
    async with (
        watched(servers) as (client, _),
        watched(servers) as (other, _),
        client.stream(STREAM).group(GROUP, lease=LEASE) as group,
    ):
        takeovers_of = inner(group)._member._takeovers
        run, claimed = takeovers_of._run, asyncio.Event()

        async def slow(claim: Any, limit: int) -> Any:
            reply = await run(claim, limit)
            if claim.owner == "dead" and not claimed.is_set():
                claimed.set()
                await asyncio.sleep(PATIENCE)
            return reply

        takeovers_of._run = slow
        await claimed.wait()
        await group.stop()
        assert await with_another(other, 5) == list(range(5))


# --- a member that has left, or leaves a stream --------------------------------------------------


def beats(url: str) -> dict[str, str]:
    return asked(url, "HGETALL", f"penstock:{{{STREAM}}}:{STREAM}:beats@{GROUP}")


async def test_what_an_old_read_is_given_after_its_member_left_is_found(servers: str) -> None:
    """A black hole held that read back: it makes the consumer anew, and nobody beats for it."""
    async with watched(servers) as (other, _):
        async with through_proxy(servers) as (proxy, bad_url), watched(bad_url) as (client, _):
            async with client.stream(STREAM).group(GROUP, lease=LEASE) as group:
                await soon(lambda: inner(group)._member._reads.under_way, "it reads")
                proxy.cut()
                await soon(lambda: inner(group)._member._takeovers.may_be_given, "it is noticed")
                name = group.member
            add(servers, range(5))
            asked(servers, "XREADGROUP", "GROUP", GROUP, name, "COUNT", 5, "STREAMS", STREAM, ">")
        assert await with_another(other, 5) == list(range(5))
        await settled(servers)


async def test_a_member_that_lost_nothing_leaves_nothing(servers: str) -> None:
    """Else each that ever was would be remembered, where none lives for long."""
    async with watched(servers) as (client, _):
        async with client.stream(STREAM).group(GROUP, lease=LEASE):
            await soon(lambda: beats(servers), "it beats")
        assert not beats(servers)


@pytest.mark.parametrize("how", ["refused", "cancelled"])
async def test_leaving_a_stream_can_be_broken_off_and_done_again(servers: str, how: str) -> None:
    """Nothing of it is handed out meanwhile, and others have it, whatever became of the call."""
    add(servers, range(4))
    async with watched(servers) as (client, _), watched(servers) as (other, _):
        stream, more = client.stream(STREAM), client.stream("more")
        async with client.group(GROUP, [stream, more], lease=LEASE) as group:
            await take([group], 4)
            outcomes = inner(group)._member._outcomes
            hand_back, reached = outcomes.hand_back, asyncio.Event()

            async def broken(*_: Any, **__: Any) -> None:
                reached.set()
                if how == "refused":
                    raise BackendUnavailable("no", backend="redis", verb="leave", key=STREAM)
                await asyncio.sleep(PATIENCE)

            outcomes.hand_back = broken
            leaving = asyncio.create_task(group.remove_stream(stream))
            await reached.wait()
            if how == "cancelled":
                leaving.cancel()
            with pytest.raises((BackendUnavailable, asyncio.CancelledError)):
                await leaving
            outcomes.hand_back = hand_back
            await group.remove_stream(stream)
            assert not pending_of(servers, group.member)
            assert await with_another(other, 4) == list(range(4))
            await group.add_stream(stream)
            add(servers, range(4, 5))
            assert [number(event) for event in await take([group], 1, ack=True)] == [4]


async def test_a_stream_that_could_not_be_added_whole_is_not_added(servers: str) -> None:
    """Neither are its events fetched for nobody, and it can be added again."""
    async with watched(servers) as (client, _), watched(servers) as (other, _):
        wide = client.stream("wide", shards=2)
        await wide.append_many([{"n": n} for n in range(20)])
        async with client.group(GROUP, [client.stream(STREAM)], lease=LEASE) as group:
            member = inner(group)._member
            make, made = member._groups.make, list[Any]()

            async def second_fails(shard: Any, *more: Any) -> Any:
                made.append(shard)
                if len(made) == 2:
                    await asyncio.sleep(0.1)  # the first is read meanwhile
                    raise BackendUnavailable("no", backend="redis", verb="join", key="wide")
                return await make(shard, *more)

            member._groups.make = second_fails
            with pytest.raises(BackendUnavailable):
                await group.add_stream(wide)
            del member._groups.make
            async with other.stream("wide").group(GROUP, lease=LEASE) as heir:
                there = await take([heir], 20, ack=True)
            assert sorted(map(number, there)) == list(range(20))
            await group.add_stream(wide)
            await wide.append({"n": 20})
            assert [number(event) for event in await take([group], 1, ack=True)] == [20]


# --- what the server lost ------------------------------------------------------------------------


async def test_parked_events_that_lost_their_times_are_due(servers: str) -> None:
    """The set of times was deleted, or evicted; failures are kept elsewhere, and stay."""
    add(servers, range(1200))
    async with (
        watched(servers) as (client, signals),
        client.stream(STREAM).group(GROUP, lease=LEASE, max_in_flight=2000) as group,
    ):
        group.nack(await take([group], 1200), delay=600.0)
        await group.flush()
        asked(servers, "DEL", f"penstock:{{{STREAM}}}:{STREAM}:parked@{GROUP}")
        again = await take([group], 1200, ack=True)
        assert sorted(map(number, again)) == list(range(1200))
        assert {event.attempts for event in again} == {1}
        await settled(servers)
    assert sum(s.count or 0 for s in signals if s.kind == "parked-untimed") == 1200


async def test_an_event_of_any_number_of_fields_is_given_up_and_replayed(servers: str) -> None:
    """No script can copy more than some thousands one by one; others append more than we do."""
    fields = [part for n in range(5000) for part in (f"f{n}", f"{n}:\x00é")]
    asked(servers, "XADD", STREAM, "*", *fields)
    async with watched(servers) as (client, _):
        stream = client.stream(STREAM)
        async with stream.group(GROUP, lease=LEASE, retry=Retry(attempts=1)) as group:
            for _ in range(2):  # the second time, it is given up from where it was replayed
                [event] = await take([group], 1)
                assert [part.decode() for part in event.raw] == fields
                group.fail(event, ValueError("no"))
                await group.flush()
                letters = [letter async for letter in stream.dead_letters(GROUP)]
                assert [part.decode() for part in letters[0].event.raw] == fields
                assert await stream.dead_letters(GROUP).replay() == 1
            group.ack(await take([group], 1))
            await group.flush()
