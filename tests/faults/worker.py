"""A member in a process of its own; it uses the public API, and writes down what it does.

    worker.py URL NAME LOG [--lease S] [--hold S] [--work S] …

Each line of LOG is one append of one JSON object, so it survives ``kill -9`` of the writer. The
process ends when its standard input does: it never outlives the test run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import threading
import time
from typing import Any

import penstock


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("name")
    parser.add_argument("log")
    parser.add_argument("--lease", type=float, default=0.8)
    parser.add_argument("--hold", type=float, default=60.0)
    parser.add_argument("--max-in-flight", type=int, default=50)
    parser.add_argument("--ack-interval", type=float, default=0.05)
    parser.add_argument("--work", type=float, default=0.0, help="seconds of each event's handling")
    parser.add_argument("--at", type=int, default=-1, help="the event that is handled otherwise")
    parser.add_argument("--sleep", type=float, default=0.0, help="seconds that it takes")
    parser.add_argument("--block", type=float, default=0.0, help="… without the event loop")
    parser.add_argument("--share", default="any")
    parser.add_argument("--shards", type=int, help="of the stream, where it is in shards")
    return parser.parse_args()


class Log:
    """An append-only log: one write a line."""

    def __init__(self, path: str, who: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND)
        self._who = who

    def __call__(self, what: str, **about: Any) -> None:
        line = {"t": time.monotonic(), "who": self._who, "what": what, **about}
        os.write(self._file, json.dumps(line).encode() + b"\n")


async def handle(event: penstock.Event[Any], asked: argparse.Namespace, log: Log) -> int:
    number = int(event.value["n"])
    log("start", n=number, deliveries=event.deliveries, key=event.key)
    if number == asked.at:
        if asked.block:
            time.sleep(asked.block)  # noqa: ASYNC251 - on purpose: the event loop stands still
        await asyncio.sleep(asked.sleep)
    elif asked.work:
        await asyncio.sleep(asked.work)
    log("done", n=number, key=event.key)
    return number


async def main(asked: argparse.Namespace) -> None:
    log = Log(asked.log, asked.name)

    def observe(signal: penstock.Signal) -> None:
        log("signal", kind=signal.kind, count=signal.count, message=signal.message)

    async with (
        penstock.connect(asked.url, observer=observe) as client,
        client.stream("orders", shards=asked.shards).group(
            "g",
            share=asked.share,
            member=asked.name,
            lease=asked.lease,
            hold=asked.hold,
            ack_interval=asked.ack_interval,
            max_in_flight=asked.max_in_flight,
            retry=penstock.Retry(first=0.1),
        ) as group,
    ):
        log("joined")
        async for event in group:
            number = await handle(event, asked, log)
            try:
                group.ack(event)
            except penstock.LeaseLost:
                log("lease-lost", n=number)


def end_with_the_tests() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


threading.Thread(target=end_with_the_tests, daemon=True).start()
asyncio.run(main(options()))
