"""Scenarios that a test asserts, and that a mutant must spoil: see `test_mutants.py`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

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
from penstock.backends.redis.takeovers import Takeovers

LEASE = 0.8
EVERY = 50


class Every:
    """True for each piece of the server in which another *n* outcomes of batches are complete."""

    def __init__(self, n: int, *outcomes: bytes) -> None:
        self._n = n
        self._outcomes = outcomes
        self._seen = 0

    def __call__(self, piece: bytes) -> bool:
        before = self._seen
        self._seen += sum(map(piece.count, self._outcomes))
        return before // self._n < self._seen // self._n


async def append_through_losses(url: str, appends: int) -> int:
    """Append numbers through a proxy that loses every 50th outcome; how many were lost."""
    async with through_proxy(url) as (proxy, bad_url), watched(bad_url) as (client, _):
        async with client.stream(STREAM).writer() as writer:
            proxy.swallow_replies(1, when=Every(EVERY, b"stored", b"again"))
            for number in range(appends):
                await writer.send({"n": number})
                if number % 40 == 39:  # small batches: more replies, so more of them are lost
                    await asyncio.sleep(0)
            await writer.flush()
            assert writer.statistics().stored == appends
        proxy.swallow_replies(0)
        return proxy.resets


def leave_behind(url: str, member: str, count: int) -> None:
    """A dead member with *count* events in its hands."""
    asked(url, "XGROUP", "CREATE", STREAM, GROUP, "0", "MKSTREAM")
    add(url, range(count))
    asked(url, "XREADGROUP", "GROUP", GROUP, member, "COUNT", count, "STREAMS", STREAM, ">")
    beats = f"penstock:{{{STREAM}}}:{STREAM}:beats@{GROUP}"
    asked(url, "HSET", beats, member, f"0badcafe:{int(LEASE * 1000)}:7")


async def late_acks(url: str) -> tuple[int, bool]:
    """A member taken for dead acks what its handlers finish; its heart cannot tell it anything.

    How much the new owner holds after that, and whether the dead one began anew in the end.
    """
    add(url, range(10))
    async with (
        watched(url) as (client, signals),
        watched(url) as (other, _),
        client.stream(STREAM).group(
            GROUP, lease=LEASE, ack_interval=None, max_in_flight=10
        ) as zombie,
    ):
        taken = await take([zombie], 10)  # its hands are full: it asks for nothing
        first = zombie._work._member._incarnation
        heart = client.backend.heart
        heart._beat_all = lambda _: time.sleep(0.01)
        async with other.stream(STREAM).group(GROUP, lease=LEASE) as heir:
            again = await take([heir], 10)
            zombie.ack(taken)
            await zombie.flush()
            left = pending_of(url, heir.member)
            del heart._beat_all
            heir.ack(again)
            await heir.flush()
            await settled(url)
        await soon(lambda: zombie._work._member._incarnation != first, "it begins anew")
    return left, any(signal.kind == "member-lapsed" for signal in signals)


async def claim_of_one_who_came_back(url: str) -> int:
    """A watcher is stopped between its look and its claim; the dead one is alive again by then.

    How many events the living one still holds after the claim.
    """
    add(url, range(10))
    async with (
        watched(url) as (client, _),
        watched(url) as (other, _),
        client.stream(STREAM).group(GROUP, lease=LEASE) as member,
    ):
        await take([member], 10)
        heart = client.backend.heart
        run: Any = Takeovers._run
        claimed, inner = asyncio.Event(), member._work._member
        first = inner._incarnation

        async def late(self: Takeovers, claim: Any, limit: int) -> Any:
            if claim.owner != member.member:
                return await run(self, claim, limit)
            if "_beat_all" in heart.__dict__:
                del heart._beat_all
                del inner._pulses.may_be_dead
            await soon(lambda: inner._incarnation != first, "it begins anew")
            reply = await run(self, claim, limit)
            claimed.set()
            return reply

        heart._beat_all = lambda _: time.sleep(0.01)
        inner._pulses.may_be_dead = lambda: False
        async with other.stream(STREAM).group(GROUP, lease=LEASE) as watcher:
            watcher._work._member._takeovers._run = late.__get__(watcher._work._member._takeovers)
            async with asyncio.timeout(25):
                await claimed.wait()
            return pending_of(url, member.member)


async def take_up_a_name(url: str, count: int) -> int:
    """Join under the name of a dead member; how much of what it had comes within some leases."""
    leave_behind(url, "again", count)
    seen: set[int] = set()
    async with (
        watched(url) as (client, _),
        client.stream(STREAM).group(GROUP, member="again", lease=LEASE) as group,
    ):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(4 * LEASE):
                async for batch in group.batches(1000):
                    seen.update(int(event.value["n"]) for event in batch)
                    group.ack(batch)
                    if len(seen) == count:
                        await settled(url)
                        break
    return len(seen)
