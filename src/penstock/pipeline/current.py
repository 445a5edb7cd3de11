"""Current: the call that is under way, as the function that is called can reach it.

Does        let a handler say that it needs longer, from a coroutine and from a thread.
Does not    decide how long that is: `hold` does.
Invariants  1. it is the call in whose context it is asked: tasks and `asyncio.to_thread` within a
               handler have that too.
            2. a thread hears of a loss as a coroutine does: it waits for the event loop's answer,
               not longer than there is a loop.
Source      SQS's change of visibility, Pulse's and JetStream's "in progress".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextvars import ContextVar
from typing import Final

from penstock.errors import ClosedError, ConfigError

LOOKS: Final = 0.5
"""Seconds between two looks of a waiting thread at whether its event loop is still there."""


def extend() -> None:
    """Within a handler: count `hold` anew from now, for what the handler was called with.

    A coroutine that would be cancelled after `hold`, and whose event would go to somebody else,
    has as long again; call it now and then while long work is getting on. It works in plain
    functions too, in tasks of the handler, and in `asyncio.to_thread`.

    Raises:
        LeaseLost: the event is not in hand any more: somebody else has it, or will; stop.
        ConfigError: not within a handler that an App has called.
        ClosedError: the App that made the call is gone.
    """
    call = _current.get()
    if call is None:
        raise ConfigError(
            "penstock.extend() must be called within a handler that an App has called: in tests, "
            "call it by app.test(); in a thread pool of your own, by contextvars.copy_context()"
        )
    call.extend()


class Call:
    """One call, from its beginning to its end; to be entered where the function is called.

    Args:
        extend: counts the hold of its events anew; raises LeaseLost.
    """

    def __init__(self, extend: Callable[[], None]) -> None:
        self._extend = extend
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> None:
        self._token = _current.set(self)

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)

    def extend(self) -> None:
        """See `extend`; from any thread."""
        if _running_loop() is self._loop:
            self._extend()
        else:
            self._extend_from_thread()

    def _extend_from_thread(self) -> None:
        answer: Future[None] = Future()
        try:
            self._loop.call_soon_threadsafe(self._answer, answer)
        except RuntimeError as error:  # the loop takes nothing more
            raise ClosedError(_GONE) from error
        while not wait((answer,), LOOKS).done:
            if self._loop.is_closed():
                raise ClosedError(_GONE)
        answer.result()

    def _answer(self, answer: Future[None]) -> None:
        try:
            self._extend()
        except Exception as error:  # noqa: BLE001 - it is raised in the thread that asked
            answer.set_exception(error)
        else:
            answer.set_result(None)


_GONE: Final = "the App that called this handler has ended: what it was called with comes again"

_current: ContextVar[Call | None] = ContextVar("penstock call", default=None)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
