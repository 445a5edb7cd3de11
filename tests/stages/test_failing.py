"""Callbacks that raise, return what they must not, or are missing; and what is seen of a stage."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock.errors import StageError, SubscriptionCancelled
from penstock.stages import Consumer, Producer, ProducerConsumer, Reason, Subscription
from stages.fixtures import Counter, Forwarder, Middle, Silent, Sleeper, emit, kinds, quiet, watched

KINDS = pytest.mark.parametrize(
    "kind", [Silent, Middle, Forwarder], ids=["producer", "middle", "consumer"]
)
FORMS = pytest.mark.parametrize("form", ["def", "async def"])

CALLBACKS = [
    (Forwarder, "handle_events"),
    (Middle, "handle_events"),
    (Silent, "handle_demand"),
    (Silent, "handle_discarded"),
    (Middle, "handle_discarded"),
    *((kind, name) for kind in (Silent, Middle, Forwarder) for name in (
        *("handle_subscribe", "handle_cancel", "handle_cast", "handle_info", "handle_close"),
    )),
]  # fmt: skip
"""Every callback of each kind, beside handle_start and handle_call, which have tests elsewhere."""


def raising(form: str, error: BaseException) -> Any:
    """A callback that raises *error*."""

    def callback(*_: Any) -> Any:
        raise error

    async def waiting(*_: Any) -> Any:
        await asyncio.sleep(0)
        raise error

    return callback if form == "def" else waiting


@pytest.mark.conformance("GS-110")
@FORMS
@pytest.mark.parametrize(("kind", "name"), CALLBACKS)
async def test_an_exception_in_any_callback_ends_the_stage_and_names_it(
    kind: type[Any], name: str, form: str
) -> None:
    """All are called here; the first that raises is the one."""
    error = LookupError("no such thing")
    stage = type("Other", (kind,), {name: raising(form, error)})()
    topology, _ = watched()
    async with topology:
        source = topology.start(Counter(), name="source")
        options: dict[str, Any] = {} if kind is Forwarder else {"buffer_size": 1}
        if kind is not Silent:
            options["subscribe_to"] = source.with_options(max_demand=2, cancel="temporary")
        handle = topology.start(stage, name="shop", restart="temporary", **options)
        if name == "handle_discarded":
            handle.cast(lambda stage: stage.emit([1, 2, 3]))
        elif kind is not Forwarder:
            topology.start(Sleeper(), subscribe_to=handle.with_options(cancel="temporary"))
        if name == "handle_cancel":
            guest = topology.start(Forwarder(), restart="temporary")
            if kind is Forwarder:
                await handle.subscribe("nobody")
            else:
                guest_of = await guest.subscribe(handle)
                guest_of.cancel()
        handle.cast(repr)
        handle.info("hello")
        if name == "handle_close":
            handle.stop()
        async with asyncio.timeout(5):
            reason = await handle.wait()
        for other in topology.stages.values():
            stage_of = other.runner.stage
            if isinstance(stage_of, Sleeper):
                stage_of.wake.set()
        assert source.alive
    assert reason.kind == "failed"
    assert isinstance(reason.error, StageError)
    assert f"shop: Other.{name} raised LookupError: no such thing" in str(reason.error)
    assert reason.error.__cause__ is error


@pytest.mark.conformance("GS-110")
@pytest.mark.parametrize("mode", ["permanent", "transient", "temporary"])
async def test_consumers_follow_their_cancel_mode_when_a_callback_raises(mode: Any) -> None:
    topology, _ = watched()
    async with topology:
        producer = topology.start(
            type("Other", (Silent,), {"handle_demand": raising("def", OSError("dry"))})(),
            restart="temporary",
        )
        forwarder = Forwarder()
        to = producer.with_options(cancel=mode)
        consumer = topology.start(forwarder, subscribe_to=to, restart="temporary")
        await forwarder.cancelled.reach(1)
        await quiet(topology)
        assert forwarder.cancelled[0][0].down
        assert consumer.alive == (mode == "temporary")
        if consumer.ended:
            assert isinstance(consumer.ended.error, SubscriptionCancelled)
            assert isinstance(consumer.ended.error.__cause__, StageError)
            assert isinstance(consumer.ended.error.__cause__.__cause__, OSError)


@pytest.mark.conformance("GS-111")
async def test_a_producer_outlives_a_consumer_that_fails_and_its_demand_is_inherited() -> None:
    """What it was asked for is asked of the program once, whoever gets it in the end."""
    topology, _ = watched()
    async with topology:
        silent = Silent()
        producer = topology.start(silent)
        ten = producer.with_options(max_demand=10)
        consumer = topology.start(Forwarder(), subscribe_to=ten, restart="temporary")
        await silent.asked.reach(1)
        consumer.stop(OSError("dead"))
        await silent.cancelled.reach(1)
        heir = Forwarder(mode="manual")
        topology.start(heir, subscribe_to=producer)
        await heir.subscribed.reach(1)
        heir.subscribed[0].ask(10)
        await quiet(topology)
        assert silent.asked == [10], "nothing new"
        heir.subscribed[0].ask(5)
        await quiet(topology)
        assert silent.asked == [10, 5]
        await emit(producer, list(range(15)))
        assert await heir.reach(15) == list(range(15))


# --- returns ----------------------------------------------------------------------------------


@pytest.mark.conformance("GS-106")
@FORMS
@pytest.mark.parametrize("result", [[1], (1,), "text", 5, {}], ids=repr)
async def test_a_consumer_that_returns_something_ends(form: str, result: Any) -> None:
    """Here the meaning is ours: events that nobody will get are no remark in a log."""

    async def waiting(*_: Any) -> Any:
        return result

    callback = waiting if form == "async def" else (lambda *_: result)
    topology, _ = watched()
    async with topology:
        stage = type("Other", (Forwarder,), {"handle_events": callback})()
        to = topology.start(Counter()).with_options(max_demand=1)
        reason = await topology.start(stage, subscribe_to=to, restart="temporary").wait()
    assert isinstance(reason.error, StageError)
    assert "Other.handle_events must" in str(reason.error)


@pytest.mark.parametrize("result", ["text", b"bytes", 5, {"a": 1}, {1}, object(), True])
@pytest.mark.parametrize("form", ["def", "async def", "emit"])
@pytest.mark.parametrize("kind", [Silent, Middle], ids=["producer", "middle"])
async def test_what_is_no_sequence_of_events_ends_the_stage(
    kind: type[Any], form: str, result: Any
) -> None:
    def callback(stage: Any, *_: Any) -> Any:
        return stage.emit(result) if form == "emit" else result

    async def waiting(*_: Any) -> Any:
        return result

    name = "handle_demand" if kind is Silent else "handle_events"
    body = waiting if form == "async def" else callback
    topology, _ = watched()
    async with topology:
        to: Any = {} if kind is Silent else {"subscribe_to": topology.start(Counter())}
        stage = type("Other", (kind,), {name: body})()
        handle = topology.start(stage, restart="temporary", **to)
        topology.start(Forwarder(), subscribe_to=handle.with_options(cancel="temporary"))
        reason = await handle.wait()
    assert isinstance(reason.error, StageError)
    assert "must give a sequence of events" in str(reason.error)
    assert type(result).__name__ in str(reason.error)


@pytest.mark.parametrize("result", [[0, 1], (0, 1), range(2)], ids=["list", "tuple", "range"])
@pytest.mark.parametrize("kind", [Silent, Middle], ids=["producer", "middle"])
async def test_any_sequence_will_do_and_none_is_none(kind: type[Any], result: Any) -> None:
    results = [None, [], (), result]

    def callback(*_: Any) -> Any:
        return results.pop(0) if results else None

    name = "handle_demand" if kind is Silent else "handle_events"
    topology, _ = watched()
    async with topology:
        to: Any = {}
        if kind is Middle:
            to["subscribe_to"] = topology.start(Counter()).with_options(max_demand=1)
        handle = topology.start(type("Other", (kind,), {name: callback})(), **to)
        forwarder = Forwarder(mode="manual")
        topology.start(forwarder, subscribe_to=handle)
        await forwarder.subscribed.reach(1)
        for _ in range(4):
            forwarder.subscribed[0].ask(1)
        assert await forwarder.reach(2) == [0, 1]


@KINDS
async def test_handle_subscribe_may_say_automatic_manual_or_nothing(kind: type[Any]) -> None:
    """On a producer's side not even manual."""
    for mode in ("sometimes", 5, True) if kind is Forwarder else ("sometimes", "manual", 5):
        topology, _ = watched()
        async with topology:
            stage = type("Other", (kind,), {"handle_subscribe": lambda *_, mode=mode: mode})()
            handle = topology.start(stage, restart="temporary")
            if kind is Forwarder:
                topology.start(Silent(), name="spring")
                with pytest.raises(StageError, match="handle_subscribe"):
                    await handle.subscribe("spring", timeout=1.0)
            else:
                to = handle.with_options(cancel="temporary")
                topology.start(Forwarder(), subscribe_to=to)
            reason = await handle.wait()
            assert "handle_subscribe" in str(reason.error)
            assert repr(mode) in str(reason.error)


# --- what is missing --------------------------------------------------------------------------


class BareProducer(Producer[Any]):
    pass


class BareMiddle(ProducerConsumer[Any, Any]):
    pass


class BareConsumer(Consumer[Any]):
    pass


@pytest.mark.conformance("GS-109")
@pytest.mark.parametrize("kind", [BareProducer, BareMiddle, BareConsumer])
async def test_a_message_that_nobody_handles_is_signalled_and_the_stage_goes_on(
    kind: type[Any],
) -> None:
    topology, signals = watched()
    async with topology:
        handle = topology.start(kind(), name="shop")
        handle.info("secret")
        handle.cast(5)
        await quiet(topology)
        assert kinds(signals) == ["unhandled-message"] * 2
        assert [signal.stage for signal in signals] == ["shop", "shop"]
        assert "handle_info" in signals[0].message
        assert "handle_cast" in signals[1].message
        assert "secret" not in signals[0].message, "a signal holds no payload"
        assert handle.alive


@pytest.mark.conformance("GS-100")
async def test_a_stage_without_its_main_callback_fails_when_it_is_needed() -> None:
    for kind in (BareProducer, BareMiddle, BareConsumer):
        topology, _ = watched()
        async with topology:
            source = topology.start(Counter())
            to: Any = {} if kind is BareProducer else {"subscribe_to": source}
            handle = topology.start(kind(), restart="temporary", **to)
            if kind is not BareConsumer:
                topology.start(Forwarder(), subscribe_to=handle.with_options(cancel="temporary"))
            reason = await handle.wait()
            assert f"{kind.__name__} must define handle_" in str(reason.error)


async def test_outside_a_running_stage_its_methods_say_so() -> None:
    """Before its start, and after its end."""
    silent = Silent()
    for act in (silent.stop, silent.finish, lambda: silent.info(1), lambda: silent.emit([1])):
        with pytest.raises(StageError, match="Silent is not running"):
            act()
    assert silent.name == "Silent"
    topology, _ = watched()
    async with topology:
        handle = topology.start(silent, name="spring")
        handle.stop()
        await handle.wait()
        assert silent.name == "spring"
        with pytest.raises(StageError, match="spring has ended"):
            silent.emit([1])


# --- looking ----------------------------------------------------------------------------------


@pytest.mark.conformance("GS-107")
async def test_the_figures_of_each_kind_say_what_it_has_done() -> None:
    topology, _ = watched()
    async with topology:
        spring = topology.start(Silent(), name="spring")
        mill = topology.start(
            Middle(), name="mill", subscribe_to=spring.with_options(max_demand=4, min_demand=0)
        )
        pond = Forwarder(mode="manual")
        pool = topology.start(pond, name="pool", subscribe_to=mill)
        await pond.subscribed.reach(1)
        await emit(spring, range(10))
        pond.subscribed[0].ask(3)
        await quiet(topology)
        top, mid, end = topology.statistics().values()
        assert (top.name, top.kind, top.state) == ("spring", "producer", "running")
        assert (top.demand_in, top.emitted, top.delivered, top.buffered) == (8, 10, 8, 2)
        assert (top.demand_out, top.received, top.handled, top.queued) == (0, 0, 0, 0)
        assert (mid.name, mid.kind) == ("mill", "producer-consumer")
        assert (mid.demand_in, mid.demand_out) == (3, 8)
        assert (mid.received, mid.handled, mid.queued) == (8, 4, 4)
        assert (mid.emitted, mid.delivered, mid.buffered, mid.calls) == (4, 3, 1, 1)
        assert mid.seconds > 0
        assert (end.name, end.kind, end.received, end.handled) == ("pool", "consumer", 3, 3)
        assert end.subscriptions[0][1:] == ("producer", "mill", 3, 3, 0)
        assert [one.peer for one in mid.subscriptions] == ["spring", "pool"]
        assert "producer-consumer 'mill' running" in repr(mill)
        pool.stop()
        await pool.wait()
        assert pool.statistics().state == "ended: normal"
        assert "ended: normal" in repr(pool)
        mill.finish()
        assert mill.statistics().state == "ending"


async def test_handle_close_that_raises_makes_a_normal_end_a_failure() -> None:
    """An end that was a failure already stays that failure."""
    first = OSError("first")
    for error in (None, first):
        topology, signals = watched()
        async with topology:
            stage = type("Other", (Forwarder,), {"handle_close": raising("def", KeyError("x"))})()
            handle = topology.start(stage, restart="temporary")
            await quiet(topology)
            handle.stop(error)
            reason = await handle.wait()
        assert reason.kind == "failed"
        if error:
            assert reason.error is first
        assert "stage-failed" in kinds(signals)
        assert reason.error is not None


async def test_a_reason_is_given_as_nothing_a_word_or_an_exception() -> None:
    error = OSError("x")
    assert Reason.of(None).kind == Reason.of("normal").kind == "normal"
    assert Reason.of("shutdown").kind == "shutdown"
    assert (Reason.of(error).kind, Reason.of(error).error) == ("failed", error)
    assert Reason.of(Reason("refused")).kind == "refused"
    assert str(Reason.of(error)) == "failed: x"


async def test_what_a_subscription_shows_of_itself_is_true() -> None:
    topology, _ = watched()
    async with topology:
        spring = topology.start(Silent(), name="spring")
        forwarder = Forwarder()
        pool = topology.start(forwarder, name="pool")
        one: Subscription = await pool.subscribe(
            spring.with_options(max_demand=5, cancel="temporary")
        )
        await emit(spring, [1, 2])
        await forwarder.reach(2)
        assert repr(one) == f"<Subscription {one.tag.number} spring → pool, 2 of 5 asked>"
        assert one.statistics().open_demand == 3
        one.cancel()
        await forwarder.cancelled.reach(1)
        assert repr(one).endswith("asked, over>")
