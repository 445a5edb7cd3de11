"""A topology's life: who is started when, how the work ends, and what is left: nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock import Signal
from penstock.errors import ClosedError, ConfigError, StageError
from penstock.stages import Reason, Subscription, Topology
from stages.fixtures import (
    Counter,
    Doubler,
    Forwarder,
    Middle,
    Silent,
    Sleeper,
    emit,
    quiet,
    watched,
    within,
)


class Upto(Counter):
    """Gives the numbers below `end`, and ends."""

    end = 1000

    def handle_demand(self, demand: int) -> Any:
        first, self.next = self.next, min(self.next + demand, self.end)
        if self.next == self.end:
            self.finish()
        return range(first, self.next)


class Noted(Forwarder):
    """Notes its start and its end in a list that it shares with others."""

    notes: list[str]

    def handle_start(self) -> None:
        self.notes.append(f"start {self.name}")

    def handle_close(self, reason: Reason) -> None:
        self.notes.append(f"close {self.name} {reason.kind}")


class Stuck(Forwarder):
    """Hangs in its first callback until it is cancelled."""

    was_cancelled = False

    async def handle_events(self, events: list[Any], source: Subscription) -> None:
        super().handle_events(events, source)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise


def lost(signals: list[Signal]) -> int:
    """How many events were dropped, by what was signalled."""
    return sum(signal.count or 0 for signal in signals if signal.kind == "events-dropped")


# --- starting ---------------------------------------------------------------------------------


async def test_stages_start_in_order_and_close_in_the_reverse_order() -> None:
    notes: list[str] = []
    topology, _ = watched()
    for name in "ab":
        topology.start(Noted(notes=notes), name=name)
    async with topology:
        topology.start(Noted(notes=notes), name="c")
        await quiet(topology)
        assert notes == ["start a", "start b", "start c"]
        notes.clear()
    assert notes == ["close c shutdown", "close b shutdown", "close a shutdown"]


async def test_what_is_started_before_entering_runs_when_it_is_entered() -> None:
    topology, _ = watched()
    forwarder = Forwarder()
    spring = topology.start(Upto(), name="spring")
    pool = topology.start(forwarder, subscribe_to=spring)
    await asyncio.sleep(0)
    assert (spring.started, spring.alive, pool.ended) == (False, False, None)
    assert topology.statistics() == {}
    assert "not started" in repr(spring)
    for use in (spring.statistics, spring.finish, lambda: spring.info(1), lambda: spring.cast(1)):
        with pytest.raises(StageError, match="spring has not been started: enter its topology"):
            use()
    await topology.run()
    assert forwarder.events == list(range(1000))
    assert not spring.alive


async def test_a_stage_may_be_given_as_what_makes_it() -> None:
    topology, _ = watched()
    async with topology:
        by_class = topology.start(Silent)
        by_function = topology.start(lambda: Counter(5))
        assert isinstance(by_class.runner.stage, Silent)
        assert isinstance(by_function.runner.stage, Counter)


async def test_a_stage_without_a_name_has_its_classs_with_a_number() -> None:
    topology, _ = watched()
    async with topology:
        topology.start(Silent(), name="Silent-2")
        names = [topology.start(Silent()).name for _ in range(3)]
        assert names == ["Silent", "Silent-3", "Silent-4"]
        assert list(topology.stages) == ["Silent-2", *names]


async def test_one_instance_is_started_once() -> None:
    topology, _ = watched()
    async with topology:
        silent = Silent()
        topology.start(silent)
        with pytest.raises(ConfigError, match="started already"):
            topology.start(silent)


async def test_one_instance_is_noted_once() -> None:
    """Also where nothing runs yet."""
    topology, _ = watched()
    silent = Silent()
    topology.start(silent)
    with pytest.raises(ConfigError, match="started already"):
        topology.start(silent)


@pytest.mark.conformance("GS-075")
async def test_a_name_may_be_that_of_a_stage_that_is_started_later() -> None:
    """Where both are noted before the topology is entered, or before the loop turns."""
    topology, _ = watched()
    early, late = Forwarder(), Forwarder()
    topology.start(early, subscribe_to="spring")
    topology.start(Upto(), name="spring")
    async with topology:
        topology.start(late, subscribe_to="summer")
        topology.start(Upto(), name="summer")
        await within(topology)
    assert early.events == late.events == list(range(1000))


async def test_a_callback_may_start_further_stages() -> None:
    topology, _ = watched()
    async with topology:
        spring = topology.start(Silent())
        forwarder = Forwarder()
        spring.cast(lambda _: topology.start(forwarder, subscribe_to=spring))
        await forwarder.subscribed.reach(1)
        await emit(spring, [1])
        assert await forwarder.reach(1) == [1]


@pytest.mark.parametrize("wrong", [{"strategy": "all"}, {"max_restarts": -1}, {"max_seconds": 0}])
def test_a_topology_checks_its_own_options(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Topology(**wrong)


# --- one life ---------------------------------------------------------------------------------


async def test_a_topology_runs_once() -> None:
    topology, _ = watched()
    async with topology:
        with pytest.raises(ClosedError, match="runs once"):
            await topology.__aenter__()
    with pytest.raises(ClosedError, match="runs once"):
        await topology.run()


async def test_nothing_starts_in_a_topology_that_is_closed_or_left() -> None:
    topology, _ = watched()
    async with topology:
        spring = topology.start(Silent(), name="spring")
        await topology.aclose()
        await topology.aclose()
        with pytest.raises(ClosedError, match="closed"):
            topology.start(Silent())
    with pytest.raises(ClosedError, match="closed"):
        topology.start(Silent())
    assert spring.ended == Reason("shutdown")
    with pytest.raises(StageError, match="spring has ended"):
        await spring.call("anybody?")
    spring.cast("anybody?")
    spring.info("anybody?")
    assert list(topology.stages) == ["spring"]
    assert "ended: shutdown" in repr(topology)


async def test_an_empty_topology_has_nothing_to_wait_for() -> None:
    topology, _ = watched()
    await topology.run()
    assert "empty" in repr(topology)


async def test_a_stage_may_be_closed_before_it_ever_ran() -> None:
    """Its topology is left before the loop turns once."""
    notes: list[str] = []
    topology, _ = watched()
    async with topology:
        handle = topology.start(Noted(notes=notes))
    assert handle.ended == Reason("shutdown")
    assert notes in ([], ["start Noted", "close Noted shutdown"])


# --- the work is done -------------------------------------------------------------------------


async def test_producers_that_end_normally_end_everything_behind_them_and_lose_nothing() -> None:
    topology, signals = watched()
    async with topology:
        ones, twos = topology.start(Upto()), topology.start(Upto(500))
        doubler = topology.start(Doubler(), subscribe_to=[ones, twos.with_options(max_demand=7)])
        fast, slow = Forwarder(), Forwarder()
        topology.start(fast, subscribe_to=doubler.with_options(max_demand=100))
        topology.start(slow, subscribe_to=doubler.with_options(max_demand=3))
        await within(topology)
    got = sorted(fast.events + slow.events)
    assert got == sorted([*range(1000), *range(500, 1000)] * 2)
    assert not signals
    assert {str(handle.ended) for handle in topology.stages.values()} == {"normal"}


async def test_a_stage_that_ends_behind_its_producer_is_not_called_down_itself() -> None:
    """Its own end is its own, whatever it was that led to it."""
    topology, _ = watched()
    async with topology:
        forwarder = Forwarder()
        topology.start(forwarder, subscribe_to=topology.start(Upto()))
        await within(topology)
    assert forwarder.closed == [Reason("normal")]


async def test_whoever_waits_ends_consumers_that_have_lost_their_last_producer() -> None:
    """They would live on for another one; who waits for the end says that there is none."""
    topology, _ = watched()
    async with topology:
        spring = topology.start(Upto())
        to = spring.with_options(cancel="temporary")
        middle = topology.start(Middle(), subscribe_to=to)
        pool = topology.start(Forwarder(), subscribe_to=middle.with_options(cancel="temporary"))
        await spring.wait()
        await quiet(topology)
        assert middle.alive
        assert pool.alive
        await within(topology)
        assert pool.statistics().handled == 1000


async def test_several_tasks_may_wait() -> None:
    """One of them is cancelled, which harms neither the others nor the work."""
    topology, _ = watched()
    async with topology:
        spring = topology.start(Silent())
        waiting = [asyncio.create_task(topology.wait()) for _ in range(3)]
        ends = [asyncio.create_task(spring.wait()) for _ in range(3)]
        await quiet(topology)
        waiting[0].cancel()
        ends[0].cancel()
        await quiet(topology)
        assert spring.alive
        spring.finish()
        async with asyncio.timeout(5):
            await asyncio.gather(*waiting[1:])
            assert await asyncio.gather(*ends[1:]) == [Reason("normal")] * 2
        for task in (waiting[0], ends[0]):
            with pytest.raises(asyncio.CancelledError):
                await task


# --- drain and close --------------------------------------------------------------------------


async def test_draining_lets_everything_out_that_is_there() -> None:
    topology, signals = watched()
    async with topology:
        silent, sleeper = Silent(), Sleeper()
        spring = topology.start(silent)
        mill = topology.start(Doubler(), subscribe_to=spring.with_options(max_demand=10))
        topology.start(sleeper, subscribe_to=mill.with_options(max_demand=2))
        await emit(spring, range(50))
        await sleeper.reach(1)
        draining = asyncio.create_task(topology.drain())
        await quiet(topology)
        assert not draining.done()
        asked = list(silent.asked)
        sleeper.wake.set()
        async with asyncio.timeout(5):
            await draining
        assert silent.asked == asked, "a stage that finishes is asked for nothing more"
        assert sleeper.events == [n for n in range(50) for _ in range(2)]
    assert not signals


async def test_draining_in_vain_names_what_is_left_and_goes_on() -> None:
    topology, signals = watched()
    async with topology:
        sleeper = Sleeper()
        spring = topology.start(Silent(), name="spring")
        pool = topology.start(
            sleeper, name="pool", subscribe_to=spring.with_options(max_demand=2, min_demand=0)
        )
        await emit(spring, range(7))
        await sleeper.reach(1)
        with pytest.raises(TimeoutError, match=r"spring \(5 buffered, 0 queued, 0 kept\), pool"):
            await topology.drain(timeout=0.01)
        assert pool.alive
        sleeper.wake.set()
        await within(topology)
        assert sleeper.events == list(range(7))
    assert not signals


async def test_closing_drops_what_is_left_and_says_how_much() -> None:
    topology, signals = watched()
    async with topology:
        sleeper = Sleeper()
        spring = topology.start(Silent(), name="spring")
        to = spring.with_options(max_demand=4, min_demand=2)
        pool = topology.start(sleeper, name="pool", subscribe_to=to)
        await emit(spring, range(10))
        await sleeper.reach(2)
        closing = asyncio.create_task(topology.aclose())
        await quiet(topology)
        assert pool.alive, "its callback is under way"
        sleeper.wake.set()
        await closing
        assert sleeper.events == [0, 1]
    assert [(signal.stage, signal.count) for signal in signals] == [("pool", 2), ("spring", 6)]
    assert lost(signals) == 8


async def test_a_callback_that_hangs_is_cancelled_when_its_shutdown_time_is_over() -> None:
    topology, _ = watched()
    stuck = Stuck()
    async with topology:
        spring = topology.start(Counter())
        handle = topology.start(stuck, subscribe_to=spring, shutdown=0.01)
        await stuck.reach(1)
    assert stuck.was_cancelled
    assert stuck.closed == [Reason("shutdown")]
    assert handle.ended == Reason("shutdown")


async def test_a_close_that_hangs_is_cancelled_too() -> None:
    class Slow(Silent):
        async def handle_close(self, reason: Reason) -> None:
            await asyncio.Event().wait()

    topology, _ = watched()
    async with topology:
        handle = topology.start(Slow(), shutdown=0.01)
        await quiet(topology)
    assert handle.ended == Reason("shutdown")


async def test_a_slow_callback_has_all_the_time_it_needs_where_there_is_no_limit() -> None:
    topology, _ = watched()
    sleeper = Sleeper()
    async with topology:
        spring = topology.start(Counter())
        topology.start(sleeper, subscribe_to=spring, shutdown=None)
        await sleeper.reach(1)
        closing = asyncio.create_task(topology.aclose())
        await quiet(topology)
        assert not closing.done()
        sleeper.wake.set()
        await closing
    assert sleeper.closed == [Reason("shutdown")]
