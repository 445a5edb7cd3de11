"""What a stage's inbox holds beside the protocol: calls, casts, infos, and steps of its own.

Does        define them, and the two ways to answer later: `Call.reply` and `Kept`.
Does not    run anything.
Invariants  1. a call is answered once; who waits for one is told when the stage ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from penstock.errors import ConfigError, StageError
from penstock.rules.trace import Trace, joined
from penstock.stages.protocol import Cancelled, Peer, Reason, Subscribe, SubscribeOptions, Tag


class Call:
    """Somebody waits for an answer. `Stage.handle_call` gets it.

    Attributes:
        request: what was asked.
    """

    __slots__ = ("_answer", "request")

    def __init__(self, request: Any, answer: asyncio.Future[Any]) -> None:
        self.request = request
        self._answer = answer

    @property
    def answered(self) -> bool:
        """Whether it was answered, or nobody waits any more."""
        return self._answer.done()

    def when_answered(self, told: Callable[[Call], None]) -> None:
        """Call *told* when it has been answered, or nobody waits any more."""
        self._answer.add_done_callback(lambda _: told(self))

    def reply(self, value: Any) -> None:
        """Answer now. Where nobody waits any more (a timeout), the answer is dropped."""
        if not self._answer.done():
            self._answer.set_result(value)

    def fail(self, error: StageError) -> None:
        """There will be no answer."""
        if not self._answer.done():
            self._answer.set_exception(error)


class Kept:
    """Events whose work goes on after their `handle_events`; made by `keep` there.

    Their outcome is known when this was said to be done, and all that was emitted of it has left.
    A stage that finishes waits for it; one that ends otherwise returns the events.
    """

    __slots__ = ("_closed", "trace")

    def __init__(self, trace: Trace | None, closed: Callable[[Kept], None]) -> None:
        self.trace = trace
        self._closed: Callable[[Kept], None] | None = closed
        if trace:
            trace.add(1)

    def done(self) -> None:
        """The work is done; nothing more is emitted of these events."""
        if self._close() and self.trace:
            self.trace.close(1)

    def failed(self, error: BaseException | None) -> None:
        """The work failed: so have the events. None: it was not done, and they are returned."""
        if self._close() and self.trace:
            self.trace.fail((), error)

    def _close(self) -> bool:
        closed, self._closed = self._closed, None
        if closed is not None:
            closed(self)
        return closed is not None


def trace_of(of: Kept | Iterable[Kept]) -> Trace | None:
    """What is emitted travels with this, where it came from one or several that were kept."""
    given: Any = of
    several: list[Any] = [*given] if isinstance(given, Iterable) else [given]  # pyright: ignore[reportUnknownVariableType]
    for one in several:
        if type(one) is not Kept:
            kind = type(one).__name__
            raise ConfigError(f"of= takes what keep() returned, one or several; got a {kind}")
    traces: dict[int, Trace] = {
        id(one.trace): one.trace for one in several if one.trace is not None
    }
    if len(traces) <= 1:
        return next(iter(traces.values()), None)
    return joined(list(traces.values()))


class Cast(msgspec.Struct):
    """A request without an answer."""

    request: Any


class Info(msgspec.Struct):
    """A message for `handle_info`; `due`: everything before it has been served."""

    message: Any
    due: bool = False


class Join(msgspec.Struct):
    """Subscribe this stage to *producer*; `name` stands for one that is looked up then."""

    producer: Peer | str
    options: SubscribeOptions
    answer: asyncio.Future[Any] | None = None
    replaces: tuple[Tag, Reason] | None = None


class Nudge(msgspec.Struct):
    """See whether more is wanted of the program."""


class Mode(msgspec.Struct):
    """Accumulate, or forward."""

    accumulate: bool


Internal = Call | Cast | Info | Join | Nudge | Mode


class Missing:
    """Stands for a producer that is not there: every Subscribe is answered with its end."""

    __slots__ = ("name", "reason")

    def __init__(self, name: str, reason: Reason) -> None:
        self.name = name
        self.reason = reason

    def send(self, message: Any) -> None:
        """Answer what needs an answer."""
        tag = message.tag
        if type(message) is Subscribe:
            tag.consumer.send(Cancelled(tag, self.reason))
