"""What reviewers have found: restarts, and the ends of stages."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock import StageError
from penstock.stages import IterableStage, Reason, Subscription, Topology
from penstock.stages.statistics import StageStatistics
from stages.fixtures import (
    PATIENCE,
    Counter,
    Forwarder,
    Middle,
    Seen,
    Silent,
    emit,
    kinds,
    quiet,
    watched,
    within,
)
from stages.tracing import Keeper


def boom(_: Any) -> None:
    raise ValueError("boom")


class Closing(Silent):
    """Says when it closes, and takes its time for it."""

    def __init__(self, closing: asyncio.Event, go_on: asyncio.Event, **attributes: Any) -> None:
        self._closing, self._go_on = closing, go_on
        super().__init__(**attributes)

    async def handle_close(self, reason: Reason) -> None:
        self._closing.set()
        await self._go_on.wait()
        super().handle_close(reason)


# --- restarts ----------------------------------------------------------------------------------


async def test_restarts_of_groups_that_overlap_run_each_stage_once() -> None:
    alive: list[str] = []
    closing, go_on = asyncio.Event(), asyncio.Event()

    class Living(Closing):
        def __init__(self) -> None:
            super().__init__(closing, go_on)

        def handle_start(self) -> None:
            alive.append(self.name)

        async def handle_close(self, reason: Reason) -> None:
            if self.name == "third":
                await super().handle_close(reason)
            alive.remove(self.name)

    topology, signals = watched(strategy="rest_for_one", max_restarts=10)
    async with asyncio.timeout(PATIENCE), topology:
        first, second, _ = [
            topology.start(Living, name=name, restart="transient")
            for name in ("first", "second", "third")
        ]
        await topology.ready()
        second.cast(boom)
        await closing.wait()
        first.cast(boom)
        await first.wait()
        go_on.set()
        await quiet(topology, alive)
        assert sorted(alive) == ["first", "second", "third"]
    assert alive == []
    assert kinds(signals) == ["stage-restarted", "stage-restarted"]


async def test_who_had_not_yet_been_taken_in_by_a_producer_that_fails_is_subscribed_again() -> None:
    busy = asyncio.Event()

    class Busy(Counter):
        async def handle_cast(self, request: Any) -> None:
            await busy.wait()
            raise ValueError("busy")

    topology, signals = watched()
    async with topology:
        producer = topology.start(Busy, restart="transient")
        consumer = topology.start(forwarder := Forwarder())
        await topology.ready()
        producer.cast(None)
        await quiet(topology)
        await consumer.subscribe(producer.with_options(cancel="temporary"))
        assert len(producer.statistics().subscriptions) == 0
        busy.set()
        await forwarder.reach(1)
    assert "stage-restarted" in kinds(signals)


async def test_who_subscribed_to_a_producer_that_could_not_start_is_subscribed_again() -> None:
    tries: list[int] = []

    class Trying(Counter):
        async def handle_start(self) -> None:
            tries.append(1)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if len(tries) == 1:
                raise ConnectionError("at first")

    topology, signals = watched()
    async with topology:
        producer = topology.start(Trying, restart="transient")
        to = producer.with_options(cancel="temporary")
        topology.start(forwarder := Forwarder(), subscribe_to=to)
        await forwarder.reach(1)
    assert len(tries) == 2
    assert "stage-restarted" in kinds(signals)


async def test_what_makes_the_same_instance_again_fails_the_topology_and_says_so() -> None:
    class Failing(Silent):
        def handle_start(self) -> None:
            raise ValueError("at once")

    only = Failing()
    topology = Topology()
    topology.start(lambda: only, restart="transient", name="only")
    with pytest.raises(StageError, match=r"only cannot start again: .*the same instance again"):
        async with asyncio.timeout(PATIENCE):
            await topology.run()


# --- finishing ---------------------------------------------------------------------------------


async def test_a_stage_that_finishes_at_its_start_subscribes_to_nothing_and_ends() -> None:
    class Finishing(Forwarder):
        def handle_start(self) -> None:
            self.finish()

    topology, _ = watched()
    async with topology:
        counter = topology.start(Counter())
        handle = topology.start(finishing := Finishing(), subscribe_to=counter)
        async with asyncio.timeout(PATIENCE):
            reason = await handle.wait()
        assert reason.kind == "normal"
        assert (finishing.subscribed, finishing.events) == ([], [])


async def test_a_stage_that_is_finishing_takes_no_new_subscription_and_ends() -> None:
    topology, _ = watched()
    async with topology:
        counter = topology.start(Counter())
        handle = topology.start(forwarder := Forwarder())
        await quiet(topology)
        handle.finish()
        with pytest.raises(StageError, match="is finishing: it subscribes to nothing any more"):
            await handle.subscribe(counter)
        async with asyncio.timeout(PATIENCE):
            assert (await handle.wait()).kind == "normal"
        assert forwarder.events == []


@pytest.mark.parametrize(
    ("producers", "consumers"),
    [("permanent", "never"), ("never", "permanent"), ("permanent", "permanent")],
)
async def test_draining_ends_also_what_is_to_run_for_ever(producers: Any, consumers: Any) -> None:
    topology, signals = watched()
    async with topology:
        counter = topology.start(Counter, restart=producers)
        to = counter.with_options(cancel="temporary" if consumers == "never" else "permanent")
        topology.start(Forwarder, subscribe_to=to, restart=consumers)
        await topology.ready()
        async with asyncio.timeout(PATIENCE):
            await topology.drain()
        assert not any(handle.alive for handle in topology.stages.values())
    assert "stage-restarted" not in kinds(signals)


async def test_a_stage_between_that_waits_for_consumers_for_the_end_of_its_source_says_so() -> None:
    signals: Seen[Any] = Seen()
    async with Topology(observer=signals.append) as topology:
        source = topology.start(IterableStage(range(5)))
        middle = topology.start(Middle(), subscribe_to=source, name="middle")
        await signals.until(lambda seen: "stage-waiting" in kinds(seen), "stage-waiting")
        [said] = [signal for signal in signals if signal.kind == "stage-waiting"]
        assert (said.stage, said.count) == ("middle", 5)
        topology.start(forwarder := Forwarder(), subscribe_to=middle)
        await within(topology)
    assert forwarder.events == list(range(5))


# --- waiting -----------------------------------------------------------------------------------


async def test_waiting_does_not_finish_who_is_between_producers_while_a_group_restarts() -> None:
    closing, go_on = asyncio.Event(), asyncio.Event()
    topology, _ = watched(strategy="rest_for_one")
    async with topology:
        forwarder = Forwarder()
        consumer = topology.start(lambda: forwarder, name="consumer")
        producer = topology.start(Silent, name="producer", restart="transient")
        topology.start(lambda: Closing(closing, go_on), name="last", restart="transient")
        await topology.ready()
        await consumer.subscribe(producer.with_options(cancel="temporary"))
        waiting = asyncio.ensure_future(topology.wait())
        await quiet(topology)
        producer.cast(boom)
        await closing.wait()
        await forwarder.cancelled.reach(1)
        await quiet(topology)
        assert consumer.statistics().state == "running"
        go_on.set()
        await forwarder.subscribed.reach(2)
        await quiet(topology)
        await emit(producer, ["again"])
        assert await forwarder.reach(1) == ["again"]
        waiting.cancel()


async def test_waiting_does_not_finish_who_subscribes_elsewhere_when_its_producer_ends() -> None:
    go_on = asyncio.Event()

    class Moving(Forwarder):
        async def handle_cancel(self, reason: Reason, subscription: Subscription) -> None:
            super().handle_cancel(reason, subscription)
            if subscription.peer.name == "here":
                await go_on.wait()
                self.subscribe("there")

    topology, _ = watched()
    async with topology:
        here, there = (topology.start(Silent(), name=name) for name in ("here", "there"))
        other = topology.start(Silent(), name="other")
        to = here.with_options(cancel="temporary")
        handle = topology.start(moving := Moving(), subscribe_to=to)
        await topology.ready()
        waiting = asyncio.ensure_future(topology.wait())
        here.stop()
        await moving.cancelled.reach(1)
        other.stop()
        await other.wait()
        await quiet(topology)
        assert handle.statistics().state == "running"
        go_on.set()
        await moving.subscribed.reach(2)
        await quiet(topology)
        await emit(there, ["there"])
        assert await moving.reach(1) == ["there"]
        waiting.cancel()


# --- what is kept at the end -------------------------------------------------------------------


class Gathering(Keeper):
    """Emits when it finishes, and what it keeps may be done later."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.finished: Seen[str] = Seen()

    def handle_finish(self) -> None:
        self.emit(self.events, of=self.receipts)
        self.finished.append(self.name)


async def test_a_stage_is_told_that_it_finishes_before_it_waits_for_what_it_has_kept() -> None:
    topology, _ = watched()
    async with topology:
        counter = topology.start(IterableStage(range(3)))
        to = counter.with_options(max_demand=1)
        handle = topology.start(gathering := Gathering(), subscribe_to=to)
        topology.start(forwarder := Forwarder(), subscribe_to=handle)
        await gathering.finished.reach(1)
        assert await forwarder.reach(3) == [0, 1, 2]
        for kept in gathering.receipts:
            await quiet(topology)
            assert handle.alive
            kept.done()
        await within(topology)
        assert handle.ended is not None
        assert handle.ended.kind == "normal"
    assert len(gathering.finished) == 1


async def test_how_much_is_kept_is_in_the_statistics_and_in_what_draining_says() -> None:
    topology, _ = watched()
    async with topology:
        counter = topology.start(IterableStage(range(3)))
        to = counter.with_options(max_demand=1)
        handle = topology.start(keeper := Keeper(), subscribe_to=to, name="keeper")
        topology.start(Forwarder(), subscribe_to=handle)
        await keeper.batches.reach(3)
        await quiet(topology)
        figures: StageStatistics = handle.statistics()
        assert figures.kept == 3
        keeper.receipts[0].done()
        assert handle.statistics().kept == 2
        with pytest.raises(TimeoutError, match=r"keeper \(0 buffered, 0 queued, 2 kept\)"):
            await topology.drain(timeout=0)


# --- later -------------------------------------------------------------------------------------


def note(stage: Any) -> None:
    stage.infos.append("noted")


async def test_what_is_cast_later_comes_later_as_a_cast() -> None:
    topology, _ = watched()
    async with topology:
        handle = topology.start(silent := Silent())
        await quiet(topology)

        def later(stage: Any) -> list[str]:
            stage.cast_later(note, 0.0)
            return list(stage.infos)

        assert await handle.call(later) == []
        await silent.infos.reach(1)
        now = asyncio.get_running_loop().time()
        timer = await handle.call(lambda stage: stage.cast_later(note, 3600.0))
        assert now + 3599 < timer.when() < now + 3600 + PATIENCE


async def test_what_is_cast_later_is_cancelled_by_its_handle_and_by_the_end_of_the_stage() -> None:
    topology, signals = watched()
    async with topology:
        handle = topology.start(silent := Silent())

        def later(stage: Any) -> Any:
            stage.cast_later(note, 0.0).cancel()
            return stage.cast_later(note, 3600.0)

        timer = await handle.call(later)
        await quiet(topology)
        assert not timer.cancelled()
        handle.stop()
        await handle.wait()
        assert timer.cancelled()
    assert silent.infos == []
    assert kinds(signals) == []
