"""The producing side of a stage: its dispatcher, its buffer, and what it was asked for.

Does        say, after every step, who gets which events, and how much the program is asked for.
Does not    call the program, send, or wait: the runner does, in the order that it is told.
Invariants  1. what lies in the buffer is handed out before anything newer, whoever comes or goes.
            2. the program is asked once for what consumers have asked for: demand of one that left
               is inherited by the others; no demand is stranded, none is passed on twice.
            3. what is emitted beyond demand is kept in the buffer, up to its bound.
            4. while accumulating, asks and emissions are kept, and replayed one by one, in order.
Source      GenStage's producer. There the buffer is served by net new demand only, which strands
            and reorders events when consumers come and go.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from penstock.rules.buffer import Buffer, Overflow, Piece
from penstock.rules.dispatch import Delivery, Dispatcher, Options
from penstock.rules.trace import Carrier


class Outlet:
    """What a producer has to give, and who has asked for it.

    Every step returns deliveries, to be sent in their order. What happens rarely is found in
    `overflow`, `infos`, `skipped`, `broken` and `failure` (of the dispatcher), to be emptied by
    whoever reads them; `rare` says whether there is anything.

    Args:
        dispatcher: who gets what.
        buffer: for what nobody has asked for.
        accumulate: begin with keeping asks and emissions back, until `forward`.
    """

    __slots__ = (
        *("_asks", "_holds", "accumulating", "asked", "broken", "buffer", "delivered"),
        *("dispatcher", "emitted", "failure", "infos", "outstanding", "overflow", "rare"),
        "skipped",
    )

    def __init__(self, dispatcher: Dispatcher, buffer: Buffer, *, accumulate: bool = False) -> None:
        self.dispatcher = dispatcher
        self.buffer = buffer
        self._holds = dispatcher.holds
        self.accumulating = accumulate
        self._asks: deque[int] = deque()
        self.outstanding = 0  # what the program was asked for, and has not emitted
        self.asked = self.emitted = self.delivered = 0
        self.rare = False
        self.failure: Exception | None = None
        self.overflow: list[Overflow] = []
        self.infos: list[Any] = []
        self.skipped: list[Piece] = []
        self.broken: list[tuple[Any, Exception]] = []

    @property
    def waiting(self) -> int:
        """Events that were emitted and not handed out."""
        return self.buffer.count + self.dispatcher.backlog

    @property
    def kept_asks(self) -> int:
        """How many asks are to be replayed."""
        return len(self._asks)

    def subscribe(self, tag: Any, options: Options) -> Sequence[Delivery]:
        """Take a consumer in, which may make room for others; ConfigError refuses it."""
        self.dispatcher.subscribe(tag, options)
        return () if self.accumulating else self.serve()

    def ask(self, tag: Any, demand: int) -> Sequence[Delivery]:
        """A consumer asks; what is there goes to it at once."""
        self.asked += demand
        dispatcher = self.dispatcher
        deliveries = dispatcher.ask(tag, demand)
        if self._holds:
            self._collect()
            self.delivered += sum(len(events) for _, events, _ in deliveries)
        if dispatcher.warned:
            self.rare = True
        if self.buffer.count and not self.accumulating:
            return [*deliveries, *self.serve()]
        return deliveries

    def cancel(self, tag: Any) -> Sequence[Delivery]:
        """A consumer leaves; what it held up may go to the others."""
        self.buffer.restore(list(self.dispatcher.cancel(tag)))
        self._collect()
        return () if self.accumulating else self.serve()

    def emit(self, events: list[Any], carrier: Carrier | None = None) -> Sequence[Delivery]:
        """The program emits *events*; behind all that was emitted before."""
        count = len(events)
        self.emitted += count
        left = self.outstanding - count
        self.outstanding = max(0, left)
        if self.accumulating or self.buffer.count:
            self._store(events, carrier, apart=self.accumulating)
            return () if self.accumulating else self.serve()
        try:
            deliveries, taken, skipped, broken = self.dispatcher.dispatch(events, carrier)
        except Exception:
            self.buffer.restore([Piece(events, carrier)])
            raise
        self._count(deliveries, taken - len(skipped))
        if skipped or broken:
            self._unusual(skipped, broken, carrier)
        if taken == count:
            return deliveries
        return [*deliveries, *self._hand_out_more(events[taken:], taken, carrier)]

    def _hand_out_more(
        self, events: list[Any], taken: int, carrier: Carrier | None
    ) -> Sequence[Delivery]:
        """What was left out, or held, cost no demand: there may be room for more. Keep the rest."""
        more: list[Delivery] = []
        while taken and events and self.dispatcher.room > 0:
            try:
                deliveries, taken, skipped, broken = self.dispatcher.dispatch(events, carrier)
            except Exception as error:  # noqa: BLE001 - raised when what is served has been sent
                self.buffer.restore([Piece(events, carrier)])
                self.failure, self.rare = error, True
                return more
            more += deliveries
            self._count(deliveries, taken - len(skipped))
            self._unusual(skipped, broken, carrier)
            events = events[taken:]
        if events:
            self._store(events, carrier)
        return more

    def info(self, info: Any) -> bool:
        """Let *info* out after everything that was emitted before; False: it is due now."""
        return self.buffer.pin(info) or self.dispatcher.pin(info)

    def serve(self) -> Sequence[Delivery]:
        """Hand out what lies in the buffer, as far as it was asked for."""
        served: list[Delivery] = []
        while self.buffer.count and (room := self.dispatcher.room) > 0:
            found = self.buffer.take(room)
            if found is None:
                break
            (events, carrier), infos = found
            try:
                deliveries, taken, skipped, broken = self.dispatcher.dispatch(events, carrier)
            except Exception as error:  # noqa: BLE001 - raised when what is served has been sent
                self.buffer.put_back(events, carrier, infos)
                self.failure, self.rare = error, True
                break
            served += deliveries
            self._count(deliveries, taken - len(skipped))
            if taken < len(events):  # the pins behind them stay behind them
                self.buffer.put_back(events[taken:], carrier, infos)
                infos = []
            self._unusual(skipped, broken, carrier)
            self._let_out(infos)
            if not taken:
                break
        return served

    def wanted(self) -> int:
        """How much the program is to be asked for now; it counts as asked for. 0: nothing."""
        if self.accumulating:
            net = self._net() - sum(self._asks)
            if net > 0:
                self._asks.append(net)
            return 0
        net = self._net()
        if net <= 0:
            self._asks.clear()
            return 0
        if self._asks:
            net = min(net, self._asks.popleft())
        self.outstanding += net
        return net

    def forward(self) -> Sequence[Delivery]:
        """End accumulating: hand out what was emitted. Then `wanted`, until 0, replays the asks."""
        self.accumulating = False
        return self.serve()

    def clear(self) -> list[Piece]:
        """The stage ends: what nobody will get."""
        return [*self.buffer.clear(), *self.dispatcher.clear()]

    def _count(self, deliveries: Sequence[Delivery], taken: int) -> None:
        if self._holds:
            self.delivered += sum(len(events) for _, events, _ in deliveries)
        else:
            self.delivered += taken  # a copy for each of several consumers counts once

    def _net(self) -> int:
        return self.dispatcher.room - self.outstanding - self.buffer.count

    def _store(self, events: list[Any], carrier: Carrier | None, *, apart: bool = False) -> None:
        overflow = self.buffer.store(events, carrier, apart=apart)
        if overflow:
            self.overflow.append(overflow)
            self.rare = True

    def _unusual(
        self,
        skipped: Sequence[Any],
        broken: Sequence[tuple[Any, Exception]],
        carrier: Carrier | None,
    ) -> None:
        if skipped:
            self.skipped.append(Piece(list(skipped), carrier))
            self.rare = True
        if broken:
            self.broken.extend(broken)
            self.rare = True

    def _let_out(self, infos: list[Any]) -> None:
        """Infos that have left the buffer; the dispatcher may hold them further."""
        for info in infos:
            if not self.dispatcher.pin(info):
                self.infos.append(info)
                self.rare = True

    def _collect(self) -> None:
        released = self.dispatcher.released()
        if released:
            self.infos.extend(released)
            self.rare = True
