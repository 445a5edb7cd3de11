"""Dead letters: what a group has given up, to be looked at, tried again, or let go.

Does        hand out the dead letters of one group in order; replay and drop them.
Does not    decide when an event is given up: the group's `Retry` and the handler's errors do.
Invariants  1. replay gives a letter back to the group that failed, and to no other; one that is no
               longer there is skipped, so a replay that is repeated changes nothing.
            2. what a letter holds is what was stored, byte for byte, also where it cannot be read.
Used by     `stream.Stream.dead_letters`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from penstock.errors import ConfigError
from penstock.event import Event, Position, Shard
from penstock.info import DeadLetter as StoredLetter

if TYPE_CHECKING:
    from penstock.streams.administration import Administration

T = TypeVar("T")

_PAGE: Final = 100
"""Letters that are read at once: each holds an event, which may be large."""


class DeadLetter(Generic[T]):
    """One event that a group has given up.

    Attributes:
        event: the event as it was stored; its position is where it stood, or still stands.
        group: the group that gave it up.
        attempts: how often its handling failed.
        deliveries: how often it was handed out.
        error: the class of the last error; ``""`` where none is known.
        reason: what that error said, at most 1000 characters.
        time: when it was given up, in seconds since 1970, by the backend's clock.
        id: where the letter itself stands among the dead letters of its shard.
    """

    def __init__(self, event: Event[T], stored: StoredLetter) -> None:
        self.event = event
        self.group = stored.group
        self.attempts = stored.attempts
        self.deliveries = stored.deliveries
        self.error = stored.error
        self.reason = stored.reason
        self.time = stored.time
        self.id = stored.id
        self.shard = stored.shard

    def __repr__(self) -> str:
        return f"<DeadLetter {self.id} of {self.event.stream!r} {self.group!r}: {self.error}>"


class DeadLetters(Generic[T]):
    """The dead letters of one group. Made by `Stream.dead_letters`; ``async for`` reads them."""

    def __init__(self, stream: Administration[T], group: str) -> None:
        self._stream = stream
        self._group = group

    async def __aiter__(self) -> AsyncIterator[DeadLetter[T]]:
        """Oldest first, shard after shard, in pages; letters that come meanwhile come too.

        Raises:
            BackendError: refused, or not reachable.
        """
        await self._stream.format()
        for index in range(self._stream.shards):
            shard = self._stream.shard(index)
            last: Position | None = None
            while page := await self._page(shard, last):
                for letter in page:
                    yield letter
                last = page[-1].id

    async def count(self) -> int:
        """How many there are, over all shards."""
        await self._stream.format()
        backend = self._stream.client.backend
        shards = [self._stream.shard(index) for index in range(self._stream.shards)]
        return sum([await backend.count_letters(shard, self._group) for shard in shards])

    async def get(self, letter_id: Position | str, *, shard: int = 0) -> DeadLetter[T] | None:
        """The letter of that id, or None if it is not there."""
        wanted = Position.parse(letter_id) if isinstance(letter_id, str) else letter_id
        await self._stream.format()
        place = self._stream.shard(shard)
        before = _before(wanted)
        page = await self._page(place, before, limit=1)
        return page[0] if page and page[0].id == wanted else None

    async def replay(self, letters: Iterable[DeadLetter[T]] | None = None) -> int:
        """Give letters back to their group, as if they had never failed; how many were there.

        They come to whichever member is first, at once. Each leaves the dead letters in the same
        step. A letter that was replayed or dropped before is skipped. Works also where the
        original was trimmed: the letter holds it.

        Args:
            letters: which; None: all that are there when this begins.

        Raises:
            ConfigError: a letter of another group or stream.
            BackendError: refused, or not reachable; some may have been given back.
        """
        return await self._each(letters, "replay")

    async def drop(self, letters: Iterable[DeadLetter[T]] | None = None) -> int:
        """Remove letters for good; how many were there. Arguments and errors as for `replay`."""
        return await self._each(letters, "drop_letters")

    async def _each(self, letters: Iterable[DeadLetter[T]] | None, verb: str) -> int:
        by_shard: dict[Shard, list[Position]] = {}
        if letters is None:  # their ids alone: what they hold may be more than memory has room for
            async for letter in self:
                by_shard.setdefault(letter.shard, []).append(letter.id)
        for letter in letters or ():
            if letter.group != self._group or letter.event.stream != self._stream.name:
                raise ConfigError(
                    f"a letter must be one of group {self._group!r} of {self._stream.name!r}, "
                    f"got {letter!r}"
                )
            by_shard.setdefault(letter.shard, []).append(letter.id)
        act = getattr(self._stream.client.backend, verb)
        done = 0
        for shard, ids in by_shard.items():
            for at in range(0, len(ids), _PAGE):
                done += await act(shard, self._group, ids[at : at + _PAGE])
        return done

    async def _page(
        self, shard: Shard, last: Position | None, limit: int = _PAGE
    ) -> list[DeadLetter[T]]:
        origin = await self._stream.origin(shard.index)
        stored = await self._stream.client.backend.letters(shard, self._group, last, limit)
        return [
            DeadLetter(
                Event(
                    origin,
                    one.position.raw,
                    one.raw,
                    one.deliveries,
                    one.attempts,
                    len(b"".join(one.raw)),
                ),
                one,
            )
            for one in stored
        ]


def _before(position: Position) -> Position | None:
    """The position behind which *position* is the next one."""
    *head, last = position
    if last > 0:
        return Position((*head, last - 1))
    if not head or head[0] == 0:
        return None
    return Position((head[0] - 1, (1 << 64) - 1))
