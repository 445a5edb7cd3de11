"""Shown by many processes: take-over in time, restarts that nobody notices, slow and hung handlers.

Every run is also held to all rules of the fault lab's checker.
"""

from __future__ import annotations

import asyncio
import random
import signal
from pathlib import Path

import pytest

from faults.lab import nemesis
from faults.lab.figures import takeovers
from faults.showing import POLL, SERVERS, showing

pytestmark = [pytest.mark.lab, pytest.mark.one_loop, pytest.mark.timeout(300)]


@pytest.fixture(params=sorted(SERVERS))
def server(request: pytest.FixtureRequest) -> str:
    return request.param


async def test_the_dead_are_replaced_within_a_lease_and_a_half(server: str, tmp_path: Path) -> None:
    """``kill -9`` six times under load: the last event of each in another hand in time (P8)."""
    lease = 1.0
    async with showing(server, tmp_path) as shown:
        lab = shown.lab
        # No more than the two that live can handle: what is taken over waits behind nothing.
        await shown.add("producer", "p1", rate=100)
        await shown.add("member", "m1", "m2", "m3", lease=lease, work=0.01, batch=10)
        await lab.start()
        for kill in range(6):
            name = f"m{kill % 3 + 1}"
            await lab.caught(name)
            async with lab.fault("kill member", [lab.all[name]]):
                await lab.end(lab.all[name], signal.SIGKILL)
                await asyncio.sleep(1.5 * lease + POLL)
                await lab.restart(lab.all[name])
        await shown.judged()
        found = takeovers(shown.history, "g")
        assert len(found) == 6
        for fault, seconds in found:
            still = shown.history.lag_between(fault.start, fault.start + seconds)
            print(f"taken over {seconds:.2f} s after the kill; the machine stood still {still:.2f}")
            assert seconds - still < 1.5 * lease + POLL + 0.25 * lab.slow


async def test_a_rolling_restart_is_noticed_by_nobody(server: str, tmp_path: Path) -> None:
    """Eight members in turn, under load: no duplicate, nothing stranded, no event a second late.

    Late is what comes later than with a member of another group on the same machine, which is
    left alone: a machine that starts eight processes is busy. But eight starts and stops meet the
    machine's other work where one quiet control does not, so one event that is a second or two
    late is no proof: it is, if a second rolling restart has one too. What is stranded (until
    a lease of 20 s is over, or a sweep comes by) is proof at once.
    """
    for attempt in range(2):
        late = await roll(server, tmp_path / str(attempt))
        assert late < 5.0, "stranded"
        if late < 1.0:
            return
    pytest.fail(f"twice an event was a second late, the last by {late:.2f} s")


async def roll(server: str, folder: Path) -> float:
    """Restart eight members under load; by how many seconds the latest event was late."""
    await asyncio.to_thread(folder.mkdir)
    names = [f"m{n}" for n in range(1, 9)]
    async with showing(server, folder) as shown:
        lab = shown.lab
        await shown.add("producer", "p1", rate=200)
        await shown.add("member", "control", group="control", lease=20.0)
        await shown.add("member", *names, lease=20.0, work=0.004)
        await lab.start()
        await asyncio.sleep(0.5)
        for name in names:
            async with lab.fault("stop member", [lab.all[name]], allows=dict):
                await lab.end(lab.all[name], signal.SIGTERM)
                await lab.restart(lab.all[name])
        await asyncio.sleep(0.5)
        verdict = await shown.judged()
        assert verdict.groups["g"]["duplicates"] == 0
        control, rolling = shown.first_starts("control"), shown.first_starts("g")
        late = {id_: at - control[id_] for id_, at in rolling.items()}
        worst = max(late, key=late.__getitem__)
        print(f"{len(late)} events; the latest came {late[worst]:.2f} s after the control's")
        return late[worst] - shown.history.lag_between(control[worst], rolling[worst])


async def test_a_handler_of_five_leases_is_delivered_once(server: str, tmp_path: Path) -> None:
    """With the event loop blocked for two of them, beside members with nothing to do."""
    async with showing(server, tmp_path) as shown:
        lab = shown.lab
        lease = 0.6 * lab.slow
        await shown.add("member", "m1", lease=lease, work=5 * lease, max_in_flight=1)
        await shown.add("member", "m2", "m3", lease=lease)
        lab.seed(1)
        await lab.start("m1")
        await lab.in_hand("m1")
        await lab.start("m2", "m3")
        lab.all["m1"].tell(f"block {2 * lease}")
        await lab.until(lambda: lab.is_drained("g"), "it is handled", 30 * lab.slow)
        await shown.judged()
        assert [handling.who for handling in shown.handled("lab/k0/0")] == ["m1.1"]


async def test_what_a_hung_handler_holds_is_released(server: str, tmp_path: Path) -> None:
    """A program that hangs in its only task strands nothing: after `hold`, others have it all."""
    hold = 1.0
    async with showing(server, tmp_path) as shown:
        lab = shown.lab
        await shown.add("member", "m1", hold=hold, hang="all")
        await shown.add("member", "m2", hold=hold)
        lab.seed(40)
        await lab.start("m1")
        await lab.in_hand("m1", 20)
        async with lab.fault("hang", [lab.all["m1"]]):
            await lab.start("m2")
            lab.seed(20, first=40)
            await lab.until(lambda: lab.done("m2.1") == 60, "m2 has all", 15 * lab.slow)
        lab.all["m1"].tell("hurry")
        await shown.judged()
        hung = shown.handled("lab/k0/0")
        assert [handling.who for handling in hung] == ["m1.1", "m2.1"]
        late = hung[1].start - hung[0].start
        assert (
            hold
            <= late
            < hold + (hold / 4 + 1.0) * lab.slow + shown.lag([(hung[0].start, hung[1].start)])
        )


async def test_no_fault_stalls_the_others(server: str, tmp_path: Path) -> None:
    """A hung member, a killed one and a cut one: the third goes on (the stall is the rules')."""
    async with showing(server, tmp_path) as shown:
        lab = shown.lab
        await shown.add("producer", "p1", rate=150)
        await shown.add("member", "m1", "m2", "m3", hold=5.0)
        await lab.start()
        for fault in (nemesis.kill_sharer, nemesis.refuse_member, nemesis.freeze_member):
            await fault(lab, random.Random(3))
            await asyncio.sleep(0.5)
        verdict = await shown.judged(stall=3.0)
        print(f"the longest stall: {verdict.groups['g']['stall']} s")
