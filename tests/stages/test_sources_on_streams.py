"""From stream to stream through stages: nothing is lost, and nothing is acked before it is stored.

On memory and on both servers.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

import pytest

from penstock import END, OLDEST, Client, Event, Retry, Signal, StageError, Stream, connect
from penstock.backends.memory import forget
from penstock.stages import (
    BroadcastDispatcher,
    ProducerConsumer,
    SourceStage,
    StageHandle,
    Subscription,
    TargetStage,
    Topology,
)
from stages.fixtures import Forwarder, Seen, kinds, watched, within
from stages.tracing import Stepper
from streams.helping import everything, fill, number, numbers, soon
from support.servers import Server

AT_ONCE = Retry(first=0.0, jitter=0.0)


@pytest.fixture(
    params=["memory", "embedded_server", "redis7_server"], ids=["memory", "valkey", "redis7"]
)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the streams are: a memory of the test's own, and each server in turn, emptied."""
    if request.param == "memory":
        yield "memory://stages"
        forget("stages")
        return
    server: Server = request.getfixturevalue(request.param)
    server.flush()
    yield server.url


@pytest.fixture
def noted() -> list[Signal]:
    """What the client has signalled."""
    return []


@pytest.fixture
async def client(url: str, noted: list[Signal]) -> AsyncGenerator[Client]:
    """A client that is open."""
    async with connect(url, observer=noted.append) as opened:
        yield opened


class Double(ProducerConsumer[Event[Any], Any]):
    """Gives twice of each number, as something to be written."""

    def handle_events(self, events: list[Event[Any]], source: Subscription) -> list[Any]:
        return [{"n": 2 * number(event)} for event in events]


class Gate:
    """A target before another: it writes when it may, and fails when it is told to.

    Attributes:
        begun: batches whose writing has begun.
        stored: batches whose writing has ended.
        fails: how many more writes fail, each in place of what it should write.
    """

    def __init__(self, target: Any, *, may: bool = True, fails: int = 0) -> None:
        self.target, self.fails = target, fails
        self.begun: Seen[list[Any]] = Seen()
        self.stored: Seen[list[Any]] = Seen()
        self._may = asyncio.Semaphore(1_000_000 if may else 0)

    def allow(self, batches: int = 1) -> None:
        for _ in range(batches):
            self._may.release()

    async def write(self, batch: Sequence[Any]) -> None:
        self.begun.append(list(batch))
        await self._may.acquire()
        if self.fails:
            self.fails -= 1
            raise ConnectionError("no answer from the target")
        await self.target.write(batch)
        self.stored.append(list(batch))


async def filled(client: Client, count: int) -> tuple[Stream[Any], Stream[Any]]:
    """A stream with numbers, and one to write to."""
    source, target = client.stream("orders"), client.stream("lines")
    await fill(source, count)
    return source, target


def doubling(topology: Topology, group: Any, max_demand: int = 10) -> StageHandle[Any]:
    """A group, doubled."""
    source = topology.start(SourceStage(group))
    return topology.start(Double(), subscribe_to=source.with_options(max_demand=max_demand))


async def pending(stream: Stream[Any]) -> int:
    """How many events the group has handed out that were not acked."""
    return sum(info.pending for info in await stream.groups())


async def stored(stream: Stream[Any]) -> list[int]:
    """The numbers that the stream holds."""
    return numbers(await everything(stream))


async def left(stream: Stream[Any]) -> list[Event[Any]]:
    """What the group still has to give; acked."""
    found: list[Event[Any]] = []
    async with stream.group("billing", until=END, retry=AT_ONCE) as group:
        async for event in group:
            found.append(event)
            group.ack(event)
    return found


# --- all goes well -----------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["writer", "stream"])
async def test_everything_arrives_once_and_is_acked(client: Client, target: str) -> None:
    source, lines = await filled(client, 500)
    group = source.group("billing", until=END)
    async with Topology() as topology:
        doubled = doubling(topology, group, 100)
        store: Any = lines.writer() if target == "writer" else lines
        topology.start(TargetStage(store), subscribe_to=doubled.with_options(max_demand=50))
        await within(topology)
    assert await stored(lines) == [2 * n for n in range(500)]
    statistics = group.statistics()
    assert (statistics.acked, statistics.nacked, statistics.in_flight) == (500, 0, 0)
    assert await pending(source) == 0
    assert await left(source) == []


async def test_nothing_is_acked_before_the_target_has_stored_it(client: Client) -> None:
    source, lines = await filled(client, 20)
    group = source.group("billing", until=END)
    gate = Gate(lines, may=False)
    async with Topology() as topology:
        doubled = doubling(topology, group, 4)
        to = doubled.with_options(max_demand=4, min_demand=0)
        topology.start(TargetStage(gate), subscribe_to=to)
        done = 0
        while done < 20:
            await gate.begun.reach(len(gate.stored) + 1)
            await group.flush()
            assert group.statistics().acked <= done
            batches = len(gate.stored) + 1
            gate.allow()
            await gate.stored.reach(batches)
            done = sum(map(len, gate.stored))
        await within(topology)
    assert group.statistics().acked == 20
    assert await stored(lines) == [2 * n for n in range(20)]


async def test_events_for_two_targets_are_acked_when_both_have_stored_them(client: Client) -> None:
    source, lines = await filled(client, 30)
    gate = Gate(client.stream("copies"), may=False)
    group = source.group("billing", until=END)
    async with Topology() as topology:
        handle = topology.start(SourceStage(group), dispatcher=BroadcastDispatcher())
        double = topology.start(Double(), subscribe_to=handle)
        copies = topology.start(Double(), subscribe_to=handle)
        topology.start(TargetStage(lines.writer()), subscribe_to=double)
        topology.start(TargetStage(gate), subscribe_to=copies)
        await gate.begun.reach(1)
        await soon(lambda: is_long(lines, 30), "all is stored in the first target")
        await group.flush()
        assert group.statistics().acked == 0
        gate.allow(30)
        await within(topology)
    assert await stored(client.stream("copies")) == await stored(lines)
    assert group.statistics().acked == 30


async def is_long(stream: Stream[Any], count: int) -> bool:
    """Whether it has so many events."""
    return await stream.length() >= count


async def test_a_reader_is_a_source_too(client: Client) -> None:
    source, lines = await filled(client, 300)
    reader = source.reader(start=OLDEST, until=END)
    async with Topology() as topology:
        doubled = doubling(topology, reader, 64)
        topology.start(TargetStage(lines.writer()), subscribe_to=doubled)
        await within(topology)
        assert reader.opened
    assert await stored(lines) == [2 * n for n in range(300)]
    assert reader.statistics().yielded == 300


async def test_a_drained_group_has_acked_what_it_gave_and_the_rest_stays(client: Client) -> None:
    source, lines = await filled(client, 100)
    group = source.group("billing", retry=AT_ONCE)
    gate = Gate(lines, may=False)
    async with Topology() as topology:
        doubled = doubling(topology, group, 10)
        topology.start(TargetStage(gate), subscribe_to=doubled.with_options(max_demand=10))
        await gate.begun.reach(1)
        draining = asyncio.create_task(topology.drain())
        gate.allow(1000)
        await draining
    first = await stored(lines)
    assert first
    rest = await left(source)
    assert sorted(first + [2 * n for n in numbers(rest)]) == [2 * n for n in range(100)]
    assert all(event.attempts == 0 for event in rest)
    assert group.statistics().acked == len(first)


# --- not all goes well -------------------------------------------------------------------------


async def test_what_a_failing_consumer_had_comes_again_counted_and_all_arrives(
    client: Client,
) -> None:
    """It is restarted; what it had not begun with comes again too, uncounted."""
    topology, signals = watched()
    source, lines = await filled(client, 60)
    attempts: Counter[int] = Counter()

    class Careful(Double):
        def handle_events(self, events: list[Event[Any]], source: Subscription) -> list[Any]:
            for event in events:
                attempts[number(event)] = max(attempts[number(event)], event.attempts)
                if number(event) == 7 and event.attempts < 2:
                    raise ConnectionError("no answer")
            return super().handle_events(events, source)

    group = source.group("billing", retry=AT_ONCE)
    async with topology:
        handle = topology.start(SourceStage(group))
        to = handle.with_options(max_demand=4, min_demand=2)
        double = topology.start(Careful, subscribe_to=to, restart="transient")
        last = double.with_options(cancel="temporary")
        topology.start(TargetStage(lines.writer()), subscribe_to=last)
        await soon(lambda: group.statistics().acked == 60, "all is acked")
        await topology.drain()
    found = await stored(lines)
    assert sorted(set(found)) == [2 * n for n in range(60)]
    assert attempts[7] == 2
    assert {n for n, count in attempts.items() if count} <= {6, 7, 8}
    assert kinds(signals).count("stage-restarted") == 2
    statistics = group.statistics()
    assert statistics.acked == 60
    assert 2 <= statistics.nacked <= 4


async def test_a_failure_that_ends_the_topology_leaves_all_for_the_next_run(
    client: Client, noted: list[Signal]
) -> None:
    source, lines = await filled(client, 40)
    for fails in (1, 0):
        group = source.group("billing", until=END, retry=AT_ONCE)
        topology = Topology()
        doubled = doubling(topology, group, 8)
        to = doubled.with_options(max_demand=4, min_demand=2)
        topology.start(TargetStage(Gate(lines, fails=fails)), subscribe_to=to)
        if fails:
            with pytest.raises(StageError, match="no answer from the target"):
                await topology.run()
            assert await stored(lines) == []
            assert group.statistics().acked == 0
            assert group.statistics().nacked > 0
        else:
            await topology.run()
    assert sorted(await stored(lines)) == [2 * n for n in range(40)]
    assert "nacked" in kinds(noted)
    assert await pending(source) == 0


async def test_a_target_that_fails_and_is_restarted_gets_everything(client: Client) -> None:
    """The stage before it lives on, and so does the group."""
    topology, signals = watched()
    source, lines = await filled(client, 40)
    gate = Gate(lines, fails=2)
    group = source.group("billing", retry=AT_ONCE)
    async with topology:
        doubled = doubling(topology, group, 8)
        topology.start(
            lambda: TargetStage(gate),
            subscribe_to=doubled.with_options(max_demand=4, min_demand=2),
            restart="transient",
        )
        await soon(lambda: group.statistics().acked == 40, "all is acked")
        await topology.drain()
    assert sorted(set(await stored(lines))) == [2 * n for n in range(40)]
    assert kinds(signals).count("stage-restarted") == 2
    assert group.statistics().acked == 40
    assert await pending(source) == 0


@pytest.mark.parametrize("end", ["left", "cancelled", "source stopped"])
async def test_what_was_not_handled_is_handed_back_uncounted_and_a_second_run_gets_it(
    client: Client, end: str
) -> None:
    source, lines = await filled(client, 50)
    topology, _ = watched()
    stepper = Stepper()
    group = source.group("billing", retry=AT_ONCE)
    handle = topology.start(SourceStage(group))
    to = handle.with_options(max_demand=4, min_demand=2)
    topology.start(stepper, subscribe_to=to, shutdown=0)
    running = asyncio.create_task(topology.run())
    await stepper.batches.reach(1)
    stepper.step()
    await stepper.batches.reach(2)
    done = stepper.batches[0]
    if end == "cancelled":
        running.cancel()
    elif end == "left":
        await topology.aclose()
    else:
        handle.stop(LookupError("broken"))
    await asyncio.gather(running, return_exceptions=True)
    assert await pending(source) == 0
    async with Topology() as second:
        doubled = doubling(second, source.group("billing", until=END, retry=AT_ONCE))
        topology_forward = second.start(forwarder := Forwarder(), subscribe_to=doubled)
        await within(second)
        assert topology_forward.ended is not None
    assert group.statistics().acked == len(done)
    assert sorted(event["n"] for event in forwarder.events) == [
        2 * n for n in range(50) if n not in numbers(done)
    ]
    assert await left(source) == []
    assert await stored(lines) == []


async def test_what_is_handed_back_has_not_failed(client: Client) -> None:
    source, _lines = await filled(client, 10)
    async with Topology() as topology:
        handle = topology.start(SourceStage(source.group("billing", retry=AT_ONCE)))
        topology.start(stepper := Stepper(), subscribe_to=handle, shutdown=0)
        await stepper.batches.reach(1)
    again = await left(source)
    assert sorted(numbers(again)) == list(range(10))
    assert [event.attempts for event in again] == [0] * 10


async def test_a_group_that_is_entered_outside_is_not_left_by_its_stage(client: Client) -> None:
    """A loop that is left at an event returns it, and it comes again to whoever is next."""
    source, _lines = await filled(client, 10)
    async with source.group("billing", retry=AT_ONCE) as group:
        async with Topology() as topology:
            handle = topology.start(SourceStage(group))
            async for event in handle.events(max_demand=2, min_demand=1):
                if number(event) == 4:
                    break
        await group.flush()
        assert group.statistics().acked == 4
        rest = [await anext(group) for _ in range(6)]
        assert sorted(numbers(rest)) == list(range(4, 10))
        group.ack(rest)
    assert await left(source) == []


async def test_a_target_that_is_refused_is_said_at_its_stage(client: Client) -> None:
    """And the group, which was joined, is left."""
    source, _lines = await filled(client, 10)
    other = client.stream("orders", type=int)
    topology = Topology()
    doubled = doubling(topology, source.group("billing", until=END, retry=AT_ONCE))
    topology.start(TargetStage(other.writer()), name="writing", subscribe_to=doubled)
    with pytest.raises(StageError, match="writing"):
        await topology.run()
    assert len(await left(source)) == 10
