"""Group work: what a group's member does in the background, as the classes that users see need it.

Does        name the verbs between `GroupReader` and `Group`, and what works for them.
Does not    hold any of it: `membership.Membership` works where events are shared.
Invariants  1. every verb without ``async`` only queues, and never waits.
Used by     `group_reader`, `group`; each way of sharing brings one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol, TypeVar

from penstock.event import Event
from penstock.ports import PendingInfo
from penstock.signals import GroupStatistics
from penstock.streams.inbox import Inbox

if TYPE_CHECKING:
    from penstock.streams.stream import Stream

T = TypeVar("T")


class GroupWork(Protocol[T]):
    """One member at work. Errors are those of the verbs of `Group` with the same names."""

    @property
    def name(self) -> str:
        """The member's name; what was given before it has joined."""
        ...

    def opened(self) -> Inbox[Event[T]]:
        """The inbox of an open member.

        Raises:
            ClosedError: not open.
        """
        ...

    async def open(self) -> None:
        """Join, and begin to fetch. Cancelled: not a member, or one that left as by a crash."""
        ...

    async def stop(self) -> None:
        """See `GroupReader.stop`. Cancelled: it is stopped, but for the reading that goes on."""
        ...

    async def close(self, error: BaseException | None, *, quiet: bool) -> None:
        """Leave: send what is queued, hand back the rest.

        *error* is what ended the block: an Exception counts a failure for what was yielded and
        not settled. *quiet* keeps own errors to signals. A second call waits for the first.
        Cancelled: leaving goes on in the background, within bounds.
        """
        ...

    def ack(self, events: Iterable[Event[T]]) -> None:
        """See `Group.ack`."""
        ...

    def nack(self, events: Iterable[Event[T]], delay: float | None, reason: str) -> None:
        """See `Group.nack`. Several events of one call failed together."""
        ...

    def fail(self, events: Iterable[Event[T]], error: BaseException) -> None:
        """See `Group.fail`. Several events of one call failed together."""
        ...

    def give_back(self, events: Iterable[Event[T]]) -> None:
        """Hand events back, uncounted, due at once."""
        ...

    def extend(self, event: Event[T]) -> None:
        """See `Group.extend`."""
        ...

    def holds(self, event: Event[T]) -> bool:
        """See `Group.holds`."""
        ...

    async def flush(self) -> None:
        """See `GroupReader.flush`."""
        ...

    async def add_stream(self, stream: Stream[T]) -> None:
        """See `GroupReader.add_stream`."""
        ...

    async def remove_stream(self, stream: Stream[T]) -> None:
        """See `GroupReader.remove_stream`."""
        ...

    async def on_shards(self, stream: str, count: int) -> None:
        """See `opening.Closable.on_shards`."""
        ...

    async def pending(self, limit: int) -> list[PendingInfo]:
        """See `GroupReader.pending`."""
        ...

    async def lag(self) -> int | None:
        """See `GroupReader.lag`."""
        ...

    def statistics(self) -> GroupStatistics:
        """See `GroupReader.statistics`."""
        ...
