"""What a stage has done so far, as a plain value.

Does        name the figures.
Does not    count: the stage's two sides do.
"""

from __future__ import annotations

import msgspec

from penstock.stages.subscription import SubscriptionStatistics


class StageStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A stage at one moment; events since it began to run.

    Attributes:
        name: its name in the topology.
        kind: ``"producer"``, ``"producer-consumer"`` or ``"consumer"``.
        state: running, ending, or how it ended.
        demand_in: asked of it by consumers.
        demand_out: asked by it of the producers that it is subscribed to now.
        received: came from producers.
        handled: `handle_events` has returned for them.
        emitted: given out by the program.
        delivered: sent to consumers; what a broadcast sends to several counts once.
        buffered: given out, and waiting for demand.
        queued: received, and waiting for demand.
        discarded: dropped by a full buffer.
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
    calls: int
    seconds: float
    subscriptions: tuple[SubscriptionStatistics, ...]
