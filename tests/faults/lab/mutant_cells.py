"""Mutant cells: for each mutant the smallest run in which it does harm; without it all is well.

Does        run one cell, with or without its mutant; judge it.
Does not    expect anything: `CAUGHT` says which rules must be broken, and the tests look.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from faults.lab.calibration import slowness
from faults.lab.figures import Verdict, judge
from faults.lab.lab import Lab, open_lab
from faults.lab.orders import Orders
from faults.lab.promise import Promise

LEASE = 0.6
PRODUCER, MEMBER = "producer.py", "member.py"

Body = Callable[[Lab, str], Awaitable[None]]

_PLAIN = Orders("", "", "", lease=LEASE)


async def _dies(lab: Lab, mutant: str, *, count: int, **held: float) -> None:
    """A member is killed with events in its hands; another is there to take them over."""
    orders = replace(_PLAIN, mutant=mutant)
    await lab.add("m1", MEMBER, replace(orders, **held))
    await lab.add("m2", MEMBER, orders)
    lab.seed(count)
    await lab.start("m1")
    await lab.in_hand("m1", min(count, lab.all["m1"].orders.max_in_flight))
    await lab.start("m2")
    async with lab.fault("kill member", [lab.all["m1"]]):
        await lab.end(lab.all["m1"], signal.SIGKILL)


async def acks_first(lab: Lab, mutant: str) -> None:
    """Killed while it works on a batch, some acks later."""
    await lab.add("m1", MEMBER, replace(_PLAIN, mutant=mutant, batch=10, work=0.05))
    await lab.add("m2", MEMBER, _PLAIN)
    lab.seed(40)
    await lab.start("m1")
    await lab.in_hand("m1")
    await asyncio.sleep(0.3)
    async with lab.fault("kill member", [lab.all["m1"]]):
        await lab.end(lab.all["m1"], signal.SIGKILL)
    await lab.start("m2")


async def lost_reply(lab: Lab, mutant: str) -> None:
    """The reply that gave it events is lost, and its connection with it."""
    await lab.add("m1", MEMBER, replace(_PLAIN, mutant=mutant))
    await lab.start("m1")
    one = lab.all["m1"]
    async with lab.fault("lost replies, member", [one]):
        one.proxy.swallow_replies(1, when=lambda piece: b"k1" in piece)
        lab.seed(20)
        await lab.until(lambda: one.proxy.resets > 0, "a reply is lost", 10 * lab.slow)
        one.proxy.swallow_replies(0)
    await asyncio.sleep(1.0)


async def dies(lab: Lab, mutant: str) -> None:
    """Killed with its hands full."""
    await _dies(lab, mutant, count=40, work=5.0)


async def begins_again(lab: Lab, mutant: str) -> None:
    """Killed, and started under the same name, with more in its hands than is looked at at once."""
    orders = replace(_PLAIN, mutant=mutant, member="always", work=5.0, max_in_flight=1500)
    await lab.add("m1", MEMBER, orders)
    lab.seed(1500)
    await lab.start()
    one = lab.all["m1"]
    await lab.in_hand("m1", 1200)
    async with lab.fault("kill member", [one]):
        await lab.end(one, signal.SIGKILL)
        one.orders = replace(one.orders, work=0.0)
        await lab.restart(one)


async def group_destroyed(lab: Lab, mutant: str) -> None:
    """The group is destroyed with a backlog, and made anew."""
    for name in ("m1", "m2"):
        orders = replace(_PLAIN, mutant=mutant, max_in_flight=10, work=0.02)
        await lab.add(name, MEMBER, orders)
    await lab.start()
    lab.seed(150)
    await lab.in_hand("m1")
    async with lab.fault("destroy group", None, loses_group=True, allows=lab.handled):
        lab.broker.command("XGROUP", "DESTROY", "orders", "g")


async def leaves(lab: Lab, mutant: str) -> None:
    """SIGTERM with events in its hands."""
    await lab.add("m1", MEMBER, replace(_PLAIN, mutant=mutant, work=60.0))
    await lab.add("m2", MEMBER, _PLAIN)
    lab.seed(100)
    await lab.start("m1")
    await lab.in_hand("m1", 5)
    await lab.start("m2")
    async with lab.fault("stop member", [lab.all["m1"]], allows=dict):
        await lab.end(lab.all["m1"], signal.SIGTERM)


async def requests_lost(lab: Lab, mutant: str) -> None:
    """Nothing of what a producer sends arrives, for longer than its appends wait."""
    await lab.add("p1", PRODUCER, replace(_PLAIN, mutant=mutant, mode="single", timeout=0.6))
    await lab.add("m1", MEMBER, _PLAIN)
    await lab.start()
    await asyncio.sleep(0.5)
    one = lab.all["p1"]
    async with lab.fault("black hole up, producer", [one]):
        one.proxy.pause("up")
        await asyncio.sleep(1.5)
        one.proxy.cut()
        one.proxy.resume()
    await asyncio.sleep(0.8)


async def replies_late(lab: Lab, mutant: str) -> None:
    """All arrives and is stored; the producer hears of nothing for longer than its appends wait."""
    orders = replace(_PLAIN, mutant=mutant, mode="single", timeout=0.6, dedupe="id")
    await lab.add("p1", PRODUCER, orders)
    await lab.add("m1", MEMBER, _PLAIN)
    await lab.start()
    await asyncio.sleep(0.5)
    one = lab.all["p1"]
    async with lab.fault("black hole down, producer", [one]):
        one.proxy.pause("down")
        await asyncio.sleep(1.3)
        one.proxy.cut()
        one.proxy.resume()
    await asyncio.sleep(0.8)


async def struck(lab: Lab, mutant: str) -> None:
    """Frozen with events in its hands for longer than a lease; it finishes what another has now."""
    await lab.add("m1", MEMBER, replace(_PLAIN, mutant=mutant, work=20.0, batch=5))
    await lab.add("m2", MEMBER, replace(_PLAIN, work=20.0))
    lab.seed(10)
    await lab.start("m1")
    await lab.in_hand("m1", 5)
    await lab.start("m2")
    one = lab.all["m1"]
    assert one.process is not None
    async with lab.fault("freeze member", [one]):
        one.process.send_signal(signal.SIGSTOP)
        await lab.in_hand("m2", 5)
        one.process.send_signal(signal.SIGCONT)
        one.tell("hurry")
        await lab.until(lambda: lab.done("m1.1") >= 5, "it finishes", 10 * lab.slow)
        await asyncio.sleep(0.5)
    lab.all["m2"].tell("hurry")


async def comes_back(lab: Lab, mutant: str) -> None:
    """Frozen, seen dead by a watcher who hesitates, and alive again before he claims."""
    await lab.add("m1", MEMBER, replace(_PLAIN, work=20.0 * lab.slow))
    hesitate = 2 * LEASE * lab.slow + 2
    watcher = replace(_PLAIN, mutant=mutant or "slow-watcher", hesitate=hesitate)
    await lab.add("m2", MEMBER, watcher)
    lab.seed(3)
    await lab.start("m1")
    await lab.in_hand("m1", 3)
    await lab.start("m2")
    one = lab.all["m1"]
    assert one.process is not None
    async with lab.fault("freeze member", [one]):
        one.process.send_signal(signal.SIGSTOP)
        await lab.hesitates("m2")
        one.process.send_signal(signal.SIGCONT)
    await asyncio.sleep(hesitate + 2 * LEASE)
    one.tell("hurry")


async def trimmed_while_pending(lab: Lab, mutant: str) -> None:
    """What a dead member had is trimmed before another takes it over."""
    await lab.add("m1", MEMBER, replace(_PLAIN, work=5.0))
    await lab.add("m2", MEMBER, replace(_PLAIN, mutant=mutant))
    lab.seed(20)
    await lab.start("m1")
    await lab.in_hand("m1", 20)
    async with lab.fault("kill member", [lab.all["m1"]]):
        await lab.end(lab.all["m1"], signal.SIGKILL)
        lab.broker.command("XTRIM", "orders", "MAXLEN", 0)
    await lab.start("m2")
    await asyncio.sleep(2 * LEASE)


async def trimming_producer(lab: Lab, mutant: str) -> None:
    """A producer that keeps the stream short, before members that are slow."""
    orders = replace(_PLAIN, mutant=mutant, rate=300, trim=20)
    await lab.add("p1", PRODUCER, orders)
    await lab.add("m1", MEMBER, replace(_PLAIN, work=0.005, max_in_flight=10))
    await lab.start("m1")
    await lab.start("p1")
    await asyncio.sleep(1.5)


async def dead_without_memory(lab: Lab, mutant: str) -> None:
    """Every event fails for good while the server is out of memory, for a while."""
    orders = replace(_PLAIN, mutant=mutant, lease=20.0, attempts=1, breaker=0, fail_every=1)
    await lab.add("m1", MEMBER, replace(orders, work=0.05, batch=10))
    lab.seed(20)
    await lab.start()
    await lab.in_hand("m1", 10)
    async with lab.fault("out of memory", None):
        lab.broker.command("CONFIG", "SET", "maxmemory", 1)
        await asyncio.sleep(1.5)
        lab.broker.command("CONFIG", "SET", "maxmemory", 0)


async def places_again(lab: Lab, mutant: str) -> None:
    """After a loss of data other events stand where earlier ones stood, as after a failover."""
    await lab.add("m1", MEMBER, replace(_PLAIN, mutant=mutant, dedupe="id"))
    await lab.start()
    lab.seed(20, place="1-{}")
    await lab.until(lambda: lab.is_drained("g"), "all are handled", 10 * lab.slow)
    async with lab.fault("flush all", None, loses_group=True, allows=lab.handled):
        lab.broker.command("FLUSHALL")
        await lab.made_anew("g")  # of a stream that looks the same nobody could tell
        lab.seed(20, place="1-{}", who="lab-again")
    lab.forgiven_before = lab.faults[-1].start


async def eager_client(lab: Lab, mutant: str) -> None:
    """Replies to XADD are lost, of a producer that goes around the library's own appends."""
    await lab.add("p1", PRODUCER, replace(_PLAIN, mutant=mutant, mode="redis", rate=100))
    await lab.add("m1", MEMBER, _PLAIN)
    await lab.start()
    one = lab.all["p1"]
    async with lab.fault("lost replies, producer", [one]):
        one.proxy.swallow_replies(10, when=lambda piece: b"-" in piece[:30])
        await asyncio.sleep(1.5)
        one.proxy.swallow_replies(0)


CELLS: dict[str, tuple[Body, frozenset[str]]] = {
    "M1": (acks_first, frozenset({"1"})),
    "M2": (lost_reply, frozenset({"3"})),
    "M3": (dies, frozenset({"3"})),
    "M4": (group_destroyed, frozenset({"1"})),
    "M5": (leaves, frozenset({"1"})),
    "M6": (requests_lost, frozenset({"10"})),
    "M7": (replies_late, frozenset({"10"})),
    "M8": (struck, frozenset({"7"})),
    "M8b": (comes_back, frozenset({"6"})),
    "M9": (trimmed_while_pending, frozenset({"2"})),
    "M11": (trimming_producer, frozenset({"1"})),
    "M12": (begins_again, frozenset({"3"})),
    "M13": (dead_without_memory, frozenset({"1"})),
    "M14": (places_again, frozenset({"1"})),
    "M15": (eager_client, frozenset({"10"})),
}
"""Each mutant's cell, and the rules that it must break, at the least."""

REPORTS_LOSS = frozenset({"M9"})
"""Cells in which events are taken away on purpose: they must be reported, not handled."""


async def run(name: str, binary: Path, folder: Path, *, mutant: bool, slow: float = 1.0) -> Verdict:
    """Run one cell, with its mutant or without."""
    body, _ = CELLS[name]
    began = time.monotonic()
    promise = Promise(slow=slow, lease=LEASE, in_flight=2000, attempts=1)
    promise = replace(promise, reports_loss=name in REPORTS_LOSS)
    async with open_lab(binary, folder, aof=False, slow=slow) as lab:
        await body(lab, name if mutant else "")
        drained = await lab.drain(5 * slow if mutant else 30 * slow)
        history = await asyncio.to_thread(lab.history, drained)
    title = f"{name}, {'mutant' if mutant else 'whole'}"
    verdict = judge(history, promise, cell=title, server=binary.name)
    if not verdict.good and not mutant:
        promise = replace(promise, slow=max(slow, slowness()))  # it may have become slow meanwhile
        verdict = judge(history, promise, cell=title, server=binary.name)
    verdict.seconds = round(time.monotonic() - began, 1)
    return verdict
