"""Group: one member of a consumer group that acks what it has handled.

Does        take acks, nacks and extensions of the events that `GroupReader` hands out.
Does not    fetch, send acks or watch the time: `membership.py` does, in the background.
Invariants  1. each event is acked on its own, and only while this member holds it.
Used by     `client.Client.group`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

from penstock.errors import ConfigError, LeaseLost
from penstock.event import Event, Position
from penstock.ports import Outcome
from penstock.streams.group_options import GroupOptions
from penstock.streams.group_reader import GroupReader

if TYPE_CHECKING:
    from penstock.streams.client import Client
    from penstock.streams.stream import Stream

T = TypeVar("T")


class Group(GroupReader[T]):
    """One member of a group. Made by `Stream.group` or `Client.group`; use ``async with``."""

    def __init__(
        self, client: Client, name: str, streams: Sequence[Stream[T]], options: GroupOptions
    ) -> None:
        super().__init__(client, name, streams, options)
        self._handled: dict[int, bool] = {}

    def ack(self, events: Event[T] | Iterable[Event[T]]) -> None:
        """The work on these events is done: queue their acks; they are sent within `ack_interval`.

        Acking what is acked already does nothing.

        Raises:
            LeaseLost: some are not in hand any more (held too long, taken over, handed back);
                the acks of all others are queued.
            ConfigError: an event of another group, or of a reader.
            ClosedError: the group was closed.

        Source: Redis XACK.
        """
        self._work.ack(_several(events))

    def nack(
        self,
        events: Event[T] | Iterable[Event[T]],
        delay: float | None = None,
        reason: str = "",
    ) -> None:
        """These events failed: hand them back, counted; they come again, to any member.

        As `fail`, for a program that knows a reason rather than an error.

        Args:
            events: one or several that are in hand; what is not any more is left alone.
            delay: seconds until they are due; None: by `retry`, from the attempts so far.
            reason: why; kept with the dead letter, and told to observers.

        Raises:
            ConfigError: a negative delay, or an event of another group.
            ClosedError: the group was closed.
        """
        if delay is not None and not delay >= 0:
            raise ConfigError(f"delay must be 0 seconds or more, got {delay!r}")
        several = list(_several(events))
        self._mark_handled(several)
        self._work.nack(several, delay, reason)

    def fail(self, events: Event[T] | Iterable[Event[T]], error: BaseException) -> None:
        """The work on these events ended with *error*: count a failure, and hand them back.

        They come again after the delay of `retry`, to any member; those of one call failed
        together, and come again in smaller batches. What failed alone, and for as many times as
        `retry.attempts` says, goes to the dead letters with the error's class and text.

        `Reject`, and `DecodeError` of the event itself, send it there at once; `RetryLater` brings
        it back after its time and counts nothing.

        Args:
            events: one or several that are in hand; what is not any more is left alone.
            error: what happened.

        Raises:
            ConfigError: an event of another group.
            ClosedError: the group was closed.
        """
        several = list(_several(events))
        self._mark_handled(several)
        self._work.fail(several, error)

    @asynccontextmanager
    async def handling(self, event: Event[T]) -> AsyncGenerator[Event[T], None]:
        """``async with group.handling(event):`` ack on leaving; an exception nacks and goes on up.

        Cancellation counts no failure: the event stays in hand, and is handed back on leaving the
        group. An event that was settled inside is left so.

        Raises:
            LeaseLost: the work went well, but the event was not in hand any more at its end.
        """
        self._handled[id(event)] = False
        nacked = False
        try:
            yield event
        except Exception as error:
            self.fail(event, error)
            raise
        finally:
            nacked = self._handled.pop(id(event), False)
        if not nacked:
            self.ack(event)

    def extend(self, event: Event[T]) -> None:
        """Count the event's `hold` anew from now: long work is getting on.

        Raises:
            LeaseLost: it is not in hand any more.
        """
        self._work.extend(event)

    def holds(self, event: Event[T]) -> bool:
        """Whether *event* is in hand: neither settled, nor held too long, nor another member's."""
        return self._work.holds(event)

    def settle(self, outcomes: Sequence[Outcome]) -> None:
        """Take outcomes: done is acked, failed is nacked, returned is handed back uncounted."""
        done = [outcome.event for outcome in outcomes if outcome.kind == "done"]
        with suppress(LeaseLost):  # signalled when it was taken; whoever holds it now gets it
            self._work.ack(done)
        for error, events in _by_error(outcomes):
            self._work.fail(events, error)
        returned = [outcome.event for outcome in outcomes if outcome.kind == "returned"]
        self._work.give_back(returned)

    def _mark_handled(self, events: Iterable[Event[T]]) -> None:
        """Whoever handles one of these in a block must not ack it at its end."""
        for event in events:
            if id(event) in self._handled:
                self._handled[id(event)] = True


def _by_error(outcomes: Sequence[Outcome]) -> Iterable[tuple[BaseException, list[Event[Any]]]]:
    """What failed, by its error: events that share one failed together."""
    found: dict[int, tuple[BaseException, list[Event[Any]]]] = {}
    for outcome in outcomes:
        if outcome.kind == "failed":
            error = outcome.error or Exception("failed")
            found.setdefault(id(outcome.error or outcome), (error, []))[1].append(outcome.event)
    return found.values()


def _several(events: Event[T] | Iterable[Event[T]]) -> Iterable[Event[T]]:
    given: Any = events
    if isinstance(given, Event):
        return (cast("Event[T]", given),)
    if isinstance(given, (str, bytes, Position)) or not isinstance(given, Iterable):
        raise ConfigError(f"only events that were handed out can be settled, got {given!r}")
    return cast("Iterable[Event[T]]", given)
