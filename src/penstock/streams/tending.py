"""Tending: what a client does, by and by, for the streams that it has open.

Does        have events moved into their stream when they are due; keep what the retention says.
Does not    decide: the backend says what is due, and gives the retention to one client at a time.
Invariants  1. one task a client, and none while nothing is open.
            2. a look at a stream that fails is no reason to end: the next one comes.
            3. what a server refuses is signalled once for each stream, and tried again after pauses
               that grow: it may be full for a while, and rights may be given.
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

_LONGEST: Final = 10.0
"""Seconds between looks at a stream that the server refuses again and again."""


class Tender:
    """Looks after a client's open streams."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._always: set[str] = set()
        self._refused: dict[str, float] = {}  # the pauses of streams that were refused
        self._next: dict[str, float] = {}
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
        clock = self._client.clock
        try:
            while names := self._client.open_streams | self._always:
                for name in names:
                    if self._next.get(name, 0.0) <= clock.monotonic():
                        self._next[name] = await self._look(name) + clock.monotonic()
                await clock.sleep(self._until_next(names))
        finally:
            self._next.clear()
            self._task = None

    def _until_next(self, names: set[str]) -> float:
        """Seconds; never longer than a period, since more may be opened meanwhile."""
        soonest = min(self._next[name] for name in names)
        return min(PERIOD, max(0.01, soonest - self._client.clock.monotonic()))

    async def _look(self, name: str) -> float:
        """Tend one stream; the seconds until it wants to be looked at again."""
        try:
            tended: Tended = await self._client.backend.tend(name)
            await self._janitor.keep(name, tended)
        except BackendUnavailable:
            return PERIOD  # the connection's trouble, which is signalled there
        except PenstockError as error:
            return self._on_refusal(name, error)
        self._refused.pop(name, None)
        if not tended.wait:  # none waits, or those that are due find no room
            return PERIOD
        return min(PERIOD, max(tended.wait, 0.01))

    def _on_refusal(self, name: str, error: PenstockError) -> float:
        """The server is full, or this client has no right to; the pause until it tries again."""
        if (pause := self._refused.get(name)) is None:
            text = (
                f"this client cannot tend {name!r} for now ({error}); delayed events and retention "
                f"are left to others, until it goes well"
            )
            self._client.observers(Signal("not-tended", text, stream=name))
        self._refused[name] = min(_LONGEST, 2 * (pause or PERIOD / 2))
        return self._refused[name]
