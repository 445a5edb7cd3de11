"""Iterables as producers: what is pulled, when it is given out, and how they are left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from penstock import ConfigError, StageError
from penstock.stages import Call, IterableStage, StageHandle, Topology
from stages.fixtures import (
    Forwarder,
    Seen,
    Sleeper,
    Stranger,
    collected,
    kinds,
    quiet,
    watched,
    within,
)


class Numbers:
    """An iterator that counts its steps.

    Attributes:
        pulled: how many items it has given.
    """

    def __init__(self, count: int = 1_000_000) -> None:
        self.pulled = 0
        self.count = count

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if self.pulled >= self.count:
            raise StopIteration
        self.pulled += 1
        return self.pulled - 1


class Later:
    """The same, asynchronous: it waits for `allow` before each item, or never.

    Attributes:
        waiting: whether a step is under way.
    """

    def __init__(self, allowed: int | None = None) -> None:
        self.pulled = 0
        self.waiting = False
        self._allowed = None if allowed is None else asyncio.Semaphore(allowed)

    def allow(self, count: int) -> None:
        assert self._allowed is not None
        for _ in range(count):
            self._allowed.release()

    def __aiter__(self) -> AsyncIterator[int]:
        return self

    async def __anext__(self) -> int:
        if self._allowed is not None:
            self.waiting = True
            await self._allowed.acquire()
            self.waiting = False
        self.pulled += 1
        return self.pulled - 1


class Generators:
    """Makes generators that say when they are closed.

    Attributes:
        closed: one entry for each.
        gates: what an asynchronous one waits for behind its items.
    """

    def __init__(self) -> None:
        self.closed: Seen[str] = Seen()
        self.gate = asyncio.Event()

    def plain(self, count: int, error: Exception | None = None) -> Iterator[int]:
        try:
            yield from range(count)
            if error is not None:
                raise error
        finally:
            self.closed.append("plain")

    async def waiting(self, count: int, error: Exception | None = None) -> AsyncIterator[int]:
        try:
            for n in range(count):
                yield n
            await self.gate.wait()
            if error is not None:
                raise error
            for n in range(count, 2 * count):
                yield n
        finally:
            await asyncio.sleep(0)  # closing may take a moment
            self.closed.append("waiting")


# --- GenStage's line ---------------------------------------------------------------------------


def plain_numbers() -> Any:
    return Numbers()


def later_numbers() -> Any:
    return Later()


@pytest.mark.conformance("GS-178")
@pytest.mark.parametrize("make", [plain_numbers, later_numbers])
@pytest.mark.parametrize("on_cancel", ["continue", "stop"])
async def test_an_iterable_gives_what_is_asked_and_goes_on_or_stops_without_consumers(
    on_cancel: Any, make: Callable[[], Any]
) -> None:
    async with Topology() as topology:
        numbers = make()
        handle = topology.start(IterableStage(numbers, on_cancel=on_cancel), name="numbers")
        assert topology.stages["numbers"] is handle
        first, second = handle.events(max_demand=4), handle.events(max_demand=2)
        assert [await anext(first), await anext(second)] == [0, 4]
        await quiet(topology)
        assert numbers.pulled == 6
        await first.aclose()
        await quiet(topology)
        assert handle.alive
        await second.aclose()
        await quiet(topology)
        if on_cancel == "stop":
            assert handle.ended is not None
            assert handle.ended.kind == "normal"
        else:
            async with handle.events(max_demand=3) as third:
                assert [await anext(third), await anext(third)] == [6, 7]


# --- pulled as it is asked for -----------------------------------------------------------------


@pytest.mark.parametrize("make", [plain_numbers, later_numbers])
async def test_nothing_is_pulled_that_was_not_asked_for(make: Callable[[], Any]) -> None:
    async with Topology() as topology:
        handle = topology.start(IterableStage(numbers := make()))
        await quiet(topology)
        assert numbers.pulled == 0
        one, two = Stranger(), Stranger()
        one.subscribe(handle, ask=3)
        await quiet(topology)
        assert numbers.pulled == 3
        two.subscribe(handle, ask=4)
        await quiet(topology)
        assert numbers.pulled == 7
        assert sorted(one.events + two.events) == list(range(7))
        to = handle.with_options(max_demand=10)
        topology.start(Sleeper(), subscribe_to=to, shutdown=0)
        await quiet(topology)
        assert numbers.pulled == 17


async def test_what_comes_in_bits_is_not_pulled_beyond_demand_either() -> None:
    async with Topology() as topology:
        numbers = Later(0)
        handle = topology.start(IterableStage(numbers))
        peer = Stranger()
        peer.subscribe(handle, ask=5)
        for allowed, pulled, waiting in [(2, 2, True), (1, 3, True), (9, 5, False)]:
            numbers.allow(allowed)
            await quiet(topology)
            assert (numbers.pulled, numbers.waiting) == (pulled, waiting)
        assert peer.events == list(range(5))


@pytest.mark.parametrize("count", [0, 1, 499, 500, 1000, 1001])
async def test_a_finite_iterable_comes_completely_and_then_all_ends_normally(count: int) -> None:
    async with Topology() as topology:
        handle = topology.start(IterableStage(Numbers(count)))
        topology.start(Forwarder(), subscribe_to=handle)
        assert await collected(topology) == list(range(count))
        assert (await handle.wait()).kind == "normal"


@pytest.mark.parametrize("count", [0, 1, 499, 500])
async def test_an_asynchronous_one_too(count: int) -> None:
    generators = Generators()
    generators.gate.set()
    async with Topology() as topology:
        handle = topology.start(IterableStage(generators.waiting(count)))
        topology.start(Forwarder(), subscribe_to=handle)
        assert await collected(topology) == list(range(2 * count))
        assert (await handle.wait()).kind == "normal"


async def test_what_comes_within_one_turn_is_given_out_together_and_nothing_waits_for_more() -> (
    None
):
    generators = Generators()
    async with Topology() as topology:
        handle = topology.start(IterableStage(generators.waiting(6)))
        topology.start(forwarder := Forwarder(), subscribe_to=handle.with_options(max_demand=100))
        await forwarder.reach(6)
        await quiet(topology)
        assert forwarder.batches == [[0, 1, 2, 3, 4, 5]]
        generators.gate.set()
        await within(topology)
        assert forwarder.batches == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]


async def test_an_iterable_that_is_no_iterator_is_begun_by_itself() -> None:
    """Also an asynchronous one."""

    class Anew:
        def __aiter__(self) -> AsyncIterator[int]:
            return Generators().waiting(2, LookupError())

    async with Topology() as topology:
        async with topology.start(IterableStage([1, 2])).events() as events:
            assert [event async for event in events] == [1, 2]
        async with topology.start(IterableStage(Anew())).events() as events:
            assert [await anext(events), await anext(events)] == [0, 1]


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "waiting"])
async def test_an_error_of_the_iterable_ends_the_stage_with_an_error_that_names_it(
    kind: str,
) -> None:
    generators, error = Generators(), LookupError("no such page")
    generators.gate.set()
    iterable = getattr(generators, kind)(3, error)
    topology = Topology()
    handle = topology.start(IterableStage(iterable), name="pages")
    topology.start(Forwarder(), subscribe_to=handle)
    with pytest.raises(StageError, match=r"pages.*LookupError: no such page") as caught:
        await topology.run()
    assert caught.value.__cause__ is error
    assert generators.closed == [kind]
    assert handle.ended is not None
    assert handle.ended.error is caught.value


async def test_what_an_asynchronous_iterable_gave_before_its_error_arrives() -> None:
    topology, signals = watched()
    generators = Generators()
    async with topology:
        iterable = generators.waiting(3, LookupError("no such page"))
        handle = topology.start(IterableStage(iterable), restart="temporary")
        to = handle.with_options(cancel="temporary")
        topology.start(forwarder := Forwarder(), subscribe_to=to)
        await forwarder.reach(3)
        generators.gate.set()
        [(reason, _)] = await forwarder.cancelled.reach(1)
        assert (reason.kind, reason.down) == ("failed", True)
        assert forwarder.events == [0, 1, 2]
    assert kinds(signals) == ["stage-failed"]


@pytest.mark.parametrize("nothing", [None, 5, object()])
async def test_what_is_no_iterable_is_refused(nothing: Any) -> None:
    with pytest.raises(ConfigError, match="needs an iterable"):
        IterableStage(nothing)


async def test_an_unknown_on_cancel_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"on_cancel.*'maybe'"):
        IterableStage([], on_cancel="maybe")  # type: ignore[arg-type]


# --- while it waits, and at the end ------------------------------------------------------------


class Answering(IterableStage[int]):
    """Answers calls."""

    def handle_call(self, request: Any, call: Call) -> Any:
        return request


async def test_a_stage_answers_while_its_iterable_waits() -> None:
    async with Topology() as topology:
        numbers = Later(0)
        handle = topology.start(Answering(numbers))
        topology.start(Forwarder(), subscribe_to=handle)
        await quiet(topology)
        assert numbers.waiting
        assert await handle.call("there?") == "there?"
        assert numbers.waiting


async def finish(_: Topology, handle: StageHandle[Any]) -> None:
    handle.finish()


async def stop(_: Topology, handle: StageHandle[Any]) -> None:
    handle.stop()


async def drain(topology: Topology, _: StageHandle[Any]) -> None:
    await topology.drain()


async def close(topology: Topology, _: StageHandle[Any]) -> None:
    await topology.aclose()


End = Callable[[Topology, StageHandle[Any]], Awaitable[None]]


@pytest.mark.parametrize("end", [stop, finish, drain, close])
@pytest.mark.parametrize("kind", ["plain", "waiting"])
async def test_a_generator_is_closed_when_its_stage_ends(kind: str, end: End) -> None:
    """Also one that waits; what it had given has arrived."""
    generators = Generators()
    async with Topology() as topology:
        handle = topology.start(IterableStage(getattr(generators, kind)(20)))
        topology.start(forwarder := Forwarder(), subscribe_to=handle.with_options(max_demand=10))
        await forwarder.reach(10)
        await quiet(topology)
        await end(topology, handle)
        assert (await handle.wait()).kind in {"normal", "shutdown"}
    assert generators.closed == [kind]
    assert forwarder.events == list(range(len(forwarder.events)))


@pytest.mark.parametrize("kind", ["plain", "waiting"])
async def test_a_generator_is_closed_when_its_topology_is_cancelled(kind: str) -> None:
    generators = Generators()
    topology = Topology()
    handle = topology.start(IterableStage(getattr(generators, kind)(20)))
    topology.start(sleeper := Sleeper(), subscribe_to=handle.with_options(max_demand=10))
    running = asyncio.create_task(topology.run())
    await sleeper.batches.reach(1)
    sleeper.wake.set()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert running.cancelled()
    assert generators.closed == [kind]


async def test_one_that_nobody_ever_asked_is_closed_too() -> None:
    generators = Generators()
    iterable = generators.waiting(1)
    async with Topology() as topology:
        topology.start(IterableStage(iterable))
        await quiet(topology)
    with pytest.raises(StopAsyncIteration):
        await anext(iterable)


async def test_what_was_pulled_for_a_consumer_that_left_is_kept_for_the_next() -> None:
    async with Topology() as topology:
        numbers = Later(0)
        handle = topology.start(IterableStage(numbers))
        async with handle.events(max_demand=4) as events:
            numbers.allow(1)
            assert await anext(events) == 0
        await quiet(topology)
        numbers.allow(3)
        await quiet(topology)
        assert handle.estimate_buffered_count() == 3
        async with handle.events(max_demand=4) as events:
            assert [await anext(events) for _ in range(3)] == [1, 2, 3]


async def test_it_is_made_anew_where_its_stage_is_restarted() -> None:
    topology, signals = watched()
    error = LookupError("no such page")
    attempts = [error, None]
    async with topology:
        generators = Generators()
        generators.gate.set()
        handle = topology.start(
            lambda: IterableStage(generators.waiting(2, attempts.pop(0))), restart="transient"
        )
        to = handle.with_options(cancel="temporary")
        topology.start(forwarder := Forwarder(), subscribe_to=to)
        await within(topology)
        assert forwarder.events[-4:] == [0, 1, 2, 3]
        assert generators.closed == ["waiting", "waiting"]
    assert kinds(signals) == ["stage-restarted"]
