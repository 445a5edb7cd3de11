"""Lab: a server, and processes around it, each behind a bad network of its own.

Does        start, kill, stop and restart them; write every fault down; drain; gather the history.
Does not    choose faults (`nemesis.py`), or judge (`rules.py`).
Invariants  1. every process reaches the server through a proxy of its own, which stays when the
               process is started again.
            2. nothing that was started outlives the lab.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from faults.lab.broker import Broker, places
from faults.lab.history import DeadEntry, Fault, History, Reader, Sample
from faults.lab.journal import Journal, JournalReader
from faults.lab.orders import Orders, event_value
from faults.lab.sampling import sampling, standing_still
from faults.lab.wall_clock import WallClock
from faults.machinery import FaultyServer
from penstock.testing import TcpProxy

HERE = Path(__file__).parent
JOIN = 20.0  # seconds that a process may take to begin, on a desk's machine
_LOOK = 0.02


class Running:
    """A process of the lab, over all its incarnations."""

    def __init__(self, name: str, program: str, orders: Orders, proxy: TcpProxy) -> None:
        self.name = name
        self.program = program
        self.orders = orders
        self.proxy = proxy
        self.count = 0
        self.who = ""
        self.consumer = ""
        self.process: subprocess.Popen[bytes] | None = None
        self.expected = False

    @property
    def is_member(self) -> bool:
        """Whether it takes events."""
        return self.program != "producer.py"

    def tell(self, order: str) -> None:
        """Give it an order."""
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(order.encode() + b"\n")
        self.process.stdin.flush()


class Lab:
    """Everything that runs in one cell. Made by `open_lab`."""

    def __init__(self, folder: Path, server: FaultyServer, *, shards: int, slow: float) -> None:
        self.folder = folder
        self.server = server
        self.slow = slow
        self.clock: WallClock | None = None
        self.broker = Broker(server.url, places("orders", shards))
        self.all: dict[str, Running] = {}
        self.notes: list[str] = []
        self.faults: list[Fault] = []
        self.samples: list[Sample] = []
        self.calm = 0.0
        self.forgiven_before = float("-inf")
        self.journals = folder / "journals"
        self.journals.mkdir(exist_ok=True)
        self._lines = JournalReader(self.journals)
        self._reader = Reader()
        self._joined: dict[str, str] = {}
        self._hesitated: set[str] = set()
        self.journal = Journal(self.journals, "lab")
        self._proxies = contextlib.AsyncExitStack()

    # --- processes -----------------------------------------------------------------------------

    async def add(self, name: str, program: str, orders: Orders, port: int = 0) -> Running:
        """A process that reaches the server through a proxy of its own; not started yet."""
        target = ("127.0.0.1", port or self.server.port)
        proxy = await self._proxies.enter_async_context(TcpProxy(target))
        url = f"redis://127.0.0.1:{proxy.port}"
        orders = replace(orders, url=url, folder=str(self.journals))
        self.all[name] = Running(name, program, orders, proxy)
        return self.all[name]

    async def start(self, *names: str) -> None:
        """Start these, and return when each has begun."""
        for name in names or tuple(self.all):
            await self._spawn(self.all[name])
        for name in names or tuple(self.all):
            await self.begun(self.all[name])

    async def begun(self, one: Running) -> None:
        """Return when a process has joined, or opened its client."""
        await self.until(lambda: self._has_begun(one), f"{one.who} begins", JOIN * self.slow)
        one.consumer = self.joined()[one.who]

    def _has_begun(self, one: Running) -> bool:
        ended = one.process is not None and one.process.poll() is not None
        assert not ended, (self.folder / f"{one.who}.err").read_text()[-2000:]
        return one.who in self.joined()

    def joined(self) -> dict[str, str]:
        """Who has begun, and under which name the group knows him."""
        self.read()
        return self._joined

    def members(self, group: str | None = None) -> list[Running]:
        """Those that take events, of one group or of all."""
        return [
            one
            for one in self.all.values()
            if one.is_member and group in (None, one.orders.group) and one.process is not None
        ]

    def producers(self) -> list[Running]:
        """Those that append."""
        return [one for one in self.all.values() if not one.is_member and one.process is not None]

    async def end(self, one: Running, how: int) -> None:
        """Send the signal *how* and wait until the process is gone."""
        assert one.process is not None
        process, one.process = one.process, None
        process.send_signal(how)
        await asyncio.to_thread(process.wait, 60 * self.slow)
        assert process.stdin is not None
        process.stdin.close()
        if how == signal.SIGTERM and process.returncode != 0:
            self._reader.history.crashes.append(f"{one.who} ended with {process.returncode}")

    async def restart(self, one: Running) -> None:
        """Start it again, as a new incarnation."""
        await self._spawn(one)
        await self.begun(one)

    async def _spawn(self, one: Running) -> None:
        """Start a process, in a thread: all networks are this event loop's."""
        await asyncio.to_thread(self._spawn_now, one)

    def _spawn_now(self, one: Running) -> None:
        one.count += 1
        one.who = f"{one.name}.{one.count}"
        orders = asdict(replace(one.orders, who=one.who))
        with (self.folder / f"{one.who}.err").open("wb") as errors:
            one.process = subprocess.Popen(
                [sys.executable, str(HERE / one.program), json.dumps(orders)],
                stdin=subprocess.PIPE,
                stderr=errors,
                cwd=self.folder,
            )

    # --- faults --------------------------------------------------------------------------------

    @asynccontextmanager
    async def fault(
        self,
        kind: str,
        targets: Iterable[Running] | None,
        *,
        loses_group: bool = False,
        allows: Callable[[], dict[str, int]] | None = None,
    ) -> AsyncGenerator[None]:
        """A fault, from here to the end of the block, which heals it; *targets* None: all."""
        several = list(self.all.values()) if targets is None else list(targets)
        whom = ("*",) if targets is None else tuple(one.who for one in several)
        allowed = self.in_flight(several) if allows is None else allows()
        start = time.monotonic()
        self.journal("fault", kind=kind, targets=whom, allows=allowed)
        try:
            yield
        finally:
            heal = time.monotonic()
            if loses_group and allows is not None:  # it may be lost at the end of the fault only
                later = allows()
                allowed = {group: max(n, later.get(group, 0)) for group, n in allowed.items()}
            self.journal("healed", kind=kind)
            self.faults.append(Fault(kind, start, heal, whom, allowed, loses_group))

    def in_flight(self, touched: Iterable[Running]) -> dict[str, int]:
        """What these members may have in flight: two fetches of each, one ahead of the other."""
        found: dict[str, int] = {}
        for one in touched:
            if one.is_member:
                group = one.orders.group
                found[group] = found.get(group, 0) + 2 * one.orders.max_in_flight
        return found

    def handled(self, within: float = float("inf")) -> dict[str, int]:
        """What every group has handled *within* these seconds, and what it has in flight.

        All of it may come again where a group is lost.
        """
        self.read()
        history = self._reader.history
        since = time.monotonic() - within
        return {one.orders.group: 0 for one in self.members()} | {
            group: sum(
                h.end is not None and h.end > since for h in history.handlings if h.group == group
            )
            + 2 * sum(one.orders.max_in_flight for one in self.members(group))
            for group in {h.group for h in history.handlings}
        }

    # --- the end -------------------------------------------------------------------------------

    async def until(self, condition: Callable[[], Any], what: str, within: float) -> None:
        """Return as soon as *condition* holds; it may not take longer than *within*."""
        deadline = time.monotonic() + within
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {within:.1f} s: {what}")
            await asyncio.sleep(_LOOK)

    def seed(self, count: int, *, first: int = 0, place: str = "*", who: str = "lab") -> None:
        """Append *count* events around the library; *place*: their ids, else the server's own."""
        for n in range(first, first + count):
            value = event_value(who, f"k{n % 4}", n)
            self.journal("try", **value)
            at = place.format(n + 1) if place != "*" else "*"
            self.broker.command("XADD", "orders", at, *(w for pair in value.items() for w in pair))
            self.journal("ok", ids=[value["id"]])

    async def in_hand(self, name: str, count: int = 1) -> None:
        """Return when a member is at work on an event, and holds at least *count*.

        Where shards are shared the server does not know how many it holds.
        """
        one = self.all[name]
        group, known = one.orders.group, one.orders.share != "shards"

        def busy() -> bool:
            held = self.broker.pending(group)[one.consumer] if known else count
            return self._at_work_since(one) is not None and held >= count

        await self.until(busy, f"{one.who} has something in hand", 10 * self.slow)

    async def caught(self, name: str) -> None:
        """Return when a member is in the midst of an event, and will be for a second yet.

        What it has in hand when it is told to be slow may be done at once: so its age counts.
        """
        one = self.all[name]
        one.tell("slow 2")

        def slow() -> bool:
            return time.monotonic() - (self._at_work_since(one) or time.monotonic()) > 0.5

        await self.until(slow, f"{one.who} is in the midst of something", 10 * self.slow)

    async def at_work(self, one: Running, within: float) -> None:
        """Return when a member is in the midst of an event; nothing may have come for it *within*.

        It was told to take half a second for each: what it has just begun, or what it began long
        ago, may be done before anything can be broken.
        """
        one.tell("slow 0.5")

        def amid() -> bool:
            return 0.1 < time.monotonic() - (self._at_work_since(one) or 0.0) < 0.3

        with suppress(TimeoutError):
            await self.until(amid, f"{one.who} is at work", within)

    async def hesitates(self, name: str) -> None:
        """Return when a watcher has seen somebody dead, and waits before he claims."""
        who = self.all[name].who
        await self.until(lambda: self._has_hesitated(who), f"{who} hesitates", 10 * self.slow)

    def _has_hesitated(self, who: str) -> bool:
        self.read()
        return who in self._hesitated

    def _at_work_since(self, one: Running) -> float | None:
        """When it began what it is at work on; None: it is idle."""
        self.read()
        handlings = reversed(self._reader.history.handlings)
        newest = next((h for h in handlings if h.who == one.who), None)
        idle = newest is None or newest.end is not None or newest.released is not None
        return None if idle else newest.start

    async def made_anew(self, group: str) -> None:
        """Return when a group that was lost is there again."""
        await self.until(lambda: self.broker.is_there(group), f"{group} is there", 20 * self.slow)

    def is_drained(self, group: str) -> bool:
        """Whether a group has finished everything that is stored."""
        if self.members(group) and self.members(group)[0].orders.share == "shards":
            self.read()
            ended = len(self._reader.history.done(group)) + self.broker.count_dead(group)
            return ended >= self.broker.count()
        return self.broker.is_drained(group)

    async def drain(self, within: float) -> dict[str, float | None]:
        """End the producers in order, and wait until every group has finished everything.

        How long each group took; None: it did not.
        """
        self.calm = time.monotonic()
        for one in self.producers():
            # redis-py does not always end a command that is cancelled while it tries again.
            around = one.orders.mode == "redis"
            await self.end(one, signal.SIGKILL if around else signal.SIGTERM)
        began = time.monotonic()
        took: dict[str, float | None] = dict.fromkeys(
            sorted({one.orders.group for one in self.members()})
        )
        while None in took.values() and time.monotonic() - began < within:
            for group in [group for group, seconds in took.items() if seconds is None]:
                if await asyncio.to_thread(self.is_drained, group):
                    took[group] = round(time.monotonic() - began, 2)
            await asyncio.sleep(0.25)
        return took

    def history(self, drained: dict[str, float | None]) -> History:
        """Everything that happened, with the server's own account."""
        self.read()
        history = self._reader.history
        history.faults, history.samples = self.faults, self.samples
        history.drained, history.calm = drained, self.calm
        history.forgiven_before = self.forgiven_before
        history.stored = self.broker.stored()
        for group in drained:
            history.dead += [
                DeadEntry(group, letter.get("id", ""), int(letter["attempts"]), letter["error"])
                for letter in self.broker.dead(group)
            ]
            shared = self.members(group) and self.members(group)[0].orders.share == "shards"
            if shared:
                kept = history.done(group) | history.buried(group)
                history.left[group] = [id_ for id_ in history.stored if id_ not in kept]
            else:
                history.left[group] = self.broker.left(group)
                history.consumers[group] = self.broker.consumers(group)
        return history

    def complaints(self) -> list[str]:
        """Where asyncio complains in a process of something that nobody looked at."""
        said = ("never retrieved", "never awaited", "was destroyed")
        return [
            f"asyncio complains in {path.stem}: see {path.name}"
            for path in sorted(self.folder.glob("*.err"))
            if any(one in path.read_text(errors="replace") for one in said)
        ]

    def read(self) -> None:
        """Take in what was written down since."""
        lines = list(self._lines.new_lines())
        for line in lines:
            if line["what"] in ("joined", "began"):
                self._joined[line["who"]] = line.get("member", "")
            elif line["what"] == "hesitates":
                self._hesitated.add(line["who"])
        self._reader.read(lines)

    def count(self) -> int:
        """How many events were appended, as far as it is known."""
        self.read()
        return len(self._reader.history.attempts)

    def done(self, who: str) -> int:
        """How many handlings one member has brought to their end."""
        self.read()
        return sum(h.who == who and h.end is not None for h in self._reader.history.handlings)

    def note_exits(self) -> None:
        """Nobody ends by himself: who did is a finding."""
        for one in self.all.values():
            if one.process is not None and one.process.poll() is not None:
                crashes = self._reader.history.crashes
                if not any(one.who in said for said in crashes):
                    crashes.append(f"{one.who} ended with {one.process.returncode}")

    async def close(self) -> None:
        """End everything."""
        for one in self.all.values():
            if one.process is not None:
                with contextlib.suppress(ProcessLookupError):
                    one.process.kill()
                one.process.wait()
                assert one.process.stdin is not None
                with contextlib.suppress(OSError):
                    one.process.stdin.close()
        await self._proxies.aclose()
        self.broker.close()
        self.journal.close()


@asynccontextmanager
async def open_lab(
    binary: Path,
    folder: Path,
    *,
    aof: bool = True,
    shards: int = 1,
    slow: float = 1.0,
    clock: bool = False,
    **more: Any,
) -> AsyncGenerator[Lab]:
    """A lab around a new server of *binary*; *clock*: its wall clock can be stepped."""
    server = FaultyServer(binary, folder, aof=aof, **more)
    wall, why = None, ""
    if clock:
        try:
            wall = WallClock(folder)
            server.env = wall.env
        except FileNotFoundError as missing:
            why = str(missing)
    lab: Lab | None = None
    try:
        await asyncio.to_thread(server.start)
        lab = Lab(folder, server, shards=shards, slow=slow)
        lab.clock = wall
        if why:
            lab.notes.append(why)
        async with sampling(lab), standing_still(lab.journal):
            yield lab
    finally:
        if lab is not None:
            await lab.close()
        server.stop()
