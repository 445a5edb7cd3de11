"""Process: what the lab's processes share: their orders, their journal, their end.

Does        read what to do from the command line; write down where the machine stood still; take
            orders from standard input; end when that ends, so that none outlives the lab.
Does not    use anything of the library but its public API.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import penstock
from faults.lab.journal import STILL, TICK, Journal
from faults.lab.orders import Orders


class Process:
    """One process of the lab: made once, by its own main."""

    def __init__(self) -> None:
        self.orders = Orders(**json.loads(sys.argv[1]))
        self.journal = Journal(self.orders.folder, self.orders.who)
        self.slow = 0.0
        self.hurried = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        threading.Thread(target=self._listen, daemon=True).start()
        threading.Thread(target=self._watch, daemon=True).start()

    def run(self, main: Callable[[], Awaitable[None]]) -> None:
        """Run *main* until it ends, or SIGTERM cancels it; what else it raises is written down."""
        if self.orders.mutant:
            from faults.lab import mutants

            mutants.HESITATION, mutants.TELL = self.orders.hesitate, self.journal
            mutants.install(self.orders.mutant)
        try:
            asyncio.run(self._guarded(main))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            self.journal("crash", error=repr(error)[:500])
            os._exit(2)
        self.journal("end")

    def fails(self, id_: str, attempts: int) -> bool:
        """Some events fail at their first attempt, and poison always; with `fail_every` 1, all."""
        chance = zlib.crc32(id_.encode())
        every, poison = self.orders.fail_every, self.orders.poison_every
        if every == 1 or (poison and chance % poison == 7):
            return True
        return bool(every) and attempts == 0 and chance % every == 0

    def observe(self, about: penstock.Signal) -> None:
        """Write a signal down."""
        self.journal(
            "signal",
            kind=about.kind,
            count=about.count,
            group=self.orders.group,
            message=about.message,
        )

    async def _guarded(self, main: Callable[[], Awaitable[None]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._main = asyncio.ensure_future(main())
        self._loop.add_signal_handler(signal.SIGTERM, self._main.cancel)
        try:
            await self._main
        except asyncio.CancelledError:
            self.journal("stopped")

    def _listen(self) -> None:
        """Orders, one a line: ``block 2`` (the loop stands still), ``slow 0.5``, ``hurry``."""
        for line in sys.stdin:
            word, _, number = line.strip().partition(" ")
            if word == "block" and self._loop is not None:
                self._loop.call_soon_threadsafe(time.sleep, float(number))
            elif word == "hurry" and self._loop is not None:
                self._loop.call_soon_threadsafe(self.hurried.set)
            elif word == "slow":
                self.slow = float(number)
        os._exit(1)

    def _watch(self) -> None:
        last = time.monotonic()
        while True:
            time.sleep(TICK)
            now = time.monotonic()
            if now - last > TICK + STILL:
                self.journal("lag", **{"from": last + TICK})
            last = now


def retry(orders: Orders) -> penstock.Retry:
    """How members try again: soon, for the lab is short."""
    return penstock.Retry(orders.attempts, first=0.1, cap=0.5, breaker=orders.breaker)
