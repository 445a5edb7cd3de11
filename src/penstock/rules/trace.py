"""Traces: an event's outcome is known when all that it led to has left the last stage.

Does        count what is still on its way of what came out of one call, and say when it is done.
Does not    know stages: whoever cuts, copies, drops or handles a list of events says so here.
Invariants  1. an input is settled once: done, or failed or returned as soon as that is known.
            2. done only when everything that it led to is done: the outputs of a call belong to all
               inputs of that call.
            3. no work per event, but for the outcomes themselves.

Lists of events travel with a *carrier*: a `Fresh` until a handler has been called with them (so
that each call is settled apart), the call's `Trace` from then on. Events that need no outcome
travel with None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

Kind = Literal["done", "failed", "returned"]
"""What became of an event: done; failed, which counts; returned, which does not."""

Settle = Callable[[Sequence[Any], Kind, "BaseException | None"], None]
"""Takes the outcome of events that a source had handed out."""


class Carrier(Protocol):
    """What travels with a list of events."""

    def begin(self, events: list[Any]) -> Trace:
        """A handler is called with *events*: the trace that its outputs travel with."""
        ...

    def share(self, events: list[Any], copies: int) -> Trace:
        """*events* go to *copies* consumers, each on its own."""
        ...

    def finish(self, events: Sequence[Any]) -> None:
        """*events* have left: handled, filtered, or written."""
        ...

    def fail(self, events: Sequence[Any], error: BaseException | None) -> None:
        """*events* went down with *error*; None: they were never handled, and are returned."""
        ...


class Fresh:
    """The carrier of events as they come from a source.

    Args:
        settle: is told what became of them.
    """

    __slots__ = ("_settle",)

    def __init__(self, settle: Settle) -> None:
        self._settle = settle

    def begin(self, events: list[Any]) -> Trace:
        """One trace a call."""
        return Trace(self._settle, tuple(events), len(events), direct=True)

    def share(self, events: list[Any], copies: int) -> Trace:
        """One trace for all copies."""
        return Trace(self._settle, tuple(events), len(events) * copies)

    def finish(self, events: Sequence[Any]) -> None:
        """Filtered before anybody was called with them."""
        self._settle(events, "done", None)

    def fail(self, events: Sequence[Any], error: BaseException | None) -> None:
        """Dropped before anybody was called with them."""
        self._settle(events, "failed" if error else "returned", error)


class Trace:
    """What the inputs of one call have led to, as far as it is still on its way.

    Args:
        settle: is told when all is over.
        inputs: the events whose outcome it is.
        open: how many events are on their way.
        direct: the events of the call are the inputs themselves.
    """

    __slots__ = ("_direct", "_inputs", "_parts", "_settle", "open")

    def __init__(
        self, settle: Settle, inputs: Sequence[Any], open: int, *, direct: bool = False
    ) -> None:
        self._settle = settle
        self._direct = direct
        self._parts: list[Trace] = []
        self._inputs: Sequence[Any] | None = inputs
        self.open = open

    @property
    def settled(self) -> bool:
        """Whether the outcome is known already."""
        return self._inputs is None

    def begin(self, events: list[Any]) -> Trace:
        """The same: what comes out of the call belongs to the same inputs."""
        self._direct = False
        return self

    def split(self, count: int) -> list[Trace] | None:
        """In the call of the inputs themselves: one trace for each, done when it is closed.

        None: what the call was given has been made of several inputs, which share one outcome; or
        it was given another number of events than *count*.
        """
        inputs = self._inputs
        if inputs is None or not self._direct or not count == self.open == len(inputs):
            return None
        self._inputs = None  # it has none of its own any more, but what fails it, fails its parts
        self._parts = [Trace(self._settle, (event,), 0) for event in inputs]
        return self._parts

    def share(self, events: list[Any], copies: int) -> Trace:
        """As many more on their way."""
        self.open += len(events) * (copies - 1)
        return self

    def add(self, count: int) -> None:
        """*count* more events are on their way."""
        self.open += count

    def finish(self, events: Sequence[Any]) -> None:
        """*events* have arrived; when none is on its way any more, the inputs are done."""
        self.close(len(events))

    def close(self, count: int) -> None:
        """*count* fewer are on their way."""
        self.open -= count
        if self.open <= 0:
            self._end("done", None)

    def fail(self, events: Sequence[Any], error: BaseException | None) -> None:
        """Something that the inputs led to is lost: so are they, whatever becomes of the rest."""
        self._end("failed" if error else "returned", error)
        for part in self._parts:
            part.fail((), error)

    def _end(self, kind: Kind, error: BaseException | None) -> None:
        inputs, self._inputs = self._inputs, None
        if inputs:
            self._settle(inputs, kind, error)


def joined(traces: Sequence[Trace]) -> Trace:
    """What is made of the inputs of several calls: its outcome is told to all of them."""
    for trace in traces:
        trace.add(1)
    return Trace(_tell, tuple(traces), 0)


def _tell(traces: Sequence[Any], kind: Kind, error: BaseException | None) -> None:
    for trace in traces:
        if kind == "done":
            trace.close(1)
        else:
            trace.fail((), error)
