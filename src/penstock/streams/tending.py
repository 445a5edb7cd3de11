"""Tending: what a client does, by and by, for the streams that it has open.

Does        have events moved into their stream when they are due; keep what the retention says.
Does not    decide: the backend says what is due, and gives the retention to one client at a time.
Invariants  1. one task a client, and none while nothing is open.
            2. a look at a stream that fails is no reason to end: the next one comes.
            3. what this client may not do is signalled once for each stream, and left to others.
Cost        a script a shard every half second, for streams that are open.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from penstock.errors import BackendUnavailable, PenstockError
from penstock.ports import Tended
from penstock.signals import Signal
from penstock.streams.retaining import Janitor

if TYPE_CHECKING:
    from penstock.streams.client import Client

PERIOD: Final = 0.5
"""Seconds between looks: a delayed event comes within a second, also when one look fails."""


class Tender:
    """Looks after a client's open streams."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._always: set[str] = set()
        self._refused: set[str] = set()
        self._janitor = Janitor(client)
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Something was opened: look after it, and whatever else is open, from now on."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="penstock-tender")

    def always(self, name: str) -> None:
        """An event of the stream *name* waits for its time: look as long as the client is open."""
        self._always.add(name)
        self.begin()

    async def aclose(self) -> None:
        """Look no more."""
        self._always.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        try:
            while names := (self._client.open_streams | self._always) - self._refused:
                waits = [await self._look(name) for name in names]
                await self._client.clock.sleep(min(waits))
        finally:
            self._task = None

    async def _look(self, name: str) -> float:
        """Tend one stream; the seconds until it wants to be looked at again."""
        try:
            tended: Tended = await self._client.backend.tend(name)
            await self._janitor.keep(name, tended)
        except BackendUnavailable:
            return PERIOD  # the connection's trouble, which is signalled there
        except PenstockError as error:
            self._refused.add(name)
            text = (
                f"this client may not tend {name!r} ({error}); delayed events and retention are "
                f"left to clients that may"
            )
            self._client.observers(Signal("not-tended", text, stream=name))
            return PERIOD
        return PERIOD if tended.wait is None else min(PERIOD, max(tended.wait, 0.01))
