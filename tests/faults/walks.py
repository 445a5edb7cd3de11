"""Random walks: members, an App and a bad network, at random; then quiet, and everything is done.

Does        run one walk of a seed; say what is left on the server that should not be.
Does not    judge order or times: only that nothing is lost, and nothing is left lying.
Source      a model of one line: what came out, acked or given up, is what went in.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import penstock
from faults.machinery import GROUP, STREAM, asked, through_proxy
from penstock import Client, Event, Group, Reject, Retry, RetryLater, connect
from penstock.errors import LeaseLost, PenstockError
from penstock.testing import TcpProxy

STREAMS = (STREAM, "more")
LEASE, HOLD = 0.5, 0.4
DRAINED_WITHIN = 40.0
_ERRORS = (PenstockError, TimeoutError)


class Walk:
    """What a walk has done so far; `chance` decides everything, but for what time does."""

    def __init__(self, url: str, seed: int) -> None:
        self.url = url
        self.chance = random.Random(seed)
        self.story: list[str] = [f"seed {seed}"]
        self.appended: set[int] = set()
        self.done: set[int] = set()

    def tell(self, what: str) -> None:
        """Keep what happens, for when it goes wrong."""
        self.story.append(what)

    def append(self) -> None:
        """Some events, around everything that is tested."""
        count = self.chance.choice((1, 1, 3, 20))
        first = len(self.appended)
        for n in range(first, first + count):
            asked(self.url, "XADD", self.chance.choice(STREAMS), "*", "n", n)
            self.appended.add(n)
        self.tell(f"append {count}")

    async def send(self) -> None:
        """Send what waits; here nothing does."""

    def spoil(self) -> None:
        """What others do to the server."""
        what = self.chance.choice(("scripts", "clients", "times", "group"))
        stream = self.chance.choice(STREAMS)
        self.tell(f"spoil {what} {stream}")
        if what == "scripts":
            asked(self.url, "SCRIPT", "FLUSH")
        elif what == "clients":
            asked(self.url, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        elif what == "times":
            asked(self.url, "DEL", f"penstock:{{{stream}}}:{stream}:parked@{GROUP}")
        elif asked(self.url, "EXISTS", stream):
            asked(self.url, "XGROUP", "DESTROY", stream, GROUP)

    async def disturb(self, proxy: TcpProxy) -> None:
        """A fault of the network, healed after a while."""
        what = self.chance.choice(("cut", "refuse", "up", "down", "both", "swallow", "freeze"))
        seconds = self.chance.choice((0.0, 0.05, 0.2, 0.7))
        self.tell(f"{what} {seconds}")
        if what == "cut":
            proxy.cut()
        elif what == "refuse":
            proxy.refuse = True
            proxy.cut()
        elif what == "swallow":
            proxy.swallow_replies(self.chance.choice((1, 3, 10)))
        elif what == "freeze":
            time.sleep(seconds)  # noqa: ASYNC251 - the whole program stands still
            return
        else:
            proxy.pause(None if what == "both" else what)  # type: ignore[arg-type]
        await asyncio.sleep(seconds)
        if what in ("up", "down", "both") and self.chance.random() < 0.5:
            proxy.cut()  # what was withheld is lost
        heal(proxy)

    def left(self) -> str:
        """What is still pending or not handed out; "" for nothing."""
        found: list[str] = []
        for stream in STREAMS:
            if not asked(self.url, "EXISTS", stream):
                continue
            groups = {one["name"]: one for one in asked(self.url, "XINFO", "GROUPS", stream)}
            newest = asked(self.url, "XINFO", "STREAM", stream)["last-generated-id"]
            about = groups.get(GROUP)
            if about is None or about["pending"] or about["last-delivered-id"] != newest:
                consumers = about and asked(self.url, "XINFO", "CONSUMERS", stream, GROUP)
                found.append(f"{stream}: newest {newest}, {about}, {consumers}")
        return "\n".join(found)

    def letters(self) -> list[str]:
        """The keys of the dead letters."""
        return [f"penstock:{{{stream}}}:{stream}:dead@{GROUP}" for stream in STREAMS]

    async def quiet(self) -> None:
        """Return when everything is done; fail after `DRAINED_WITHIN` seconds."""
        deadline = time.monotonic() + DRAINED_WITHIN
        while left := self.left():
            assert time.monotonic() < deadline, "\n".join([*self.story, left])
            await asyncio.sleep(0.02)
        for key in self.letters():
            for _, parts in asked(self.url, "XRANGE", key, "-", "+"):
                at = len(parts) - 2 if isinstance(parts, list) else None
                self.done.add(int(parts["n"] if at is None else parts[at + 1]))
        lost = self.appended - self.done
        assert not lost, "\n".join([*self.story, f"lost: {sorted(lost)}"])


def heal(proxy: TcpProxy) -> None:
    """Everything passes again."""
    proxy.refuse = False
    proxy.swallow_replies(0)
    proxy.resume()


# --- members -----------------------------------------------------------------------------------


class Actor:
    """A member that does what chance says with what it is given."""

    def __init__(self, walk: Walk, name: int, client: Client, proxy: TcpProxy) -> None:
        chance = walk.chance
        self.walk = walk
        self.name = f"m{name}"
        self.proxy = proxy
        self.hand: list[Event[Any]] = []
        self.streams = [client.stream(stream) for stream in STREAMS]
        few = chance.choice((3, 1000))
        retry = Retry(attempts=3, first=0.03, cap=0.1, breaker=chance.choice((0, 3)))
        options: dict[str, Any] = {"lease": LEASE, "hold": HOLD, "retry": retry}
        self.group: Group[Any] = client.group(GROUP, self.streams, max_in_flight=few, **options)

    async def act(self) -> None:
        """One thing."""
        chance = self.walk.chance
        act = chance.choice((self.take, self.take, self.batch, self.settle, self.settle, self.move))
        self.walk.tell(f"{self.name} {act.__name__}")
        with suppress(*_ERRORS):
            await act()

    async def take(self) -> None:
        for _ in range(self.walk.chance.choice((1, 5, 30))):
            if (event := await self.group.receive(0.02)) is None:
                return
            self.keep([event])

    def keep(self, events: list[Event[Any]]) -> None:
        """These were handed out."""
        self.hand += events

    async def batch(self) -> None:
        size = self.walk.chance.choice((2, 10, 50))
        with suppress(StopAsyncIteration):
            async with asyncio.timeout(0.05):
                self.keep(await anext(aiter(self.group.batches(size, 0.01))))

    async def settle(self) -> None:
        chance = self.walk.chance
        count = chance.choice((1, 3, len(self.hand)))
        events, self.hand = self.hand[:count], self.hand[count:]
        how = chance.choice(("ack", "ack", "nack", "fail", "flush", "forget"))
        if how == "ack":
            await self.ack(events)
        elif how == "nack":
            self.group.nack(events, delay=chance.choice((0.0, 0.05, 0.2, None)))
        elif how == "fail":
            self.group.fail(events, chance.choice((ValueError("no"), RetryLater(0.05))))
        elif how == "flush":
            self.hand += events
            async with asyncio.timeout(0.1):
                await self.group.flush()

    async def ack(self, events: list[Event[Any]]) -> None:
        """Done is what was in hand when it was acked, whether or not the server hears of it."""
        for event in events:
            with suppress(LeaseLost):
                self.group.ack(event)
                self.walk.done.add(int(event.value["n"]))

    async def move(self) -> None:
        """A stream goes and comes, perhaps broken off."""
        stream = self.streams[1]
        with suppress(penstock.ConfigError):
            async with asyncio.timeout(self.walk.chance.choice((0.0, 0.003, 0.05, 5.0))):
                await self.group.remove_stream(stream)
        if self.walk.chance.random() < 0.5:
            with suppress(*_ERRORS):
                async with asyncio.timeout(self.walk.chance.choice((0.0, 0.003, 0.05))):
                    await self.group.add_stream(stream)
        await self.back()

    async def back(self) -> None:
        """Both streams are read."""
        with suppress(*_ERRORS):
            async with asyncio.timeout(1.0):
                await self.group.add_stream(self.streams[1])

    async def drain(self) -> None:
        """Handle whatever comes, for good."""
        while True:
            with suppress(*_ERRORS):
                await self.back()
                if (event := await self.group.receive(0.2)) is not None:
                    self.keep([event])
                    self.hand.remove(event)
                    await self.ack([event])


class Crowd:
    """Up to three members, each with a network of its own."""

    def __init__(self, walk: Walk, kind: type[Actor] = Actor) -> None:
        self.walk = walk
        self.kind = kind
        self.living: dict[Actor, AsyncExitStack] = {}
        self._born = 0

    async def step(self) -> None:
        """One thing that somebody does, or that happens to somebody."""
        walk, chance, living = self.walk, self.walk.chance, self.living
        roll = chance.random()
        if roll < 0.2:
            walk.append()
        elif roll < 0.25:
            walk.spoil()
        elif not living or (roll < 0.35 and len(living) < 3):
            await self.join()
        elif roll < 0.4:
            await self.leave(*chance.choice(list(living.items())))
        elif roll < 0.5:
            await walk.disturb(chance.choice(list(living)).proxy)
        else:
            await chance.choice(list(living)).act()

    async def join(self) -> None:
        """One more, unless the network does not let it."""
        self._born += 1
        stack = AsyncExitStack()
        proxy, bad_url = await stack.enter_async_context(through_proxy(self.walk.url))
        client = await stack.enter_async_context(connect(bad_url, timeout=1.0, observer=_nobody))
        actor = self.kind(self.walk, self._born, client, proxy)
        try:
            async with asyncio.timeout(3.0):
                await stack.enter_async_context(actor.group)
            self.living[actor] = stack
        except _ERRORS:
            await self.leave(actor, stack)

    async def leave(self, actor: Actor, stack: AsyncExitStack) -> None:
        """One less: in order, by an exception, after a stop, or unheard."""
        self.living.pop(actor, None)
        how = self.walk.chance.choice(("", "failing", "stop", "black hole"))
        self.walk.tell(f"{actor.name} leaves {how}")
        error = ValueError("out of the block") if how == "failing" else None
        with suppress(*_ERRORS):
            if how == "stop":
                async with asyncio.timeout(1.0):
                    await actor.group.stop()
        if how == "black hole":
            actor.proxy.pause()
        with suppress(*_ERRORS, ValueError):
            await stack.__aexit__(type(error) if error else None, error, None)


async def members(url: str, seed: int) -> None:
    """A walk of members; in the end those that are left do it all."""
    walk = Walk(url, seed)
    await wander(walk, Crowd(walk))


async def wander(walk: Walk, crowd: Crowd, steps: int = 30) -> None:
    """So many steps of a crowd, then quiet."""
    try:
        walk.append()
        for _ in range(steps):
            await crowd.step()
        await walk.send()
        while not crowd.living:
            await crowd.join()
        await _settle(walk, [actor.drain for actor in crowd.living])
    finally:
        for actor, stack in list(crowd.living.items()):
            await crowd.leave(actor, stack)


# --- an App --------------------------------------------------------------------------------------


class Shop:
    """A handler that does what chance says, until it is calm, and Apps that run it."""

    def __init__(self, walk: Walk) -> None:
        self.walk = walk
        self.calm = False

    async def handle(self, event: Event[Any]) -> None:
        """Fail, wait, hang, or get it done."""
        chance = self.walk.chance
        number, roll = int(event.value["n"]), 1.0 if self.calm else chance.random()
        if roll < 0.15:
            raise ValueError(number)
        if roll < 0.2:
            raise RetryLater(0.05)
        if roll < 0.22:
            raise Reject("never")
        if roll < 0.25:
            await asyncio.sleep(2 * HOLD)
        elif roll < 0.5:
            await asyncio.sleep(chance.choice((0.0, 0.01, 0.05)))
        self.walk.done.add(number)

    def app(self, url: str) -> penstock.App:
        """One App."""
        chance = self.walk.chance
        app = penstock.App(url, observer=_nobody, drain_timeout=chance.choice((0.05, 1.0)))
        retry = Retry(attempts=4, first=0.03, cap=0.1, breaker=chance.choice((0, 3)))
        options: dict[str, Any] = {"lease": LEASE, "hold": HOLD, "retry": retry}
        many = chance.choice((1, 4))
        app.on(list(STREAMS), group=GROUP, concurrency=many, **options)(self.handle)
        return app

    async def happen(self, proxy: TcpProxy) -> None:
        """One thing that happens to a running App."""
        roll = self.walk.chance.random()
        if roll < 0.4:
            self.walk.append()
        elif roll < 0.5:
            self.walk.spoil()
        elif roll < 0.7:
            await self.walk.disturb(proxy)
        else:
            await asyncio.sleep(self.walk.chance.choice((0.0, 0.02, 0.1)))


async def lone_app(url: str, seed: int, runs: int = 3) -> None:
    """A walk of one App at a time, drained and started anew; the last one does it all."""
    walk = Walk(url, seed)
    shop, chance = Shop(walk), walk.chance
    walk.append()
    async with through_proxy(url) as (proxy, bad_url):
        for _ in range(runs - 1):
            walk.tell("an App starts")
            with suppress(*_ERRORS):
                async with shop.app(bad_url):
                    for _ in range(chance.choice((3, 8, 15))):
                        await shop.happen(proxy)
                    if chance.random() < 0.3:
                        asyncio.get_running_loop().call_later(0.3, heal, proxy)
                        proxy.pause()
            heal(proxy)
        walk.tell("the last App starts")
        async with shop.app(bad_url):
            for _ in range(10):
                await shop.happen(proxy)
            walk.tell("quiet")
            shop.calm = True
            await walk.quiet()


async def _settle(walk: Walk, works: list[Callable[[], Awaitable[None]]]) -> None:
    """Let *works* go on in quiet until all is done."""
    walk.tell("quiet")
    tasks = [asyncio.ensure_future(work()) for work in works]
    try:
        await walk.quiet()
        for task in tasks:
            assert not task.done() or task.exception() is None, task.exception()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _nobody(_: Any) -> None:
    """Nobody reads the signals of a walk."""
