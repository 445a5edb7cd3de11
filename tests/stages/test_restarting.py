"""Restarts: who starts again when one ends, how often, and who subscribes again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from penstock.errors import ConfigError, StageError
from penstock.stages import Reason, StageHandle, Topology
from penstock.testing import ManualClock
from stages.fixtures import (
    Counter,
    Doubler,
    Forwarder,
    Middle,
    Seen,
    Silent,
    Sleeper,
    emit,
    in_stage,
    kinds,
    quiet,
    watched,
    within,
)

KINDS = pytest.mark.parametrize("kind", [Silent, Middle, Forwarder])
GROUPS = {
    "one_for_one": {"b"},
    "rest_for_one": {"b", "c"},
    "one_for_all": {"a", "b", "c"},
}


class Runs(Seen[Any]):
    """Makes a stage anew each time, and keeps all that it has made."""

    def __init__(self, make: Callable[[], Any]) -> None:
        super().__init__()
        self._make = make

    def __call__(self) -> Any:
        self.append(self._make())
        return self[-1]


async def fail(handle: StageHandle[Any], error: Exception | None = None) -> None:
    """Let it fail, and wait until that is noticed."""
    runner = handle.runner
    runner.stop(Reason.of(error or OSError("broken")))
    await runner.over()


# --- by the stage's own restart ---------------------------------------------------------------


@pytest.mark.parametrize("error", [None, OSError("broken")], ids=["normal", "failed"])
@pytest.mark.parametrize("restart", ["never", "temporary", "transient", "permanent"])
@KINDS
async def test_a_stage_starts_again_as_its_restart_says(
    kind: type[Any], restart: Any, error: Any
) -> None:
    runs, signals = Runs(kind), Seen[Any]()
    topology = Topology(observer=signals.append)
    again = restart == "permanent" or (restart == "transient" and error is not None)

    async def scene() -> None:
        async with topology:
            handle = topology.start(runs, name="shop", restart=restart)
            await quiet(topology)
            handle.stop(error)
            await quiet(topology)
            assert handle.alive == again
            assert len(runs) == 1 + again
            assert handle.runner.stage is runs[-1]
            if again:
                assert handle.ended is None
                assert await in_stage(handle, lambda stage: stage is runs[1])

    if restart == "never" and error is not None:
        with pytest.raises(StageError) as caught:
            await scene()
        assert caught.value.__cause__ is error
    else:
        await scene()
    signalled = "stage-restarted" if again else "stage-failed"
    expected = [signalled] if again or (error and restart == "temporary") else []
    assert kinds(signals) == expected
    assert all(signal.stage == "shop" for signal in signals)


async def test_what_may_start_again_must_be_given_as_what_makes_it() -> None:
    for options, strategy in (
        ({"restart": "transient"}, "one_for_one"),
        ({"restart": "permanent"}, "one_for_one"),
        ({}, "one_for_all"),
        ({}, "rest_for_one"),
    ):
        topology = Topology(strategy=strategy)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="made anew"):
            topology.start(Silent(), **options)  # type: ignore[call-overload]
        topology.start(Silent, **options)  # type: ignore[call-overload]


async def test_a_stage_that_starts_again_keeps_its_name_handle_options_and_subscriptions() -> None:
    topology, _ = watched()
    async with topology:
        silent, runs = Silent(), Runs(Middle)
        spring = topology.start(silent)
        to = spring.with_options(max_demand=7, cancel="temporary")
        mill = topology.start(
            runs, name="mill", subscribe_to=to, restart="permanent", buffer_size=3
        )
        await silent.asked.reach(1)
        old = mill.runner
        await fail(mill)
        await silent.subscribed.reach(2)
        await quiet(topology)
        assert mill.runner is not old
        assert (mill.name, topology.stages["mill"], runs[1].name) == ("mill", mill, "mill")
        assert runs[1].buffer_size == 3
        assert silent.subscribed[1].options.max_demand == 7
        assert mill.statistics().demand_out == 7, "figures are those of this run"
        assert len(silent.subscriptions) == 1


async def test_who_reads_of_the_end_can_use_the_next_run_at_once() -> None:
    topology, _ = watched()
    async with topology:
        handle = topology.start(Runs(Forwarder), restart="permanent")
        for _ in range(3):
            waiting = asyncio.create_task(handle.wait())
            await quiet(topology)
            handle.stop()
            assert await waiting == Reason("normal")
            assert handle.alive
            assert await in_stage(handle, lambda stage: stage.name) == handle.name


# --- who subscribes again ---------------------------------------------------------------------


@pytest.mark.parametrize("by_name", [True, False], ids=["name", "handle"])
@pytest.mark.parametrize("taker", [Forwarder, Middle])
async def test_a_consumer_that_lives_on_subscribes_again_as_it_was_told(
    taker: type[Any], by_name: bool
) -> None:
    topology, _ = watched()
    async with topology:
        runs, stage = Runs(Silent), taker()
        spring = topology.start(runs, name="spring", restart="transient")
        to: Any = spring.with_options(max_demand=7, cancel="temporary", colour="red")
        topology.start(stage, subscribe_to=to._replace(producer="spring") if by_name else to)
        await runs[0].asked.reach(1)
        await fail(spring)
        await stage.subscribed.reach(2)
        await quiet(topology)
        assert [reason.kind for reason, _ in stage.cancelled] == ["failed"]
        assert [one.open for one in stage.subscribed] == [False, True]
        assert stage.subscribed[1].options == stage.subscribed[0].options
        assert runs[1].asked == [7]
        assert [one.peer_is for one in stage.subscriptions] == ["producer"]


async def test_a_consumer_that_had_left_by_itself_is_not_subscribed_again() -> None:
    topology, _ = watched()
    async with topology:
        forwarder, runs = Forwarder(), Runs(Silent)
        spring = topology.start(runs, restart="transient")
        topology.start(forwarder, subscribe_to=spring.with_options(cancel="temporary"))
        await runs[0].asked.reach(1)
        forwarder.subscribed[0].cancel()
        await forwarder.cancelled.reach(1)
        await fail(spring)
        await quiet(topology)
        assert len(forwarder.subscribed) == 1


async def test_a_consumer_that_ends_with_its_producer_starts_again_behind_it() -> None:
    topology, _ = watched()
    async with topology:
        producers, consumers = Runs(Silent), Runs(Forwarder)
        spring = topology.start(producers, restart="transient")
        topology.start(consumers, subscribe_to=spring, restart="transient")
        await producers[0].asked.reach(1)
        await fail(spring)
        await quiet(topology)
        assert (len(producers), len(consumers)) == (2, 2)
        await emit(spring, [1])
        assert await consumers[1].reach(1) == [1]


async def test_the_work_goes_on_to_its_end_through_restarts() -> None:
    """Each event that the consumer had not been called with is lost, and none comes twice."""

    class Fragile(Forwarder):
        def handle_events(self, events: list[Any], source: Any) -> None:
            super().handle_events(events, source)
            if 100 in events:
                raise LookupError

    class Some(Counter):
        def handle_demand(self, demand: int) -> Any:
            if self.next + demand > 300:
                self.finish()
            return super().handle_demand(demand)

    topology, signals = watched()
    async with topology:
        runs = Runs(Fragile)
        some = Some()
        to = topology.start(some).with_options(max_demand=10, min_demand=5)
        topology.start(runs, subscribe_to=to, restart="transient")
        await within(topology)
    got = [event for run in runs for event in run.events]
    lost = sum(signal.count or 0 for signal in signals if signal.kind == "events-dropped")
    assert len(runs) == 2
    assert got == sorted(set(got))
    assert set(range(some.next)) - set(got) == set(range(105, 105 + lost))


# --- with whom --------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", GROUPS)
async def test_the_strategy_says_who_starts_again_with_one_that_does(strategy: Any) -> None:
    """The others are closed first, in the reverse order of their start."""
    notes: list[str] = []

    class Noted(Forwarder):
        def handle_start(self) -> None:
            notes.append(f"start {self.name}")

        def handle_close(self, reason: Reason) -> None:
            notes.append(f"close {self.name} {reason.kind}")

    topology, _ = watched(strategy=strategy)
    async with topology:
        for name in "abc":
            topology.start(Noted, name=name, restart="transient")
        await quiet(topology)
        notes.clear()
        await fail(topology.stages["b"])
        await quiet(topology)
        again = sorted(GROUPS[strategy])
        closed = [f"close {name} shutdown" for name in reversed(again) if name != "b"]
        assert notes == ["close b failed", *closed, *(f"start {name}" for name in again)]
        assert all(handle.alive for handle in topology.stages.values())


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_a_temporary_stage_is_closed_with_the_others_and_does_not_start_again(
    place: int,
) -> None:
    topology, _ = watched(strategy="one_for_all")
    async with topology:
        handles = [
            topology.start(Silent, restart="temporary" if at == place else "transient")
            for at in range(3)
        ]
        await quiet(topology)
        await fail(handles[(place + 1) % 3])
        await quiet(topology)
        assert [handle.alive for handle in handles] == [at != place for at in range(3)]


@pytest.mark.parametrize("strategy", ["rest_for_one", "one_for_all"])
async def test_a_whole_chain_starts_again_and_goes_on(strategy: Any) -> None:
    """One restart, though the stages behind fail with the first one."""
    topology, signals = watched(strategy=strategy, max_restarts=1)
    async with topology:
        takers = Runs(Sleeper)
        spring = topology.start(Counter, restart="transient")
        mill = topology.start(Doubler, subscribe_to=spring, restart="transient")
        topology.start(takers, subscribe_to=mill, restart="transient")
        await takers[0].reach(1)
        spring.stop(OSError("dry"))
        takers[0].wake.set()
        await takers.reach(2)
        await takers[1].reach(1)
        assert takers[1].events[0] == 0
        assert kinds(signals).count("stage-restarted") == 1
        takers[1].wake.set()


async def test_whoever_waits_for_the_end_waits_through_a_restart() -> None:
    topology, _ = watched(strategy="one_for_all")
    async with topology:
        runs = Runs(Silent)
        spring = topology.start(runs, restart="transient")
        topology.start(Forwarder, restart="transient")
        waiting = asyncio.create_task(topology.wait())
        await quiet(topology)
        await fail(spring)
        await runs.reach(2)
        await quiet(topology)
        assert not waiting.done()
        for handle in topology.stages.values():
            handle.finish()
        async with asyncio.timeout(5):
            await waiting


# --- how often --------------------------------------------------------------------------------


async def test_one_restart_too_many_fails_the_topology_with_the_last_error() -> None:
    clock, last = ManualClock(), OSError("last")
    topology, _ = watched(max_restarts=2, max_seconds=10.0, clock=clock)

    async def scene() -> None:
        async with topology:
            handle = topology.start(Silent, name="shop", restart="transient")
            for error in (OSError("first"), OSError("second")):
                await quiet(topology)
                await fail(handle, error)
                clock.jump(4.0)
            assert handle.alive
            await fail(handle, last)
            await asyncio.Event().wait()

    with pytest.raises(StageError, match=r"shop ended .*2 restarts in 10.0 s") as caught:
        await scene()
    assert caught.value.__cause__ is last


async def test_restarts_that_are_long_ago_do_not_count() -> None:
    clock = ManualClock()
    topology, _ = watched(max_restarts=2, max_seconds=10.0, clock=clock)
    async with topology:
        runs = Runs(Silent)
        handle = topology.start(runs, restart="transient")
        for _ in range(6):
            await quiet(topology)
            await fail(handle)
            clock.jump(5.0)
        assert len(runs) == 7
        assert handle.alive


async def test_restarts_of_all_stages_count_together() -> None:
    topology, _ = watched(max_restarts=2, clock=ManualClock())

    async def scene() -> None:
        async with topology:
            for _ in range(3):
                topology.start(Silent, restart="transient")
            await quiet(topology)
            for handle in topology.stages.values():
                await fail(handle)
            await asyncio.Event().wait()

    with pytest.raises(StageError, match="may not be restarted"):
        await scene()


async def test_a_stage_that_cannot_start_is_tried_as_often_as_is_allowed() -> None:
    class Broken(Silent):
        def handle_start(self) -> None:
            raise OSError("no file")

    topology, signals = watched(max_restarts=3, clock=ManualClock())
    runs = Runs(Broken)
    topology.start(runs, name="shop", restart="permanent")
    with pytest.raises(StageError, match="shop ended") as caught:
        await topology.run()
    assert len(runs) == 4
    assert kinds(signals) == ["stage-restarted"] * 3
    assert "no file" in str(caught.value.__cause__)


async def test_what_cannot_even_be_made_again_fails_the_topology() -> None:
    made = [Silent()]
    topology, _ = watched()

    async def scene() -> None:
        async with topology:
            handle = topology.start(made.pop, name="shop", restart="permanent")
            await quiet(topology)
            handle.stop()
            await asyncio.Event().wait()

    with pytest.raises(StageError, match="shop failed: IndexError") as caught:
        await scene()
    assert isinstance(caught.value.__cause__, IndexError)
