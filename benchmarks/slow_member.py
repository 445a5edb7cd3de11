"""Memory of a member that is ten times too slow, before millions of events that wait.

    python benchmarks/slow_member.py                       # 10 million events, 20 seconds each
    python benchmarks/slow_member.py --events 100000 --seconds 3 --kinds group,reader

A producer goes on appending while each member, in a process of its own, takes a tenth of that.
Prints a table; the exit code is 1 if a member grew by more than 50 MB after it had warmed up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import VALUE, server

import penstock

RATE = 2000  # events a second that are appended while a member is measured
SLOWNESS = 10  # how many times fewer it takes
MOST = 50  # MB
STREAM, SHARDED = "waiting", "sharded"
START = 60.0  # seconds within which the first event comes, on however slow a machine
WARM = 0.3  # the part of the time in which buffers may fill


async def group(client: penstock.Client) -> Any:
    async with client.stream(STREAM).group("slow") as member:
        async for event in member:
            yield
            member.ack(event)


async def shards(client: penstock.Client) -> Any:
    async with client.stream(SHARDED).group("slow", share="shards") as member:
        async for event in member:
            yield
            member.ack(event)


async def reader(client: penstock.Client) -> Any:
    async with client.stream(STREAM).reader(start=penstock.OLDEST) as cursor:
        async for _ in cursor:
            yield


KINDS = {"group": group, "shards": shards, "reader": reader}


async def run_app(url: str, taken: list[int]) -> None:
    app = penstock.App(url)

    @app.on(STREAM, group="slow-app")
    async def handle(_: penstock.Event[Any]) -> None:
        taken[0] += 1
        await asyncio.sleep(SLOWNESS / RATE)

    await app.run()


async def member(kind: str, url: str, seconds: float) -> None:
    """Be the slow member; print what it took, and its memory over time."""
    taken, sizes = [0], list[int]()
    task = asyncio.create_task(run_app(url, taken) if kind == "app" else take(kind, url, taken))
    began = time.monotonic()
    while not taken[0] and time.monotonic() - began < START:  # noqa: ASYNC110 - by several roads
        await asyncio.sleep(0.1)
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        await asyncio.sleep(0.1)
        if task.done():
            await task
        sizes.append(resident())
    print(json.dumps({"taken": taken[0], "sizes": sizes}))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def take(kind: str, url: str, taken: list[int]) -> None:
    async with penstock.connect(url) as client:
        async for _ in KINDS[kind](client):
            taken[0] += 1
            await asyncio.sleep(SLOWNESS / RATE)


def resident() -> int:
    """Bytes of memory that this process takes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def fill(stream: Any, events: int) -> None:
    async with stream.writer() as writer:
        for number in range(events):
            await writer.send({"v": VALUE}, key=str(number % 1000))


async def go_on(stream: Any) -> None:
    """Append at the rate, until cancelled."""
    async with stream.writer() as writer:
        while True:
            for number in range(RATE // 20):
                await writer.send({"v": VALUE}, key=str(number))
            await asyncio.sleep(0.05)


async def measure(kind: str, client: penstock.Client, url: str, asked: Any) -> tuple[str, bool]:
    stream = client.stream(SHARDED, shards=4) if kind == "shards" else client.stream(STREAM)
    producer = asyncio.create_task(go_on(stream))
    command = [sys.executable, __file__, "--be", kind, "--url", url]
    child = await asyncio.create_subprocess_exec(
        *command, "--seconds", str(asked.seconds), stdout=subprocess.PIPE
    )
    said, _ = await child.communicate()
    producer.cancel()
    await asyncio.gather(producer, return_exceptions=True)
    about = json.loads(said)
    sizes = [size / 1e6 for size in about["sizes"]]
    warm = sizes[int(len(sizes) * WARM) :]
    grown = max(warm) - warm[0]
    good = grown <= MOST and about["taken"] > 0
    line = f"  {kind:<7} {about['taken']:>9,} {sizes[0]:>10.1f} {warm[0]:>10.1f} {max(warm):>10.1f}"
    return f"{line} {grown:>10.1f}  {'ok' if good else 'MISSED'}", good


async def compare(asked: Any) -> bool:
    kinds = asked.kinds.split(",")
    verdicts: list[bool] = []
    async with server() as port:
        url = f"redis://127.0.0.1:{port}"
        async with penstock.connect(url) as client:
            if set(kinds) - {"shards"}:
                await fill(client.stream(STREAM), asked.events)
            if "shards" in kinds:
                await fill(client.stream(SHARDED, shards=4), asked.events)
            print(f"{asked.events:,} events wait; {RATE} a second more come, a tenth is taken. MB:")
            print("  member      taken      start       warm       most       grown")
            for kind in kinds:
                line, good = await measure(kind, client, url, asked)
                print(line, flush=True)
                verdicts.append(good)
    return all(verdicts)


def main() -> int:
    parser = argparse.ArgumentParser(description="Memory of a member that is ten times too slow.")
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--kinds", default="group,shards,reader,app")
    parser.add_argument("--be", choices=[*KINDS, "app"], help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.be:
        asyncio.run(member(asked.be, asked.url, asked.seconds))
        return 0
    return 0 if asyncio.run(compare(asked)) else 1


if __name__ == "__main__":
    sys.exit(main())
