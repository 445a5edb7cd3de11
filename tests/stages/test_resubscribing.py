"""Subscribing anew: one subscription in the place of another, in one step."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.errors import ConfigError, SubscriptionCancelled
from penstock.stages import BroadcastDispatcher, SubscribeOptions, To
from penstock.stages.protocol import Tag
from stages.fixtures import Forwarder, Middle, Silent, Stranger, emit, quiet, watched

KINDS = pytest.mark.parametrize("kind", [Forwarder, Middle], ids=["consumer", "middle"])


@pytest.mark.conformance("GS-069", "GS-072")
@KINDS
async def test_resubscribing_ends_the_old_subscription_and_begins_the_new_one(
    kind: type[Any],
) -> None:
    topology, _ = watched()
    async with topology:
        silent, stage = Silent(), kind()
        producer = topology.start(silent)
        consumer = topology.start(stage)
        if kind is Middle:  # it handles nothing while nobody asks it
            topology.start(Forwarder(), subscribe_to=consumer)
        old = await consumer.subscribe(producer.with_options(cancel="temporary"))
        await emit(producer, ["first"])
        new = await consumer.resubscribe(old, producer, reason="shutdown")
        await emit(producer, ["second"])
        await stage.cancelled.reach(1)
        reason, ended = stage.cancelled[0]
        assert (reason.kind, reason.down, ended) == ("shutdown", False, old)
        assert [one for one in stage.subscribed if one.peer_is == "producer"] == [old, new]
        assert (old.open, new.open, old.events, new.events) == (False, True, 1, 1)
        assert [one.tag for one in silent.subscriptions] == [new.tag]
        assert [one.tag for one in silent.subscribed] == [old.tag, new.tag]


@pytest.mark.conformance("GS-069")
async def test_resubscribing_is_one_step_at_the_producer() -> None:
    """A producer that broadcasts takes a consumer once: it can take it again in the same step."""
    topology, signals = watched()
    async with topology:
        silent, forwarder = Silent(), Forwarder()
        producer = topology.start(silent, dispatcher=BroadcastDispatcher())
        consumer = topology.start(forwarder)
        old = await consumer.subscribe(producer.with_options(cancel="transient"))
        await consumer.resubscribe(old, producer)
        await forwarder.cancelled.reach(1)
        await emit(producer, [1])
        await forwarder.reach(1)
        assert not signals
        assert consumer.alive


@pytest.mark.conformance("GS-069")
async def test_the_reason_of_resubscribing_ends_a_consumer_that_minds_it() -> None:
    topology, _ = watched()
    async with topology:
        producer = topology.start(Silent())
        consumer = topology.start(Forwarder(), restart="temporary")
        old = await consumer.subscribe(producer)
        await consumer.resubscribe(old, producer, reason=OSError("tired"))
        reason = await consumer.wait()
        assert isinstance(reason.error, SubscriptionCancelled)
        assert isinstance(reason.error.__cause__, OSError)


@pytest.mark.conformance("GS-070")
@pytest.mark.parametrize("over", [True, False], ids=["over", "never made"])
async def test_resubscribing_works_where_the_old_one_is_not_known(over: bool) -> None:
    topology, _ = watched()
    async with topology:
        forwarder = Forwarder()
        producer = topology.start(Silent())
        consumer = topology.start(forwarder)
        old: Any = Tag(Stranger(), Stranger())
        if over:
            old = await consumer.subscribe(producer.with_options(cancel="temporary"))
            old.cancel()
            await forwarder.cancelled.reach(1)
        new = await consumer.resubscribe(old, producer)
        await emit(producer, [1])
        await forwarder.reach(1)
        assert (new.open, new.events, len(forwarder.cancelled)) == (True, 1, int(over))


@pytest.mark.conformance("GS-071", "GS-072")
async def test_resubscribing_refuses_what_subscribing_refuses() -> None:
    topology, _ = watched()
    async with topology:
        silent = Silent()
        producer = topology.start(silent)
        consumer = topology.start(Forwarder(), name="sink")
        old = await consumer.subscribe(producer)
        for wrong in (SubscribeOptions(max_demand=0), SubscribeOptions(5, 5)):
            with pytest.raises(ConfigError, match="_demand must be"):
                await consumer.resubscribe(old, To(producer, wrong))
        with pytest.raises(ConfigError, match="a producer must be"):
            await consumer.resubscribe(old, None)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="is a producer"):
            await producer.resubscribe(old, producer)
        with pytest.raises(ConfigError, match="a reason must be"):
            await consumer.resubscribe(old, producer, reason="because")
        await quiet(topology)
        assert old.open
        assert len(silent.subscribed) == 1
