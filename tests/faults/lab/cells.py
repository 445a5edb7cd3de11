"""Cells: what is started, which faults it meets, and what it is held to.

Does        name each cell of the lab; run it; judge it.
Does not    print, or choose servers: `run.py` and the tests do.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from faults.lab import nemesis
from faults.lab.broker import Broker
from faults.lab.calibration import slowness
from faults.lab.figures import Verdict, judge
from faults.lab.history import History
from faults.lab.lab import Lab, open_lab
from faults.lab.orders import Orders
from faults.lab.promise import Promise
from faults.lab.rules import promised
from faults.machinery import FaultyServer, asked
from penstock.testing import TcpProxy

SHARDS = True
CALM = 0.8  # seconds of peace after each fault

Said = Callable[[str], None]


def _quiet(_: str) -> None:
    """Nobody listens."""


class Cell:
    """One run around one server. Arguments: where, and how slow the machine is.

    `say` is told each fault as it begins, for people.
    """

    def __init__(self, binary: Path, folder: Path, slow: float, say: Said = _quiet) -> None:
        self.binary = binary
        self.folder = folder
        self.slow = slow
        self.say = say
        self.promise = Promise(slow=slow)

    async def judged(self, lab: Lab, name: str, within: float) -> Verdict:
        """Drain, gather, judge."""
        drained = await lab.drain(within * self.slow)
        history = await asyncio.to_thread(lab.history, drained)
        members = {group: len(lab.members(group)) for group in drained}
        promise = replace(self.promise, members=members)
        verdict = judge(history, promise, cell=name, server=self.binary.name)
        if not verdict.good:  # the machine may have become slow meanwhile
            promise = replace(promise, slow=max(self.slow, slowness()))
            verdict = judge(history, promise, cell=name, server=self.binary.name)
        verdict.notes += [*lab.notes, *lab.complaints()]
        return verdict


async def smoke(cell: Cell, *, seed: int, events: int = 10_000, seconds: float = 0) -> Verdict:
    """The schedule of the smoke test; with *seconds*, faults without end until then."""
    cell.promise = replace(cell.promise, ordered=frozenset({"s"}), attempts=3)
    began = time.monotonic()
    shards = 2
    async with open_lab(cell.binary, cell.folder, slow=cell.slow, clock=True, shards=shards) as lab:
        await _team(
            lab, Orders("", "", "", shards=shards, attempts=3, fail_every=50, poison_every=400)
        )
        await lab.start("p1", "p2")  # they say how many shards there are
        await lab.start(*(one.name for one in lab.all.values() if one.is_member))
        await asyncio.sleep(0.5)
        chance = random.Random(seed)
        planned = nemesis.schedule(nemesis.SMOKE, seed)
        while planned:
            fault = planned.pop(0)
            cell.say(f"{time.monotonic() - began:6.1f} s  {fault.__name__}")
            await fault(lab, chance)
            await asyncio.sleep(CALM * chance.uniform(0.5, 1.5))
            if not planned and time.monotonic() - began < seconds:
                planned = [chance.choice(nemesis.ALL)]
        await lab.until(lambda: lab.count() >= events, f"{events} events", 60 * cell.slow)
        verdict = await cell.judged(lab, "smoke" if not seconds else "long", 30)
    verdict.seconds = round(time.monotonic() - began, 1)
    return verdict


async def _team(lab: Lab, plain: Orders) -> None:
    """Two producers; three members that share events, two that share shards, and two Apps."""
    await lab.add("p1", "producer.py", replace(plain, mode="writer", rate=100))
    await lab.add("p2", "producer.py", replace(plain, mode="single", rate=60))
    await lab.add("m1", "member.py", replace(plain, work=0.002))
    await lab.add("m2", "member.py", replace(plain, work=0.002))
    await lab.add("m3", "member.py", replace(plain, batch=20))
    for name in ("a1", "a2"):
        await lab.add(name, "app_member.py", replace(plain, group="a"))
    if SHARDS:
        for name in ("s1", "s2"):
            await lab.add(name, "member.py", replace(plain, group="s", share="shards"))


async def flush(cell: Cell) -> Verdict:
    """FLUSHALL under load: what is appended after it is not lost."""
    return await _lossy(cell, "flush", nemesis.flush_all)


async def wipe(cell: Cell) -> Verdict:
    """A server that keeps nothing is killed: what is appended after its start is not lost."""

    async def kill(lab: Lab, _: random.Random) -> None:
        async with lab.fault("wipe server", None, loses_group=True, allows=lab.handled):
            await asyncio.to_thread(lab.server.kill)
            await asyncio.sleep(0.3)
            await asyncio.to_thread(lab.server.start)

    return await _lossy(cell, "wipe", kill, aof=False)


async def _lossy(cell: Cell, name: str, fault: nemesis.FaultOf, **server: Any) -> Verdict:
    """A fault that loses data. What comes after is kept; what came before is shown to be lost."""
    began = time.monotonic()
    async with open_lab(cell.binary, cell.folder, slow=cell.slow, **server) as lab:
        await lab.add("p1", "producer.py", Orders("", "", "", rate=300))
        for member in ("m1", "m2"):
            await lab.add(member, "member.py", Orders("", "", "", work=0.02))
        await lab.start()
        await asyncio.sleep(1.5)
        cell.say(f"{time.monotonic() - began:6.1f} s  {name}")
        await fault(lab, random.Random(1))
        lab.forgiven_before = time.monotonic()
        await asyncio.sleep(2.5)
        drained = await lab.drain(30 * cell.slow)
        history = await asyncio.to_thread(lab.history, drained)
    verdict = judge(history, cell.promise, cell=name, server=cell.binary.name)
    before = replace(cell.promise, shows_loss=True)
    history.forgiven_before = float("-inf")
    bitten = judge(history, before).breaches.get("1 nothing lost", [])
    if bitten:
        verdict.breaches["0 the fault bites"] = bitten
    verdict.seconds = round(time.monotonic() - began, 1)
    return verdict


async def trim(cell: Cell) -> Verdict:
    """XTRIM behind the back: what is lost is reported, every event of it."""
    cell.promise = replace(cell.promise, reports_loss=True)
    began = time.monotonic()
    async with open_lab(cell.binary, cell.folder, slow=cell.slow) as lab:
        await lab.add("p1", "producer.py", Orders("", "", "", rate=300))
        for member in ("m1", "m2"):
            await lab.add(member, "member.py", Orders("", "", "", work=0.015))
        await lab.start()
        for _ in range(3):
            await asyncio.sleep(1.2)
            cell.say(f"{time.monotonic() - began:6.1f} s  trim")
            await nemesis.trim_behind(lab, random.Random(1))
        await asyncio.sleep(1.0)
        verdict = await cell.judged(lab, "trim", 30)
    verdict.seconds = round(time.monotonic() - began, 1)
    return verdict


async def failover(cell: Cell) -> Verdict:
    """The link to the replica is cut, and the replica takes over.

    What a replica has confirmed is kept; of what only the server had confirmed something is lost,
    and the cell must show that.
    """
    cell.promise = replace(cell.promise, levels=frozenset({"replicas"}))
    began = time.monotonic()
    spare = cell.folder / "replica"
    spare.mkdir()
    async with (
        open_lab(cell.binary, cell.folder, slow=cell.slow, repl_diskless_sync_delay=0) as lab,
        TcpProxy(("127.0.0.1", lab.server.port)) as link,
    ):
        replica = FaultyServer(cell.binary, spare, aof=True)
        await asyncio.to_thread(replica.start)
        try:
            await _follow(lab, replica, link)
            history = await _fail_over(cell, lab, replica, link)
        finally:
            replica.stop()
    verdict = judge(history, cell.promise, cell="failover", server=cell.binary.name)
    gone = promised(history, replace(cell.promise, levels=frozenset({"server"})))
    gone -= set(history.stored)
    verdict.notes.append(f"{len(gone)} events that only the server had confirmed are gone")
    if not gone:
        verdict.breaches["0 the fault bites"] = ["nothing is gone: the link was not cut in time"]
    verdict.seconds = round(time.monotonic() - began, 1)
    return verdict


async def _follow(lab: Lab, replica: FaultyServer, link: TcpProxy) -> None:
    """The replica copies the server over *link*, and has caught up."""
    asked(replica.url, "REPLICAOF", "127.0.0.1", link.port)
    await lab.until(
        lambda: asked(replica.url, "ROLE")[3] == "connected",
        "the replica follows",
        20 * lab.slow,
    )


async def _fail_over(cell: Cell, lab: Lab, replica: FaultyServer, link: TcpProxy) -> History:
    plain = Orders("", "", "")
    await lab.add("p1", "producer.py", replace(plain, rate=200))
    await lab.add("p2", "producer.py", replace(plain, rate=100, confirm="1", timeout=1.0))
    for member in ("m1", "m2"):
        await lab.add(member, "member.py", plain)
    await lab.start()
    await asyncio.sleep(1.5)
    cell.say("the replication link is cut, and the replica takes over")
    async with lab.fault("fail over", None, loses_group=True, allows=lab.handled):
        link.pause()
        await asyncio.sleep(1.5)
        await asyncio.to_thread(lab.server.kill)
        asked(replica.url, "REPLICAOF", "NO", "ONE")
        for one in lab.all.values():
            one.proxy.lead_to(("127.0.0.1", replica.port))
            one.proxy.cut()
        lab.broker.close()
        lab.broker = Broker(replica.url, lab.broker.places)
    await asyncio.sleep(3.0)
    drained = await lab.drain(30 * cell.slow)
    return await asyncio.to_thread(lab.history, drained)
