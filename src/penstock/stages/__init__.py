"""Stages: back-pressured producers and consumers within a program.

    async with Topology() as topology:
        numbers = topology.start(Numbers())
        double = topology.start(Double(), subscribe_to=numbers)
        topology.start(Store(), subscribe_to=double.with_options(max_demand=100))
        await topology.wait()

A consumer asks for events, and a producer gives no more than it was asked for. First to read:
`stage` for what one writes, `topology` for what runs it, `protocol` for what goes between.
"""

from penstock.errors import DemandExceeded, StageError, SubscriptionCancelled
from penstock.rules.broadcast import BroadcastDispatcher
from penstock.rules.dispatch import DemandDispatcher, Dispatcher, RoundRobinDispatcher
from penstock.rules.routing import PartitionDispatcher, Route
from penstock.stages.calls import Call, Kept
from penstock.stages.crew import Child, ChildCount
from penstock.stages.handle import StageHandle, To
from penstock.stages.iterating import EventIterator, iterate
from penstock.stages.protocol import Reason, SubscribeOptions
from penstock.stages.sources import IterableStage, SourceStage, TargetStage
from penstock.stages.stage import LATER, Consumer, Producer, ProducerConsumer, Stage
from penstock.stages.statistics import StageStatistics
from penstock.stages.subscription import Subscription, SubscriptionStatistics
from penstock.stages.topology import Topology
from penstock.stages.workers import WorkerMap, Workers

__all__ = [
    "LATER",
    "BroadcastDispatcher",
    "Call",
    "Child",
    "ChildCount",
    "Consumer",
    "DemandDispatcher",
    "DemandExceeded",
    "Dispatcher",
    "EventIterator",
    "IterableStage",
    "Kept",
    "PartitionDispatcher",
    "Producer",
    "ProducerConsumer",
    "Reason",
    "RoundRobinDispatcher",
    "Route",
    "SourceStage",
    "Stage",
    "StageError",
    "StageHandle",
    "StageStatistics",
    "SubscribeOptions",
    "Subscription",
    "SubscriptionCancelled",
    "SubscriptionStatistics",
    "TargetStage",
    "To",
    "Topology",
    "WorkerMap",
    "Workers",
    "iterate",
]
