"""What a stage has done so far, as a plain value.

Does        name the figures, and read them.
Does not    count: the stage's two sides do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from penstock.stages.subscription import SubscriptionStatistics

if TYPE_CHECKING:
    from penstock.stages.runner import Runner


class StageStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A stage at one moment; events since it began to run.

    Attributes:
        name: its name in the topology.
        kind: ``"producer"``, ``"producer-consumer"`` or ``"consumer"``.
        state: running, ending, or how it ended.
        demand_in: asked of it by consumers.
        demand_out: asked by it of producers.
        received: came from producers.
        handled: `handle_events` has returned for them.
        emitted: given out by the program.
        delivered: sent to consumers; what a broadcast sends to several counts once.
        buffered: given out, and waiting for demand.
        queued: received, and waiting for demand.
        discarded: dropped by a full buffer.
        kept: calls, or events of them, whose work goes on (see `keep`).
        calls: of `handle_events` and `handle_demand`.
        seconds: spent in them.
        subscriptions: all that are open, to producers first.
    """

    name: str
    kind: str
    state: str
    demand_in: int
    demand_out: int
    received: int
    handled: int
    emitted: int
    delivered: int
    buffered: int
    queued: int
    discarded: int
    kept: int
    calls: int
    seconds: float
    subscriptions: tuple[SubscriptionStatistics, ...]


def statistics_of(runner: Runner) -> StageStatistics:
    """The stage at this moment."""
    giving, taking = runner.giving, runner.taking
    sides = [side for side in (giving, taking) if side is not None]
    return StageStatistics(
        name=runner.name,
        kind=runner.kind,
        state=runner.state,
        demand_in=giving.outlet.asked if giving else 0,
        demand_out=taking.asked if taking else 0,
        received=taking.received if taking else 0,
        handled=taking.handled if taking else 0,
        emitted=giving.outlet.emitted if giving else 0,
        delivered=giving.outlet.delivered if giving else 0,
        buffered=giving.outlet.waiting if giving else 0,
        queued=taking.queued if taking else 0,
        discarded=giving.discarded if giving else 0,
        kept=len(runner.kept),
        calls=sum(side.calls for side in sides),
        seconds=sum(side.seconds for side in sides),
        subscriptions=tuple(one.statistics() for one in runner.subscriptions),
    )
