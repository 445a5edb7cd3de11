"""Shown by many processes, for groups that share shards: as `test_shown_members` does for events.

Every run is also held to all rules of the fault lab's checker, the order of keys among them.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from faults.lab.figures import takeovers
from faults.showing import POLL, showing

pytestmark = [pytest.mark.lab, pytest.mark.one_loop, pytest.mark.timeout(300)]

SHARDS = 4
LOOK = 0.5
"""Seconds between two looks of a member at who owns what, at most."""

ORDERED = frozenset({"g"})


@pytest.mark.parametrize("server", ["redis7", "valkey"])
async def test_a_dead_owner_is_replaced_within_a_lease_and_a_half(
    server: str, tmp_path: Path
) -> None:
    """``kill -9`` under load: the events of each in another hand in time, in order (P8)."""
    lease = 1.0
    async with showing(server, tmp_path, shards=SHARDS) as shown:
        lab = shown.lab
        about = {"share": "shards", "shards": SHARDS, "lease": lease, "work": 0.005}
        await shown.add("producer", "p1", rate=100, shards=SHARDS)
        await shown.add("member", "m1", "m2", **about)
        await lab.start("p1")
        await lab.start("m1", "m2")
        for name in ("m1", "m2"):
            await lab.caught(name)
            async with lab.fault("kill member", [lab.all[name]]):
                await lab.end(lab.all[name], signal.SIGKILL)
                await asyncio.sleep(1.5 * lease + POLL)
                await lab.restart(lab.all[name])
        await shown.judged(ordered=ORDERED)
        found = takeovers(shown.history, "g")
        assert len(found) == 2
        for fault, seconds in found:
            still = shown.history.lag_between(fault.start, fault.start + seconds)
            print(f"taken over {seconds:.2f} s after the kill; the machine stood still {still:.2f}")
            assert seconds - still < 1.5 * lease + POLL + 0.25 * lab.slow


async def test_a_rolling_restart_of_owners_repeats_nothing(tmp_path: Path) -> None:
    """Each in turn, under load: nothing lost, no duplicate, each key in order.

    The next one ends when the last one has been handed a shard again, and works.
    """
    names = ["m1", "m2", "m3"]
    async with showing("redis7", tmp_path, shards=SHARDS) as shown:
        lab = shown.lab
        about = {"share": "shards", "shards": SHARDS, "lease": 20.0, "work": 0.01}
        await shown.add("producer", "p1", rate=150, shards=SHARDS)
        await shown.add("member", *names, **about)
        await lab.start("p1")
        await lab.start(*names)
        for name in names:
            async with lab.fault("stop member", [lab.all[name]], allows=dict):
                await lab.end(lab.all[name], signal.SIGTERM)
                await lab.restart(lab.all[name])
            works = lab.all[name].who
            await lab.until(lambda one=works: lab.done(one) > 10, f"{works} works", 20 * lab.slow)
        verdict = await shown.judged(ordered=ORDERED)
        assert verdict.groups["g"]["duplicates"] == 0


async def test_a_handler_of_five_leases_is_delivered_once(tmp_path: Path) -> None:
    """With the event loop blocked for two of them, beside members that stand by."""
    async with showing("valkey", tmp_path) as shown:
        lab = shown.lab
        lease = 0.5 * lab.slow
        about = {"share": "shards", "lease": lease}
        await shown.add("member", "m1", work=5 * lease, **about)
        await shown.add("member", "m2", **about)
        lab.seed(1)
        await lab.start("m1")
        await lab.in_hand("m1")
        await lab.start("m2")
        lab.all["m1"].tell(f"block {2 * lease}")
        await lab.until(lambda: lab.is_drained("g"), "it is handled", 30 * lab.slow)
        await shown.judged()
        assert [handling.who for handling in shown.handled("lab/k0/0")] == ["m1.1"]


async def test_what_a_hung_owner_has_goes_to_another(tmp_path: Path) -> None:
    """After `hold`, long before a lease is over: what is in its hand, and all that lies behind."""
    hold = 1.0
    async with showing("redis7", tmp_path) as shown:
        lab = shown.lab
        about = {"share": "shards", "hold": hold, "lease": 20.0}
        await shown.add("member", "m1", hang="all", **about)
        await shown.add("member", "m2", **about)
        lab.seed(40)
        await lab.start("m1")
        await lab.in_hand("m1")
        async with lab.fault("hang", [lab.all["m1"]]):
            await lab.start("m2")
            lab.seed(20, first=40)
            await lab.until(lambda: lab.done("m2.1") == 60, "m2 has all", 15 * lab.slow)
        lab.all["m1"].tell("hurry")
        await shown.judged()
        hung = shown.handled("lab/k0/0")
        assert [handling.who for handling in hung] == ["m1.1", "m2.1"]
        late = hung[1].start - hung[0].start
        print(f"in another hand {late:.2f} s after it was taken, with a hold of {hold} s")
        still = shown.lag([(hung[0].start, hung[1].start)])
        assert hold <= late < hold + (hold / 2 + LOOK + 1.0) * lab.slow + still


async def test_an_owner_that_was_frozen_with_a_read_under_way_changes_nothing(
    tmp_path: Path,
) -> None:
    """What the server has sent it meanwhile is the new owner's: it begins none of it."""
    async with showing("valkey", tmp_path) as shown:
        lab = shown.lab
        about = {"share": "shards", "lease": 0.5 * lab.slow}
        await shown.add("member", "m1", "m2", **about)
        lab.seed(1)
        await lab.start("m1")
        await lab.until(lambda: lab.done("m1.1") == 1, "m1 owns the shard", 10 * lab.slow)
        await lab.start("m2")
        async with lab.fault("freeze member", [lab.all["m1"]], allows=dict):
            frozen = lab.all["m1"].process
            assert frozen is not None
            frozen.send_signal(signal.SIGSTOP)
            lab.seed(20, first=1)  # the reply to its read
            await lab.until(lambda: lab.done("m2.1") == 20, "m2 has them", 15 * lab.slow)
            frozen.send_signal(signal.SIGCONT)
            lab.seed(20, first=21)
            await lab.until(lambda: lab.is_drained("g"), "all are handled", 15 * lab.slow)
        verdict = await shown.judged()
        assert verdict.groups["g"]["duplicates"] == 0
        assert [h.id for h in shown.history.of("g") if h.who == "m1.1"] == ["lab/k0/0"]
