"""A producer of the fault lab, in a process of its own: `producer.py '{"url": …}'`.

Writes down every event before it is sent, and its outcome when it is known: `ok`, `fail` (certainly
not stored) or `unknown`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter, deque
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import penstock
from faults.lab.orders import event_value
from faults.lab.process import Process

TURN = 0.02  # seconds between bursts


class Producer:
    """Appends at a rate, in one of several ways."""

    def __init__(self, process: Process) -> None:
        self._orders = process.orders
        self._journal = process.journal
        self._process = process
        self._seqs: Counter[str] = Counter()
        self._count = 0
        self._next = 0.0
        self._receipts: deque[tuple[str, penstock.Receipt]] = deque()
        self._told = asyncio.Event()

    async def main(self) -> None:
        async with penstock.connect(self._orders.url, observer=self._process.observe) as client:
            stream = client.stream(self._orders.stream, shards=self._orders.shards)
            self._journal("began", mode=self._orders.mode)
            self._next = time.monotonic()
            match self._orders.mode:
                case "writer":
                    await self._write(stream)
                case "single":
                    await self._append(stream)
                case "redis":
                    await self._append_raw(client)

    # --- a writer, with receipts ---------------------------------------------------------------

    async def _write(self, stream: Any) -> None:
        teller = asyncio.create_task(self._tell())
        try:
            while True:
                with suppress(penstock.PenstockError):
                    async with stream.writer(max_pending=2000, **self._confirm()) as writer:
                        await self._send_all(writer, stream)
        except asyncio.CancelledError:
            for _ in range(
                int(self._orders.timeout / TURN)
            ):  # the writer has flushed: the rest is told now
                if not self._receipts:
                    break
                await asyncio.sleep(TURN)
            raise
        finally:
            teller.cancel()

    async def _send_all(self, writer: Any, stream: Any) -> None:
        while True:
            for value in await self._burst():
                self._try(value)
                try:
                    receipt = await writer.send(value, key=value["k"], receipt=True)
                except penstock.PenstockError:
                    self._tell_one("fail", value["id"])  # it says: this one was not sent
                    await self._clear(writer)
                else:
                    self._receipts.append((value["id"], receipt))
                    self._told.set()
            await self._trim(stream)

    async def _clear(self, writer: Any) -> None:
        with suppress(penstock.PenstockError):
            await writer.flush()

    async def _tell(self) -> None:
        """Write outcomes down, in order, as many at once as there are."""
        while True:
            while not self._receipts:
                self._told.clear()
                await self._told.wait()
            id_, receipt = self._receipts[0]
            outcome = await outcome_of(receipt)
            self._receipts.popleft()
            ids = [id_]
            while self._receipts and self._receipts[0][1].done():
                if await outcome_of(self._receipts[0][1]) != outcome:
                    break
                ids.append(self._receipts.popleft()[0])
            self._journal(outcome, ids=ids, **self._level())

    # --- single appends ------------------------------------------------------------------------

    async def _append(self, stream: Any) -> None:
        while True:
            values = await self._burst()
            for value in values:
                self._try(value)
            outcomes = await asyncio.gather(*(self._append_one(stream, v) for v in values))
            for value, outcome in zip(values, outcomes, strict=True):
                self._tell_one(outcome, value["id"])
            await self._trim(stream)

    async def _append_one(self, stream: Any, value: dict[str, Any]) -> str:
        """Appended until it is known to be stored, under one id; three tries."""
        outcome = "fail"
        for _ in range(3):
            try:
                await stream.append(
                    value,
                    key=value["k"],
                    id=value["id"],
                    timeout=self._orders.timeout,
                    **self._confirm(),
                )
            except penstock.OutcomeUnknown as error:
                outcome = outcome if error.unsent else "unknown"
                if not self._orders.dedupe:  # sent again, it might be stored twice
                    return outcome
            except penstock.BackendError:
                return outcome
            else:
                return "ok"
        return outcome

    async def _append_raw(self, client: Any) -> None:
        """Around the library's own appends, by the client that it hands out, retries off."""
        import redis

        while True:
            for value in await self._burst():
                self._try(value)
                try:
                    await client.redis.xadd(self._orders.stream, value)
                except redis.RedisError:
                    self._tell_one("unknown", value["id"])
                else:
                    self._tell_one("ok", value["id"])

    # --- what all do ---------------------------------------------------------------------------

    async def _burst(self) -> list[dict[str, Any]]:
        """What is due by now, at least one; never more at once than a second's worth."""
        await asyncio.sleep(TURN)
        now = time.monotonic()
        self._next = max(self._next, now - 1.0)
        due = max(1, int((now - self._next) * self._orders.rate))
        self._next += due / self._orders.rate
        return [self._value() for _ in range(due)]

    def _value(self) -> dict[str, Any]:
        key = f"k{self._count % self._orders.keys}"
        self._count += 1
        self._seqs[key] += 1
        return event_value(self._orders.who, key, self._seqs[key])

    async def _trim(self, stream: Any) -> None:
        """A producer that keeps the stream short, as far as the groups let it."""
        if self._orders.trim and self._count % 100 < self._orders.rate * TURN:
            with suppress(penstock.BackendError):
                await stream.trim(max_events=self._orders.trim)

    def _try(self, value: dict[str, Any]) -> None:
        self._journal("try", **value)

    def _tell_one(self, outcome: str, id_: str) -> None:
        self._journal(outcome, ids=[id_], **self._level())

    def _confirm(self) -> dict[str, Any]:
        confirm = self._orders.confirm
        return {"confirm": int(confirm) if confirm.isdigit() else confirm} if confirm else {}

    def _level(self) -> dict[str, str]:
        confirm = self._orders.confirm
        return {"level": "replicas" if confirm.isdigit() else confirm} if confirm else {}


async def outcome_of(receipt: Any) -> str:
    """What a receipt says."""
    try:
        await receipt
    except penstock.OutcomeUnknown as error:
        return "fail" if error.unsent else "unknown"
    except penstock.PenstockError:
        return "fail"
    return "ok"


if __name__ == "__main__":
    process = Process()
    process.run(Producer(process).main)
