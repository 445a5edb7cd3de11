"""Stages: back-pressured producers and consumers within a program; see `Topology`."""

from penstock.stages.handle import StageHandle, To
from penstock.stages.protocol import Reason, SubscribeOptions
from penstock.stages.stage import LATER, Consumer, Producer, ProducerConsumer, Stage
from penstock.stages.subscription import Subscription
from penstock.stages.topology import Topology
