"""What is dropped: counted, said, and told to whoever sent it."""

from __future__ import annotations

from penstock.stages.protocol import Cancel, Events, Tag
from stages.fixtures import Forwarder, Middle, Silent, Stranger, emit, kinds, quiet, watched


async def test_events_of_a_subscription_that_is_over_are_counted_and_refused() -> None:
    topology, signals = watched()
    async with topology:
        stranger, forwarder = Stranger(), Forwarder()
        pool = topology.start(forwarder, name="pool")
        old = Tag(pool, stranger)
        pool.send(Events(old, [1, 2, 3]))
        refusal = await stranger.first(Cancel)
        assert refusal.tag is old
        assert [(s.kind, s.stage, s.count) for s in signals] == [("events-dropped", "pool", 3)]
        assert forwarder.events == []


async def test_events_for_a_stage_that_has_ended_are_counted_and_refused() -> None:
    topology, signals = watched()
    async with topology:
        stranger = Stranger()
        pool = topology.start(Forwarder(), name="pool")
        pool.stop()
        await pool.wait()
        pool.send(Events(Tag(pool, stranger), [1, 2]))
        assert [(s.kind, s.stage, s.count) for s in signals] == [("events-dropped", "pool", 2)]
        assert [type(message) for message in stranger.messages] == [Cancel]


async def test_what_a_full_buffer_drops_is_counted_once_in_signals_and_figures() -> None:
    topology, signals = watched()
    async with topology:
        spring = topology.start(Silent(), name="spring", buffer_size=5)
        for _ in range(3):
            await emit(spring, [1, 2, 3, 4])
        await quiet(topology)
        assert kinds(signals) == ["events-dropped"] * 2
        assert sum(signal.count or 0 for signal in signals) == 7
        assert spring.statistics().discarded == 7
        assert spring.estimate_buffered_count() == 5


async def test_what_a_stage_had_when_it_ended_is_counted_wherever_it_lay() -> None:
    """In its inbox, in its queue, in its buffer."""
    topology, signals = watched()
    async with topology:
        spring = topology.start(Silent(), name="spring")
        mill = topology.start(Middle(), name="mill", subscribe_to=spring)
        await quiet(topology)
        await emit(spring, range(3))
        await quiet(topology)
        mill.cast(lambda stage: stage.emit(list("abcd")))
        await quiet(topology)
        spring.cast(lambda stage: stage.emit(range(5)))
        mill.cast(lambda stage: stage.stop())
        await mill.wait()
    counts = [signal.count for signal in signals if signal.stage == "mill"]
    assert sum(count or 0 for count in counts) == 12
