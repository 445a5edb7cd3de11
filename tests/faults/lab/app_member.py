"""An App of the fault lab, in a process of its own: `app_member.py '{"url": …}'`.

Writes down what its handler does; acks are the App's business, and end where the handler ends.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import penstock
from faults.lab.process import Process, retry


def make_app(process: Process) -> penstock.App:
    """One handler, eight at a time."""
    orders, journal = process.orders, process.journal
    app = penstock.App(orders.url, observer=process.observe, drain_timeout=10.0)

    @app.on(
        orders.stream,
        group=orders.group,
        share=orders.share,
        concurrency=8,
        lease=orders.lease,
        hold=orders.hold,
        max_in_flight=orders.max_in_flight,
        ack_interval=0.05,
        retry=retry(orders),
    )
    async def handle(event: penstock.Event[Any]) -> None:
        id_ = str(event.value.get("id"))
        where = {"pos": str(event.position), "shard": event.shard}
        journal("start", id=id_, d=event.deliveries, a=event.attempts, **where)
        try:
            if seconds := orders.work + process.slow:
                await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            journal("nack", id=id_)
            raise
        if process.fails(id_, event.attempts):
            journal("nack", id=id_)
            raise ValueError("the lab wants it so")
        journal("done", id=id_)

    return app


async def main(process: Process) -> None:
    app = make_app(process)
    async with app:
        process.journal("joined", group=process.orders.group, member="")
        await app.wait()


if __name__ == "__main__":
    process = Process()
    process.run(lambda: main(process))
