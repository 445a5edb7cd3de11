"""Sentinel: which server is the master now.

Does        ask all sentinels at once, and believe the one that knows of the latest failover;
            notice soon that the master has moved.
Does not    connect to the master, or decide that one has failed: the sentinels do.
Invariants  1. asked anew for every connection: no answer is kept.
            2. a sentinel that is cut off and still believes in the old master is outvoted by any
               other that answers: the highest configuration epoch wins.
            3. what is connected elsewhere when the master moves is told within a fraction of a
               second.
Source      Redis' guidelines for Sentinel clients; reliability notes 1.2.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from penstock.backends.redis.dialing import Address, open_wire
from penstock.backends.redis.edge import ConnectionLost, ReplyError
from penstock.backends.redis.replies import by_name, text
from penstock.backends.redis.wire import Arg, Wire
from penstock.clock import Backoff, Clock

EVERY: Final = 0.25
"""Seconds between looks whether the master has moved: one short request to one sentinel. What the
old master confirms until then is lost, and sentinels demote it seconds later."""

_OTHERS: Final = 0.3
"""Seconds that an answer waits for those of the other sentinels."""

_PATIENCE: Final = 1.0
"""Seconds after which a sentinel is not waited for: it answers in a millisecond, or is cut off."""


class Master(NamedTuple):
    """Where the master is, and in which configuration epoch."""

    epoch: int
    host: str
    port: int

    @property
    def place(self) -> str:
        """As `Wire.place` has it."""
        return f"{self.host}:{self.port}"


async def find_master(address: Address) -> Master:
    """Ask every sentinel of *address*.

    Raises:
        ConnectionLost: none of them answers, or none knows the master.
    """
    assert address.sentinels is not None
    asking: dict[asyncio.Future[Master], str] = {
        asyncio.ensure_future(_ask_once(address, host, port)): f"{host}:{port}"
        for host, port in address.sentinels.hosts
    }
    try:
        return max(await _answers(asking))
    except ValueError:
        said = "; ".join(f"{place}: {task.exception()}" for task, place in asking.items())
        raise ConnectionLost(f"no sentinel knows {address.sentinels.master!r} ({said})") from None
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


class MasterWatch:
    """Tells when the master has moved, also while the old one still answers.

    Args:
        address: with sentinels.
        clock: for the time between looks.
        moved: told the new master's place, once a move.
    """

    def __init__(self, address: Address, clock: Clock, moved: Callable[[str], None]) -> None:
        self._address = address
        self._clock = clock
        self._moved = moved
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._at = ""
        self._turn = 0

    async def aclose(self) -> None:
        """Look no more."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        """One sentinel after the other, each for as long as it answers."""
        backoff = Backoff(first=0.5)
        while True:
            try:
                await self._follow(backoff)
            except (ConnectionLost, ReplyError, TimeoutError, OSError):
                await self._clock.sleep(backoff.next())

    async def _follow(self, backoff: Backoff) -> None:
        assert self._address.sentinels is not None
        hosts = self._address.sentinels.hosts
        self._turn += 1
        host, port = hosts[self._turn % len(hosts)]
        async with asyncio.timeout(_PATIENCE):
            wire = await _logged_in(self._address, host, port)
        try:
            while True:
                said = await _ask(wire, self._address.sentinels.master)
                backoff.reset()
                if said.place != self._at:
                    self._on_other(await find_master(self._address))
                await self._clock.sleep(EVERY)
        finally:
            wire.end()

    def _on_other(self, master: Master) -> None:
        """The sentinel that was asked may be the one that is behind: all were asked again."""
        before, self._at = self._at, master.place
        if before != self._at:
            self._moved(self._at)


async def _answers(asking: dict[asyncio.Future[Master], str]) -> list[Master]:
    """What came until a little after the first answer."""
    loop = asyncio.get_running_loop()
    waiting: set[asyncio.Future[Master]] = set(asking)
    found: list[Master] = []
    deadline: float | None = None
    while waiting and (deadline is None or loop.time() < deadline):
        limit = None if deadline is None else deadline - loop.time()
        done, waiting = await asyncio.wait(waiting, timeout=limit, return_when="FIRST_COMPLETED")
        found += [task.result() for task in done if task.exception() is None]
        if found and deadline is None:
            deadline = loop.time() + _OTHERS
    return found


async def _ask_once(address: Address, host: str, port: int) -> Master:
    assert address.sentinels is not None
    async with asyncio.timeout(min(_PATIENCE, address.timeout)):
        wire = await _logged_in(address, host, port)
        try:
            return await _ask(wire, address.sentinels.master)
        finally:
            wire.end()


async def _logged_in(address: Address, host: str, port: int) -> Wire:
    """A connection to one sentinel, by its own credentials."""
    assert address.sentinels is not None
    wire = await open_wire(address, host, port)
    if address.sentinels.password is not None:
        user = (address.sentinels.user,) if address.sentinels.user else ()
        try:
            await wire.call("AUTH", *user, address.sentinels.password, timeout=_PATIENCE)
        except BaseException:
            wire.end()
            raise
    return wire


async def _ask(wire: Wire, name: str) -> Master:
    """Where one sentinel believes the master to be.

    Raises:
        ReplyError: it knows no such master, or wants other credentials.
    """
    whole: tuple[Arg, ...] = ("SENTINEL", "MASTER", name)
    try:
        about: dict[str, Any] = by_name(await wire.call(*whole, timeout=_PATIENCE))
    except ReplyError as error:
        if error.code != "NOPERM":
            raise
        reply = await wire.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name, timeout=_PATIENCE)
        if not reply:
            raise ReplyError(f"ERR no such master {name!r}") from None
        return Master(0, text(reply[0]), int(reply[1]))
    return Master(int(about["config-epoch"]), text(about["ip"]), int(about["port"]))
