"""What a producer keeps while nobody asks: how much, which end, in what order, and who is told."""

from __future__ import annotations

from typing import Any

import pytest

from penstock import ConfigError
from penstock.stages import (
    BroadcastDispatcher,
    DemandDispatcher,
    Dispatcher,
    PartitionDispatcher,
    RoundRobinDispatcher,
    StageHandle,
    Topology,
)
from penstock.stages.protocol import Ask, Cancel, Reason
from stages.fixtures import (
    Counter,
    Forwarder,
    Middle,
    Silent,
    Stranger,
    emit,
    kinds,
    quiet,
    watched,
)


@pytest.mark.conformance("GS-038")
async def test_events_that_nobody_asked_for_are_kept_and_go_first() -> None:
    counter, forwarder = Counter(), Forwarder()
    async with Topology() as topology:
        handle = topology.start(counter)
        await emit(handle, ["a", "b", "c"])
        await emit(handle, ["d", "e"])
        topology.start(forwarder, subscribe_to=handle.with_options(max_demand=4, min_demand=0))
        assert await forwarder.reach(8) == ["a", "b", "c", "d", "e", 0, 1, 2]
    assert forwarder.batches[:3] == [["a", "b", "c", "d"], ["e"], [0, 1, 2]]
    assert counter.asked[0] == 3


# --- bounds ----------------------------------------------------------------------------------


@pytest.mark.conformance("GS-039", "GS-040")
@pytest.mark.parametrize("kind", [Silent, Middle])
@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        ("first", "abcde"),
        ("last", "defgh"),
    ],
)
@pytest.mark.parametrize("emissions", [["abcdefgh"], ["abc", "defgh"], ["abcde", "f", "gh"]])
async def test_a_full_buffer_keeps_one_end_and_says_how_many_were_dropped(
    kind: type[Any], keep: str, kept: str, emissions: list[str]
) -> None:
    topology, signals = watched()
    forwarder = Forwarder()
    async with topology:
        handle = topology.start(kind(), buffer_size=5, buffer_keep=keep, name="full")
        for emission in emissions:
            await emit(handle, list(emission))
        assert handle.estimate_buffered_count() == 5
        topology.start(forwarder, subscribe_to=handle)
        assert await forwarder.reach(5) == list(kept)
        await quiet(topology)
        assert len(forwarder.events) == 5
        assert handle.statistics().discarded == 3
    assert set(kinds(signals)) == {"events-dropped"}
    assert sum(one.count or 0 for one in signals) == 3
    assert all(one.stage == "full" for one in signals)
    assert f"the buffer of 5 events is full; {signals[0].count} dropped" in signals[0].message
    assert f"the {keep} are kept" in signals[0].message


@pytest.mark.conformance("GS-040")
async def test_by_default_10_000_events_are_kept_the_last() -> None:
    topology, signals = watched()
    forwarder = Forwarder()
    async with topology:
        handle = topology.start(Silent())
        await emit(handle, range(10_001))
        assert handle.estimate_buffered_count() == 10_000
        topology.start(forwarder, subscribe_to=handle)
        assert (await forwarder.reach(10_000))[::9_999] == [1, 10_000]
    assert [one.count for one in signals] == [1]


@pytest.mark.conformance("GS-041")
async def test_an_unbounded_buffer_keeps_everything() -> None:
    topology, signals = watched()
    forwarder = Forwarder()
    async with topology:
        handle = topology.start(Silent(), buffer_size=None)
        await emit(handle, range(20_000))
        topology.start(forwarder, subscribe_to=handle)
        assert await forwarder.reach(20_000) == list(range(20_000))
    assert kinds(signals) == []


@pytest.mark.conformance("GS-042")
@pytest.mark.parametrize(("answer", "told"), [(False, []), (True, [3]), (None, [3])])
async def test_a_stage_is_told_of_what_it_lost_and_may_silence_the_signal(
    answer: bool | None, told: list[int]
) -> None:
    topology, signals = watched()
    silent = Silent(answer=answer)
    async with topology:
        handle = topology.start(silent, buffer_size=5)
        await emit(handle, range(5))
        await quiet(topology)
        assert silent.discarded == []
        await emit(handle, range(3))
        await silent.discarded.reach(1)
        assert silent.discarded == [3]
        assert [one.count for one in signals] == told


@pytest.mark.conformance("GS-043")
async def test_the_number_of_buffered_events_can_be_asked() -> None:
    forwarder = Forwarder()
    async with Topology() as topology:
        handle = topology.start(Silent())
        assert handle.estimate_buffered_count() == 0
        await emit(handle, range(5))
        assert handle.estimate_buffered_count() == handle.statistics().buffered == 5
        await emit(handle, range(3))
        assert handle.estimate_buffered_count() == 8
        topology.start(forwarder, subscribe_to=handle)
        await forwarder.reach(8)
        assert handle.estimate_buffered_count() == 0


@pytest.mark.conformance("GS-043", "GS-045")
async def test_infos_that_wait_are_not_counted() -> None:
    silent = Silent()
    async with Topology() as topology:
        handle = topology.start(silent, buffer_size=None)
        await emit(handle, range(5))
        handle.info("behind")
        await quiet(topology)
        assert silent.infos == []
        assert handle.estimate_buffered_count() == 5


@pytest.mark.conformance("GS-044")
async def test_a_consumer_buffers_nothing_and_asking_it_is_signalled() -> None:
    topology, signals = watched()
    async with topology:
        handle = topology.start(Forwarder())
        assert handle.estimate_buffered_count() == 0
        await quiet(topology)
        assert handle.alive
    assert [(one.kind, one.stage) for one in signals] == [("protocol-error", "Forwarder")]
    assert signals[0].message == "Forwarder is a consumer: it buffers nothing"


@pytest.mark.conformance("GS-050")
@pytest.mark.parametrize("keep", ["first", "last"])
async def test_a_buffer_of_0_keeps_nothing_and_passes_on_what_was_asked_for(keep: str) -> None:
    topology, signals = watched()
    mouth = Stranger()
    async with topology:
        handle = topology.start(Silent(), buffer_size=0, buffer_keep=keep)
        await emit(handle, [1, 2])
        assert handle.estimate_buffered_count() == 0
        mouth.subscribe(handle, ask=3)
        await quiet(topology, mouth.messages)
        await emit(handle, [3, 4])
        await emit(handle, [5, 6])
        await quiet(topology, mouth.messages)
        assert mouth.events == [3, 4, 5]
    assert [(one.kind, one.count) for one in signals] == [
        ("events-dropped", 2),
        ("events-dropped", 1),
    ]


@pytest.mark.conformance("GS-050")
@pytest.mark.parametrize("kind", [Silent, Middle])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"buffer_size": -1}, "buffer_size must be 0 events or more, or None; got -1"),
        ({"buffer_size": 1.5}, "buffer_size must be 0 events or more, or None; got 1.5"),
        ({"buffer_size": "all"}, "buffer_size must be 0 events or more, or None; got 'all'"),
        ({"buffer_keep": "middle"}, "buffer_keep must be 'first' or 'last'; got 'middle'"),
    ],
)
async def test_a_buffer_that_makes_no_sense_is_refused_at_the_start(
    kind: type[Any], options: dict[str, Any], message: str
) -> None:
    async with Topology() as topology:
        with pytest.raises(ConfigError, match=message):
            topology.start(kind(), **options)
        with pytest.raises(ConfigError, match=message):
            topology.start(type("Odd", (kind,), options))
        assert not topology.stages


# --- order, whoever comes and goes -----------------------------------------------------------

DISPATCHERS = [
    pytest.param(DemandDispatcher(), {}, id="demand"),
    pytest.param(DemandDispatcher(shuffle=True), {}, id="shuffled"),
    pytest.param(RoundRobinDispatcher(per_turn=2), {}, id="round robin"),
    pytest.param(BroadcastDispatcher(), {}, id="broadcast"),
    pytest.param(PartitionDispatcher(1), {"partition": 0}, id="partition"),
]


def joined(handle: StageHandle[Any], ask: int, extra: dict[str, Any]) -> tuple[Stranger, Any]:
    """A new consumer, by hand, that has asked for *ask* events."""
    mouth = Stranger()
    return mouth, mouth.subscribe(handle, ask=ask, extra=extra)


@pytest.mark.conformance("GS-051", "GS-111", "GS-124")
@pytest.mark.parametrize(("dispatcher", "extra"), DISPATCHERS)
async def test_a_newcomer_gets_what_was_buffered_for_one_that_left_and_in_order(
    dispatcher: Dispatcher, extra: dict[str, Any]
) -> None:
    async with Topology() as topology:
        handle = topology.start(silent := Silent(), dispatcher=dispatcher)
        left, tag = joined(handle, 10, extra)
        await silent.asked.reach(1)
        handle.send(Cancel(tag, Reason("failed", ValueError("it broke"), down=True)))
        await emit(handle, [1, 2, 3])
        assert handle.estimate_buffered_count() == 3
        newcomer, _ = joined(handle, 5, extra)
        assert await newcomer.reach(3) == [1, 2, 3]
        await emit(handle, [4, 5])
        assert await newcomer.reach(5) == [1, 2, 3, 4, 5]
        assert left.events == []
    assert silent.asked == [10]


@pytest.mark.conformance("GS-051", "GS-140")
async def test_what_is_buffered_while_a_consumer_joins_a_broadcast_goes_before_newer_events() -> (
    None
):
    async with Topology() as topology:
        handle = topology.start(silent := Silent(), dispatcher=BroadcastDispatcher())
        first, _ = joined(handle, 10, {})
        await silent.asked.reach(1)
        second, tag = joined(handle, 0, {})
        await emit(handle, [1, 2])
        assert handle.estimate_buffered_count() == 2
        assert first.events == []
        handle.send(Ask(tag, 5))
        for mouth in (first, second):
            assert await mouth.reach(2) == [1, 2]
        await emit(handle, [3])
        for mouth in (first, second):
            assert await mouth.reach(3) == [1, 2, 3]
        assert handle.estimate_buffered_count() == 0


@pytest.mark.conformance("GS-051", "GS-137")
async def test_what_is_buffered_goes_out_when_the_one_that_held_it_up_leaves_a_broadcast() -> None:
    async with Topology() as topology:
        handle = topology.start(Silent(), dispatcher=BroadcastDispatcher())
        first, _ = joined(handle, 10, {})
        second, tag = joined(handle, 0, {})
        await emit(handle, [1, 2])
        await quiet(topology, first.messages)
        assert first.messages == []
        handle.send(Cancel(tag, Reason("normal")))
        assert await first.reach(2) == [1, 2]
        assert second.events == []


@pytest.mark.conformance("GS-051")
@pytest.mark.parametrize(("dispatcher", "extra"), DISPATCHERS)
async def test_each_piece_of_the_buffer_goes_to_the_next_who_asks_in_order(
    dispatcher: Dispatcher, extra: dict[str, Any]
) -> None:
    found: list[Any] = []
    async with Topology() as topology:
        handle = topology.start(Silent(), dispatcher=dispatcher)
        await emit(handle, range(10))
        for count in (1, 2, 3):
            mouth, tag = joined(handle, count, extra)
            found += await mouth.reach(count)
            handle.send(Cancel(tag, Reason("normal")))
            await emit(handle, [10 + count])
        mouth, _ = joined(handle, 100, extra)
        found += await mouth.reach(7)
    assert found == [*range(10), 11, 12, 13]
