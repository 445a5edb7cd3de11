"""The connection is cut after every k-th byte: each append is stored once, or said not to be."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from faults.machinery import STREAM, Cutter, asked, stored, through_proxy, watched
from penstock import BackendError, OutcomeUnknown, Retention, StreamFull, Writer

pytestmark = pytest.mark.one_loop

BATCHES = 3
SIZE = 4
ALL = list(range(BATCHES * SIZE))


async def send_and_judge(writer: Writer[Any]) -> list[str]:
    """Send small batches, pipelined; what each event was said to have become."""
    receipts = []
    for number in ALL:
        receipts.append(await writer.send({"n": number}, receipt=True))
        if number % SIZE == SIZE - 1:
            await asyncio.sleep(0)  # a batch of its own
    said: list[str] = []
    for receipt in receipts:
        try:
            await receipt
        except OutcomeUnknown as error:
            said.append("unknown" if error.unknown or error.stored else "unsent")
        except BackendError:
            said.append("failed")
        else:
            said.append("stored")
    return said


async def bytes_of_a_run(url: str, way: str, *, idempotent: bool = True) -> int:
    """How many bytes one run sends to the server, or gets from it."""
    async with (
        through_proxy(url) as (proxy, bad_url),
        watched(bad_url) as (client, _),
        client.stream(STREAM).writer(idempotent=idempotent) as writer,
    ):
        before = proxy.bytes_up, proxy.bytes_down
        await send_and_judge(writer)
        sent, got = proxy.bytes_up - before[0], proxy.bytes_down - before[1]
    return sent if way == "requests" else got


@pytest.mark.parametrize("way", ["requests", "replies"])
async def test_a_cut_anywhere_stores_each_append_once_in_order(servers: str, way: str) -> None:
    # What the client looks after beside the appends may fall into a run, or not: then the run
    # is shorter than those that were measured, and the last of these places lie behind its end.
    total = min([await bytes_of_a_run(servers, way) for _ in range(5)])
    places = [*range(0, total, max(1, total // 60)), total - 1]
    cuts = 0
    for at in places:
        asked(servers, "FLUSHALL")
        async with through_proxy(servers) as (proxy, bad_url), watched(bad_url) as (client, _):
            async with client.stream(STREAM).writer() as writer:
                getattr(Cutter(proxy), way)(at)
                assert await send_and_judge(writer) == ["stored"] * len(ALL), f"cut after {at}"
            cuts += bool(proxy.resets)
        assert stored(servers) == ALL, f"cut after {at} bytes"
    assert cuts > len(places) / 2


@pytest.mark.parametrize("idempotent", [True, False], ids=["session", "bare"])
@pytest.mark.parametrize("way", ["requests", "replies"])
async def test_a_cut_without_a_way_back_calls_nothing_stored_that_may_not_be(
    embedded_url: str, way: str, idempotent: bool
) -> None:
    total = await bytes_of_a_run(embedded_url, way, idempotent=idempotent)
    kinds: set[str] = set()
    for at in [*range(1, total, total // 6), total - 1]:
        asked(embedded_url, "FLUSHALL")
        said = await one_cut(embedded_url, way, at, idempotent=idempotent)
        held = stored(embedded_url)
        check(said, held, f"cut after {at} of {total} bytes: {said}, held {held}")
        kinds |= set(said)
    assert kinds >= ({"unknown"} if way == "requests" else {"stored", "unknown"})


def check(said: list[str], held: list[int], about: str) -> None:
    """What was said against what is held."""
    of = {kind: [n for n in ALL if said[n] == kind] for kind in ("stored", "unsent", "failed")}
    assert held == ALL[: len(held)], about
    assert set(of["stored"]) <= set(held), about
    assert not set(of["unsent"] + of["failed"]) & set(held), about


async def one_cut(url: str, way: str, at: int, *, idempotent: bool) -> list[str]:
    """One cut, and nobody who answers any more; what became of the appends, as it was said."""
    said: list[str] = []
    async with through_proxy(url) as (proxy, bad_url), watched(bad_url, timeout=0.1) as (client, _):
        try:
            async with client.stream(STREAM).writer(timeout=0.2, idempotent=idempotent) as writer:
                proxy.refuse = True
                getattr(Cutter(proxy), way)(at)
                said = await send_and_judge(writer)
        except (OutcomeUnknown, BackendError):
            assert said  # said once more on leaving
    return said


async def test_what_the_script_has_judged_is_not_unknown(embedded_url: str) -> None:
    """It never arrived, and is refused when it is sent again: nobody needs to guess."""
    async with through_proxy(embedded_url) as (proxy, url), watched(url) as (client, _):
        stream = client.stream(STREAM, retention=Retention(cap=1))
        async with stream.writer() as writer:
            await writer.send({"n": 0})
            await writer.flush()
            proxy.cut_after(10)
            await writer.send({"n": 1})
            with pytest.raises(StreamFull):
                await writer.flush()
    assert stored(embedded_url) == [0]
