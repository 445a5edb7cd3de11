"""Runner: what runs one handler: a member of its group, and as many workers as it may have calls.

Does        open streams and group; take events as there is a free worker; stop, drain and close.
Does not    know what a call leads to (`handling.py`), or other handlers (`app.py`).
Invariants  1. an event is taken out of the group when a worker is free for it, not before: in hand
               are at most `concurrency` calls, and behind them what the group reads ahead.
            2. over groups that share shards, events of one key are handled one at a time, in order.
            3. when it stops, what no worker has begun with is handed back at once.
            4. closing ends it whatever its calls do: one that does not end is left, and told.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final

from penstock.errors import ConfigError, LeaseLost, PenstockError
from penstock.event import Event
from penstock.pipeline.calling import calls_of
from penstock.pipeline.complaints import Complaints
from penstock.pipeline.handlers import Handler
from penstock.pipeline.handling import Handling
from penstock.pipeline.lanes import Lanes
from penstock.pipeline.outputs import Outputs
from penstock.pipeline.statistics import HandlerStatistics
from penstock.ports import Outcome
from penstock.signals import Signal
from penstock.streams.client import Client
from penstock.streams.group import Group
from penstock.streams.group_options import GroupOptions
from penstock.streams.stream import Stream

CANCELLING: Final = 5.0
"""Seconds that a handler may take to end when it is cancelled."""


class Runner:
    """Runs one handler against *client*; *trying*: for a test, without logs and delays."""

    def __init__(self, handler: Handler, client: Client, *, trying: bool = False) -> None:
        self.handler = handler
        self._client = client
        self.options = GroupOptions.of(handler.options)
        self.streams = [
            client.stream(
                name, type=handler.signature.value, codec=handler.codec, foreign=handler.foreign
            )
            for name in handler.streams
        ]
        self.group: Group[Any] = client.group(handler.group, self.streams, **handler.options)
        self.into = self._target()
        self._calls = calls_of(
            handler.function,
            threaded=handler.threaded,
            size=handler.concurrency,
            name=handler.name,
        )
        self._outputs = self.into and Outputs(self.into, handler.group, client.clock)
        self.handling = Handling(
            handler,
            self.group,
            self._calls,
            self._outputs,
            complaints=Complaints(handler.name, client.clock),
            hold=self.options.hold,
            trying=trying,
        )
        self._lanes: Lanes[Event[Any]] | None = Lanes() if self._keeps_order() else None
        self._taking = asyncio.Lock()
        self._room = asyncio.Event()
        self._stopping = self._closing = False
        self._workers: list[asyncio.Task[None]] = []
        self._keeper: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Look at the streams, join the group.

        Raises:
            ConfigError: a stream holds another type than the handler's annotations say.
            BackendError: refused, or not reachable.
        """
        try:
            for stream in (*self.streams, *([self.into] if self.into else [])):
                await stream.format()
            await self.group.__aenter__()
        except ConfigError as error:
            raise ConfigError(f"{self.handler.place}: {error}") from error

    def start(self) -> None:
        """Begin to work."""
        work = self._batches if self.handler.batch else self._events
        for number in range(self.handler.concurrency):
            name = f"penstock-handler-{self.handler.name}-{number}"
            self._workers.append(asyncio.create_task(work(), name=name))
        if self._lanes is not None:
            self._keeper = asyncio.create_task(self._keep_waiting(), name="penstock-lanes")

    async def wait(self) -> None:
        """Wait until all workers have ended; raises what the first one failed with.

        Raises:
            PenstockError: somebody has cancelled a worker, which is nobody's business.
        """
        done, _ = await asyncio.wait(self._workers, return_when=asyncio.FIRST_EXCEPTION)
        for worker in done:
            if not worker.cancelled() and (error := worker.exception()) is not None:
                raise error
        if not self._closing and any(worker.cancelled() for worker in done):
            raise PenstockError(f"a task of {self.handler.place} was cancelled from outside")

    async def stop(self) -> None:
        """Take nothing more, and hand back what no worker has begun with."""
        if self._stopping:
            return
        self._stopping = True
        self._room.set()
        if self._lanes is not None:
            self._give_back(self._lanes.clear())
        await self.group.stop()

    async def close(self) -> None:
        """Cancel what still runs, leave the group.

        Raises:
            BackendError: an ack could not be saved.
        """
        self._closing = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait((self._keeper,))
        running = [worker for worker in self._workers if not worker.done()]
        for worker in running:
            worker.cancel()
        try:
            if running:
                await asyncio.wait(running, timeout=CANCELLING)
        finally:
            self._calls.close()
            self._tell_left([worker for worker in running if not worker.done()])
            await self.group.aclose()

    def calls(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether *task* is a call of the handler."""
        return self._calls.makes(task)

    @property
    def running(self) -> int:
        """Calls under way."""
        return self.handling.running

    def statistics(self) -> HandlerStatistics:
        """See `App.statistics`."""
        handling = self.handling
        return HandlerStatistics(
            running=handling.running,
            handled=handling.handled,
            failed=handling.failed,
            rejected=handling.rejected,
            postponed=handling.postponed,
            lost=handling.lost,
            written=self._outputs.written if self._outputs else 0,
            abandoned=self._calls.left,
            group=self.group.statistics(),
        )

    def _target(self) -> Stream[Any] | None:
        """The stream that results go to."""
        into = self.handler.into
        if isinstance(into, str):
            return self._client.stream(into, type=self.handler.signature.result)
        return into

    def _keeps_order(self) -> bool:
        features, share = self._client.backend.features, self.options.share
        return share == "shards" or (share == "any" and not features.event_groups)

    async def _events(self) -> None:
        while (event := await self._take()) is not None:
            following: Event[Any] | None = event
            while following is not None:
                handled = await self.handling.handle((following,))
                following = self._next_of(following, going=handled.kind in ("acked", "rejected"))

    async def _batches(self) -> None:
        assert self.handler.batch is not None
        async for batch in self.group.batches(*self.handler.batch):
            await self.handling.handle(batch)

    async def _take(self) -> Event[Any] | None:
        """The next event that may be handled now; None at the end."""
        if self._lanes is None:
            return await anext(self.group, None)
        async with self._taking:  # one at a time: what comes first is admitted first
            while not self._stopping:
                if self._lanes.waiting >= self.handler.concurrency:
                    self._room.clear()
                    await self._room.wait()
                    continue
                event = await anext(self.group, None)
                if event is None:
                    return None
                front = self._lanes.front(event.key)
                if front is not None and not self.group.holds(front):
                    self._leave_lane(front)  # it was held too long, and its call does not end
                if self._lanes.admit(event.key, event):
                    return event
        return None

    def _next_of(self, event: Event[Any], *, going: bool) -> Event[Any] | None:
        """The next event of the same key, if one waits; where this one failed, they are given up.

        They come again behind it: the group keeps a key's order.
        """
        if self._lanes is None:
            return None
        self._room.set()
        following = self._lanes.leave(event.key, event) if going else None
        if following is None:
            self._leave_lane(event)
            return None
        try:
            self.group.extend(following)  # it has waited: its hold begins now
        except LeaseLost:
            self._leave_lane(following)
            return None
        return following

    def _leave_lane(self, front: Event[Any]) -> None:
        """What waited behind it comes again behind it."""
        assert self._lanes is not None
        self._give_back(self._lanes.give_up(front.key, front))
        self._room.set()

    async def _keep_waiting(self) -> None:
        """What waits in a lane is in nobody's hand yet: its hold must not end there."""
        assert self._lanes is not None
        while True:
            await self._client.clock.sleep(self.options.hold / 4)
            for lane in self._lanes.crowded():
                if not self.group.holds(lane.front):
                    self._leave_lane(lane.front)
                    continue
                for event in lane.waiting:
                    with suppress(LeaseLost):  # found when its turn comes
                        self.group.extend(event)

    def _give_back(self, events: list[Event[Any]]) -> None:
        if events:
            self.group.settle([Outcome(event, "returned") for event in events])

    def _tell_left(self, workers: list[asyncio.Task[None]]) -> None:
        """Say what could not be ended; it is looked at when it ends all the same."""
        for worker in workers:
            worker.add_done_callback(_look_at)
        count = len(workers) + self._calls.left
        if count:
            text = (
                f"{count} calls of {self.handler.place} did not end when they were told to, and "
                f"run on; their events are handed back, and come again"
            )
            stream, group = self.handler.streams[0], self.handler.group
            self._client.observers(Signal("handler-left", text, stream, group, count=count))


def _look_at(worker: asyncio.Task[None]) -> None:
    """What a worker that was left ends with is nobody's business any more."""
    if not worker.cancelled():
        worker.exception()
