"""The consumer's side of demand: how a message is cut into calls, and what is asked for after each.

Does        keep one subscription's ledger: what was granted and has not come yet.
Does not    call handlers, or send anything: the runner does, in the order that it is told.
Invariants  1. what is granted and unprocessed is never above `max_demand`.
            2. the ask that belongs to a slice is sent after the slice was handled, never before.
            3. events beyond demand are handed on, and counted; they never lead to an ask.
Source      GenStage's automatic mode: slices of ``max - min`` at most; when what is left falls to
            `min_demand`, ask up to `max_demand` again.
"""

from __future__ import annotations

from penstock.errors import ConfigError

DEFAULT_MAX_DEMAND = 1000
"""Events that a consumer lets one producer send, unless it says otherwise."""


Slice = tuple[int, int]
"""So many events for one call of the handler; when it returned, ask for so many more (0: none)."""


class Demand:
    """The ledger of one subscription.

    Args:
        max_demand: the most events that may be granted and unprocessed; at least 1.
        min_demand: ask for more when so few are left, 0 to ``max_demand - 1``; None: half.
        manual: the program asks by itself: a message is one slice, and no ask follows it.

    Raises:
        ConfigError: a bound that is out of its range, or no whole number.
    """

    __slots__ = ("chunk", "excess", "manual", "max", "min", "pending")

    def __init__(
        self,
        max_demand: int = DEFAULT_MAX_DEMAND,
        min_demand: int | None = None,
        *,
        manual: bool = False,
    ) -> None:
        self.max, self.min = check_bounds(max_demand, min_demand)
        self.chunk = self.max - self.min
        self.manual = manual
        self.pending = 0
        self.excess = 0

    def grant(self, events: int) -> None:
        """*events* more were asked for."""
        self.pending += events

    def whole(self, count: int) -> int:
        """*count* events came; what to ask for when one call has handled them. -1: not in one call.

        The common case of `received`, at the cost of a few comparisons; -1 changes nothing.
        """
        left = self.pending - count
        if count > self.chunk or left < 0 or self.manual:
            return -1
        if left > self.min:
            self.pending = left
            return 0
        self.pending = self.max
        return self.max - left

    def received(self, count: int) -> list[Slice]:
        """Cut a message of *count* events; what is asked for after each slice counts as granted."""
        if count > self.pending:
            self.excess += count - self.pending
        if self.manual:
            self.pending = max(0, self.pending - count)
            return [(count, 0)]
        return self._several(count)

    def _several(self, count: int) -> list[Slice]:
        slices: list[Slice] = []
        granted = self.pending  # what may still come of what was granted when the message was sent
        while count:
            size = min(count, self.chunk)
            expected = min(size, granted)
            slices.append(self._next(size, expected))
            granted -= expected
            count -= size
        return slices

    def _next(self, size: int, expected: int) -> Slice:
        left = self.pending - expected
        if left > self.min:
            self.pending = left
            return size, 0
        self.pending = self.max
        return size, self.max - left


def check_bounds(max_demand: object, min_demand: object) -> tuple[int, int]:
    """Both bounds, `min_demand` filled in; or ConfigError, which says what they must be."""
    if type(max_demand) is not int or max_demand < 1:
        raise ConfigError(
            f"max_demand must be a whole number of events, at least 1; got {max_demand!r}"
        )
    if min_demand is None:
        return max_demand, max_demand // 2
    if type(min_demand) is not int or not 0 <= min_demand < max_demand:
        raise ConfigError(
            f"min_demand must be a whole number from 0 to {max_demand - 1} "
            f"(max_demand - 1); got {min_demand!r}"
        )
    return max_demand, min_demand
