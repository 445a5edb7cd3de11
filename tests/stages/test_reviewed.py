"""What reviewers have found: demand, dispatching, infos, and who is to blame for what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from penstock import ClosedError, StageError
from penstock.stages import (
    BroadcastDispatcher,
    IterableStage,
    PartitionDispatcher,
    SourceStage,
    Topology,
)
from stages.fixtures import (
    PATIENCE,
    Counter,
    Forwarder,
    Middle,
    Silent,
    Stranger,
    Watcher,
    emit,
    in_stage,
    kinds,
    quiet,
    watched,
)

CALLS = 20_000
"""Of a callback, without a pause, after which it is clear that nobody else gets a turn."""

PAYLOAD = "what nobody may read"
NO_SEQUENCES = (PAYLOAD, {PAYLOAD: PAYLOAD})


def nothing(_: Any) -> bool:
    return False


def raising(_: Any) -> Any:
    raise KeyError("hash")


# --- demand ------------------------------------------------------------------------------------


class Insatiable(Counter):
    """Says so when it is called again and again without anybody else having a turn."""

    def handle_demand(self, demand: int) -> Any:
        if len(self.asked) >= CALLS:
            raise AssertionError("nobody else had a turn")
        return super().handle_demand(demand)


@pytest.mark.parametrize("how", ["nothing", "forward", "iterate"])
async def test_where_nobody_wants_what_comes_other_tasks_still_get_their_turn(how: str) -> None:
    topology, _ = watched()
    async with topology:
        insatiable = Insatiable()
        handle = topology.start(
            insatiable, dispatcher=BroadcastDispatcher(), restart="temporary", name="insatiable"
        )
        if how == "iterate":
            events = handle.events(selector=nothing, cancel="temporary")
            iterating = asyncio.ensure_future(anext(events))
        else:
            Stranger().subscribe(handle, ask=10, extra={"selector": nothing})
        if how == "forward":
            handle.demand("forward")
        for _ in range(100):
            await asyncio.sleep(0)
        assert handle.alive
        assert 0 < len(insatiable.asked) < CALLS
        handle.stop()
        await handle.wait()
        if how == "iterate":
            with pytest.raises(StopAsyncIteration):
                await iterating
            await events.aclose()


async def test_forward_changes_nothing_where_nothing_was_kept_back() -> None:
    topology, signals = watched()
    async with topology:
        handle = topology.start(silent := Silent())
        Stranger().subscribe(handle, ask=5)
        await quiet(topology)
        assert handle.demand("forward") == "forward"
        await quiet(topology)
        assert silent.asked == [5]
        figures = handle.statistics()
        assert (figures.demand_in, figures.emitted, figures.buffered) == (5, 0, 0)
    assert kinds(signals) == []


async def test_a_stage_that_stops_while_its_kept_asks_are_replayed_is_not_asked_again() -> None:
    class Stopping(Silent):
        def handle_demand(self, demand: int) -> None:
            super().handle_demand(demand)
            self.stop()

    topology, _ = watched()
    async with topology:
        handle = topology.start(stopping := Stopping(), demand="accumulate")
        for _ in range(3):
            Stranger().subscribe(handle, ask=1)
        await quiet(topology)
        handle.demand("forward")
        await handle.wait()
        assert stopping.asked == [1]


# --- infos and events in order -----------------------------------------------------------------


async def test_infos_that_two_overflows_let_out_keep_their_order() -> None:
    topology, _ = watched()
    async with topology:
        handle = topology.start(silent := Silent(), buffer_size=2)
        await emit(handle, [1])
        handle.info("first")
        await emit(handle, [2])
        handle.info("second")
        await in_stage(handle, lambda stage: [stage.emit([event]) for event in (3, 4)])
        await silent.infos.reach(2)
        assert silent.infos == ["first", "second"]


async def test_a_hash_that_raised_and_was_caught_doubles_nothing() -> None:
    flaky = [KeyError("once")]

    def hashed(event: int) -> int:
        if event == 3 and flaky:
            raise flaky.pop()
        return 0

    def careful(stage: Any) -> None:
        with pytest.raises(StageError, match="once"):
            stage.emit([1, 2, 3])

    topology, _ = watched()
    async with topology:
        dispatcher = PartitionDispatcher(1, hash=hashed)
        handle = topology.start(Silent(), dispatcher=dispatcher)
        topology.start(forwarder := Forwarder(), subscribe_to=handle.with_options(partition=0))
        await quiet(topology)
        await in_stage(handle, careful)
        await emit(handle, [4])
        await quiet(topology)
        assert forwarder.events == [1, 2, 3, 4]
        figures = handle.statistics()
        assert (figures.emitted, figures.delivered, figures.buffered) == (4, 4, 0)


async def test_an_iterable_that_raises_gives_out_what_came_before() -> None:
    def items() -> Iterator[int]:
        yield from (1, 2)
        raise ValueError("at three")

    topology, _ = watched()
    async with topology:
        handle = topology.start(IterableStage(items()), restart="temporary")
        to = handle.with_options(cancel="temporary")
        topology.start(forwarder := Forwarder(), subscribe_to=to)
        reason = await handle.wait()
        await quiet(topology)
        assert forwarder.events == [1, 2]
    assert "raised ValueError: at three" in str(reason.error)


# --- whose error it is -------------------------------------------------------------------------


async def test_the_error_of_another_stages_call_is_named_by_the_stage_that_called() -> None:
    def ask(_: Any) -> Any:
        return asked.call(fail)

    def fail(_: Any) -> None:
        raise ValueError("within")

    class Asking(Forwarder):
        async def handle_cast(self, request: Any) -> None:
            await request(self)

    topology, _ = watched()
    async with topology:
        asked = topology.start(Forwarder(), name="asked", restart="temporary")
        asking = topology.start(Asking(), name="asking", restart="temporary")
        asking.cast(ask)
        reason = await asking.wait()
        first = await asked.wait()
    assert isinstance(reason.error, StageError)
    assert isinstance(first.error, StageError)
    assert (first.error.stage, reason.error.stage) == ("asked", "asking")
    assert str(reason.error).startswith("asking: Asking.handle_cast raised StageError: asked: ")
    assert reason.error.__cause__ is not None


@pytest.mark.parametrize("way", ["returned", "emitted", "buffered", "iterated", "handled"])
async def test_an_error_of_the_dispatcher_is_named_so_whichever_way_the_events_came(
    way: str,
) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1

    topology, _ = watched()
    async with topology:
        stage: Any = {"returned": Counter, "handled": Middle}.get(way, Silent)()
        stage = IterableStage(items()) if way == "iterated" else stage
        handle = topology.start(
            stage,
            dispatcher=PartitionDispatcher(1, hash=raising),
            name="guilty",
            restart="temporary",
            **({"subscribe_to": topology.start(Counter())} if way == "handled" else {}),
        )
        if way == "buffered":
            await emit(handle, [1])
        Stranger().subscribe(handle, ask=1, extra={"partition": 0})
        if way == "emitted":
            await quiet(topology)
            handle.cast(lambda stage: stage.emit([1]))
        async with asyncio.timeout(PATIENCE):
            reason = await handle.wait()
    said = f"guilty: {type(stage).__name__}.dispatcher raised KeyError: 'hash'"
    assert str(reason.error) == said


class Wrong(Watcher):
    """Returns what the test says, everywhere."""

    result: Any = None

    def handle_demand(self, demand: int) -> Any:
        return self.result

    def handle_events(self, events: list[Any], source: Any) -> Any:
        return self.result


class WrongProducer(Wrong, Silent):
    pass


class WrongMiddle(Wrong, Middle):
    pass


class WrongConsumer(Wrong, Forwarder):
    pass


@pytest.mark.parametrize(
    ("kind", "result"),
    [
        *((kind, wrong) for kind in (WrongProducer, WrongMiddle) for wrong in NO_SEQUENCES),
        *((WrongConsumer, wrong) for wrong in (*NO_SEQUENCES, [PAYLOAD], (PAYLOAD,))),
    ],
)
async def test_the_error_of_a_wrong_return_holds_no_payload(kind: Any, result: Any) -> None:
    topology, signals = watched()
    async with topology:
        counter = topology.start(Counter())
        handle = topology.start(
            kind(result=result),
            restart="temporary",
            **({} if kind is WrongProducer else {"subscribe_to": counter}),
        )
        if kind is not WrongConsumer:
            Stranger().subscribe(handle, ask=1)
        async with asyncio.timeout(PATIENCE):
            reason = await handle.wait()
    assert isinstance(reason.error, StageError)
    assert type(result).__name__ in str(reason.error)
    assert PAYLOAD not in f"{reason.error!r}{signals!r}"


async def test_the_error_of_a_wrong_partition_holds_no_payload() -> None:
    def same(event: str) -> str:
        return event

    topology, signals = watched()
    async with topology:
        dispatcher = PartitionDispatcher(["left"], hash=same)
        handle = topology.start(Silent(), dispatcher=dispatcher, restart="temporary")
        Stranger().subscribe(handle, ask=1, extra={"partition": "left"})
        await quiet(topology)
        handle.cast(lambda stage: stage.emit([PAYLOAD]))
        reason = await handle.wait()
    assert "hash= must return one of 'left'" in str(reason.error)
    assert PAYLOAD not in f"{reason.error!r}{signals!r}"


# --- before the topology is entered ------------------------------------------------------------


@pytest.mark.parametrize("what", ["wait", "drain"])
async def test_a_topology_that_was_not_entered_cannot_be_waited_for(what: str) -> None:
    topology = Topology()
    topology.start(Counter())
    with pytest.raises(StageError, match="a topology that was not entered"):
        async with asyncio.timeout(PATIENCE):
            await getattr(topology, what)()


async def test_a_topology_that_was_closed_before_cannot_be_entered() -> None:
    topology = Topology()
    handle = topology.start(Counter())
    await topology.aclose()
    with pytest.raises(ClosedError, match="has been closed"):
        await topology.__aenter__()
    assert not handle.started


async def test_to_subscribe_to_a_stage_that_was_not_started_is_the_callers_error_alone() -> None:
    elsewhere = Topology().start(Counter())
    topology, signals = watched()
    async with topology:
        consumer = topology.start(forwarder := Forwarder())
        with pytest.raises(StageError, match="has not been started: enter its topology first"):
            await consumer.subscribe(elsewhere)
        await consumer.subscribe(topology.start(Counter(), name="here"))
        await forwarder.reach(1)
        assert consumer.alive
    assert "stage-failed" not in kinds(signals)


# --- what is left behind -----------------------------------------------------------------------


class Port:
    """A source that never gives anything."""

    def __init__(self) -> None:
        self.entered = self.left = False

    async def __aenter__(self) -> None:
        self.entered = True

    async def __aexit__(self, *_: object) -> None:
        self.left = True

    async def fetch(self, demand: int) -> list[Any]:
        return await asyncio.Future()

    def settle(self, outcomes: Any) -> None:
        pass


async def test_a_start_that_fails_after_its_bases_start_leaves_no_task_and_leaves_its_source() -> (
    None
):
    class Late(SourceStage[Any]):
        async def handle_start(self) -> None:
            await super().handle_start()
            raise ValueError("late")

    port, before = Port(), asyncio.all_tasks()
    topology = Topology()
    topology.start(Late(port))
    with pytest.raises(StageError, match=r"Late\.handle_start raised ValueError: late"):
        await topology.run()
    assert (port.entered, port.left) == (True, True)
    assert asyncio.all_tasks() <= before


async def test_who_no_longer_waits_for_a_stage_leaves_nothing_behind() -> None:
    async with Topology() as topology:
        handle = topology.start(Forwarder())
        await quiet(topology)
        for _ in range(10):
            waiting = asyncio.ensure_future(handle.wait())
            await asyncio.sleep(0)
            assert len(handle.runner._over_waiters) == 1
            waiting.cancel()
            await asyncio.wait([waiting])
            assert handle.runner._over_waiters == []
