"""Routes: a writer's ways into the shards of its stream, also when there come to be more of them.

Does        open a lane a shard; say which one an event goes by; where the stream has got more
            shards, change over, and send again what was refused for the old number.
Does not    count, limit or raise: the writer does.
Invariants  1. what is sent while it changes over waits, so nothing overtakes what was refused.
            2. what was refused is certainly not stored; what was under way by the old number has
               its outcome before anything goes by the new one.
            3. where the new shards cannot be opened, what was refused fails like any send.
Cost        per event: a hash of its key. Changing over: the metadata of what was refused is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from penstock.clock import Backoff
from penstock.errors import BackendUnavailable, ClosedError, PenstockError
from penstock.ports import Appender, ShardsCame
from penstock.rules.partition import shard_of
from penstock.streams.format import Format
from penstock.streams.lane import Batched, Done, Lane

if TYPE_CHECKING:
    from penstock.streams.stream import Stream

_TRIES: Final = 6
"""How often the new shards are asked for before what was refused fails: some seconds."""


class Routes:
    """The lanes of one writer.

    Args:
        stream: whose shards.
        open_appender: opens a session to a shard, by its number.
        done: told of a batch that has an outcome.
        failed: told of a batch that was refused, and finds no other way; and why.
    """

    def __init__(
        self,
        stream: Stream[Any],
        open_appender: Callable[[int], Awaitable[Appender]],
        done: Done,
        failed: Callable[[Batched, BaseException], None],
    ) -> None:
        self._stream = stream
        self._open_appender = open_appender
        self._done = done
        self._failed = failed
        self._turn = 0
        self._refused: list[Batched] = []
        self._task: asyncio.Task[None] | None = None
        self._error: PenstockError | None = None
        self.lanes: list[Lane] = []

    @property
    def changing(self) -> bool:
        """Whether new sends have to wait: see `settled`."""
        return self._task is not None

    @property
    def flying(self) -> list[asyncio.Future[Any]]:
        """What has no outcome yet of what was submitted."""
        return [future for lane in self.lanes for future in lane.flying]

    async def open(self) -> None:
        """Open a lane a shard.

        Raises:
            ConfigError: the stream has another layout, codec or number of shards.
            BackendError: refused, or not reachable.
        """
        try:
            self.lanes = await self._opened(self._stream.shards)
        except ShardsCame:  # between the look and now
            self.lanes = await self._opened(await self._stream.look_again())

    def lane(self, key: str | None) -> Lane:
        """The lane of a key; without one, each in its turn."""
        if len(self.lanes) == 1:
            return self.lanes[0]
        if key is not None:
            return self.lanes[shard_of(key, len(self.lanes))]
        self._turn = (self._turn + 1) % len(self.lanes)
        return self.lanes[self._turn]

    def submit(self) -> None:
        """Hand over what has gathered."""
        for lane in self.lanes:
            lane.submit()

    async def follow(self, count: int) -> None:
        """The stream has *count* shards now; waits until events go to all of them.

        Raises:
            PenstockError: why they cannot.
        """
        if self.lanes and count > len(self.lanes):
            self._begin()
            await self.settled()
            if self._error is not None:
                raise self._error

    async def settled(self) -> None:
        """Wait until nothing is being changed. Cancelled: it goes on."""
        while self._task is not None:
            await asyncio.wait((self._task,))

    async def outcomes(self) -> None:
        """Wait until all that was added before has an outcome."""
        self.submit()
        while (flying := self.flying) or self.changing:
            if flying:
                await asyncio.wait(flying)
                await asyncio.sleep(0)  # they are told in callbacks
            if not self.changing:
                return
            await self.settled()  # what was refused goes another way, and counts anew
            self.submit()

    async def aclose(self) -> None:
        """Close every session; what is still refused fails."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await _close(self.lanes)

    async def _opened(self, count: int) -> list[Lane]:
        lanes: list[Lane] = []
        try:
            for index in range(count):
                appender = await self._open_appender(index)
                lanes += [Lane(appender, self._done, self._on_refused)]
        except BaseException:
            await _close(lanes)
            raise
        return lanes

    def _on_refused(self, batch: Batched) -> None:
        """Nothing of *batch* is stored: it went by a number of shards that is none any more."""
        self._refused.append(batch)
        self._begin()

    def _begin(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._change(), name="penstock-routes")

    async def _change(self) -> None:
        self._error = None
        try:
            await self._try()
        except PenstockError as error:
            self._error = error
            self._give_up(error)
        except asyncio.CancelledError:
            self._give_up(ClosedError(f"the writer of {self._stream.name!r} was closed; not sent"))
            raise
        finally:
            self._task = None

    async def _try(self) -> None:
        backoff = Backoff()
        for left in reversed(range(_TRIES)):
            try:
                count = await self._stream.look_again()
                await self._outcomes()
                form = await self._stream.format()
                new = await self._opened(count)
            except BackendUnavailable:  # or still more of them have come meanwhile
                if not left:
                    raise
                await self._stream.client.clock.sleep(backoff.next())
            else:
                old, self.lanes = self.lanes, new
                self._send_again(form)
                await _close(old)
                return

    async def _outcomes(self) -> None:
        """Wait for the outcomes of all that goes by the old number."""
        self.submit()
        while flying := self.flying:
            await asyncio.wait(flying)
            await asyncio.sleep(0)  # they are told in callbacks

    def _send_again(self, form: Format) -> None:
        batches, self._refused = self._refused, []
        for batch in batches:
            receipts, size = dict(batch.receipts), batch.size
            for index, fields in enumerate(batch.entries):
                terms = batch.terms.get(index)
                key = form.key_of(fields) or ((terms.id or None) if terms else None)
                self.lane(key).add(fields, size, receipts.get(index), None, terms)
                size = 0  # they are counted as one

    def _give_up(self, error: BaseException) -> None:
        batches, self._refused = self._refused, []
        for batch in batches:
            self._failed(batch, error)


async def _close(lanes: list[Lane]) -> None:
    """Cancelled: each of them ends all the same."""
    closing = [asyncio.create_task(lane.appender.aclose()) for lane in lanes]
    if closing:
        await asyncio.wait(closing)
    for closed in closing:
        closed.result()
