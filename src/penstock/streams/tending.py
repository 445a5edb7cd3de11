"""Tending: what a client does, by and by, for the streams that it has open.

Does        have events moved into their stream when they are due; keep what the retention says;
            tell readers, groups and writers when a stream has got shards.
Does not    decide: the backend says what is due, and gives the retention to one client at a time.
Invariants  1. one task a client, and none while nothing is open.
            2. a look at a stream that fails is no reason to end: the next one comes.
            3. what a server refuses is signalled once for each stream, and tried again after pauses
               that grow: it may be full for a while, and rights may be given.
Cost        a script a shard every half second, for streams that are open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

from penstock.errors import BackendUnavailable, PenstockError
from penstock.ports import Appender, StreamInfo, Tended
from penstock.signals import Signal
from penstock.streams.retaining import Janitor
from penstock.streams.writer import Writer

if TYPE_CHECKING:
    from penstock.streams.client import Client
    from penstock.streams.opening import Closable

PERIOD: Final = 0.5
"""Seconds between looks: a delayed event comes within a second, also when one look fails."""

_LONGEST: Final = 10.0
"""Seconds between looks at a stream that the server refuses again and again."""


class _Refused(NamedTuple):
    """A stream that the server lets nobody tend: how long to leave it, and until when."""

    pause: float
    until: float


class Tender:
    """Looks after a client's open streams."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._open: WeakSet[Closable] = WeakSet()
        self._always: set[str] = set()
        self._sharded: set[str] = set()
        self._refused: dict[str, _Refused] = {}
        self._next: dict[str, float] = {}
        self._telling: dict[str, asyncio.Task[None]] = {}
        self._named: WeakKeyDictionary[Closable, int] = WeakKeyDictionary()
        self._janitor = Janitor(client)
        self._task: asyncio.Task[None] | None = None

    @property
    def open(self) -> list[Closable]:
        """What is open, or was not yet forgotten."""
        return list(self._open)

    def opened(self, one: Closable) -> None:
        """*one* (a reader, group or writer) is open: look after its streams."""
        self._open.add(one)
        self._begin()

    def _begin(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="penstock-tender")

    def always(self, name: str) -> None:
        """An event of the stream *name* waits for its time: look as long as the client is open."""
        self._always.add(name)
        self._begin()

    async def aclose(self, others: Iterable[Appender] = ()) -> list[PenstockError]:
        """Look no more; close what is open, and *others*. What that raised, all being closed.

        A writer is flushed first, as it is when its block is left.
        """
        self._always.clear()
        tasks = [*self._telling.values(), *([self._task] if self._task is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        failed: list[PenstockError] = []
        opened: list[Any] = [one for one in self.open if one.open_streams]
        flushes = [one.flush for one in opened if isinstance(one, Writer)]
        for step in (*flushes, *(one.aclose for one in (*self.open, *others))):
            try:
                await step()
            except PenstockError as error:
                failed.append(error)
        return failed

    async def _run(self) -> None:
        clock = self._client.clock
        try:
            while names := self._open_streams | self._always:
                for name in names:
                    if self._next.get(name, 0.0) <= clock.monotonic():
                        self._next[name] = await self._look(name) + clock.monotonic()
                await clock.sleep(self._until_next(names))
        finally:
            self._next.clear()
            self._task = None

    @property
    def _open_streams(self) -> set[str]:
        return {name for one in self.open for name in one.open_streams}

    def _until_next(self, names: set[str]) -> float:
        """Seconds; never longer than a period, since more may be opened meanwhile."""
        soonest = min(self._next[name] for name in names)
        return min(PERIOD, max(0.01, soonest - self._client.clock.monotonic()))

    async def _look(self, name: str) -> float:
        """Tend one stream; the seconds until it wants to be looked at again."""
        refused = self._refused.get(name)
        if refused is not None and self._client.clock.monotonic() < refused.until:
            await self._only_look(name)
            return PERIOD
        try:
            tended: Tended = await self._client.backend.tend(name)
            self._tell(name, tended.shards)
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
        """The server is full, or this client has no right to: try again after a pause."""
        if (before := self._refused.get(name)) is None:
            text = (
                f"this client cannot tend {name!r} for now ({error}); delayed events and retention "
                f"are left to others, until it goes well"
            )
            self._client.observers(Signal("not-tended", text, stream=name))
        pause = PERIOD if before is None else min(_LONGEST, 2 * before.pause)
        self._refused[name] = _Refused(pause, self._client.clock.monotonic() + pause)
        return PERIOD

    async def _only_look(self, name: str) -> None:
        """Of a stream that this client may not tend: see how many shards it has."""
        with suppress(PenstockError):  # what it may not even see, it can do nothing about
            info: StreamInfo | None = await self._client.backend.describe(name)
            if info is not None and info.marks is not None:
                self._tell(name, info.marks.shards)

    def _tell(self, name: str, count: int) -> None:
        """Have whoever works on the stream see that it is in so many shards; each in its time."""
        if count > 1:
            self._sharded.add(name)
        if name not in self._sharded or name in self._telling:
            return
        self._telling[name] = asyncio.create_task(self._tell_all(name, count))

    async def _tell_all(self, name: str, count: int) -> None:
        try:
            for one in [one for one in self.open if name in one.open_streams]:
                try:
                    await one.on_shards(name, count)
                except BackendUnavailable:
                    continue  # it is told at the next look
                except PenstockError as error:
                    if self._named.get(one) != count:
                        self._named[one] = count
                        text = f"{one!r} does not follow the shards of {name!r}: {error}"
                        self._client.observers(Signal("shards-not-followed", text, stream=name))
        finally:
            del self._telling[name]
