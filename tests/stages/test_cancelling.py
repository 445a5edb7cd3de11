"""The end of a subscription: who is told, who ends with it, and what comes before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from penstock import Signal
from penstock.errors import StageError, SubscriptionCancelled
from penstock.stages import BroadcastDispatcher, Reason, StageHandle, Subscription, Topology
from penstock.stages.protocol import NORMAL, Ask, Cancel, Cancelled, Tag
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
)

KINDS = pytest.mark.parametrize("kind", [Forwarder, Middle], ids=["consumer", "middle"])
MODES = pytest.mark.parametrize("mode", ["permanent", "transient", "temporary"])

ENDS = {
    ("normal", "permanent"),
    ("shutdown", "permanent"),
    ("failed", "permanent"),
    ("failed", "transient"),
}
"""Which end of a subscription ends which consumer; all others live."""


class Pair:
    """A producer, and a consumer that is subscribed to it; each in a topology of its own."""

    def __init__(self, taker: Any, *, broadcast: bool = False) -> None:
        self.signals: list[Signal] = []
        self.above = Topology(observer=self.signals.append)
        self.below = Topology(observer=self.signals.append)
        self.giver, self.taker = Silent(), taker
        options: dict[str, Any] = {"dispatcher": BroadcastDispatcher()} if broadcast else {}
        self.producer: StageHandle[Any] = self.above.start(
            self.giver, name="spring", restart="temporary", **options
        )
        self.consumer: StageHandle[Any] = self.below.start(taker, name="pool", restart="temporary")

    async def survives(self, reason: str, mode: str) -> bool:
        """Whether the consumer lives on, after all that had to happen."""
        await quiet(self.below)
        ended = self.consumer.ended
        assert (ended is not None) == ((reason, mode) in ENDS)
        return ended is None


@asynccontextmanager
async def joined(
    kind: type[Any], mode: Any, *, broadcast: bool = False
) -> AsyncIterator[tuple[Pair, Subscription]]:
    """A pair with one subscription, that both sides know."""
    pair = Pair(kind(), broadcast=broadcast)
    async with pair.above, pair.below:
        subscription = await pair.consumer.subscribe(pair.producer.with_options(cancel=mode))
        await pair.giver.asked.reach(1)
        yield pair, subscription


def check_end(pair: Pair, reason: str, error: BaseException) -> None:
    """How the consumer ended, where it did: as the subscription, with the error that led to it."""
    ended = pair.consumer.ended
    assert ended is not None
    assert ended.kind == reason
    assert pair.taker.closed == [ended]
    if reason == "failed":
        assert isinstance(ended.error, SubscriptionCancelled)
        assert ended.error.__cause__ is error
        assert "pool" in str(ended.error)
        assert "spring" in str(ended.error)
    else:
        assert ended.error is None


# --- the table --------------------------------------------------------------------------------


@pytest.mark.conformance("GS-083", "GS-084", "GS-085", "GS-086", "GS-090")
@pytest.mark.parametrize("side", ["consumer", "producer"])
@pytest.mark.parametrize("reason", ["normal", "shutdown", "failed"])
@MODES
@KINDS
async def test_a_cancelled_subscription_ends_the_consumers_that_its_mode_says(
    kind: type[Any], mode: str, reason: str, side: str
) -> None:
    """Whichever side cancels: both are told why, and that nobody is down."""
    error = OSError("enough")
    async with joined(kind, mode) as (pair, subscription):
        own = subscription if side == "consumer" else pair.giver.subscriptions[0]
        own.cancel(error if reason == "failed" else reason)
        await pair.taker.cancelled.reach(1)
        lives = await pair.survives(reason, mode)
        for told in (*pair.taker.cancelled, *pair.giver.cancelled):
            assert (told[0].kind, told[0].down) == (reason, False)
            assert told[0].error is (error if reason == "failed" else None)
            assert told[1].tag is subscription.tag
            assert not told[1].open
        assert len(pair.taker.cancelled) == len(pair.giver.cancelled) == 1
        assert pair.producer.alive
        if lives:
            assert pair.taker.subscriptions == []
        else:
            check_end(pair, reason, error)


@pytest.mark.conformance("GS-087", "GS-088", "GS-089", "GS-090")
@pytest.mark.parametrize("reason", ["normal", "shutdown", "failed"])
@MODES
@KINDS
async def test_the_end_of_a_producer_ends_the_consumers_that_their_mode_says(
    kind: type[Any], mode: str, reason: str
) -> None:
    """The consumer is told that the producer is down, and why, before it ends itself."""
    error = OSError("killed")
    async with joined(kind, mode) as (pair, subscription):
        if reason == "shutdown":
            await pair.above.aclose()
        else:
            pair.producer.stop(error if reason == "failed" else None)
        await pair.taker.cancelled.reach(1)
        lives = await pair.survives(reason, mode)
        told, over = pair.taker.cancelled[0]
        assert (told.kind, told.down, over) == (reason, True, subscription)
        assert len(pair.taker.cancelled) == 1
        assert not subscription.open
        if not lives:
            check_end(pair, reason, error)


@pytest.mark.conformance("GS-090")
@MODES
@KINDS
async def test_a_refused_subscription_ends_no_consumer(kind: type[Any], mode: Any) -> None:
    async with joined(kind, mode, broadcast=True) as (pair, subscription):
        await pair.consumer.subscribe(pair.producer.with_options(cancel=mode))
        await pair.taker.cancelled.reach(1)
        assert await pair.survives("refused", mode)
        assert pair.taker.cancelled[0][0].kind == "refused"
        assert pair.taker.subscriptions == [subscription]
        assert subscription.open


@pytest.mark.parametrize("mode", ["permanent", "transient", "temporary"])
@pytest.mark.parametrize("kind", ["normal", "shutdown", "failed", "refused"])
def test_a_reason_knows_the_table(kind: Any, mode: Any) -> None:
    assert Reason(kind).ends(mode) == ((kind, mode) in ENDS)
    assert Reason(kind).as_down().ends(mode) == ((kind, mode) in ENDS)


async def test_a_permanent_consumer_of_several_ends_with_the_last_that_ends_normally() -> None:
    """At once if one of them fails, or is shut down."""
    for reason, survives in (("normal", True), ("shutdown", False), (OSError("no"), False)):
        topology, _ = watched()
        async with topology:
            consumer = topology.start(Forwarder(), restart="temporary")
            first = await consumer.subscribe(topology.start(Silent()))
            last = await consumer.subscribe(topology.start(Silent()))
            extra = topology.start(Silent()).with_options(cancel="transient")
            await consumer.subscribe(extra)
            first.cancel(reason)  # type: ignore[arg-type]
            await quiet(topology)
            assert consumer.alive == survives
            last.cancel()
            await quiet(topology)
            assert not consumer.alive


# --- what comes before it ---------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["permanent", "temporary"])
async def test_what_a_producer_sent_before_its_end_comes_before_the_news_of_it(mode: Any) -> None:
    async with joined(Forwarder, mode) as (pair, _):
        await in_stage(pair.producer, lambda stage: (stage.emit(list(range(700))), stage.stop()))
        await pair.taker.cancelled.reach(1)
        assert pair.taker.events == list(range(700))


async def test_events_that_are_on_their_way_when_a_consumer_cancels_still_come() -> None:
    """The confirmation comes behind them, and nothing is asked for any more meanwhile."""
    topology, _ = watched()
    async with topology:
        counter, sleeper = Counter(), Sleeper()
        producer = topology.start(counter)
        consumer = topology.start(sleeper)
        subscription = await consumer.subscribe(
            producer.with_options(max_demand=10, cancel="temporary")
        )
        await sleeper.reach(5)
        subscription.cancel()
        assert subscription.open, "until the producer has confirmed it"
        sleeper.wake.set()
        await sleeper.cancelled.reach(1)
        assert sleeper.events == list(range(10))
        assert counter.asked == [10]
        assert not subscription.open


@pytest.mark.conformance("GS-093")
@pytest.mark.parametrize("down", [True, False], ids=["down", "cancel"])
@pytest.mark.parametrize("mode", ["permanent", "temporary"])
async def test_the_cancel_of_a_middle_stage_waits_behind_its_queued_events(
    mode: Any, down: bool
) -> None:
    async with joined(Middle, mode) as (pair, subscription):
        await emit(pair.producer, [1, 2, 3])
        if down:
            pair.producer.stop()
        else:
            subscription.cancel()
        await quiet(pair.below)
        assert (pair.taker.events, pair.taker.cancelled) == ([], []), "nobody asks for events"
        assert pair.consumer.statistics().queued == 3
        forwarder = Forwarder()
        pair.below.start(forwarder, subscribe_to=pair.consumer)
        await pair.taker.cancelled.reach(1)
        assert pair.taker.events == [1, 2, 3]
        assert await forwarder.reach(3) == [1, 2, 3]
        await quiet(pair.below)
        assert pair.consumer.alive == (mode == "temporary")


# --- the producer's side ----------------------------------------------------------------------


@pytest.mark.conformance("GS-091")
@pytest.mark.parametrize("reason", ["normal", "shutdown", "failed"])
async def test_a_producer_is_told_why_its_consumer_is_down_and_lives(reason: str) -> None:
    error = OSError("dead")
    async with joined(Forwarder, "permanent") as (pair, subscription):
        if reason == "shutdown":
            await pair.below.aclose()
        else:
            pair.consumer.stop(error if reason == "failed" else None)
        await pair.giver.cancelled.reach(1)
        told, over = pair.giver.cancelled[0]
        assert (told.kind, told.down) == (reason, True)
        assert told.error is (error if reason == "failed" else None)
        assert (over.tag, over.peer_is, over.open) == (subscription.tag, "consumer", False)
        assert await in_stage(pair.producer, lambda stage: stage.subscriptions) == []


@pytest.mark.conformance("GS-092")
async def test_a_cancel_of_an_unknown_subscription_is_ignored() -> None:
    topology, signals = watched()
    async with topology:
        silent, stranger = Silent(), Stranger()
        producer = topology.start(silent)
        producer.send(Cancel(Tag(stranger, producer), NORMAL))
        await quiet(topology)
        assert (stranger.messages, silent.cancelled, signals) == ([], [], [])
        assert producer.alive


@pytest.mark.conformance("GS-092")
async def test_cancelling_twice_is_cancelling_once() -> None:
    async with joined(Forwarder, "temporary") as (pair, subscription):
        subscription.cancel("shutdown")
        subscription.cancel(OSError("again"))
        await pair.taker.cancelled.reach(1)
        subscription.cancel(OSError("and again"))
        await quiet(pair.below)
        await quiet(pair.above)
        assert [reason.kind for reason, _ in pair.taker.cancelled] == ["shutdown"]
        assert [reason.kind for reason, _ in pair.giver.cancelled] == ["shutdown"]


async def test_what_is_asked_for_on_a_subscription_that_is_over_is_not_sent() -> None:
    topology, _ = watched()
    async with topology:
        silent, forwarder = Silent(), Forwarder(mode="manual")
        producer = topology.start(silent)
        consumer = topology.start(forwarder)
        subscription = await consumer.subscribe(producer.with_options(cancel="temporary"))
        subscription.ask(1)
        subscription.cancel()
        subscription.ask(2)
        await forwarder.cancelled.reach(1)
        subscription.ask(3)
        await quiet(topology)
        assert silent.asked == [1]
        assert subscription.asked == 1


async def test_nothing_is_sent_any_more_once_a_cancel_is_confirmed() -> None:
    topology, _ = watched()
    async with topology:
        stranger = Stranger()
        producer = topology.start(Silent())
        tag = stranger.subscribe(producer)
        producer.send(Ask(tag, 10))
        producer.send(Cancel(tag, NORMAL))
        await emit(producer, [1])
        await quiet(topology, stranger.messages)
        assert [type(message) for message in stranger.messages] == [Cancelled]
        assert producer.estimate_buffered_count() == 1


# --- what the program does about it -----------------------------------------------------------


class Farewell(Silent):
    """Emits when a consumer leaves."""

    def handle_cancel(self, reason: Reason, subscription: Subscription) -> None:
        super().handle_cancel(reason, subscription)
        self.emit([f"{subscription.peer.name} left"])


class Quitter(Forwarder):
    """Ends when a subscription does, whatever its mode says."""

    error: Exception | None = None

    async def handle_cancel(self, reason: Reason, subscription: Subscription) -> None:
        await asyncio.sleep(0)
        super().handle_cancel(reason, subscription)
        self.stop(self.error)


@pytest.mark.conformance("GS-094")
async def test_a_producer_may_emit_when_a_consumer_leaves() -> None:
    topology, _ = watched()
    async with topology:
        producer = topology.start(Farewell())
        stays = Forwarder()
        topology.start(stays, subscribe_to=producer)
        leaves = topology.start(Forwarder(), name="guest", subscribe_to=producer)
        await quiet(topology)
        leaves.stop()
        assert await stays.reach(1) == ["guest left"]


@pytest.mark.conformance("GS-094")
@pytest.mark.parametrize("error", [None, StageError("my own")], ids=["normal", "failed"])
@pytest.mark.parametrize("mode", ["permanent", "temporary"])
async def test_a_stage_that_stops_when_it_is_told_ends_as_it_says(mode: Any, error: Any) -> None:
    """What it says wins over what the cancel mode would."""
    async with joined(Quitter, mode) as (pair, subscription):
        pair.taker.error = error
        subscription.cancel(OSError("another"))
        reason = await pair.consumer.wait()
        assert (reason.kind, reason.error) == ("failed" if error else "normal", error)


@pytest.mark.conformance("GS-094")
async def test_a_producer_may_stop_when_its_last_consumer_leaves() -> None:

    class Once(Silent):
        def handle_cancel(self, reason: Reason, subscription: Subscription) -> None:
            if not self.subscriptions:
                self.stop()

    topology, _ = watched()
    async with topology:
        producer = topology.start(Once())
        consumers = [topology.start(Forwarder(), subscribe_to=producer) for _ in range(2)]
        await quiet(topology)
        consumers[0].stop()
        await quiet(topology)
        assert producer.alive
        consumers[1].stop()
        assert (await producer.wait()).kind == "normal"


async def test_a_handle_cancel_that_raises_ends_the_stage_with_both_named() -> None:

    class Clumsy(Forwarder):
        def handle_cancel(self, reason: Reason, subscription: Subscription) -> None:
            raise KeyError("gone")

    async with joined(Clumsy, "temporary") as (pair, subscription):
        subscription.cancel()
        reason = await pair.consumer.wait()
        assert isinstance(reason.error, StageError)
        assert "pool: Clumsy.handle_cancel raised KeyError" in str(reason.error)
        assert isinstance(reason.error.__cause__, KeyError)
        assert kinds(pair.signals) == ["stage-failed"]
