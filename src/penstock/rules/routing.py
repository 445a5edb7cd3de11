"""The dispatcher that gives every event to the consumer of its partition.

Does        decide each event's partition, and hold what that partition has not asked for yet.
Does not    hold more than a partition's `max_demand`: then nothing more is taken for any of them.
Invariants  1. a partition has one consumer at a time, and gets its events in order.
            2. an event is hashed once, when it is taken; what is not taken is not hashed.
            3. what is held for a consumer that leaves is there for the next one of that partition.
            4. a discarded event costs no demand.
Source      GenStage's partition dispatcher; there the queues have no bound, and go with their
            consumer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple

from penstock.errors import ConfigError
from penstock.rules.buffer import Piece
from penstock.rules.demand import DEFAULT_MAX_DEMAND
from penstock.rules.dispatch import Delivery, Dispatched, Options, Plain
from penstock.rules.partition import partition_of
from penstock.rules.trace import Carrier

Partition = Hashable
"""A partition's name."""


class Route(NamedTuple):
    """From a `hash`: hand *event* on, instead of the one that came, to *partition*."""

    event: Any
    partition: Partition


class _Lane:
    """One partition: its consumer, what that has asked for, and what is held for it."""

    __slots__ = ("batch", "capacity", "held", "infos", "open", "parts", "pieces", "tag")

    def __init__(self) -> None:
        self.tag: Any = None
        self.open = 0
        self.capacity = DEFAULT_MAX_DEMAND
        self.held = 0
        self.pieces: deque[Piece] = deque()
        self.batch: list[Any] = []  # what is routed to it just now; before it `parts`
        self.parts: list[Piece] = []
        self.infos: list[_Pinned] = []

    @property
    def space(self) -> int:
        """How many more events it could take, delivered or held."""
        return self.open + self.capacity - self.held


class _Pinned:
    """An info that waits for as many lanes as had something held when it came."""

    __slots__ = ("info", "lanes")

    def __init__(self, info: Any, lanes: int) -> None:
        self.info = info
        self.lanes = lanes


class PartitionDispatcher(Plain):
    """Each event to the one consumer of its partition; consumers say ``partition=``.

    Args:
        partitions: how many (they are then named 0, 1, 2, …), or their names.
        key: of an event, what decides its partition, by a hash that never changes: text, bytes, a
            number, … Without `key` and `hash` that is the event itself. With a count only.
        hash: of an event, the name of its partition; None discards the event; a `Route` hands
            another event on. Needed where partitions have names.

    Raises:
        ConfigError: no partition, one named twice, names without `hash`, or both functions.
    """

    holds = True
    known = frozenset({"partition"})

    def __init__(
        self,
        partitions: int | Iterable[Partition],
        *,
        key: Callable[[Any], Any] | None = None,
        hash: Callable[[Any], Partition | Route | None] | None = None,
    ) -> None:
        counted = isinstance(partitions, int)
        names: list[Partition] = [
            *(range(partitions) if isinstance(partitions, int) else partitions)
        ]
        _check(names, counted=counted, key=key, hash=hash)
        self._options = (names if not counted else len(names), key, hash)
        self._lanes: dict[Partition, _Lane] = {name: _Lane() for name in names}
        self._by_tag: dict[Any, _Lane] = {}
        self._hash = hash or _hashed(len(names), key)
        self._released: list[Any] = []
        self._open = 0
        self._held = 0

    @property
    def backlog(self) -> int:
        """What is held, over all partitions."""
        return self._held

    @property
    def unowned(self) -> int:
        """What is held for partitions without a consumer."""
        return sum(lane.held for lane in self._lanes.values() if lane.tag is None)

    @property
    def room(self) -> int:
        """What is open, and at most what the fullest partition could take if all were for it."""
        if not self._open:
            return 0
        return min(self._open, *(lane.space for lane in self._lanes.values()))

    def fresh(self) -> PartitionDispatcher:
        """A new one with the same options."""
        partitions, key, choose = self._options
        return PartitionDispatcher(partitions, key=key, hash=choose)

    def check(self, options: Options) -> None:
        """`partition` must be one of ours."""
        super().check(options)
        if "partition" not in options:
            raise ConfigError(
                f"a consumer of a partitioned producer must say which partition= it takes; "
                f"there are {self._names()}"
            )
        try:
            known = options["partition"] in self._lanes
        except TypeError:  # not hashable: no name
            known = False
        if not known:
            raise ConfigError(
                f"partition must be one of {self._names()}; got {options['partition']!r}"
            )

    def subscribe(self, tag: Any, options: Options) -> None:
        """Refuses a partition that has a consumer already."""
        self.check({name: options[name] for name in self.known if name in options})
        lane = self._lane(options["partition"])
        if lane.tag is not None:
            raise ConfigError(
                f"a partition has one consumer at a time; {options['partition']!r} is taken by "
                f"{lane.tag.consumer!r}"
            )
        lane.tag, lane.open = tag, 0
        lane.capacity = options.get("max_demand", DEFAULT_MAX_DEMAND)
        self._by_tag[tag] = lane

    def ask(self, tag: Any, demand: int) -> Sequence[Delivery]:
        """What is held for it goes first."""
        lane = self._by_tag[tag]
        deliveries: list[Delivery] = []
        while demand and lane.pieces:
            events, carrier = lane.pieces.popleft()
            if len(events) > demand:
                lane.pieces.appendleft(Piece(events[demand:], carrier))
                events = events[:demand]
            demand -= len(events)
            lane.held -= len(events)
            self._held -= len(events)
            deliveries.append((tag, events, carrier))
        if not lane.pieces:
            self._let_out(lane)
        lane.open += demand
        self._open += demand
        return deliveries

    def cancel(self, tag: Any) -> Sequence[Piece]:
        """What is held for it stays, for the partition's next consumer."""
        lane = self._by_tag.pop(tag)
        self._open -= lane.open
        lane.tag, lane.open = None, 0
        self._let_out(lane)
        return ()

    def dispatch(self, events: list[Any], carrier: Carrier | None) -> Dispatched:
        """One message for each partition that has asked; the rest of what is taken is held."""
        touched: dict[Partition, _Lane] = {}
        try:
            taken, skipped = self._route(events, carrier, touched)
        except BaseException:
            for lane in touched.values():
                lane.batch, lane.parts = [], []
            raise
        deliveries: list[Delivery] = []
        for lane in touched.values():
            deliveries += self._flush(lane, carrier)
        return deliveries, taken, skipped, ()

    def _route(
        self, events: list[Any], carrier: Carrier | None, touched: dict[Partition, _Lane]
    ) -> tuple[int, list[Any]]:
        """Find the lane of each event, as far as there is room; how many, and what is discarded."""
        skipped: list[Any] = []
        room, taken = self.room, 0
        for event in events:
            if room <= 0:
                break
            taken += 1
            route = self._hash(event)
            if route is None:
                skipped.append(event)
                continue
            other = route if type(route) is Route else None
            name = other.partition if other else route
            touched[name] = lane = self._lane(name)
            if other is None:
                lane.batch.append(event)
            else:
                self._replace(lane, event, other.event, carrier)
            room -= 1
        return taken, skipped

    def _replace(self, lane: _Lane, event: Any, other: Any, carrier: Carrier | None) -> None:
        """*other* goes on in place of *event*, whose outcome is to be told."""
        own = carrier.begin([event]) if carrier is not None else None
        if own is carrier:
            lane.batch.append(other)
            return
        lane.parts += [Piece(lane.batch, carrier), Piece([other], own)]
        lane.batch = []

    def pin(self, info: Any) -> bool:
        """Waits for every partition that has a consumer and something held for it."""
        waiting = [lane for lane in self._lanes.values() if lane.pieces and lane.tag is not None]
        pinned = _Pinned(info, len(waiting))
        for lane in waiting:
            lane.infos.append(pinned)
        return bool(waiting)

    def released(self) -> Sequence[Any]:
        """Those whose partitions have been served."""
        released, self._released = self._released, []
        return released

    def clear(self) -> Sequence[Piece]:
        """Everything that is held, of all partitions."""
        pieces = [piece for lane in self._lanes.values() for piece in lane.pieces]
        for lane in self._lanes.values():
            lane.pieces.clear()
            lane.held = 0
        self._held = 0
        return pieces

    def _flush(self, lane: _Lane, carrier: Carrier | None) -> list[Delivery]:
        """Deliver what was routed to *lane*, as far as it has asked; hold the rest."""
        parts = [*lane.parts, Piece(lane.batch, carrier)]
        lane.batch, lane.parts = [], []
        deliveries: list[Delivery] = []
        for events, follows in parts:
            now, later = events[: lane.open], events[lane.open :]
            lane.open -= len(now)
            self._open -= len(now)
            if now:
                deliveries.append((lane.tag, now, follows))
            if later:
                lane.pieces.append(Piece(later, follows))
                lane.held += len(later)
                self._held += len(later)
        return deliveries

    def _let_out(self, lane: _Lane) -> None:
        infos, lane.infos = lane.infos, []
        for pinned in infos:
            pinned.lanes -= 1
            if not pinned.lanes:
                self._released.append(pinned.info)

    def _lane(self, name: Any) -> _Lane:
        try:
            return self._lanes[name]
        except (KeyError, TypeError):
            raise ConfigError(
                f"hash= must return one of {self._names()}, None to discard the event, or "
                f"Route(event, partition); it returned another {type(name).__name__}"
            ) from None

    def _names(self) -> str:
        return ", ".join(map(repr, self._lanes))


def _check(names: list[Partition], *, counted: bool, key: object, hash: object) -> None:
    if not names or len(set(names)) < len(names):
        raise ConfigError(
            f"partitions must be a count of at least 1, or names that differ; got {names!r}"
        )
    if key and hash:
        raise ConfigError("give a PartitionDispatcher key= or hash=, not both")
    if not counted and not hash:
        raise ConfigError(
            f"partitions with names need hash=, a function from an event to one of {names!r}"
        )


def _hashed(count: int, key: Callable[[Any], Any] | None) -> Callable[[Any], int]:
    if key is None:
        return lambda event: partition_of(event, count)
    return lambda event: partition_of(key(event), count)
