"""Subscribing: who may, to whom, with what, once or several times, and in whose place."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock.errors import ConfigError, StageError, SubscriptionCancelled
from penstock.stages import (
    BroadcastDispatcher,
    Consumer,
    StageHandle,
    SubscribeOptions,
    Subscription,
    To,
)
from penstock.stages.protocol import NORMAL, Ask, Cancel, Cancelled, Events, Subscribe
from stages.fixtures import (
    Counter,
    Forwarder,
    Middle,
    Silent,
    Sleeper,
    Stranger,
    emit,
    in_stage,
    kinds,
    quiet,
    watched,
    within,
)

KINDS = pytest.mark.parametrize("kind", [Forwarder, Middle], ids=["consumer", "middle"])


class Busy(Silent):
    """Sits in a cast until `free` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.free = asyncio.Event()

    async def handle_cast(self, request: Any) -> None:
        await self.free.wait()


# --- who and whom ----------------------------------------------------------------------------


@pytest.mark.conformance("GS-061")
async def test_subscribe_returns_when_the_request_is_sent_not_when_it_is_accepted() -> None:
    topology, _ = watched()
    async with topology:
        busy = Busy()
        producer = topology.start(busy)
        consumer = topology.start(Forwarder())
        producer.cast("sit")
        subscription = await consumer.subscribe(producer)
        assert isinstance(subscription, Subscription)
        assert (subscription.peer_is, subscription.open) == ("producer", True)
        assert not busy.subscribed, "the producer has not come to it"
        busy.free.set()
        await busy.subscribed.reach(1)
        assert busy.subscribed[0].tag is subscription.tag


@pytest.mark.conformance("GS-062")
@KINDS
async def test_a_stage_that_has_ended_cannot_be_subscribed(kind: type[Any]) -> None:
    topology, _ = watched()
    async with topology:
        producer = topology.start(Counter())
        consumer = topology.start(kind(), name="gone")
        consumer.stop()
        await consumer.wait()
        with pytest.raises(StageError, match="gone has ended"):
            await consumer.subscribe(producer)


async def test_a_subscribe_that_waits_is_told_when_the_stage_ends() -> None:
    """It was posted, and the stage ended before it came to it."""
    topology, _ = watched()
    async with topology:
        producer = topology.start(Counter())
        sleeper = Sleeper()
        consumer = topology.start(sleeper, subscribe_to=producer)
        await sleeper.reach(1)
        waiting = asyncio.create_task(consumer.subscribe(producer))
        await asyncio.sleep(0)
        consumer.stop()
        sleeper.wake.set()
        with pytest.raises(StageError, match="has ended"):
            await waiting


async def test_a_subscribe_that_comes_too_late_is_a_timeout_and_is_still_carried_out() -> None:
    topology, _ = watched()
    async with topology:
        producer = topology.start(Counter())
        sleeper = Sleeper()
        consumer = topology.start(sleeper, subscribe_to=producer.with_options(max_demand=1))
        await sleeper.reach(1)
        with pytest.raises(TimeoutError):
            await consumer.subscribe(producer, timeout=0.001)
        sleeper.wake.set()
        await sleeper.subscribed.reach(2)


@pytest.mark.conformance("GS-063", "GS-066")
@pytest.mark.parametrize("cancel", ["permanent", "transient"])
@KINDS
async def test_an_unknown_name_ends_a_permanent_and_a_transient_consumer(
    kind: type[Any], cancel: Any
) -> None:
    """The request is answered all the same; the error names the consumer and the producer."""
    topology, _ = watched()
    async with topology:
        stage = kind()
        consumer = topology.start(stage, name="shop", restart="temporary")
        subscription = await consumer.subscribe(To("nobody", SubscribeOptions(cancel=cancel)))
        assert isinstance(subscription, Subscription)
        reason = await consumer.wait()
    assert reason.kind == "failed"
    assert isinstance(reason.error, SubscriptionCancelled)
    assert "shop" in str(reason.error)
    assert "nobody" in str(reason.error)
    assert "no stage has that name" in str(reason.error.__cause__)
    assert stage.cancelled[0][0].down


@pytest.mark.conformance("GS-063")
async def test_an_unknown_name_in_subscribe_to_fails_the_topology_with_both_names() -> None:
    topology, _ = watched()
    topology.start(Forwarder(), name="shop", subscribe_to="nobody")
    with pytest.raises(StageError, match=r"shop.*nobody"):
        await topology.run()


@pytest.mark.conformance("GS-064")
@pytest.mark.parametrize("cancel", ["permanent", "transient"])
@KINDS
async def test_a_producer_that_has_failed_ends_its_new_consumer(
    kind: type[Any], cancel: Any
) -> None:
    topology, _ = watched()
    async with topology:
        producer = topology.start(Counter(), restart="temporary")
        producer.stop(OSError("dead"))
        await producer.wait()
        consumer = topology.start(kind(), restart="temporary")
        await consumer.subscribe(producer.with_options(cancel=cancel))
        reason = await consumer.wait()
    assert reason.kind == "failed"
    assert isinstance(reason.error, SubscriptionCancelled)
    assert isinstance(reason.error.__cause__, OSError)


@pytest.mark.conformance("GS-064")
async def test_a_producer_that_has_ended_normally_leaves_its_new_consumer_nothing_to_do() -> None:
    """Here the meaning is ours: it ends as if it had read the empty rest."""
    topology, _ = watched()
    async with topology:
        producer = topology.start(Counter())
        producer.stop()
        await producer.wait()
        consumer = topology.start(Forwarder(), subscribe_to=producer)
        assert (await consumer.wait()).kind == "normal"


@pytest.mark.conformance("GS-065")
@KINDS
async def test_a_temporary_consumer_lives_on_without_a_producer(kind: type[Any]) -> None:
    topology, _ = watched()
    async with topology:
        dead = topology.start(Counter(), restart="temporary")
        dead.stop(OSError("dead"))
        await dead.wait()
        stage = kind()
        consumer = topology.start(stage)
        await consumer.subscribe(To("nobody", SubscribeOptions(cancel="temporary")))
        await consumer.subscribe(dead.with_options(cancel="temporary"))
        await stage.cancelled.reach(2)
        assert [reason.kind for reason, _ in stage.cancelled] == ["failed", "failed"]
        assert all(not subscription.open for _, subscription in stage.cancelled)
        assert await in_stage(consumer, lambda stage: stage.name) == consumer.name


@pytest.mark.conformance("GS-073")
async def test_a_pure_producer_cannot_subscribe() -> None:
    topology, _ = watched()
    async with topology:
        one = topology.start(Counter(), name="one")
        two = topology.start(Counter(), name="two")
        with pytest.raises(ConfigError, match="two is a producer"):
            await two.subscribe(one)
        with pytest.raises(ConfigError, match="is a producer"):
            topology.start(Counter(), subscribe_to=one)  # type: ignore[call-overload]
        assert one.alive
        assert two.alive


async def test_nothing_can_subscribe_to_a_consumer() -> None:
    topology, _ = watched()
    async with topology:
        sink = topology.start(Forwarder(), name="sink")
        other = topology.start(Forwarder())
        with pytest.raises(ConfigError, match="sink is a consumer"):
            await other.subscribe(sink)
        with pytest.raises(ConfigError, match="sink is a consumer"):
            sink.with_options()


async def test_a_consumer_found_by_name_says_that_it_gives_nothing() -> None:
    """What could not be known at the caller; nobody waits for ever."""
    topology, signals = watched()
    async with topology:
        topology.start(Forwarder(), name="sink")
        other = Forwarder()
        handle = topology.start(other, restart="temporary")
        await handle.subscribe("sink")
        await quiet(topology)
        assert kinds(signals) == ["protocol-error", "protocol-error"], "Subscribe and Ask"


@pytest.mark.conformance("GS-074")
async def test_the_producer_must_be_given_and_be_one() -> None:
    topology, _ = watched()
    async with topology:
        consumer = topology.start(Forwarder())
        with pytest.raises(TypeError):
            await consumer.subscribe()  # type: ignore[call-arg]
        for nothing in (None, 5, object()):
            with pytest.raises(ConfigError, match="a producer must be"):
                await consumer.subscribe(nothing)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="a producer must be"):
            topology.start(Forwarder(), subscribe_to=[None])  # type: ignore[list-item]


@pytest.mark.conformance("GS-075")
@pytest.mark.parametrize("how", ["handle", "options", "name", "to", "several", "stranger"])
async def test_subscribe_to_takes_whatever_names_a_producer(how: str) -> None:
    topology, _ = watched()
    async with topology:
        producer: StageHandle[int] = topology.start(Counter(), name="numbers")
        stranger = Stranger()
        options = SubscribeOptions(max_demand=10)
        ways: dict[str, Any] = {
            "handle": producer,
            "options": producer.with_options(max_demand=10),
            "name": "numbers",
            "to": To("numbers", options),
            "several": [producer, To(producer, options), "numbers"],
            "stranger": To(stranger, options),
        }
        sleeper = Sleeper()
        topology.start(sleeper, subscribe_to=ways[how])
        if how == "stranger":
            await stranger.first(Ask)
            assert [type(message) for message in stranger.messages] == [Subscribe, Ask]
            assert stranger.of(Ask)[0].demand == 10
        else:
            await sleeper.subscribed.reach(3 if how == "several" else 1)
            await sleeper.reach(1)
        sleeper.wake.set()


async def test_the_same_options_are_refused_at_the_caller_whatever_names_the_producer() -> None:
    """A range is known to be wrong before the producer is."""
    topology, _ = watched()
    async with topology:
        producer = topology.start(Counter(), name="numbers")
        consumer = topology.start(Forwarder())
        for wrong in (
            SubscribeOptions(max_demand=0),
            SubscribeOptions(10, 10),
            SubscribeOptions(cancel="never"),  # type: ignore[arg-type]
        ):
            for to in (producer, "numbers", Stranger()):
                with pytest.raises(ConfigError):
                    await consumer.subscribe(To(to, wrong))
                with pytest.raises(ConfigError):
                    topology.start(Forwarder(), subscribe_to=To(to, wrong))
        assert consumer.alive


# --- several times ----------------------------------------------------------------------------


async def test_a_consumer_subscribes_twice_to_one_producer_with_two_tags() -> None:
    topology, _ = watched()
    async with topology:
        sleeper, counter = Sleeper(), Counter()
        producer = topology.start(counter)
        ten = producer.with_options(max_demand=10)
        topology.start(sleeper, subscribe_to=[ten, ten])
        await counter.subscribed.reach(2)
        await counter.asked.reach(2)
        one, two = counter.subscribed
        assert one.tag is not two.tag
        assert counter.asked == [10, 10], "each has its own demand"
        sleeper.wake.set()


@pytest.mark.conformance("GS-067", "GS-068")
async def test_a_broadcasting_producer_refuses_a_second_and_a_third_subscription() -> None:
    """Both ends end with exactly one; the consumer lives, though it is permanent."""
    topology, signals = watched()
    async with topology:
        silent, forwarder = Silent(), Forwarder()
        producer = topology.start(silent, dispatcher=BroadcastDispatcher())
        consumer = topology.start(forwarder, subscribe_to=producer)
        for count in (1, 2):
            again = await consumer.subscribe(producer)
            await forwarder.cancelled.reach(count)
            reason, subscription = forwarder.cancelled[-1]
            assert (reason.kind, reason.down) == ("refused", False)
            assert isinstance(reason.error, ConfigError)
            assert subscription is again
        assert kinds(signals) == ["subscription-refused"] * 2
        assert len(silent.subscriptions) == len(forwarder.subscriptions) == 1
        assert silent.subscriptions[0].tag is forwarder.subscriptions[0].tag
        assert [reason.kind for reason, _ in silent.cancelled] == ["refused", "refused"]
        await emit(producer, [1, 2])
        await forwarder.reach(2)
        await quiet(topology)
        assert forwarder.events == [1, 2], "each once"


# --- while running ----------------------------------------------------------------------------


async def test_many_consumers_and_many_producers_are_joined_as_they_come() -> None:
    """Every event of each producer comes to one of its consumers, once, in order."""

    class Some(Counter):
        def handle_demand(self, demand: int) -> Any:
            first, end = self.next, self.next - self.next % 1000 + 300
            self.next = min(first + demand, end)
            if self.next == end:
                self.finish()
            return range(first, self.next)

    topology, _ = watched()
    async with topology:
        ones = topology.start(Some(0)).with_options(max_demand=10)
        twos = topology.start(Some(1000)).with_options(max_demand=10)
        early, late = Forwarder(), Forwarder()
        topology.start(early, subscribe_to=ones)
        await early.reach(20)
        topology.start(late, subscribe_to=[ones, twos])
        await within(topology)
    got = sorted(early.events + late.events)
    assert got == [*range(300), *range(1000, 1300)]
    for forwarder in (early, late):
        for low in (0, 1000):
            part = [event for event in forwarder.events if low <= event < low + 1000]
            assert part == sorted(part)


async def test_a_stage_that_would_wait_for_its_own_subscribing_is_told_so() -> None:
    """As one that calls itself."""

    class Seeker(Consumer[Any]):
        handle: Any
        producer: Any

        async def handle_cast(self, request: Any) -> None:
            await self.handle.subscribe(self.producer, timeout=0.01)

    topology, _ = watched()
    async with topology:
        seeker = Seeker()
        seeker.producer = topology.start(Silent())
        seeker.handle = topology.start(seeker, restart="temporary")
        seeker.handle.cast("go")
        reason = await seeker.handle.wait()
        assert isinstance(reason.error, StageError)
        assert not isinstance(reason.error.__cause__, TimeoutError)


async def test_a_stranger_that_keeps_to_the_protocol_is_served_as_any_consumer() -> None:
    topology, _ = watched()
    async with topology:
        producer = topology.start(Counter())
        stranger = Stranger()
        tag = stranger.subscribe(producer.runner, max_demand=3)
        producer.send(Ask(tag, 3))
        assert (await stranger.first(Events)).events == [0, 1, 2]
        producer.send(Cancel(tag, NORMAL))
        assert (await stranger.first(Cancelled)).reason is NORMAL
