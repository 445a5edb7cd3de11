"""Callbacks: when each is called, what it may return, and what becomes of a stage that errs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock.errors import ConfigError, StageError
from penstock.stages import (
    Reason,
    Stage,
    Subscription,
    Topology,
)
from stages.fixtures import (
    Counter,
    Forwarder,
    Middle,
    Seen,
    Silent,
    Sleeper,
    emit,
    quiet,
    watched,
)

KINDS = pytest.mark.parametrize(
    "kind", [Silent, Middle, Forwarder], ids=["producer", "middle", "consumer"]
)
FORMS = pytest.mark.parametrize("form", ["def", "async def"])


def overridden(kind: type[Any], **callbacks: Any) -> Any:
    """A stage of *kind* with other callbacks."""
    return type("Other", (kind,), callbacks)()


def in_form(form: str, callback: Any) -> Any:
    """*callback*, a function, as ``def`` or as ``async def`` that awaits before."""

    async def waiting(*arguments: Any) -> Any:
        await asyncio.sleep(0)
        return callback(*arguments)

    return callback if form == "def" else waiting


async def end_of(topology: Topology, stage: Stage, **options: Any) -> Reason:
    """How *stage* ends, started alone."""
    options.setdefault("restart", "temporary")
    return await topology.start(stage, **options).wait()  # type: ignore[call-overload, no-any-return]


# --- the start --------------------------------------------------------------------------------


@pytest.mark.conformance("GS-100")
@FORMS
@KINDS
async def test_a_start_that_raises_is_a_failure_and_nothing_else_is_called(
    kind: type[Any], form: str
) -> None:
    def handle_start(_: Any) -> None:
        raise OSError("no file")

    topology, _ = watched()
    async with topology:
        stage = overridden(kind, handle_start=in_form(form, handle_start))
        reason = await end_of(topology, stage, name="shop")
    assert "shop: Other.handle_start raised OSError: no file" in str(reason.error)
    assert isinstance(reason.error, StageError)
    assert isinstance(reason.error.__cause__, OSError)
    assert not stage.closed, "it was never open"


@pytest.mark.conformance("GS-100")
@pytest.mark.parametrize("error", [None, OSError("enough")], ids=["normal", "failed"])
@KINDS
async def test_a_stage_may_stop_in_its_start(kind: type[Any], error: Any) -> None:
    topology, _ = watched()
    async with topology:
        source = topology.start(Silent())
        stage = overridden(kind, handle_start=lambda self: self.stop(error))
        to: Any = {"subscribe_to": source} if kind is not Silent else {}
        reason = await end_of(topology, stage, **to)
        assert reason == Reason("failed" if error else "normal", error)
        assert stage.closed == [reason]
        assert not stage.subscribed, "it asks nobody for anything"


@pytest.mark.conformance("GS-100")
async def test_a_stage_is_started_before_its_first_message() -> None:
    class Opening(Counter):
        opened = False

        async def handle_start(self) -> None:
            await asyncio.sleep(0)
            self.opened = True

        def handle_demand(self, demand: int) -> Any:
            assert self.opened
            return super().handle_demand(demand)

    topology, _ = watched()
    async with topology:
        sleeper = Sleeper()
        topology.start(sleeper, subscribe_to=topology.start(Opening()))
        await sleeper.reach(1)
        sleeper.wake.set()


@pytest.mark.conformance("GS-100")
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("buffer_size", -1),
        ("buffer_size", "many"),
        ("buffer_keep", "middle"),
        ("dispatcher", "demand"),
        ("dispatcher", object()),
        ("colour", "red"),
        ("demand", "sometimes"),
        ("restart", "always"),
        ("shutdown", -1),
        ("name", ""),
    ],
)
@KINDS
async def test_a_wrong_option_is_refused_at_start(kind: type[Any], option: str, value: Any) -> None:
    topology, _ = watched()
    async with topology:
        with pytest.raises(ConfigError, match=option):
            topology.start(kind(), **{option: value})
        assert not topology.stages, "nothing was started"


@pytest.mark.conformance("GS-100")
async def test_an_attribute_of_the_class_is_checked_as_an_option_is() -> None:
    topology, _ = watched()
    async with topology:
        for kind, name, value in (
            (Silent, "buffer_size", -1),
            (Silent, "demand", "sometimes"),
            (Middle, "buffer_keep", "middle"),
            (Middle, "dispatcher", Silent),
        ):
            with pytest.raises(ConfigError, match=name):
                topology.start(type("Wrong", (kind,), {name: value}))  # type: ignore[arg-type]


@pytest.mark.conformance("GS-100")
@KINDS
async def test_a_name_is_given_once(kind: type[Any]) -> None:
    topology, _ = watched()
    async with topology:
        first = topology.start(kind(), name="shop")
        with pytest.raises(ConfigError, match="name must be new"):
            topology.start(kind(), name="shop")
        assert first.alive


@pytest.mark.conformance("GS-100")
@pytest.mark.parametrize("what", [5, "Silent", Stage, Stage(), object, None])
async def test_only_the_three_kinds_can_be_started(what: Any) -> None:
    topology, _ = watched()
    async with topology:
        with pytest.raises(ConfigError, match="start needs"):
            topology.start(what)


@pytest.mark.conformance("GS-108")
async def test_an_option_at_start_goes_before_the_classs_attribute_for_that_stage_alone() -> None:

    class Small(Silent):
        buffer_size = 2

    topology, _ = watched()
    async with topology:
        own = topology.start(Small())
        other = topology.start(Small(), buffer_size=5)
        endless = topology.start(Small(), buffer_size=None)
        for handle, kept in ((own, 2), (other, 5), (endless, 9)):
            await emit(handle, range(9))
            await quiet(topology)
            assert handle.estimate_buffered_count() == kept
        assert Small.buffer_size == 2


# --- subscribing ------------------------------------------------------------------------------


@pytest.mark.conformance("GS-101")
@FORMS
async def test_both_sides_are_told_of_a_subscription_with_peer_and_tag(form: str) -> None:
    seen: Seen[Subscription] = Seen()

    def handle_subscribe(_: Any, subscription: Subscription) -> None:
        seen.append(subscription)

    callback = in_form(form, handle_subscribe)
    topology, _ = watched()
    async with topology:
        stage = overridden(Silent, handle_subscribe=callback)
        producer = topology.start(stage, name="spring")
        other = overridden(Forwarder, handle_subscribe=callback)
        topology.start(other, name="pool", subscribe_to=producer)
        await seen.reach(2)
        below, above = seen
        assert below.tag is above.tag
        assert below is not above
        assert (below.peer_is, below.peer.name) == ("producer", "spring")
        assert (above.peer_is, above.peer.name) == ("consumer", "pool")


# --- the end ----------------------------------------------------------------------------------


@pytest.mark.conformance("GS-105")
@FORMS
@KINDS
async def test_handle_close_is_called_once_with_the_reason(kind: type[Any], form: str) -> None:
    def handle_close(stage: Any, reason: Reason) -> None:
        stage.closed.append(reason)

    error = OSError("enough")
    callback = in_form(form, handle_close)
    stages = [overridden(kind, handle_close=callback) for _ in range(3)]
    topology, _ = watched()
    async with topology:
        handles = [topology.start(stage, restart="temporary") for stage in stages]
        await quiet(topology)
        handles[0].stop()
        handles[1].stop(error)
        for handle in handles[:2]:
            await handle.wait()
    assert [[(reason.kind, reason.error) for reason in stage.closed] for stage in stages] == [
        [("normal", None)],
        [("failed", error)],
        [("shutdown", None)],
    ]


async def test_what_a_callback_gives_out_as_it_stops_is_still_delivered() -> None:
    """As far as it was asked for; the rest is lost, and counted."""

    class Last(Silent):
        def handle_demand(self, demand: int) -> Any:
            self.stop()
            return range(demand + 2)

    topology, signals = watched()
    async with topology:
        forwarder = Forwarder()
        spring = topology.start(Last())
        pool = topology.start(forwarder, subscribe_to=spring.with_options(max_demand=3))
        await pool.wait()
        assert forwarder.events == [0, 1, 2]
        assert [(signal.kind, signal.count) for signal in signals] == [("events-dropped", 2)]


async def test_a_stage_between_that_stops_in_a_call_gives_out_what_came_of_it() -> None:
    class Once(Middle):
        def handle_events(self, events: list[Any], source: Subscription) -> Any:
            self.stop()
            return events

    topology, _ = watched()
    async with topology:
        spring, forwarder = topology.start(Counter()), Forwarder()
        to = spring.with_options(max_demand=4, min_demand=2)
        middle = topology.start(Once(), subscribe_to=to)
        pool = topology.start(forwarder, subscribe_to=middle)
        await pool.wait()
        assert forwarder.events == [0, 1]


async def test_a_consumer_that_finishes_takes_what_is_on_its_way_and_ends() -> None:
    class Full(Forwarder):
        def handle_events(self, events: list[Any], source: Subscription) -> None:
            super().handle_events(events, source)
            self.finish()

    topology, signals = watched()
    async with topology:
        counter, full = Counter(), Full()
        spring = topology.start(counter)
        pool = topology.start(full, subscribe_to=spring.with_options(max_demand=6, min_demand=3))
        assert await pool.wait() == Reason("normal")
        assert full.events == list(range(6))
        assert counter.asked == [6]
        assert spring.alive
        assert not signals


@pytest.mark.parametrize("name", ["handle_events", "handle_info"])
async def test_a_cancellation_that_a_callback_raises_by_itself_is_a_failure(name: str) -> None:
    """As where it awaits a task of its own that was cancelled; nobody wanted the stage to end."""

    async def callback(*_: Any) -> None:
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        await task

    topology, _ = watched()
    async with topology:
        spring = topology.start(Counter())
        stage = overridden(Sleeper, **{name: callback})
        stage.wake.set()
        handle = topology.start(stage, name="pool", subscribe_to=spring, restart="temporary")
        handle.info("hello")
        reason = await handle.wait()
    assert reason.kind == "failed"
    assert f"pool: Other.{name} raised CancelledError" in str(reason.error)


@pytest.mark.parametrize("wake", [True, False], ids=["late", "never"])
async def test_a_start_that_hangs_is_cancelled_when_the_topology_closes(wake: bool) -> None:
    class Slow(Sleeper):
        async def handle_start(self) -> None:
            await self.wake.wait()

    topology, _ = watched()
    async with topology:
        slow = Slow()
        handle = topology.start(slow, shutdown=5.0 if wake else 0.01)
        await quiet(topology)
        if wake:
            asyncio.get_running_loop().call_soon(slow.wake.set)
    assert handle.ended == Reason("shutdown")
    assert len(slow.closed) == int(wake), "closed only where it was opened"
