"""Sampling: what is pending and what each process takes, twice a second, while a cell runs.

Does        ask the server, and the kernel; notice processes that ended by themselves, and that the
            lab's own event loop, which all networks go through, stood still.
Does not    stop for a server that is being broken.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from faults.lab.history import Sample
from faults.lab.journal import STILL, TICK, Journal

if TYPE_CHECKING:
    from faults.lab.lab import Lab, Running


@asynccontextmanager
async def sampling(lab: Lab) -> AsyncGenerator[None]:
    sampler = asyncio.create_task(_sample(lab))
    try:
        yield
    finally:
        sampler.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sampler


@asynccontextmanager
async def standing_still(journal: Journal) -> AsyncGenerator[None]:
    """Write down when this event loop did."""
    watching = asyncio.create_task(_watch(journal))
    try:
        yield
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


async def _watch(journal: Journal) -> None:
    while True:
        due = time.monotonic() + TICK
        await asyncio.sleep(TICK)
        if time.monotonic() - due > STILL:
            journal("lag", **{"from": due})


async def _sample(lab: Lab) -> None:
    """Twice a second: what is pending, and what each process takes; who ended by himself."""
    import redis

    while True:
        await asyncio.sleep(0.5)
        now = time.monotonic()
        for group in sorted({one.orders.group for one in lab.members()}):
            with contextlib.suppress(redis.RedisError):  # the server is being broken
                pending = await asyncio.to_thread(lab.broker.pending, group)
                lab.samples.append(Sample(now, group, dict(pending)))
        for one in list(lab.all.values()):
            if one.process is not None and one.process.poll() is None:
                with contextlib.suppress(OSError):
                    lab.samples.append(_of_process(now, one))
        lab.note_exits()


def _of_process(now: float, one: Running) -> Sample:
    assert one.process is not None
    proc = Path(f"/proc/{one.process.pid}")
    pages = int((proc / "statm").read_text().split()[1])
    files = len(os.listdir(proc / "fd"))  # noqa: PTH208 - names alone
    return Sample(now, who=one.who, rss=pages * os.sysconf("SC_PAGE_SIZE"), files=files)
