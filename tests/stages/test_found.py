"""What the property tests have found, each as small as it can be."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.rules.trace import Fresh
from penstock.stages import BroadcastDispatcher, PartitionDispatcher
from penstock.stages.protocol import NORMAL, Ask, Cancel
from stages.fixtures import Forwarder, Silent, Stranger, emit, in_stage, quiet, watched


def parity(event: int) -> int:
    return event % 2


class Outcomes(list[Any]):
    """What a `Fresh` was told, as ``(event, kind)``."""

    def __call__(self, events: Any, kind: str, error: BaseException | None) -> None:
        self.extend((event, kind) for event in events)


# --- demand that was stranded ------------------------------------------------------------------


@pytest.mark.parametrize("size", [None, 0])
async def test_what_is_held_for_one_partition_does_not_keep_another_from_what_it_asked_for(
    size: int | None,
) -> None:
    topology, _ = watched()
    async with topology:
        dispatcher = PartitionDispatcher(2, hash=parity)
        handle = topology.start(Silent(), dispatcher=dispatcher, buffer_size=size)
        even = Stranger()
        even.subscribe(handle, ask=2, extra={"partition": 0})
        await quiet(topology)
        await emit(handle, [0, 1, 2])
        await quiet(topology)
        assert even.events == [0, 2]


@pytest.mark.parametrize("size", [None, 0])
async def test_what_a_selector_leaves_out_does_not_keep_what_follows_in_the_buffer(
    size: int | None,
) -> None:
    topology, _ = watched()
    async with topology:
        handle = topology.start(Silent(), dispatcher=BroadcastDispatcher(), buffer_size=size)
        odd = Stranger()
        odd.subscribe(handle, ask=1, extra={"selector": parity})
        await quiet(topology)
        await emit(handle, [2, 3])
        await quiet(topology)
        assert odd.events == [3]


async def test_a_consumer_that_takes_more_ahead_than_the_last_one_makes_room_for_the_others() -> (
    None
):
    topology, _ = watched()
    async with topology:
        dispatcher = PartitionDispatcher(2, hash=parity)
        handle = topology.start(silent := Silent(), dispatcher=dispatcher)
        odd, even = Stranger("odd"), Stranger("even")
        first = odd.subscribe(handle, max_demand=1, extra={"partition": 1})
        even.subscribe(handle, ask=2, extra={"partition": 0})
        await silent.asked.reach(1)
        await emit(handle, [1, 3, 5, 2])
        await quiet(topology)
        assert even.events == []
        handle.send(Cancel(first, NORMAL))
        odd.subscribe(handle, max_demand=4, extra={"partition": 1})
        await quiet(topology)
        assert even.events == [2]


async def test_where_such_a_consumer_makes_room_the_producer_is_asked_for_more() -> None:
    topology, _ = watched()
    async with topology:
        dispatcher = PartitionDispatcher(2, hash=parity)
        handle = topology.start(silent := Silent(), dispatcher=dispatcher)
        odd, even = Stranger("odd"), Stranger("even")
        first = odd.subscribe(handle, max_demand=1, extra={"partition": 1})
        even.subscribe(handle, ask=1, extra={"partition": 0})
        await silent.asked.reach(1)
        await emit(handle, [1])
        handle.send(Cancel(first, NORMAL))
        await quiet(topology)
        assert silent.asked == [1]
        odd.subscribe(handle, max_demand=4, extra={"partition": 1})
        await quiet(topology)
        assert silent.asked == [1, 1]


# --- events that went without a word -----------------------------------------------------------


@pytest.mark.parametrize("end", ["fails", "stops"])
async def test_what_a_full_buffer_dropped_is_said_and_settled_also_where_the_stage_then_ends(
    end: str,
) -> None:
    topology, signals = watched()
    outcomes = Outcomes()

    def give_and_end(_: Any) -> None:
        handle.runner.giving.supply([1, 2, 3], Fresh(outcomes))
        if end == "fails":
            raise ValueError("now")

    async with topology:
        handle = topology.start(Silent(), buffer_size=2, restart="temporary")
        await quiet(topology)
        if end == "fails":
            handle.cast(give_and_end)
        else:
            give_and_end(None)
            handle.stop()
        await handle.wait()
    dropped = [
        signal.count or 0
        for signal in signals
        if signal.kind in {"events-dropped", "events-returned"}
    ]
    assert sum(dropped) == 3
    assert sorted(outcomes) == [(1, "returned"), (2, "returned"), (3, "returned")]


async def test_what_a_hash_discards_is_settled_also_where_the_stage_then_ends() -> None:
    topology, _ = watched()
    outcomes = Outcomes()

    def give_and_fail(_: Any) -> None:
        handle.runner.giving.supply([1, 2], Fresh(outcomes))
        raise ValueError("now")

    async with topology:
        dispatcher = PartitionDispatcher(2, hash=lambda _: None)
        handle = topology.start(Silent(), dispatcher=dispatcher, restart="temporary")
        Stranger().subscribe(handle, ask=2, extra={"partition": 0})
        await quiet(topology)
        handle.cast(give_and_fail)
        await handle.wait()
    assert outcomes == [(1, "done"), (2, "done")]


class Fragile(Forwarder):
    """Fails at its first call."""

    def handle_events(self, events: list[Any], source: Any) -> None:
        raise ValueError("now")


async def test_where_a_call_fails_the_rest_of_its_message_is_counted_and_returned() -> None:
    topology, signals = watched()
    outcomes = Outcomes()
    async with topology:
        handle = topology.start(silent := Silent())
        to = handle.with_options(max_demand=4, min_demand=3, cancel="temporary")
        topology.start(Fragile(), subscribe_to=to, name="fragile", restart="temporary")
        await silent.asked.reach(1)
        handle.runner.giving.supply([1, 2, 3, 4], Fresh(outcomes))
        await quiet(topology)
    assert outcomes[0] == (1, "failed")
    assert sorted(outcomes[1:]) == [(2, "returned"), (3, "returned"), (4, "returned")]
    dropped = [
        one
        for one in signals
        if one.kind in {"events-dropped", "events-returned"} and one.stage == "fragile"
    ]
    assert sum(one.count or 0 for one in dropped) == 3


# --- figures and order -------------------------------------------------------------------------


async def test_what_a_partition_holds_is_not_counted_as_delivered() -> None:
    topology, _ = watched()
    async with topology:
        dispatcher = PartitionDispatcher(2, hash=parity)
        handle = topology.start(Silent(), dispatcher=dispatcher)
        even, odd = Stranger("even"), Stranger("odd")
        even.subscribe(handle, ask=2, extra={"partition": 0})
        await quiet(topology)
        await emit(handle, [0, 1])
        await quiet(topology)
        figures = handle.statistics()
        assert (figures.delivered, figures.buffered) == (1, 1)
        odd.subscribe(handle, ask=1, extra={"partition": 1})
        await quiet(topology)
        figures = handle.statistics()
        assert (figures.delivered, figures.buffered) == (2, 0)


async def test_an_info_does_not_overtake_one_that_has_waited_for_events() -> None:
    topology, _ = watched()
    async with topology:
        handle = topology.start(silent := Silent())
        await emit(handle, [1])
        handle.info("first")
        mouth = Stranger()
        tag = mouth.subscribe(handle)
        await quiet(topology)
        handle.send(Ask(tag, 1))
        handle.info("second")
        await silent.infos.reach(2)
        assert silent.infos == ["first", "second"]


async def test_an_info_does_not_overtake_one_that_a_full_buffer_let_out() -> None:
    topology, _ = watched()
    async with topology:
        handle = topology.start(silent := Silent(), buffer_size=1)
        await emit(handle, [1])
        handle.info("first")
        mouth = Stranger()
        await quiet(topology)
        handle.cast(lambda stage: stage.emit([2]))
        mouth.subscribe(handle, ask=1)
        handle.info("second")
        await silent.infos.reach(2)
        assert silent.infos == ["first", "second"]
        assert await in_stage(handle, lambda stage: len(stage.infos)) == 2
