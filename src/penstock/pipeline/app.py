"""App: handlers and a URL.

Does        register handlers; run them all, drain them, say what they did; try them in tests.
Does not    touch the functions that it decorates: they stay what they were.
Invariants  1. nothing is connected before ``async with`` or `run`.
            2. what is wrong with a handler is said where it is decorated; what the streams say
               against it, before the first event is taken.
            3. leaving drains, and leaves nothing behind: no task, no member, no connection.
Source      FastStream, arq, Broadway: decorators, one life-cycle, handlers tried without servers.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from types import TracebackType
from typing import Any, Final, Self, TypeVar, Unpack

from penstock.codecs import Codec
from penstock.errors import ClosedError, ConfigError
from penstock.pipeline.connecting import ConnectKeywords
from penstock.pipeline.handlers import BatchOf, Handler, OnKeywords, check_together, make_handler
from penstock.pipeline.running import Running
from penstock.pipeline.statistics import HandlerStatistics
from penstock.pipeline.stopping import on_signals
from penstock.pipeline.trying import AppTest
from penstock.streams.client import Client, connect
from penstock.streams.stream import Stream
from penstock.url import parse_url

F = TypeVar("F", bound=Callable[..., Any])

DRAIN: Final = 30.0
"""Seconds that running calls get to end, when an App is left."""


class App:
    """Handlers of events. Use ``async with app:``, ``await app.run()``, or ``penstock run``.

    Args:
        url: where the streams are; None: ``$PENSTOCK_URL``, read when it is started.
        drain_timeout: seconds that running calls get to end, when it is left.
        **connect: the other options of `penstock.connect`.

    Raises:
        ConfigError: a wrong URL, or an option that is out of range.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        drain_timeout: float = DRAIN,
        **connect: Unpack[ConnectKeywords],
    ) -> None:
        if url is not None:
            parse_url(url)
        self._url = url
        self._connect = connect
        self._drain_timeout = _seconds("drain_timeout", drain_timeout)
        self._handlers: list[Handler] = []
        self._included: list[App] = []
        self._running: Running | None = None
        self._tried: Client | None = None

    # --- handlers --------------------------------------------------------------------------------

    def on(
        self,
        stream: str | Iterable[str],
        *,
        group: str,
        into: str | Stream[Any] | None = None,
        concurrency: int = 1,
        codec: Codec[Any] | str | None = None,
        **options: Unpack[OnKeywords],
    ) -> Callable[[F], F]:
        """Call the decorated function with every event of *stream*; the function stays as it is.

        An ``async def`` is awaited; a plain ``def`` runs in a thread. Its annotation is the codec:
        ``order: Order`` is given the value, validated, ``event: Event[Order]`` the event; without
        one, or with ``dict``, it is given what an untyped stream gives. The event is acked when
        the function has returned and what it returned is stored. An exception is a failure, which
        is counted, and tried again as `retry` says; `Reject` sends the event to the dead letters,
        `RetryLater` has it come again uncounted, and so does a cancelled call. What cannot be
        decoded goes to the dead letters.

        Args:
            stream: the stream's name, or several.
            group: the consumer group; it is made if there is none. The handlers of one group
                share its events over all processes, so each handler has a group of its own.
            into: where results go: None is no result, a list is several, anything else is one. They
                are stored before the event is acked, with its key and headers (`Output` says
                otherwise), under ids made of where the event stands: what is handled twice is
                stored once, within the window of `Stream.append`. The annotation is the codec.
            concurrency: how many calls run at once, in this process. With ``share="shards"``,
                events of one key are still handled one at a time and in order.
            codec: your own, for types that are not msgspec's.
            **options: those of `Client.group`: `start`, `share`, `retry`, `lease`, `hold` and so
                on, and `foreign` of `Client.stream`. `max_in_flight` is two for each call that may
                run at once, and at least four: what is read ahead is kept from other processes.
                Raise it for calls of less than a millisecond. After `hold` a coroutine is
                cancelled: see `extend`.

        Raises:
            ConfigError: what will not do: an option, the signature, an annotation.
        """
        return self._registering(stream, group, into, concurrency, None, codec, options)

    def on_batch(
        self,
        stream: str | Iterable[str],
        *,
        group: str,
        size: int = 1000,
        within: float = 0.5,
        into: str | Stream[Any] | None = None,
        concurrency: int = 1,
        codec: Codec[Any] | str | None = None,
        **options: Unpack[OnKeywords],
    ) -> Callable[[F], F]:
        """Call the decorated function with lists of events; otherwise as `on`.

        The annotation is that of a list: ``orders: list[Order]``, ``events: list[Event[Order]]``.
        A list is acked as a whole. One that failed comes again in halves, at last each event
        alone, so that only what fails alone is ever dead-lettered. What cannot be decoded is not
        in it, and goes to the dead letters.

        Args:
            stream: as for `on`.
            group: as for `on`.
            into: as for `on`; results carry what an `Output` says alone, and their ids are made
                of all events of the list.
            concurrency: as for `on`; with ``share="shards"`` it must be 1.
            codec: as for `on`.
            **options: as for `on`.
            size: events of a list, at most.
            within: seconds after the first event of a list, after which it is not waited for more.

        Raises:
            ConfigError: what will not do: an option, the signature, an annotation.
        """
        batch = BatchOf(size, within)
        return self._registering(stream, group, into, concurrency, batch, codec, options)

    def include(self, other: App) -> None:
        """Run the handlers of *other* too, those that it gets later included; its URL is not used.

        So a module of handlers needs no URL: ``handlers = penstock.App()`` there, and
        ``app.include(billing.handlers)`` where it is run.

        Raises:
            ConfigError: not an App, or one that includes this one.
        """
        if not isinstance(other, App) or other is self or self in other._all_included():  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"include needs another App, that does not include this: {other!r}")
        if other not in self._included:
            self._included.append(other)

    # --- one life-cycle --------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Connect, join all groups, begin to work; returns as soon as that is done.

        Raises:
            ConfigError: no handlers, no URL, or a stream that holds another type.
            BackendError: refused, or not reachable.
            ClosedError: it runs already.
        """
        await self._open(self._made(None))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drain within `drain_timeout`, cut what still runs, and close everything.

        Calls that are cut count no failure; their events are handed back, and come again.

        Raises:
            Exception: what ended a handler, unless the body raised.
        """
        try:
            await self._leave(self._drain_timeout)
        except Exception:
            if error is None:
                raise

    async def run(
        self,
        *,
        signals: bool = False,
        url: str | None = None,
        drain_timeout: float | None = None,
        ready: Callable[[], object] = lambda: None,
    ) -> bool:
        """Run until all handlers have ended (`until=`), one failed, or somebody drained it.

        Inside ``async with app:`` it waits for that; elsewhere it enters and leaves too. Cancelled:
        it drains.

        Args:
            signals: SIGTERM and SIGINT drain, a second one waits no more, a third one kills.
            url: instead of the App's own.
            drain_timeout: instead of the App's own, in seconds.
            ready: called when all groups are joined.

        Returns:
            Whether all calls that were begun ended by themselves; False: some were cut.

        Raises:
            ConfigError, BackendError: as when it is entered.
            Exception: what ended a handler.
        """
        timeout = self._drain_timeout
        if drain_timeout is not None:
            timeout = _seconds("drain_timeout", drain_timeout)
        if (running := self._running) is not None and url is not None:
            raise ConfigError("the URL of an App that runs already cannot be changed")
        entered, running = running is not None, running or self._made(url)
        with on_signals(running.finish, running.hurry) if signals else nullcontext():
            if not entered and not await self._opened_unless_told(running):
                return True
            try:
                ready()
                await running.wait()
            finally:
                end = running.end if entered else self._leave
                drained = await end(timeout)
        return drained

    async def wait(self) -> None:
        """Wait until all handlers have ended, or one failed, or somebody drained it.

        Raises:
            Exception: what ended a handler.
            ClosedError: it does not run.
        """
        await self._opened().wait()

    async def drain(self, timeout: float | None = None) -> None:
        """Take nothing more, hand back what nobody has begun with, and wait for running calls.

        Args:
            timeout: seconds; None: as long as it takes. Cancelled or timed out: they run on, and
                are cut when the App is left.

        Raises:
            TimeoutError: it names what still runs.
            ConfigError: by a handler, which would wait for itself.
            ClosedError: it does not run.
        """
        running = self._opened()
        if running.calls(asyncio.current_task()):
            raise ConfigError(
                "app.drain() in a handler must not be awaited, as it waits for that handler too: "
                "let it run beside, as in asyncio.create_task(app.drain())"
            )
        await running.drain(timeout)

    # --- looking ---------------------------------------------------------------------------------

    @property
    def client(self) -> Client:
        """The client of the App that runs, for handlers that append or read elsewhere.

        Raises:
            ClosedError: it does not run.
        """
        return self._tried if self._tried is not None else self._opened().client

    @property
    def running(self) -> bool:
        """Whether it runs, and no handler has failed: what a health check asks."""
        return self._running is not None and self._running.healthy

    @property
    def handlers(self) -> Mapping[str, Callable[..., Any]]:
        """The functions by ``"stream group"``, those of included Apps too."""
        return {
            f"{' '.join(one.streams)} {one.group}": one.function for one in self._all_handlers()
        }

    def statistics(self) -> dict[str, HandlerStatistics]:
        """What every handler has done so far, by its name.

        Raises:
            ClosedError: it does not run.
        """
        return self._opened().statistics()

    def test(self) -> AppTest:
        """The handlers, to be tried without a server: ``async with app.test() as test:``."""

        def bind(client: Client | None) -> None:
            self._tried = client
            for other in self._all_included():
                other._tried = client

        return AppTest(self._all_handlers(), bind)

    def __repr__(self) -> str:
        names = ", ".join(handler.name for handler in self._all_handlers())
        return f"<App {'running' if self._running else 'idle'}: {names or 'no handlers'}>"

    # --- inside ----------------------------------------------------------------------------------

    def _registering(  # noqa: PLR0917 - what both decorators are given, in their order
        self,
        streams: str | Iterable[str],
        group: str,
        into: str | Stream[Any] | None,
        concurrency: int,
        batch: BatchOf | None,
        codec: Codec[Any] | str | None,
        options: OnKeywords,
    ) -> Callable[[F], F]:
        def register(function: F) -> F:
            if self._running is not None:
                raise ConfigError("an App that runs already takes no more handlers")
            frame = inspect.currentframe()
            caller = frame.f_back if frame else None
            names = dict(caller.f_locals) if caller else {}
            handler = make_handler(
                function, streams, group, into, concurrency, batch, codec, options, names
            )
            check_together([*self._all_handlers(), handler])
            self._handlers.append(handler)
            return function

        return register

    def _all_handlers(self) -> list[Handler]:
        apps = [self, *self._all_included()]
        return [handler for app in apps for handler in app._handlers]

    def _all_included(self) -> list[App]:
        """Every App that is included, directly or by another one, each once."""
        found: list[App] = []
        for app in self._included:
            for one in (app, *app._all_included()):
                if one not in found:
                    found.append(one)
        return found

    def _made(self, url: str | None) -> Running:
        for app in (self, *self._all_included()):
            if app._running is not None:
                what = "this one" if app is self else f"one that it includes, {app!r},"
                raise ClosedError(f"an App runs once at a time, and {what} runs already")
        handlers = self._all_handlers()
        check_together(handlers)
        client = connect(url if url is not None else self._url, **self._connect)
        return Running(handlers, client)

    async def _open(self, running: Running) -> None:
        self._share(running)
        try:
            await running.open()
        except BaseException:
            self._share(None)
            raise

    async def _opened_unless_told(self, running: Running) -> bool:
        """Open it; False: a signal came meanwhile, and nothing is open."""
        try:
            await self._open(running)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not running.finished or task is None or task.uncancel():
                raise
            return False
        return True

    async def _leave(self, timeout: float) -> bool:
        try:
            return await self._opened().leave(timeout)
        finally:
            self._share(None)

    def _share(self, running: Running | None) -> None:
        """Included Apps run with this one, so that `app.client` works in their handlers."""
        for app in (self, *self._all_included()):
            app._running = running

    def _opened(self) -> Running:
        if self._running is None:
            raise ClosedError("the App does not run: write 'async with app:' or 'await app.run()'")
        return self._running


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise ConfigError(f"{name} must be 0 seconds or more, got {value!r}")
    return float(value)
