"""An event loop that stood still, as under a handler that blocks it, breaks no connection.

What came meanwhile is an answer in time.
"""

from __future__ import annotations

import asyncio
import time

import pytest

import penstock
from penstock import OLDEST, Signal
from penstock.backends.redis import cursor

STALL = 1.5
"""Seconds; beyond all waits of these tests."""


async def test_a_stalled_loop_breaks_no_connection(
    embedded_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cursor, "BLOCK", 0.2)
    monkeypatch.setattr(cursor, "GRACE", 0.8)
    told: list[Signal] = []
    async with penstock.connect(embedded_url, observer=told.append) as client:
        stream = client.stream("stalled")
        await stream.append({"n": 0})
        async with stream.reader(start=OLDEST) as reader:
            assert await reader.receive(timeout=10) is not None
            await asyncio.sleep(0.05)  # the next read is under way
            time.sleep(STALL)  # noqa: ASYNC251 - that is the fault
            await stream.append({"n": 1})
            assert await reader.receive(timeout=10) is not None
    assert [signal.kind for signal in told] == []


async def test_a_reply_that_came_while_the_loop_stood_still_is_in_time(embedded_url: str) -> None:
    told: list[Signal] = []
    async with penstock.connect(embedded_url, observer=told.append) as client:
        link = client.backend.link
        asking = asyncio.create_task(link.call("PING", verb="ask", timeout=0.8))
        await asyncio.sleep(0)
        time.sleep(STALL)  # noqa: ASYNC251 - that is the fault
        assert await asking == b"PONG"
    assert [signal.kind for signal in told] == []
