"""Link: a wire that is made again when it breaks.

Does        connect, anew when that broke; back off while the server cannot be reached.
Does not    send anything again: who sent it knows what that would mean.
Invariants  1. one wire at a time; many that wait for it make one attempt together.
            2. delays are capped and spread, and grow until a wire has served or held for a while: a
               server that takes connections and ends them at once is not hammered. Waiting is
               cancellable at once.
            3. one signal an outage, however many attempts it takes; refusals twice a minute.
            4. what was a master once, is not taken again as a replica.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from penstock.backends.redis.dialing import REPLICA, Address, greet, open_wire
from penstock.backends.redis.edge import (
    ConnectionLost,
    ReplyError,
    TlsRefused,
    mapped,
    unavailable,
)
from penstock.backends.redis.scripts import Script
from penstock.backends.redis.sentinel import find_master
from penstock.backends.redis.wire import Arg, Wire
from penstock.clock import Backoff, Clock
from penstock.errors import BackendUnavailable, ClosedError
from penstock.observers import Observers
from penstock.signals import Signal

STEADY: Final = 0.5
"""Seconds that a wire must hold before the outage counts as over."""

_TOLD_EVERY: Final = 30.0
"""Seconds between signals about a server that refuses."""


class Link:
    """A connection that comes back.

    Args:
        address: where to.
        clock: for the delays between attempts.
        observers: told when the connection breaks and when it is back.
    """

    def __init__(self, address: Address, clock: Clock, observers: Observers) -> None:
        self.address = address
        self._clock = clock
        self._observers = observers
        self._wire: Wire | None = None
        self._lock = asyncio.Lock()
        self._limits: list[float] = []
        self._hurry = asyncio.Event()
        self._backoff = Backoff()
        self._closed = False
        self._broken = False
        self._master = address.sentinels is not None
        self._steady: asyncio.TimerHandle | None = None
        self._flapped = False
        self._greeted = 0
        self._told = float("-inf")

    @property
    def now(self) -> Wire | None:
        """The wire, if there is one that lives."""
        return self._wire if self._wire is not None and self._wire.alive else None

    async def wire(self, timeout: float | None = None) -> Wire:
        """The living wire; made, if need be, within *timeout* seconds (None: the address's).

        Raises:
            BackendUnavailable: no connection in time.
            BackendRejected: wrong credentials or rights.
        """
        if self._closed:
            raise ClosedError(f"the connection to {self.address.place} was closed")
        if (wire := self.now) is not None:
            return wire
        limit = self.address.timeout if timeout is None else timeout
        last: BaseException = TimeoutError()
        if self.address.tls is not None:  # a plain port waits for more of what it cannot read
            last = ConnectionLost("no answer came in time; perhaps it does not speak TLS there")
        self._limits.append(limit)
        if limit == min(self._limits):
            self._hurry.set()  # who waits for a short time is not made to sleep through it
        try:
            async with asyncio.timeout(limit), self._lock:
                while self.now is None:
                    if self._flapped:
                        self._flapped = False
                        await self._pause()
                    try:
                        await self._connect()
                    except BackendUnavailable as error:
                        last = error.__cause__ or error
                        if isinstance(last, TlsRefused) and self._wire is None:
                            raise  # never worked: somebody must mend the certificates
                        await self._pause()
        except TimeoutError:
            raise unavailable(last, self.address.place, verb="connect") from last
        finally:
            self._limits.remove(limit)
        assert self._wire is not None
        return self._wire

    async def call(self, *args: Arg, verb: str, key: str = "", timeout: float = 5.0) -> Any:
        """Send one command and wait for its reply; not sent again if that does not come.

        Raises:
            BackendError: refused, or no connection, or no reply within *timeout* seconds.
        """
        wire = await self.wire(timeout)
        with mapped(self.address.place, verb=verb, key=key):
            return await wire.call(*args, timeout=timeout)

    async def run(
        self,
        script: Script,
        keys: list[str],
        *args: Arg,
        verb: str,
        key: str = "",
        timeout: float = 5.0,
    ) -> Any:
        """Run *script*; a server that has forgotten it (SCRIPT FLUSH, restart) is told again.

        Raises:
            BackendError: refused, or no connection, or no reply within *timeout* seconds.
        """
        wire = await self.wire(timeout)
        with mapped(self.address.place, verb=verb, key=key or keys[0]):
            try:
                return await wire.call(*command(script, keys, args), timeout=timeout)
            except ReplyError as error:
                if error.code != "NOSCRIPT":
                    raise
            await wire.call("SCRIPT", "LOAD", script.text, timeout=timeout)
            return await wire.call(*command(script, keys, args), timeout=timeout)

    def close(self) -> None:
        """Close the connection; requests without a reply fail."""
        self._closed = True
        if self._steady is not None:
            self._steady.cancel()
        if self._wire is not None:
            self._wire.end()

    def leave(self, place: str) -> None:
        """The master is at *place* now: a wire to anywhere else ends."""
        if self._wire is not None and self._wire.place != place:
            self._wire.end(ConnectionLost(f"the master is at {place} now"))

    async def _pause(self) -> None:
        """Until the next attempt; shorter where somebody does not wait for long."""
        self._hurry.clear()
        delay = min(self._backoff.next(), min(self._limits) / 8)
        waits: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(self._clock.sleep(delay)),
            asyncio.ensure_future(self._hurry.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when="FIRST_COMPLETED")
        finally:
            for one in waits:
                one.cancel()

    async def _connect(self) -> None:
        wire, role = await connect(self.address, master=self._master)
        if self._closed:  # meanwhile: nobody would end it
            wire.end()
            raise ClosedError(f"the connection to {self.address.place} was closed")
        self._wire = wire
        self._greeted = wire.answers
        self._master = self._master or role == "master"
        wire.on_refused(self._on_refused)
        self._steady = asyncio.get_running_loop().call_later(STEADY, self._holds)
        wire.on_lost(self._on_lost)

    def _holds(self) -> None:
        """The wire has held for a while: what was wrong is over."""
        self._steady = None
        self._backoff.reset()
        if self._broken and not self._closed:
            self._observers(Signal("connected", f"connected to {self.address.place} again"))
        self._broken = False

    def _on_lost(self, error: Exception) -> None:
        if self._steady is not None:
            self._steady.cancel()
            self._steady = None
            self._flapped = True
            if self._wire is not None and self._wire.answers > self._greeted:
                self._backoff.reset()  # it was of use: only what never serves is tried ever rarer
        if not self._closed and not self._broken:
            self._broken = True
            text = f"the connection to {self.address.place} ended: {error}; connecting again"
            self._observers(Signal("disconnected", text))

    def _on_refused(self, error: ReplyError) -> None:
        """The server answers, and does nothing for now: whoever asked tries again."""
        now = self._clock.monotonic()
        if self._closed or now - self._told < _TOLD_EVERY:
            return
        self._told = now
        text = f"redis at {self.address.place} refuses for now: {error}; trying again"
        self._observers(Signal("server-refuses", text))


def command(script: Script, keys: list[str], args: tuple[Arg, ...]) -> tuple[Arg, ...]:
    """The command that runs *script*."""
    return ("EVALSHA", script.sha, script.keys, *keys, *args)


async def connect(address: Address, *, master: bool = False) -> tuple[Wire, str]:
    """A wire that is logged in and has the scripts, and the server's role.

    *master*: only to a master; by sentinels it is always one.

    Raises:
        BackendUnavailable: no connection, or no answer, within the address's timeout; or no
            master where one must be.
        BackendRejected: wrong credentials or rights.
    """
    wire: Wire | None = None
    try:
        async with asyncio.timeout(address.timeout):
            host, port = await _whereabouts(address)
            wire = await open_wire(address, host, port)
            return wire, await _welcomed(wire, address, master)
    except (TimeoutError, OSError, ConnectionLost) as error:
        _end(wire)
        raise unavailable(error, address.place, verb="connect") from error
    except BaseException:
        _end(wire)
        raise


async def _welcomed(wire: Wire, address: Address, master: bool) -> str:
    role = await greet(wire, address)
    if master and role == REPLICA:
        raise ConnectionLost("it is a replica now, and was a master")
    return role


async def _whereabouts(address: Address) -> tuple[str, int]:
    if address.sentinels is None:
        return address.host, address.port
    found = await find_master(address)
    return found.host, found.port


def _end(wire: Wire | None) -> None:
    if wire is not None:
        wire.end()
