"""Who gets the next events: the dispatchers of a producer, as pure machines.

Does        say what every dispatcher must be able to do, and how the two that share demand do it.
Does not    keep events that nobody asked for (`buffer`), send, or wait.
Invariants  1. nobody is given more than it asked for.
            2. `room` is what would be taken now: what is over comes back to the caller, in order.
            3. a subscription that cannot be served is refused; it harms nobody else.
Source      GenStage's dispatchers. Unlike there, what is asked of the producer is not counted here
            but in `outlet`, so that no joining or leaving strands what lies in the buffer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

from penstock.errors import ConfigError
from penstock.rules.buffer import Piece
from penstock.rules.trace import Carrier


class Tag(Protocol):
    """What a dispatcher knows of a subscription. Hashable, by identity."""

    @property
    def number(self) -> int:
        """Its number, unique in the process."""
        ...

    @property
    def consumer(self) -> Hashable:
        """Who is subscribed."""
        ...


Options = Mapping[str, Any]
"""A subscription's options: `max_demand`, and whatever the dispatcher defines."""


Delivery = tuple[Any, list[Any], Carrier | None]
"""Tag, events, carrier: what one subscription gets in one message."""

Broken = tuple[Any, Exception]
"""The tag of a subscription that cannot be served any more, and why."""

Dispatched = tuple[Sequence[Delivery], int, Sequence[Any], Sequence[Broken]]
"""What becomes of an emission: deliveries; how many events of it were taken, from its beginning;
those of them that nobody gets; subscriptions that broke. A plain tuple: one is made for every
emission."""


class Dispatcher(Protocol):
    """Shares a producer's events among its consumers. Derive from `Plain` what holds nothing back.

    Attributes:
        holds: whether `backlog` can ever be above 0.
        warned: whether `warnings` has something.
    """

    holds: bool
    warned: bool

    @property
    def room(self) -> int:
        """How many events it would take now."""
        ...

    @property
    def backlog(self) -> int:
        """How many events it has taken and not handed on."""
        ...

    @property
    def unowned(self) -> int:
        """How many of those are for consumers that are not there."""
        ...

    def fresh(self) -> Dispatcher:
        """A new one with the same options: an instance serves one run of one stage."""
        ...

    def check(self, options: Options) -> None:
        """Raise ConfigError for options that can never be served, or that it does not know."""
        ...

    def subscribe(self, tag: Any, options: Options) -> None:
        """Take a subscription in, without demand; ConfigError refuses it and changes nothing."""
        ...

    def ask(self, tag: Any, demand: int) -> Sequence[Delivery]:
        """*demand* more events may go to *tag*; those that were waiting for it."""
        ...

    def cancel(self, tag: Any) -> Sequence[Piece]:
        """Forget *tag*; what had been taken for it and must go back to where it came from."""
        ...

    def dispatch(self, events: list[Any], carrier: Carrier | None) -> Dispatched:
        """Hand out *events*, as far as there is room."""
        ...

    def pin(self, info: Any) -> bool:
        """Let *info* out after what is in the backlog now; False: nothing is, it is due now."""
        ...

    def released(self) -> Sequence[Any]:
        """Infos that are due by now, each once."""
        ...

    def warnings(self) -> Sequence[str]:
        """What its user should know, each once."""
        ...

    def clear(self) -> Sequence[Piece]:
        """Give up the backlog: the stage ends."""
        ...


class AlreadySubscribed(ConfigError):
    """The dispatcher takes a consumer once only; the first subscription goes on."""


class Plain:
    """What dispatchers have in common that hold nothing back."""

    holds: bool = False
    warned: bool = False
    known: frozenset[str] = frozenset()
    """The options of a subscription that it understands."""

    @property
    def backlog(self) -> int:
        """Nothing is held back."""
        return 0

    @property
    def unowned(self) -> int:
        """Nothing is held back."""
        return 0

    def check(self, options: Options) -> None:
        """Nothing but what it knows."""
        if unknown := options.keys() - self.known:
            raise ConfigError(
                f"{type(self).__name__} knows no option {', '.join(sorted(unknown))} of a "
                f"subscription; it knows {', '.join(sorted(self.known)) or 'none of its own'}"
            )

    def pin(self, info: Any) -> bool:
        """Nothing is held back: due now."""
        return False

    def released(self) -> Sequence[Any]:
        """None is ever pinned."""
        return ()

    def warnings(self) -> Sequence[str]:
        """None."""
        return ()

    def clear(self) -> Sequence[Piece]:
        """Nothing is held back."""
        return ()


class DemandDispatcher(Plain):
    """The default: each event goes to one consumer, the one that has asked for most.

    An emission goes to the consumer with the largest open demand, as much as it asked for, then to
    the next. Equal demands take turns, in the order in which they asked.

    Args:
        shuffle: begin, once, with another order than that of subscribing, so that many small
            producers do not all begin with the same consumer. It is drawn from the subscriptions'
            numbers: other for every producer, and the same in every run.
        max_demand: where there are several consumers, warn of asks above it; None: above the first
            ask.
    """

    def __init__(self, *, shuffle: bool = False, max_demand: int | None = None) -> None:
        self._options = (shuffle, max_demand)
        self._shuffle = shuffle
        self._max = max_demand
        # In descending order, equal ones in the order of asking. Where there is one alone, `room`
        # is its demand, and what stands here is not kept up to date: so the common case is fast.
        self._open: list[tuple[int, Any]] = []
        self._alone = False
        self._warnings: list[str] = []
        self.room = 0

    def fresh(self) -> DemandDispatcher:
        """A new one with the same options."""
        shuffle, max_demand = self._options
        return DemandDispatcher(shuffle=shuffle, max_demand=max_demand)

    def subscribe(self, tag: Any, options: Options) -> None:
        """Last in the order, without demand."""
        if self._alone:
            self._open[0] = (self.room, self._open[0][1])
        self._open.append((0, tag))
        self._alone = len(self._open) == 1

    def ask(self, tag: Any, demand: int) -> Sequence[Delivery]:
        """Count it, and find its new place."""
        self.room += demand
        if self._max is None:
            self._max = demand
        if not self._alone:
            if demand > self._max:
                self._warn(demand)
            self._place(self._remove(tag) + demand, tag)
        return ()

    def cancel(self, tag: Any) -> Sequence[Piece]:
        """Its open demand goes with it."""
        if self._alone:
            self._open[0] = (self.room, self._open[0][1])
        self.room -= self._remove(tag)
        self._alone = len(self._open) == 1
        if self._alone:
            self._open[0] = (self.room, self._open[0][1])
        elif not self._open:
            self._max = self._options[1]
        return ()

    def dispatch(self, events: list[Any], carrier: Carrier | None) -> Dispatched:
        """To the one with the largest demand first."""
        count = len(events)
        if self._alone and count <= self.room:
            self.room -= count
            return ((self._open[0][1], events, carrier),), count, (), ()
        return self._dispatch(events, count, carrier)

    def _dispatch(self, events: list[Any], count: int, carrier: Carrier | None) -> Dispatched:
        if self._alone:
            self._open[0] = (self.room, self._open[0][1])
        if self._shuffle:
            self._reorder()
        taken = 0
        deliveries: list[Delivery] = []
        while taken < count and self._open and self._open[0][0]:
            demand, tag = self._open.pop(0)
            size = min(demand, count - taken)
            part = events if size == count else events[taken : taken + size]
            deliveries.append((tag, part, carrier))
            self._place(demand - size, tag)
            taken += size
        self.room -= taken
        return deliveries, taken, (), ()

    def warnings(self) -> Sequence[str]:
        """Of asks above the maximum."""
        warnings, self._warnings, self.warned = self._warnings, [], False
        return warnings

    def open_demand(self) -> list[int]:
        """The open demands, in the order in which they would be served."""
        return [self.room] if self._alone else [demand for demand, _ in self._open]

    def _remove(self, tag: Any) -> int:
        for index, (demand, one) in enumerate(self._open):
            if one is tag:
                del self._open[index]
                return demand
        return 0

    def _place(self, demand: int, tag: Any) -> None:
        order = self._open
        if not order or demand <= order[-1][0]:
            order.append((demand, tag))
            return
        for index, (other, _) in enumerate(order):
            if demand > other:
                order.insert(index, (demand, tag))
                return

    def _reorder(self) -> None:
        self._shuffle = False
        if not self._open:
            return
        demands = [demand for demand, _ in self._open]
        tags = sorted((tag for _, tag in self._open), key=_scattered)
        if len(set(demands)) == 1:
            self._open = list(zip(demands, tags, strict=True))
            return
        by_tag = {id(tag): demand for demand, tag in self._open}
        self._open = sorted(
            ((by_tag[id(tag)], tag) for tag in tags), key=lambda entry: entry[0], reverse=True
        )

    def _warn(self, demand: int) -> None:
        self.warned = True
        self._warnings.append(
            f"a consumer asked for {demand} events at once, above the maximum of {self._max} that "
            f"the others keep to: it gets more than its share; give all of them one max_demand, "
            f"or the dispatcher the largest"
        )


class RoundRobinDispatcher(Plain):
    """Each event goes to one consumer; they take turns, a few events each.

    Fairer than `DemandDispatcher` where emissions are larger than the work of one consumer should
    be: nobody gets a second turn before everybody who has open demand had a first.

    Args:
        per_turn: the most events that a consumer is given in one turn.

    Raises:
        ConfigError: `per_turn` below 1.
    """

    def __init__(self, *, per_turn: int = 1) -> None:
        if type(per_turn) is not int or per_turn < 1:
            raise ConfigError(f"per_turn must be at least 1 event; got {per_turn!r}")
        self._per_turn = per_turn
        self._turns: deque[Any] = deque()
        self._open: dict[Any, int] = {}
        self.room = 0

    def fresh(self) -> RoundRobinDispatcher:
        """A new one with the same options."""
        return RoundRobinDispatcher(per_turn=self._per_turn)

    def subscribe(self, tag: Any, options: Options) -> None:
        """Its turn comes after everybody else's."""
        self._turns.append(tag)
        self._open[tag] = 0

    def ask(self, tag: Any, demand: int) -> Sequence[Delivery]:
        """Count it."""
        self._open[tag] += demand
        self.room += demand
        return ()

    def cancel(self, tag: Any) -> Sequence[Piece]:
        """Its open demand goes with it."""
        self.room -= self._open.pop(tag)
        self._turns.remove(tag)
        return ()

    def dispatch(self, events: list[Any], carrier: Carrier | None) -> Dispatched:
        """Turn by turn; what one consumer gets in several turns is one message, in order."""
        count, taken = min(len(events), self.room), 0
        shares: dict[Any, list[Any]] = {}
        while taken < count:
            tag = self._turns[0]
            self._turns.rotate(-1)
            if size := min(self._open[tag], self._per_turn, count - taken):
                shares.setdefault(tag, []).extend(events[taken : taken + size])
                self._open[tag] -= size
                taken += size
        self.room -= taken
        return [(tag, part, carrier) for tag, part in shares.items()], taken, (), ()


def _scattered(tag: Tag) -> int:
    """Where *tag* stands in a shuffled order: Fibonacci hashing of its number."""
    return tag.number * 0x9E3779B97F4A7C15 % 2**64
