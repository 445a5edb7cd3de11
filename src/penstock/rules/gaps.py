"""Gaps: whether events were trimmed away before they were read, and how many.

Does        keep where reading stands in one log, and how many events were added up to there; judge
            what a backend says of the log.
Does not    read, or ask anybody.
Invariants  1. a gap is told once, and reading then stands before the oldest event that is left.
            2. a count is given only where it is certain.
            3. a log that was deleted and made anew is another one: reading begins at its oldest.
Cost        per page: a few comparisons of pairs of numbers.
Source      Redis keeps, of a stream, how many entries were ever added and the highest id that was
            deleted by name: the rank of its oldest entry is the number of those that are gone, and
            one more. Rank of ours and of its oldest, subtracted, are the events that were lost.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from penstock.errors import PositionLost
from penstock.event import Position, Shard, Start

ZERO: Final = Position((0, 0))
"""Stands before everything."""

LAST: Final = (1 << 64) - 1
"""The highest second number of a position."""


class LogState(NamedTuple):
    """What a backend says of one log at one moment.

    `oldest` is None where it is empty; `newest` is the last that was ever added, `removed` the
    highest that was ever removed by name (not by trimming): ZERO for none.
    """

    added: int
    length: int
    oldest: Position | None
    newest: Position
    removed: Position

    @property
    def gone(self) -> int:
        """How many events were added and are there no more."""
        return self.added - self.length

    @property
    def whole(self) -> bool:
        """Whether nothing is missing between the oldest event and the newest."""
        return self.oldest is None or self.removed < self.oldest


class Gap(NamedTuple):
    """Events between *wanted* and *oldest* are gone; *lost* None: nobody can tell how many."""

    wanted: Position
    oldest: Position | None
    lost: int | None
    anew: bool = False


class Place:
    """Where reading stands in one log: behind `after`.

    Args:
        after: the position of an event, or a bound that no event need have.
        rank: how many events were ever added up to there; at least so many where not *exact*.
        exact: whether the rank is certain.
        bound: `after` is no event's position (a time): nothing is judged before a page came.
    """

    __slots__ = (
        "_anchor",
        "_bound",
        "_exact",
        "_floor",
        "_fresh",
        "_rank",
        "_since",
        "_vanished",
        "after",
    )

    def __init__(self, after: Position, rank: int, *, exact: bool, bound: bool = False) -> None:
        self.after = after
        self._rank = rank
        self._exact = exact
        self._bound = bound
        self._anchor = after
        self._floor: Position | None = None
        self._vanished = False
        self._fresh: Position | None = None
        self._since = 0

    @classmethod
    def at(cls, start: Start, state: LogState | None) -> Place:
        """Where a reader that starts at *start* begins, in a log that stands at *state*."""
        if start.kind == "newest":
            return cls(ZERO, 0, exact=True) if state is None else _end_of(state)
        if start.kind == "after" and start.position is not None:
            position = _padded(start.position)
            if position[1] == LAST:  # where one stood who began at a time, and read nothing
                return cls(position, 0, exact=False, bound=True)
            if position > ZERO:
                return cls(position, 1, exact=False)
        if start.kind == "at" and start.time is not None and start.time >= 0.001:
            return cls(_before(start.time), 0, exact=False, bound=True)
        return _beginning_of(state)

    @property
    def position(self) -> Position | None:
        """Behind which event the next page begins; None: the beginning."""
        return None if self.after == ZERO else self.after

    def read(self, count: int, first: Position, last: Position) -> None:
        """A page of *count* events came, from *first* to *last*."""
        self._fresh = self._fresh or first
        self._since += count
        self.after = last
        self._bound = False
        self._rank += count

    def seen(self, oldest: Position | None) -> None:
        """As long as this is the oldest event, nothing more was trimmed away."""
        self._floor = oldest

    def vanished(self) -> None:
        """The log that was read is gone: what comes under its name is another one."""
        self._vanished = self.after != ZERO and not self._bound
        self._fresh, self._since = None, 0

    def judge(self, state: LogState | None) -> Gap | None:
        """What was lost, if the log stands at *state* now; reading goes on behind `after`."""
        gap = self._judged(state)
        self._fresh, self._since = None, 0
        return gap

    def _judged(self, state: LogState | None) -> Gap | None:
        if state is None:
            self.vanished()
            return None
        if self._bound:
            return None
        if self._vanished or state.newest < self.after or state.added < self._rank:
            return self._begin_anew(state)
        oldest = state.oldest
        if self.after == state.newest:
            return self._at_the_end(state)
        if oldest is None:
            return self._emptied(state)
        if oldest <= self.after or oldest == self._floor:
            return None
        if state.gone < self._surely_read:
            return self._begin_anew(state)
        return self._passed(state, oldest)

    @property
    def _surely_read(self) -> int:
        """Where the oldest event stands behind `after`, at least so many are gone: of this log."""
        return self._rank if self._exact else self._rank - 1  # it may have begun behind no event

    def _begin_anew(self, state: LogState) -> Gap:
        gap = Gap(self.after, state.oldest, None, anew=True)
        self._vanished = False
        beginning = _beginning_of(state)
        if self._fresh is not None and self._fresh == state.oldest:  # what came since is all of it
            beginning.read(self._since, self._fresh, self.after)
        self._move(beginning)
        return gap

    def _at_the_end(self, state: LogState) -> Gap | None:
        """Everything has been read: the rank is known again, and says whether it was all."""
        lost = state.added - self._rank if self._certain(state) else 0
        self._move(_end_of(state))
        return Gap(self.after, state.oldest, lost) if lost else None

    def _emptied(self, state: LogState) -> Gap | None:
        """Nothing is left, and there was something behind ours."""
        lost = state.added - self._rank
        gap = Gap(self.after, None, lost if self._certain(state) else None)
        nothing = self.after == ZERO and not self._exact
        self._move(_end_of(state))
        return gap if lost > 0 and not nothing else None

    def _passed(self, state: LogState, oldest: Position) -> Gap | None:
        """The oldest event stands behind ours: those between are gone, if there were any."""
        most, certain = state.gone - self._rank, self._certain(state)
        gap = Gap(self.after, oldest, most if certain else None)
        nothing = most <= 0 or (self.after == ZERO and not self._exact)
        self._floor = oldest
        if state.whole:
            self._rank, self._exact, self._anchor = state.gone, True, oldest
        return None if nothing else gap

    def _certain(self, state: LogState) -> bool:
        """Whether the rank counts all: nothing was removed by name since it was known."""
        return self._exact and state.removed <= self._anchor

    def _move(self, place: Place) -> None:
        self.after = self._anchor = place.after
        self._rank, self._exact, self._floor = place._rank, place._exact, place._floor


def position_lost(gap: Gap, shard: Shard) -> PositionLost:
    """The error that says so."""
    where = f"stream {shard.stream!r}" + (f", shard {shard.index}" if shard.of > 1 else "")
    oldest = "" if gap.oldest is None else str(gap.oldest)
    if gap.anew:
        what = f"{where} was deleted and made anew: {gap.wanted}, where reading stood, is not in it"
    else:
        count = (
            "some events (nobody can tell how many)" if gap.lost is None else f"{gap.lost} events"
        )
        what = f"{count} behind {gap.wanted} were trimmed from {where} before they were read"
    return PositionLost(
        f"{what}; reading goes on from the oldest that is left{oldest and ', ' + oldest}",
        wanted=str(gap.wanted),
        oldest=oldest,
        lost=gap.lost,
        stream=shard.stream,
        shard=shard.index,
    )


def before_time(seconds: float) -> Position:
    """The last position before the first one at or after *seconds* since 1970."""
    return _before(seconds) if seconds >= 0.001 else ZERO


def _beginning_of(state: LogState | None) -> Place:
    if state is None:
        return Place(ZERO, 0, exact=True)
    place = Place(ZERO, state.gone if state.whole else 0, exact=state.whole)
    place.seen(state.oldest)
    return place


def _end_of(state: LogState) -> Place:
    return Place(state.newest, state.added, exact=True)


def _before(seconds: float) -> Position:
    ms = int(round(seconds * 1000, 3))  # ids know no less, and including beats losing
    return Position((ms - 1, LAST))


def _padded(position: Position) -> Position:
    return position if len(position) > 1 else Position((*position, 0))
