"""What the demo counts: windows by partition, and every sequence number once.

Does        spread numbers over partitions; sum a window up; find what is lost or double.
Does not    wait, print, or look at a clock: it is pure, and tested as such.
Invariants  1. a number belongs to the same partition in every process, whatever the member.
            2. lost and duplicated are found by sequence number, never as a difference of totals.
            3. memory grows with the gaps, not with the events: the demo may run for weeks.
Cost        `Window.add` runs once per event: one table look-up, three list stores, one compare.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Final

import msgspec

from penstock.rules.partition import shard_of

NUMBERS: Final = 10_000
"""The producer's numbers are 0 to 9999."""

Run = tuple[int, int]
"""Sequence numbers from the first to the last, both included."""


class Number(msgspec.Struct, frozen=True, gc=False):
    """One event of the demo, stored as JSON.

    Attributes:
        number: the random number.
        at: when it was drawn, in milliseconds since 1970.
        seq: its place among all that were ever produced into this stream, from 0.
    """

    number: Annotated[int, msgspec.Meta(ge=0, lt=NUMBERS)]
    at: int
    seq: Annotated[int, msgspec.Meta(ge=0)]


class Part(msgspec.Struct, frozen=True, array_like=True):
    """One partition's share of a window; `average` and `last` (ms) are None if it is empty."""

    partition: int
    count: int
    average: float | None
    last: int | None


def partition_table(partitions: int) -> list[int]:
    """The partition of every number, by hash."""
    return [shard_of(number.to_bytes(2, "big"), partitions) for number in range(NUMBERS)]


class Window:
    """What one member has seen since its last line.

    Args:
        table: the partition of every number, from `partition_table`.
        partitions: how many there are.
    """

    def __init__(self, table: Sequence[int], partitions: int) -> None:
        self._table = table
        self._counts = [0] * partitions
        self._sums = [0] * partitions
        self._last = [0] * partitions
        self._runs: list[list[int]] = []

    def __len__(self) -> int:
        return sum(self._counts)

    def add(self, numbers: Iterable[Number]) -> None:
        """Count these."""
        table, counts, sums, last = self._table, self._counts, self._sums, self._last
        run = self._runs[-1] if self._runs else [-2, -2]
        for number in numbers:
            partition = table[number.number]
            counts[partition] += 1
            sums[partition] += number.number
            last[partition] = number.at
            if number.seq == run[1] + 1:
                run[1] = number.seq
            else:
                run = [number.seq, number.seq]
                self._runs.append(run)

    def parts(self) -> list[Part]:
        """Count, average and time of the last event of every partition, empty ones too."""
        columns = zip(self._counts, self._sums, self._last, strict=True)
        return [
            Part(at, count, round(total / count, 1), last) if count else Part(at, 0, None, None)
            for at, (count, total, last) in enumerate(columns)
        ]

    def runs(self) -> list[Run]:
        """The sequence numbers, as runs in the order of arrival; repeated ones stand twice."""
        return [(first, last) for first, last in self._runs]


class Seen:
    """The sequence numbers that were seen, as runs that neither overlap nor touch."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    def __len__(self) -> int:
        """How many runs they are."""
        return len(self._firsts)

    def add(self, first: int, last: int) -> int:
        """Take in the run from *first* to *last*; how many of it had been seen before."""
        if not 0 <= first <= last:
            raise ValueError(f"a run must go up from 0 or more, got {first} to {last}")
        left = bisect_left(self._lasts, first - 1)
        right = bisect_right(self._firsts, last + 1)
        touched = list(zip(self._firsts[left:right], self._lasts[left:right], strict=True))
        again = sum(max(0, min(last, end) - max(first, begin) + 1) for begin, end in touched)
        if touched:
            first, last = min(first, touched[0][0]), max(last, touched[-1][1])
        self._firsts[left:right] = [first]
        self._lasts[left:right] = [last]
        return again

    def gaps(self, first: int, last: int) -> Iterator[Run]:
        """The runs between *first* and *last*, both included, that were not seen."""
        for begin, end in zip(self._firsts, self._lasts, strict=True):
            if begin > last:
                break
            if begin > first:
                yield first, begin - 1
            first = max(first, end + 1)
        if first <= last:
            yield first, last

    def missing(self, first: int, last: int) -> int:
        """How many from *first* to *last* were not seen."""
        return sum(end - begin + 1 for begin, end in self.gaps(first, last))


class Account:
    """What was produced, and what became of it.

    Args:
        first: the sequence number that this run of the demo begins with; lower ones are left over
            from an earlier run, and are counted apart.
    """

    def __init__(self, first: int, members: Iterable[str]) -> None:
        self.first = first
        self.produced = 0
        self.consumed = dict.fromkeys(members, 0)
        self.duplicated = 0
        self.left_over = 0
        self._seen = Seen()

    @property
    def next(self) -> int:
        """The sequence number of the next event."""
        return self.first + self.produced

    def take(self, member: str, runs: Iterable[Run]) -> None:
        """*member* has consumed these."""
        for first, last in runs:
            if last >= self.first:
                begin = max(first, self.first)
                self.duplicated += self._seen.add(begin, last)
                self.consumed[member] += last - begin + 1
            self.left_over += max(0, min(last + 1, self.first) - first)

    def lost(self) -> int:
        """How many were produced and not consumed; before the drain is over, not yet."""
        return self._seen.missing(self.first, self.next - 1)
