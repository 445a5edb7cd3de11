"""Nemesis: the faults, each from its beginning to its healing.

Does        break one thing for a while, and write down what that may have caused.
Does not    decide when: a schedule does.
Invariants  1. a fault is healed when its function returns.
            2. its `Fault` names who may have been silent, and how many events were in flight there:
               so many may be handled twice, and no more.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import redis

from faults.lab.lab import Lab, Running
from faults.lab.promise import Promise

FaultOf = Callable[[Lab, random.Random], Awaitable[None]]


# --- processes ---------------------------------------------------------------------------------


async def kill_sharer(lab: Lab, chance: random.Random) -> None:
    """A member that shares events is killed."""
    members = [one for one in lab.members() if one.program == "member.py"]
    await _killed(lab, chance.choice([one for one in members if one.orders.share != "shards"]))


async def kill_owner(lab: Lab, chance: random.Random) -> None:
    """A member that shares shards is killed."""
    await _killed(
        lab, chance.choice([one for one in lab.members() if one.orders.share == "shards"])
    )


async def kill_app(lab: Lab, chance: random.Random) -> None:
    """An App is killed."""
    await _killed(lab, chance.choice([one for one in lab.members() if one.program != "member.py"]))


async def _killed(lab: Lab, one: Running) -> None:
    """``kill -9`` in the midst of its work, and a new incarnation at once, under another name.

    Nothing else is broken before what it had in hand must be in another's: so that is judged.
    """
    await lab.at_work(one, 10.0 * lab.slow)
    async with lab.fault("kill member", [one]):
        over = time.monotonic() + Promise(lease=one.orders.lease, slow=lab.slow).takeover
        await lab.end(one, signal.SIGKILL)
        await asyncio.sleep(0.1)
        await lab.restart(one)
        await asyncio.sleep(max(0.0, over - time.monotonic()))


async def stop_member(lab: Lab, chance: random.Random) -> None:
    """SIGTERM: it hands back what it has, and nothing is handled twice."""
    one = _member(lab, chance)
    async with lab.fault("stop member", [one], allows=dict):
        await lab.end(one, signal.SIGTERM)
        await lab.restart(one)


async def freeze_member(lab: Lab, chance: random.Random) -> None:
    """SIGSTOP for more than two leases: it is taken for dead, and thaws."""
    one = _member(lab, chance)
    async with lab.fault("freeze member", [one]):
        await _frozen(one, one.orders.lease * 2.3)


async def doze_member(lab: Lab, chance: random.Random) -> None:
    """SIGSTOP for half a lease: nobody may notice."""
    one = _member(lab, chance)
    async with lab.fault("doze member", [one], allows=dict):
        await _frozen(one, one.orders.lease * 0.4)


async def block_member(lab: Lab, chance: random.Random) -> None:
    """The event loop stands still for two leases: the thread beats, nothing is handled twice."""
    one = _member(lab, chance)
    async with lab.fault("block member", [one], allows=dict):
        one.tell(f"block {one.orders.lease * 2:.2f}")
        await asyncio.sleep(one.orders.lease * 2 + 0.1)


async def slow_member(lab: Lab, chance: random.Random) -> None:
    """Every handling takes a quarter of a second for a while."""
    one = _member(lab, chance)
    async with lab.fault("slow member", [one], allows=dict):
        one.tell("slow 0.25")
        await asyncio.sleep(1.5)
        one.tell("slow 0")


async def kill_producer(lab: Lab, chance: random.Random) -> None:
    """``kill -9``: what it had under way is unknown."""
    one = _producer(lab, chance)
    async with lab.fault("kill producer", [one], allows=dict):
        await lab.end(one, signal.SIGKILL)
        await lab.restart(one)


async def freeze_producer(lab: Lab, chance: random.Random) -> None:
    """SIGSTOP for two seconds."""
    one = _producer(lab, chance)
    async with lab.fault("freeze producer", [one], allows=dict):
        await _frozen(one, 2.0)


# --- the network -------------------------------------------------------------------------------


async def reset_links(lab: Lab, _: random.Random) -> None:
    """RST for everybody, at once."""
    async with lab.fault("reset all links", None):
        for one in lab.all.values():
            one.proxy.cut()


async def refuse_member(lab: Lab, chance: random.Random) -> None:
    """Its connections are cut, and new ones refused, for a lease and a half."""
    one = _member(lab, chance)
    async with lab.fault("refuse member", [one]):
        one.proxy.refuse = True
        one.proxy.cut()
        await asyncio.sleep(one.orders.lease * 1.5)
        one.proxy.refuse = False


async def black_hole_member_replies(lab: Lab, chance: random.Random) -> None:
    """The server hears it, it hears nothing; then what was withheld comes all at once."""
    one = _member(lab, chance)
    async with lab.fault("black hole down, member", [one]):
        one.proxy.pause("down")
        await asyncio.sleep(one.orders.lease * 2)
        one.proxy.resume()


async def black_hole_member_requests(lab: Lab, chance: random.Random) -> None:
    """The server hears nothing of it; then the connections are cut, what was withheld is lost."""
    one = _member(lab, chance)
    async with lab.fault("black hole up, member", [one]):
        one.proxy.pause("up")
        await asyncio.sleep(one.orders.lease * 2)
        one.proxy.cut()
        one.proxy.resume()


async def black_hole_producer(lab: Lab, chance: random.Random) -> None:
    """Both ways, for a second and a half; then cut."""
    one = _producer(lab, chance)
    async with lab.fault("black hole, producer", [one], allows=dict):
        one.proxy.pause()
        await asyncio.sleep(1.5)
        one.proxy.cut()
        one.proxy.resume()


async def delay_links(lab: Lab, chance: random.Random) -> None:
    """60 ms with jitter each way, for one member and one producer."""
    several = [_member(lab, chance), _producer(lab, chance)]
    async with lab.fault("delay", several):
        for one in several:
            one.proxy.delay, one.proxy.jitter = 0.06, 0.03
        await asyncio.sleep(2.0)
        for one in several:
            one.proxy.delay = one.proxy.jitter = 0.0


async def throttle_member(lab: Lab, chance: random.Random) -> None:
    """4 KB a second for two seconds."""
    one = _member(lab, chance)
    async with lab.fault("throttle member", [one]):
        one.proxy.throttle = 4_000
        await asyncio.sleep(2.0)
        one.proxy.throttle = 0


async def cut_requests(lab: Lab, chance: random.Random) -> None:
    """Cut in the middle of some request, three times."""
    one = chance.choice([_producer(lab, chance), _member(lab, chance)])
    async with lab.fault("cut in a request", [one]):
        for _ in range(3):
            one.proxy.cut_after(chance.randrange(1, 3000))
            await asyncio.sleep(0.4)


async def cut_replies(lab: Lab, chance: random.Random) -> None:
    """Cut in the middle of some reply, three times."""
    one = chance.choice([_producer(lab, chance), _member(lab, chance)])
    async with lab.fault("cut in a reply", [one]):
        for _ in range(3):
            one.proxy.cut_after(chance.randrange(1, 3000), "down")
            await asyncio.sleep(0.4)


async def swallow_producer_replies(lab: Lab, chance: random.Random) -> None:
    """Every 20th reply is lost, with its connection: what was stored is sent again."""
    one = _producer(lab, chance)
    async with lab.fault("lost replies, producer", [one], allows=dict):
        one.proxy.swallow_replies(20)
        await asyncio.sleep(1.5)
        one.proxy.swallow_replies(0)


async def swallow_member_replies(lab: Lab, chance: random.Random) -> None:
    """Every 10th reply is lost: events that were given, acks that were done."""
    one = _member(lab, chance)
    async with lab.fault("lost replies, member", [one]):
        one.proxy.swallow_replies(10)
        await asyncio.sleep(1.5)
        one.proxy.swallow_replies(0)


# --- the server --------------------------------------------------------------------------------


async def kill_server(lab: Lab, _: random.Random) -> None:
    """``kill -9``, half a second of nothing, and a start from its log."""
    async with lab.fault("kill server", None):
        await asyncio.to_thread(lab.server.kill)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(lab.server.start)


async def freeze_server(lab: Lab, _: random.Random) -> None:
    """SIGSTOP for more than a lease: nobody can beat, and nobody is dead."""
    async with lab.fault("freeze server", None):
        lab.server.pause()
        await asyncio.sleep(1.5)
        lab.server.resume()


async def forget_scripts(lab: Lab, _: random.Random) -> None:
    """SCRIPT FLUSH, three times."""
    async with lab.fault("forget scripts", None, allows=dict):
        for _ in range(3):
            await asyncio.to_thread(lab.broker.command, "SCRIPT", "FLUSH")
            await asyncio.sleep(0.2)


async def destroy_group(lab: Lab, chance: random.Random) -> None:
    """XGROUP DESTROY under blocked reads: the group is made anew, and skips nothing.

    It goes back to its recovery mark, which follows the acks within a second, but for what was
    being tried again: that takes up to two.
    """
    one = chance.choice([m for m in lab.members() if m.orders.share == "events"])
    group = one.orders.group
    async with lab.fault(
        "destroy group",
        lab.members(group),
        loses_group=True,
        allows=lambda: {group: lab.handled(within=4.0 * lab.slow)[group]},
    ):
        for place in lab.broker.places:
            await asyncio.to_thread(lab.broker.command, "XGROUP", "DESTROY", place, group)


async def step_clock(lab: Lab, _: random.Random) -> None:
    """The server's wall clock goes an hour ahead, back again, and five seconds back."""
    if lab.clock is None:
        return
    async with lab.fault("step clock", None, allows=dict):
        for seconds in (3600.0, 0.0, -5.0):
            lab.clock.step(seconds)
            await asyncio.sleep(1.0)


async def flush_all(lab: Lab, _: random.Random) -> None:
    """FLUSHALL: what was there is gone, and what comes after is not."""
    async with lab.fault("flush all", None, loses_group=True, allows=lab.handled):
        await asyncio.to_thread(lab.broker.command, "FLUSHALL")


async def trim_behind(lab: Lab, _: random.Random) -> None:
    """XTRIM by somebody who does not know of groups."""
    async with lab.fault("trim behind the back", None, allows=dict):
        with suppress(redis.RedisError):
            await asyncio.to_thread(lab.broker.command, "XTRIM", "orders", "MAXLEN", 10)


SMOKE: tuple[FaultOf, ...] = (
    kill_sharer,
    kill_owner,
    kill_app,
    stop_member,
    freeze_member,
    block_member,
    kill_producer,
    reset_links,
    black_hole_member_replies,
    black_hole_member_requests,
    black_hole_producer,
    cut_requests,
    cut_replies,
    swallow_producer_replies,
    swallow_member_replies,
    kill_server,
    freeze_server,
    forget_scripts,
    destroy_group,
    step_clock,
)
"""Each once in the smoke schedule, in an order that the seed decides."""

ALL: tuple[FaultOf, ...] = (
    *SMOKE,
    doze_member,
    slow_member,
    freeze_producer,
    refuse_member,
    delay_links,
    throttle_member,
)
"""What a long schedule draws from."""


def schedule(kinds: tuple[FaultOf, ...], seed: int) -> list[FaultOf]:
    """Each of *kinds* once, in the order that the seed decides."""
    order = list(kinds)
    random.Random(seed).shuffle(order)
    return order


async def _frozen(one: Running, seconds: float) -> None:
    assert one.process is not None
    one.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(seconds)
    one.process.send_signal(signal.SIGCONT)


def _member(lab: Lab, chance: random.Random) -> Running:
    return chance.choice(lab.members())


def _producer(lab: Lab, chance: random.Random) -> Running:
    return chance.choice(lab.producers())
