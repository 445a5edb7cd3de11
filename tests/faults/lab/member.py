"""A member of the fault lab, in a process of its own: `member.py '{"url": …}'`.

Writes down every handling before it begins, its end, and the ack that it then asks for.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import penstock
from faults.lab.process import Process, retry


class Member:
    """Takes events one by one or in batches, handles them, acks them."""

    def __init__(self, process: Process) -> None:
        self._orders = process.orders
        self._journal = process.journal
        self._process = process
        self._ack_first = process.orders.mutant == "M1"
        self._seen: set[str] = set()

    async def main(self) -> None:
        orders = self._orders
        async with penstock.connect(orders.url, observer=self._process.observe) as client:
            stream = client.stream(orders.stream, shards=orders.shards)
            async with stream.group(
                orders.group,
                member=orders.member,
                share=orders.share,
                lease=orders.lease,
                hold=orders.hold,
                max_in_flight=orders.max_in_flight,
                ack_interval=0.05,
                retry=retry(orders),
            ) as group:
                self._journal("joined", group=orders.group, member=group.member)
                while True:
                    try:
                        await self._take(group)
                    except penstock.BackendRejected as refusal:  # out of memory: told once
                        self._journal("refused", error=str(refusal)[:200])
                        await asyncio.sleep(0.2)

    async def _take(self, group: Any) -> None:
        """Handle what comes, until the server refuses something for good."""
        if self._orders.batch:
            async for batch in group.batches(self._orders.batch, 0.02):
                await self._handle(group, batch)
        async for event in group:
            await self._handle(group, [event])

    async def _handle(self, group: Any, events: list[Any]) -> None:
        wanted = [event for event in events if self._is_new(group, event)]
        for event in wanted:
            self._journal(
                "start",
                id=identity(event),
                d=event.deliveries,
                a=event.attempts,
                pos=str(event.position),
                shard=event.shard,
            )
        if self._ack_first:
            self._ack(group, wanted)
        if self._hangs(wanted):
            self._journal("hangs")
            await self._process.hurried.wait()
        if seconds := self._orders.work * len(wanted) + self._process.slow:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.hurried.wait(), seconds)
        good = [event for event in wanted if not self._fails(event)]
        for event in good:
            self._journal("done", id=identity(event))
        if bad := [event for event in wanted if self._fails(event)]:
            self._fail(group, bad)
        if not self._ack_first:
            self._ack(group, good)

    def _ack(self, group: Any, events: list[Any]) -> None:
        for event in events:
            try:
                group.ack(event)
            except penstock.LeaseLost:
                self._journal("lease-lost", id=identity(event))
            else:
                self._journal("ack", id=identity(event))

    def _fail(self, group: Any, events: list[Any]) -> None:
        for event in events:
            try:
                group.nack(event, reason="the lab wants it so")
            except penstock.LeaseLost:
                self._journal("lease-lost", id=identity(event))
            else:
                self._journal("nack", id=identity(event))

    def _hangs(self, events: list[Any]) -> bool:
        """Whether the handler of one of these never returns; ``all``: of any."""
        hang = self._orders.hang
        return bool(hang) and any(hang in ("all", identity(event)) for event in events)

    def _fails(self, event: Any) -> bool:
        return self._process.fails(identity(event), event.attempts)

    def _is_new(self, group: Any, event: Any) -> bool:
        """Where the program looks for duplicates: by the event's own id, never by its place."""
        if not self._orders.dedupe:
            return True
        seen = str(event.position) if self._process.orders.mutant == "M14" else identity(event)
        if seen in self._seen:
            with suppress(penstock.LeaseLost):
                group.ack(event)
            return False
        self._seen.add(seen)
        return True


def identity(event: Any) -> str:
    """The id that the producer wrote into the value."""
    return str(event.value.get("id"))


if __name__ == "__main__":
    process = Process()
    process.run(Member(process).main)
