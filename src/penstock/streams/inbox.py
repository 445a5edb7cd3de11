"""Inbox: events that were fetched and not yet yielded, and those who wait for them.

Does        hand out single events and batches, to any number of tasks at once.
Does not    fetch: whoever fills it is told when something was taken.
Invariants  1. each event is handed out once; a cancelled wait takes nothing.
            2. a loop that always finds an event yields to the event loop now and then.
            3. after its end every further wait ends at once, or raises what it ended with.
            4. an event with a company is never in a batch larger than that.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

_BREATHE: Final = 256
"""Events handed out without waiting, after which the event loop gets a turn (under a ms)."""


class Inbox(Generic[T]):
    """A queue with an end.

    Args:
        taken: called with what was handed out, before it is.
        stale: says whether what is in the inbox must not be handed out any more; it empties it.
        hungry: called when somebody begins to wait.
    """

    def __init__(
        self,
        taken: Callable[[list[T]], None],
        stale: Callable[[], bool] = lambda: False,
        hungry: Callable[[], None] = lambda: None,
    ) -> None:
        self._taken = taken
        self._hungry = hungry
        self._stale = stale
        self._company: dict[int, int] = {}
        self._most = sys.maxsize
        self._events: deque[T] = deque()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._ended = self._dry = False
        self._error: BaseException | None = None
        self._last_word: BaseException | None = None
        self._streak = 0

    def __len__(self) -> int:
        return len(self._events)

    @property
    def ended(self) -> bool:
        """Whether nothing more will be put in."""
        return self._ended

    @property
    def _over(self) -> bool:
        return self._ended and not self._events

    @property
    def waiting(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiters)

    def put(self, events: Iterable[T], company: Mapping[int, int] | None = None) -> None:
        """These have come; *company*: of those that have one, by their `id`."""
        if company:
            self._company.update(company)
        self._events.extend(events)
        self._dry = False
        self._wake(len(self._events))

    def dry(self) -> None:
        """Nothing more is to be expected for now: a batch that waits to be full is let go."""
        if not self._dry:
            self._dry = True
            self._wake(len(self._waiters))

    def let_out(self, most: int | None) -> None:
        """Hand out at most so many events at once from now on; 0: none; None: any number."""
        self._most = sys.maxsize if most is None else most
        self._wake(len(self._events) if self._most else 0)

    def clear(self) -> list[T]:
        """Take everything out, unseen by anybody."""
        events = list(self._events)
        self._events.clear()
        self._company.clear()
        return events

    def sift(self, keep: Callable[[T], bool]) -> None:
        """Take out, unseen by anybody, what is not to be kept."""
        self._events = deque(event for event in self._events if keep(event))

    @property
    def failing(self) -> bool:
        """Whether an error waits to be raised, after which it goes on."""
        return self._error is not None

    def has(self, wanted: Callable[[T], bool]) -> bool:
        """Whether one that is *wanted* is there."""
        return any(map(wanted, self._events))

    def fail(self, error: BaseException) -> None:
        """Raise *error* at the next step, whoever takes it, unless another waits; then go on."""
        if self._error is None:
            self._error = error
        self._wake(1)

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more will come; what is there can still be taken, then *error* is raised."""
        self._ended = True
        self._last_word = self._last_word or error
        self._wake(len(self._waiters))

    def task(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """A task that works for whoever takes from here.

        Where it ends by an error that nobody foresaw, the inbox ends by that too: a fault of ours
        must not look like silence.
        """
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._on_end_of_work)
        return task

    def _on_end_of_work(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.end(error)

    def reopen(self) -> None:
        """More may come after all, and what it ended with is forgotten."""
        self._ended = False
        self._last_word = None

    def forgive(self, moot: Callable[[BaseException], bool]) -> None:
        """An error that nobody has been raised yet is dropped, if it is *moot*."""
        if self._error is not None and moot(self._error):
            self._error = None

    async def next(self) -> T | None:
        """The next event; None at the end."""
        ready = self._events and self._error is None and self._streak < _BREATHE and self._most
        if ready and not self._stale():
            self._streak += 1
            event = self._events.popleft()
            if self._company:
                self._company.pop(id(event), None)
            self._taken([event])
            return event
        return await self._next_slowly()

    async def receive(self, timeout: float | None) -> T | None:
        """The next event; None at the end, or when none comes within *timeout* seconds."""
        if timeout is None:
            return await self.next()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            limit = asyncio.timeout_at(deadline)
            try:
                async with limit:
                    await self._filled()
            except TimeoutError:
                if not limit.expired():
                    raise  # it is what the inbox ended with
            if taken := self._take(1):
                return taken[0]
            if self._over or loop.time() >= deadline:
                await asyncio.sleep(0)  # a loop that asks again lets others run
                return None

    async def batch(self, size: int, within: float) -> list[T]:
        """One to *size* events, what comes within *within* s of the first; empty at the end."""
        while True:
            await asyncio.sleep(0)
            await self._filled()
            most = min(size, self._most or 1)
            if len(self._events) < most and within > 0 and not self._full_enough():
                await self._gather(most, within)
            if (taken := self._take(most)) or self._over:
                return taken  # else another task was quicker, or all of it was stale

    async def _gather(self, size: int, within: float) -> None:
        """Wait until there are *size* events, at most *within* s."""
        try:
            async with asyncio.timeout(within):
                while 0 < len(self._events) < size and not self._full_enough():
                    await self._wait()
        except TimeoutError:
            pass

    async def _next_slowly(self) -> T | None:
        self._streak = 0
        await asyncio.sleep(0)
        while True:
            await self._filled()
            if taken := self._take(1):
                return taken[0]
            if self._over:
                return None

    async def _filled(self) -> None:
        """Return when there is an event, or the end; raise a stored error."""
        while True:
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if self._last_word is not None and not self._events:
                raise self._last_word
            if (self._events and self._most) or self._over:
                return
            await self._wait()

    async def _wait(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._hungry()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._wake(1)  # the wake-up was for us, and we do not take it
            raise
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _take(self, size: int) -> list[T]:
        if self._events and self._stale():
            return []
        count = min(size, len(self._events), self._most)
        if self._company:
            count = self._in_company(count)
        if count == len(self._events):
            events = list(self._events)
            self._events.clear()
        else:
            events = [self._events.popleft() for _ in range(count)]
        if events:
            self._taken(events)
        return events

    def _full_enough(self) -> bool:
        """Whether it does not help to wait for a fuller batch."""
        return self._ended or self._dry or bool(self._company)

    def _in_company(self, most: int) -> int:
        """How many of the next *most* may go together; they leave their company."""
        count = 0
        for event in itertools.islice(self._events, most):
            company = self._company.get(id(event), most)
            if company <= count:
                break
            most = min(most, company)
            count += 1
            if count == most:
                break
        for event in itertools.islice(self._events, count):
            self._company.pop(id(event), None)
        return count

    def _wake(self, count: int) -> None:
        while self._waiters and count > 0:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                count -= 1


class Batches(Generic[T]):
    """``async for batch in reader.batches(size, within)``."""

    def __init__(self, inbox: Inbox[T], size: int, within: float) -> None:
        self._inbox = inbox
        self._size = size
        self._within = within

    def __aiter__(self) -> AsyncIterator[list[T]]:
        return self

    async def __anext__(self) -> list[T]:
        batch = await self._inbox.batch(self._size, self._within)
        if not batch:
            raise StopAsyncIteration
        return batch
