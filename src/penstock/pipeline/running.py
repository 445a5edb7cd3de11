"""Running: one run of an App, from the first connection to the last.

Does        open the client and all handlers, notice how they end, drain and close them.
Does not    know how handlers are registered (`app.py`), or what they do (`runner.py`).
Invariants  1. a handler that ends without being told to is an error of the run, told at once.
            2. what was opened is closed, however opening or draining ends.
            3. draining lets running calls end, within its time; what is cut then is handed back,
               uncounted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from penstock.pipeline.handlers import Handler
from penstock.pipeline.runner import Runner
from penstock.pipeline.statistics import HandlerStatistics
from penstock.signals import Signal
from penstock.streams.client import Client


class Running:
    """Runs *handlers* against *client*, which it opens."""

    def __init__(self, handlers: Sequence[Handler], client: Client) -> None:
        self.client = client
        self._handlers = handlers
        self._runners: list[Runner] = []
        self._followers: list[asyncio.Task[None]] = []
        self._failure: BaseException | None = None
        self._opening: asyncio.Task[object] | None = None
        self._over = asyncio.Event()
        self._hurry = asyncio.Event()
        self._late = False

    async def open(self) -> None:
        """Connect, join all groups, begin to work. Where this fails, nothing is left open.

        Raises:
            CancelledError: it was told to finish meanwhile, too.
        """
        self._opening = asyncio.current_task()
        try:
            await self.client.__aenter__()
            for handler in self._handlers:
                runner = Runner(handler, self.client)
                self._runners.append(runner)
                await runner.open()
        except BaseException:
            self._opening = None
            await self._close_all()
            raise
        self._opening = None
        for runner in self._runners:
            runner.start()
            name = f"penstock-app-{runner.handler.name}"
            self._followers.append(asyncio.create_task(self._follow(runner), name=name))

    async def wait(self) -> None:
        """Return when all handlers have ended, or the run was asked to; raise the first failure."""
        await self._over.wait()
        if self._failure is not None:
            raise self._failure

    @property
    def healthy(self) -> bool:
        """Whether no handler has failed."""
        return self._failure is None

    @property
    def finished(self) -> bool:
        """Whether it was told to finish, has failed, or ran to its end."""
        return self._over.is_set()

    def calls(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether *task* is a call of one of the handlers."""
        return any(runner.calls(task) for runner in self._runners)

    def finish(self) -> None:
        """Whoever waits is to go on, and leave; whoever opens it is not to."""
        self._over.set()
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None

    def hurry(self) -> None:
        """Draining is to wait no more."""
        self._hurry.set()

    async def drain(self, timeout: float | None) -> None:
        """Take nothing more, and wait for the calls that run.

        Raises:
            TimeoutError: some still run; they are left to themselves.
        """
        hurried = asyncio.ensure_future(self._hurry.wait())
        ended = asyncio.ensure_future(self._stop())
        try:
            await asyncio.wait(
                (ended, hurried), timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            hurried.cancel()
            ended.cancel()
            await asyncio.wait((hurried, ended))
        if not ended.cancelled():
            ended.result()
        if left := self._left():
            within = "when told to hurry" if self._hurry.is_set() else f"within {timeout} s"
            raise TimeoutError(f"not drained {within}: {', '.join(left)}")

    async def _stop(self) -> None:
        """Take nothing more, hand back, and see all calls end."""
        await asyncio.gather(*(runner.stop() for runner in self._runners))
        await asyncio.gather(*(asyncio.shield(task) for task in self._followers))

    async def leave(self, timeout: float) -> bool:
        """Drain within *timeout* seconds, cut what still runs, close; whether nothing was cut.

        Raises:
            Exception: what a handler's runner failed with, or what could not be saved at the end.
        """
        try:
            drained = await self.end(timeout)
        finally:
            await self._close_all()
        if self._failure is not None:
            raise self._failure
        return drained

    async def end(self, timeout: float) -> bool:
        """Drain within *timeout* seconds, and let nobody wait for what runs still."""
        try:
            await self.drain(timeout)
        except TimeoutError as error:
            if not self._late:
                text = f"{error}; cancelled now, and their events handed back, uncounted"
                self.client.observers(Signal("drain-late", text, count=self._busy()))
            self._late = True
            self.hurry()
        return not self._late

    def statistics(self) -> dict[str, HandlerStatistics]:
        """By handler; names that are the same get their group's, or their streams' too."""
        counted: dict[str, HandlerStatistics] = {}
        for runner in self._runners:
            one = runner.handler
            names = (one.name, f"{one.name} ({one.group})")
            place = f"{one.name} ({one.group} on {', '.join(one.streams)})"
            key = next((name for name in names if name not in counted), place)
            counted[key] = runner.statistics()
        return counted

    async def _follow(self, runner: Runner) -> None:
        """Notice how one handler ends."""
        try:
            await runner.wait()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - raised where the App is waited for or left
            self._fail(runner, error)
        mine = asyncio.current_task()
        if all(task.done() or task is mine for task in self._followers):
            self._over.set()

    def _fail(self, runner: Runner, error: BaseException) -> None:
        place = runner.handler.place
        if self._failure is None:
            error.add_note(f"this ended {place}")
            self._failure = error
        text = f"{place} has ended, and takes no more events: {type(error).__name__}: {error}"
        stream, group = runner.handler.streams[0], runner.handler.group
        self.client.observers(Signal("handler-ended", text, stream, group))
        self._over.set()

    def _left(self) -> list[str]:
        return [
            f"{runner.running} calls of {runner.handler.name}"
            for runner, follower in zip(self._runners, self._followers, strict=True)
            if not follower.done()
        ]

    def _busy(self) -> int:
        return sum(runner.running for runner in self._runners)

    async def _close_all(self) -> None:
        """Close all handlers at once, then the client; the first error is kept as the failure."""
        closing = asyncio.gather(
            *(runner.close() for runner in self._runners), return_exceptions=True
        )
        try:
            outcomes = await asyncio.shield(closing)
        except asyncio.CancelledError:
            await closing  # within bounds: cancelling and leaving have their own
            raise
        finally:
            for follower in self._followers:
                follower.cancel()
            await asyncio.gather(*self._followers, return_exceptions=True)
            await self.client.aclose()
        for outcome in outcomes:  # the first error is the one that is raised
            if isinstance(outcome, BaseException) and self._failure is None:
                self._failure = outcome
