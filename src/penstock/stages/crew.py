"""The crew of a stage: its children, one for each event that is worked on.

Does        start children, restart them by the rules, end them, tell the stage which have ended.
Does not    know demand, outcomes or subscriptions (`worker_base`); do the work (`worker_pool`).
Invariants  1. a child that is restarted stays the same child, in the same place.
            2. each child is told of as ended once, in the order of the ends.
            3. when `close` has returned, or was cancelled, there are no children any more.
Source      OTP's supervisors, as GenStage's ConsumerSupervisor uses them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from penstock.clock import Clock
from penstock.errors import StageError
from penstock.rules.restarts import RestartLimit
from penstock.signals import Kind
from penstock.stages.worker_link import WorkerDied
from penstock.stages.worker_pool import Pool

State = Literal["working", "done", "failed", "terminated"]


class Child:
    """One event that is worked on.

    Attributes:
        event: the event.
        name: what it is called in errors and signals: the work's name, and a number.
        state: working, done, failed (and not restarted), or terminated.
        result: what the work returned; None in the end where it was not done, or crossed from a
            process for a stage that wants no results.
        error: why it failed.
        restarts: how often it was started again.
    """

    __slots__ = (
        *("_future", "_told", "_waiters", "error", "event", "name", "place", "restarts", "result"),
        "state",
    )

    def __init__(self, event: Any, name: str, place: Any = None) -> None:
        self.event = event
        self.name = name
        self.place = place  # the stage's own note
        self.state: State = "working"
        self.result: Any = None
        self.error: BaseException | None = None
        self.restarts = 0
        self._future: asyncio.Future[Any] | None = None
        self._told = False  # to end
        self._waiters: list[asyncio.Future[None]] = []

    async def wait(self) -> Any:
        """Wait for its end; what the work returned.

        Raises:
            StageError: it was terminated, or it failed: `error` is its cause.
        """
        if self.state == "working":
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                self._waiters.remove(waiter)
        if self.state == "terminated":
            raise StageError(f"{self.name} was terminated")
        if self.error is not None:
            raise StageError(f"{self.name} failed: {told(self.error)}") from self.error
        return self.result

    def run(self, future: asyncio.Future[Any]) -> None:
        """It is worked on."""
        self._future = future
        if self._told:
            future.cancel()

    def terminate(self) -> None:
        """Ask it to end."""
        self._told = True
        if self._future is not None:
            self._future.cancel()

    def end(self, future: asyncio.Future[Any]) -> None:
        """Take what became of it."""
        self.error = None if future.cancelled() else future.exception()
        if self._told or future.cancelled():
            self.over("terminated", None)
        elif self.error is None:
            self.result = future.result()
            self.over("done", None)

    def over(self, state: State, error: BaseException | None) -> None:
        """It has ended for good."""
        self.state, self.error, self._future = state, error, None
        for waiter in list(self._waiters):
            if not waiter.done():
                waiter.set_result(None)

    def __repr__(self) -> str:
        return f"<Child {self.name} {self.state}>"


class ChildCount(NamedTuple):
    """How many children there are, and how many there were: since the stage began."""

    working: int
    started: int
    done: int
    failed: int
    terminated: int
    restarts: int


class Crew:
    """All children of a stage.

    Args:
        work: its name.
        pool: who does it.
        transient: whether a child that fails is started again.
        limit: how often within how long.
        clock: where the limit's time comes from.
        where: what else is to be said of a child that failed.
        tell: called when a child has ended, until `ended` was looked at.
        signal: tells observers.
        stop: ends the stage.
    """

    def __init__(
        self,
        work: str,
        pool: Pool,
        *,
        transient: bool,
        limit: RestartLimit,
        clock: Clock,
        where: Callable[[Child], str],
        tell: Callable[[], None],
        signal: Callable[[Kind, str, int | None], None],
        stop: Callable[[BaseException], None],
    ) -> None:
        self._work = work
        self._pool = pool
        self._transient = transient
        self._limit = limit
        self._clock = clock
        self._where = where
        self._tell = tell
        self._signal = signal
        self._stop = stop
        self._children: dict[Child, None] = {}
        self._ended: list[Child] = []
        self._empty: asyncio.Future[None] | None = None
        self._closing = False  # nothing is restarted any more
        names = ("started", "done", "failed", "terminated", "restarts")
        self._counts: dict[str, int] = dict.fromkeys(names, 0)

    @property
    def children(self) -> list[Child]:
        """Those that are worked on, in the order of their start."""
        return list(self._children)

    def count(self) -> ChildCount:
        """How many there are and were."""
        return ChildCount(working=len(self._children), **self._counts)

    def start(self, event: Any, place: Any = None) -> Child:
        """Start a child; raises where it cannot be started."""
        child = self._made(event, place)
        child.run(self._submit(child))
        self._children[child] = None
        return child

    def take(self, event: Any, place: Any) -> Child:
        """Start a child; where it cannot be started, it has ended at once, as failed."""
        try:
            return self.start(event, place)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this event's
            child = Child(event, f"{self._work}-{self._counts['started']}", place)
            self._finish(child, "failed", error)
            return child

    def ended(self) -> list[Child]:
        """Those that have ended since this was last asked."""
        ended, self._ended = self._ended, []
        return ended

    def may_restart(self, what: str, error: BaseException) -> bool:
        """Count a restart; where it is one too many, the stage ends."""
        if self._limit.allows(self._clock.monotonic()):
            self._counts["restarts"] += 1
            self._signal("stage-restarted", f"{what}, and is started again: {told(error)}", None)
            return True
        self._closing = True
        failure = StageError(
            f"{what}, and may not be started again, as that would be more than "
            f"{self._limit.max_restarts} restarts in {self._limit.max_seconds} s: {told(error)}"
        )
        failure.__cause__ = error
        self._stop(failure)
        return False

    def died(self, error: BaseException) -> bool:
        """A worker process has died; whether there may be another one."""
        return not self._closing and self.may_restart(f"a process for {self._work} ended", error)

    async def close(self, seconds: float | None, grace: float | None) -> None:
        """Let the children end within *seconds*, then end them; *grace*: at most, for threads.

        Cancelled: they are ended at once.
        """
        cancelled = False
        try:
            async with asyncio.timeout(seconds):
                await self._all_ended()
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            cancelled, grace = True, 0
        self._closing = True
        for child in self._children:
            child.terminate()
        while self._children:
            try:
                await self._all_ended()
            except asyncio.CancelledError:  # they end all the same, and are waited for
                cancelled, grace = True, 0
        if left := await self._pool.close(grace):
            self._signal(
                "stage-failed",
                f"{left} threads still run {self._work} after the stage's end: nothing can stop a "
                f"function in a thread; let it end by itself, or run it on='processes'",
                left,
            )
        if cancelled:
            raise asyncio.CancelledError

    # --- helpers ---------------------------------------------------------------------------------

    def _made(self, event: Any, place: Any) -> Child:
        self._counts["started"] += 1
        return Child(event, f"{self._work}-{self._counts['started']}", place)

    def _submit(self, child: Child) -> asyncio.Future[Any]:
        future = self._pool.submit(child.event, child.name)
        future.add_done_callback(lambda future: self._over(child, future))
        return future

    def _over(self, child: Child, future: asyncio.Future[Any]) -> None:
        """A child's work has come to an end, for good or to be started again."""
        child.end(future)
        error = child.error
        if child.state == "working":
            assert error is not None
            if self._again(child, error):
                return
            child.over("failed", error)
        self._finish(child, child.state, error)

    def _again(self, child: Child, error: BaseException) -> bool:
        if not self._transient or self._closing:
            return False
        # The process was counted when it died; what it had in hand is not to blame.
        what = f"{child.name} failed{self._where(child)}"
        if not isinstance(error, WorkerDied) and not self.may_restart(what, error):
            return False
        child.restarts += 1
        try:
            child.run(self._submit(child))
        except Exception:  # noqa: BLE001 - it cannot be started any more: its first error counts
            return False
        return True

    def _finish(self, child: Child, state: State, error: BaseException | None) -> None:
        if child.state != state:
            child.over(state, error)
        self._counts[state] += 1
        self._children.pop(child, None)
        self._ended.append(child)
        if not self._children and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)
        self._tell()

    async def _all_ended(self) -> None:
        if self._children:
            self._empty = asyncio.get_running_loop().create_future()
            await self._empty


def told(error: BaseException) -> str:
    """*error* in a sentence."""
    if isinstance(error, StageError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
