"""The group, the stream, or some of its events are gone: nothing that is left is skipped."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from faults.machinery import (
    GROUP,
    STREAM,
    add,
    asked,
    marked,
    settled,
    soon,
    take,
    watched,
)
from penstock import OLDEST, Group, Retry, Signal
from support.meter import lost

pytestmark = pytest.mark.one_loop

LEASE = 0.6


@asynccontextmanager
async def two_members(url: str) -> AsyncGenerator[tuple[Group[Any], Group[Any], list[Signal]]]:
    """Two members, each over a client of its own, and the signals of both."""
    async with watched(url) as (client, signals), watched(url) as (other, more):
        options: dict[str, Any] = {"lease": LEASE, "retry": Retry(first=0.0, jitter=0.0)}
        async with (
            client.stream(STREAM).group(GROUP, **options) as one,
            other.stream(STREAM).group(GROUP, **options) as two,
        ):
            client.observe(more.append)
            other.observe(signals.append)
            yield one, two, signals


def destroy_group(url: str) -> None:
    asked(url, "XGROUP", "DESTROY", STREAM, GROUP)


def delete_stream(url: str) -> None:
    asked(url, "DEL", STREAM)


def rename_stream(url: str) -> None:
    asked(url, "RENAME", STREAM, "elsewhere")


def flush_all(url: str) -> None:
    asked(url, "FLUSHALL")


def blocked(url: str) -> int:
    return int(asked(url, "INFO", "clients")["blocked_clients"])


def count(signals: list[Signal], kind: str) -> int:
    return sum(signal.kind == kind for signal in signals)


@pytest.mark.parametrize("lose", [destroy_group, delete_stream, rename_stream, flush_all])
@pytest.mark.conformance("CR-032", "PU-054")
async def test_a_group_that_is_lost_under_blocked_readers_is_made_anew(
    servers: str, lose: Callable[[str], None]
) -> None:
    add(servers, range(10))
    async with two_members(servers) as (one, two, signals):
        await take([one, two], 10, ack=True)
        await settled(servers)
        await marked(servers)
        await soon(lambda: blocked(servers) == 2, "both wait for events")
        lose(servers)
        add(servers, range(10, 20))
        left = list(range(10, 20))
        began = time.monotonic()
        taken = await take([one, two], len(left), ack=True)
        assert time.monotonic() - began < 4 + lost(began), "it took longer than to join anew"
        assert sorted(int(event.value["n"]) for event in taken) == left
        await settled(servers)
    assert count(signals, "group-lost") >= 1


@pytest.mark.conformance("PU-053")
async def test_what_was_added_between_loss_and_remaking_is_not_skipped(servers: str) -> None:
    async with two_members(servers) as (one, two, signals):
        await soon(lambda: blocked(servers) == 2, "both wait for events")
        for command in (["DEL"], ["XADD", "*", "n", 0], ["XADD", "*", "n", 1]):
            asked(servers, command[0], STREAM, *command[1:])
        taken = await take([one, two], 2)
        assert sorted(int(event.value["n"]) for event in taken) == [0, 1]
        assert count(signals, "group-lost") >= 1


async def test_parked_events_of_a_lost_group_are_not_taken_from_a_living_member(
    servers: str,
) -> None:
    add(servers, range(1))
    async with watched(servers) as (client, _), watched(servers) as (other, _):
        retry = Retry(first=0.0)
        stream = client.stream(STREAM)
        async with stream.group(GROUP, lease=LEASE, retry=retry, max_in_flight=1) as holder:
            holder.nack(await take([holder], 1), delay=0.5)
            await holder.flush()
            destroy_group(servers)
            again = await take([holder], 1)
            async with other.stream(STREAM).group(GROUP, lease=LEASE) as idle:
                assert await idle.receive(timeout=1.5) is None, "taken from a member that lives"
            holder.ack(again)
            await settled(servers)


async def test_a_nack_into_a_group_that_is_gone_is_no_error(servers: str) -> None:
    add(servers, range(3))
    async with watched(servers) as (client, signals):
        stream = client.stream(STREAM)
        async with stream.group(GROUP, lease=LEASE, retry=Retry(first=0.0)) as group:
            taken = await take([group], 3)
            destroy_group(servers)
            group.nack(taken, delay=0)
            again = await take([group], 3)
            group.ack(again)
            await settled(servers)
    assert count(signals, "group-lost") == 1


async def test_an_ack_of_what_failed_before_into_a_group_that_is_gone_is_no_error(
    servers: str,
) -> None:
    add(servers, range(3))
    async with watched(servers) as (client, _):
        stream = client.stream(STREAM)
        async with stream.group(GROUP, lease=LEASE, retry=Retry(first=0.0)) as group:
            group.nack(await take([group], 3), delay=0)
            again = await take([group], 3)
            assert all(event.attempts == 1 for event in again)
            destroy_group(servers)
            group.ack(again)
            group.ack(await take([group], 3))
            await settled(servers)


@pytest.mark.conformance("CR-030")
async def test_what_was_trimmed_while_pending_is_signalled_and_never_handled(servers: str) -> None:
    add(servers, range(20))
    asked(servers, "XGROUP", "CREATE", STREAM, GROUP, "0")
    asked(servers, "XREADGROUP", "GROUP", GROUP, "dead", "COUNT", 20, "STREAMS", STREAM, ">")
    asked(servers, "HSET", f"penstock:{{{STREAM}}}:{STREAM}:beats@{GROUP}", "dead", "badcafe:600:7")
    asked(servers, "XTRIM", STREAM, "MAXLEN", 8)
    async with (
        watched(servers) as (client, signals),
        client.stream(STREAM).group(GROUP, lease=LEASE) as group,
    ):
        taken = await take([group], 8)
        assert [int(event.value["n"]) for event in taken] == list(range(12, 20))
        group.ack(taken)
        await settled(servers)
    assert sum(s.count or 0 for s in signals if s.kind == "trimmed-pending") == 12


async def test_what_was_trimmed_while_parked_is_signalled_and_never_handled(servers: str) -> None:
    add(servers, range(20))
    async with (
        watched(servers) as (client, signals),
        client.stream(STREAM).group(GROUP, lease=LEASE) as group,
    ):
        group.nack(await take([group], 20), delay=0.3)
        await group.flush()
        asked(servers, "XTRIM", STREAM, "MAXLEN", 8)
        taken = await take([group], 8)
        assert [int(event.value["n"]) for event in taken] == list(range(12, 20))
        group.ack(taken)
        await settled(servers)
    assert sum(s.count or 0 for s in signals if s.kind == "trimmed-pending") == 12


async def test_what_was_trimmed_in_hand_can_still_be_acked(servers: str) -> None:
    add(servers, range(20))
    async with (
        watched(servers) as (client, signals),
        client.stream(STREAM).group(GROUP, lease=LEASE) as group,
    ):
        taken = await take([group], 20)
        asked(servers, "XTRIM", STREAM, "MAXLEN", 0)
        group.ack(taken)
        await settled(servers)
    assert not count(signals, "acks-missed")


async def test_a_reader_goes_on_after_its_stream_was_deleted(servers: str) -> None:
    add(servers, range(3))
    async with (
        watched(servers) as (client, _),
        client.stream(STREAM).reader(start=OLDEST) as reader,
    ):
        for number in range(6):
            if number == 3:
                await soon(lambda: blocked(servers) == 1, "the reader waits")
                flush_all(servers)
                add(servers, range(3, 6))
            event = await reader.receive(timeout=10)
            assert event is not None
            assert int(event.value["n"]) == number
