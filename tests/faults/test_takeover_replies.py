"""Replies of claims, acks and reads are lost: what the server gave is found by its member."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from faults.machinery import (
    GROUP,
    STREAM,
    HalfOpen,
    add,
    answers,
    asked,
    pending_of,
    settled,
    soon,
    take,
    through_proxy,
    watched,
)
from faults.scenarios import LEASE, leave_behind
from penstock import Event, Group, Retry
from penstock.backends.redis import takeovers

pytestmark = pytest.mark.one_loop

FOUND_WITHIN = 15.0  # seconds; the server believes in a blocked read for five


def numbers(events: list[Event[Any]]) -> list[int]:
    return sorted(int(event.value["n"]) for event in events)


@pytest.fixture
def no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """The look at one's own pending events some seconds after joining is over at once."""
    monkeypatch.setattr(takeovers, "BLOCK", 0.1)
    monkeypatch.setattr(takeovers, "GRACE", 0.1)


async def looked(group: Group[Any]) -> None:
    """Return when that look is over: what is found after it is found for another reason."""
    member: Any = group._work._member
    await soon(lambda: member._takeovers._again is None, "the second look at what is pending")


@pytest.mark.usefixtures("no_second_look")
async def test_the_lost_reply_of_a_claim_strands_nothing(servers: str) -> None:
    leave_behind(servers, "dead", 20)
    async with through_proxy(servers) as (proxy, bad_url), watched(bad_url) as (client, _):
        lost = Counter[str]()

        def first_claim(piece: bytes) -> bool:
            lost["claims"] += b"claimed" in piece
            return b"claimed" in piece and lost["claims"] == 1

        proxy.swallow_replies(1, when=first_claim)
        async with client.stream(STREAM).group(GROUP, lease=LEASE) as group:
            await looked(group)
            assert not lost["claims"]
            taken = await take([group], 20)
            assert lost["claims"], "the fault did not bite"
            assert numbers(taken) == list(range(20))
            group.ack(taken)
            await settled(servers)


@pytest.mark.usefixtures("no_second_look")
async def test_the_lost_reply_of_a_look_strands_nothing(servers: str) -> None:
    """Parked events that were due went to a member that never heard of it."""
    add(servers, range(20))
    async with through_proxy(servers) as (proxy, bad_url), watched(bad_url) as (client, _):
        stream = client.stream(STREAM)
        async with stream.group(GROUP, lease=LEASE, retry=Retry(first=0.0)) as group:
            taken = await take([group], 20)
            await looked(group)
            lost = Counter[str]()

            def first_look(piece: bytes) -> bool:
                lost["looks"] += b"n\r\n$1\r\n7\r\n" in piece
                return b"n\r\n$1\r\n7\r\n" in piece and lost["looks"] == 1

            proxy.swallow_replies(1, when=first_look)
            group.nack(taken, delay=0)
            again = await take([group], 20)
            assert lost["looks"], "the fault did not bite"
            assert numbers(again) == list(range(20))
            group.ack(again)
            await settled(servers)


async def test_the_lost_reply_of_a_read_strands_nothing(servers: str) -> None:
    async with (
        through_proxy(servers) as (proxy, bad_url),
        watched(bad_url) as (client, _),
        client.stream(STREAM).group(GROUP, lease=LEASE) as group,
    ):
        await soon(lambda: blocked_reads(servers) == 1, "a read blocks")
        proxy.swallow_replies(1, when=answers(b"*1\r\n*2\r\n$6\r\norders"))
        add(servers, range(20))
        await soon(lambda: proxy.resets >= 1, "the reply is lost")
        proxy.swallow_replies(0)
        taken = await take([group], 20)
        assert numbers(taken) == list(range(20))
        group.ack(taken)
        await settled(servers)


async def test_events_whose_acks_are_queued_do_not_come_again_after_a_cut(servers: str) -> None:
    add(servers, range(20))
    async with (
        through_proxy(servers) as (proxy, bad_url),
        watched(bad_url) as (client, _),
        client.stream(STREAM).group(GROUP, lease=LEASE, ack_interval=None) as group,
    ):
        group.ack(await take([group], 20))
        proxy.cut()
        assert await group.receive(timeout=2.0) is None, "it was acked, and came again"
        await group.flush()
        await settled(servers)


async def test_events_whose_hand_back_is_queued_do_not_come_again_after_a_cut(
    servers: str,
) -> None:
    add(servers, range(20))
    async with (
        through_proxy(servers) as (proxy, bad_url),
        watched(bad_url) as (client, _),
        client.stream(STREAM).group(GROUP, lease=LEASE) as group,
    ):
        taken = await take([group], 20)
        async with group._work._settling.sending:  # they stay queued until the cut is mended
            group.nack(taken, delay=60.0)
            proxy.cut()
            assert await group.receive(timeout=1.0) is None, "handed back for long, came again"
        await group.flush()
        assert pending_of(servers, "@penstock:parked") == 20


@pytest.mark.conformance("SS-046")
async def test_the_lost_reply_of_acks_and_parks_changes_nothing(servers: str) -> None:
    add(servers, range(40))
    async with through_proxy(servers) as (proxy, bad_url), watched(bad_url) as (client, signals):
        stream = client.stream(STREAM)
        async with stream.group(GROUP, lease=LEASE, retry=Retry(first=0.0)) as group:
            taken = await take([group], 40)
            proxy.swallow_replies(1, when=answers(b":20\r\n", b"*20\r\n"))
            group.ack(taken[:20])
            await soon(lambda: proxy.resets == 1, "the reply of the acks is lost")
            proxy.swallow_replies(0)
            await soon(lambda: pending_of(servers) == 20, "acked")
            again = set()
            group.nack(taken[20:], delay=0)
            for event in await take([group], 20):
                again.add(int(event.value["n"]))
                group.ack(event)
            assert again == set(range(20, 40))
            await settled(servers)
    assert not [s for s in signals if s.kind == "acks-missed"]


async def test_what_a_half_open_connection_is_given_is_found(redis7_url: str) -> None:
    """The server still believes in a blocked read of ours, and gives it an event."""
    async with (
        HalfOpen(int(redis7_url.rpartition(":")[2])) as network,
        watched(network.url) as (client, _),
        client.stream(STREAM).group(GROUP) as group,
    ):
        await soon(lambda: blocked_reads(redis7_url) == 1, "a read blocks")
        network.break_clients()
        await soon(lambda: blocked_reads(redis7_url) == 2, "it reads anew")
        add(redis7_url, range(1))  # goes to the read that has blocked for longest
        taken = await take([group], 1, within=FOUND_WITHIN)
        assert taken[0].deliveries == 2, "it was not given to the dead connection"
        group.ack(taken)
        await settled(redis7_url)


async def test_what_is_given_while_replies_are_withheld_is_found(embedded_url: str) -> None:
    async with (
        through_proxy(embedded_url) as (proxy, bad_url),
        watched(bad_url) as (client, _),
        client.stream(STREAM).group(GROUP) as group,
    ):
        await soon(lambda: blocked_reads(embedded_url) == 1, "a read blocks")
        proxy.pause("down")
        add(embedded_url, range(1))
        await soon(lambda: pending_of(embedded_url) == 1, "it is given to the member")
        healed = asyncio.get_running_loop().call_later(7.5, proxy.resume)
        taken = await take([group], 1, within=FOUND_WITHIN)
        healed.cancel()
        group.ack(taken)
        await settled(embedded_url)


def blocked_reads(url: str) -> int:
    return int(asked(url, "INFO", "clients")["blocked_clients"])
