"""Every MUST of the protocol, shown by a stranger that speaks it by hand with our stages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest

from penstock import ConfigError, DemandExceeded, StageError
from penstock.rules.trace import Fresh
from penstock.stages import (
    BroadcastDispatcher,
    Dispatcher,
    PartitionDispatcher,
    StageHandle,
    Topology,
    protocol,
)
from penstock.stages.protocol import (
    NORMAL,
    SHUTDOWN,
    Ask,
    Cancel,
    Cancelled,
    Events,
    Reason,
    Subscribe,
    SubscribeOptions,
    Tag,
)
from stages.fixtures import (
    Forwarder,
    Middle,
    Silent,
    Sleeper,
    Stranger,
    emit,
    in_stage,
    kinds,
    quiet,
    watched,
)

takers = pytest.mark.parametrize("taker", [Forwarder, Middle])
givers = pytest.mark.parametrize("giver", [Silent, Middle])


def test_every_must_has_a_test_of_its_name_and_no_other_test_claims_one() -> None:
    musts = set(re.findall(r"^- MUST (\w+):", protocol.__doc__ or "", re.MULTILINE))
    tests = {name.removeprefix("test_must_") for name in globals() if name.startswith("test_must_")}
    assert len(musts) > 15
    assert tests == musts


async def consuming(
    topology: Topology, taker: type[Any], mouth: Stranger, *, ask: int = 1000, **options: Any
) -> tuple[Any, StageHandle[Any], Tag]:
    """A stage of ours that takes events from *mouth*, at most 4 ahead; and its subscription.

    A stage between works when somebody asks: a stranger behind it asks for *ask* events.
    """
    stage = taker()
    to = mouth.to(**{"max_demand": 4, "min_demand": 2, "cancel": "temporary", **options})
    handle = topology.start(stage, subscribe_to=to, restart="temporary")
    tag = (await mouth.first(Ask)).tag
    if taker is Middle and ask:
        Stranger("behind").subscribe(handle, ask=ask)
    await quiet(topology, mouth.messages)
    return stage, handle, tag


async def giving(
    topology: Topology, giver: type[Any], ask: int = 0, **options: Any
) -> tuple[Any, StageHandle[Any], Stranger, Tag]:
    """A stage of ours that gives events to a stranger, and its subscription."""
    stage, mouth = giver(), Stranger()
    handle = topology.start(stage, restart="temporary", **options)
    tag = mouth.subscribe(handle, ask=ask)
    await stage.subscribed.reach(1)
    await quiet(topology, mouth.messages)
    return stage, handle, mouth, tag


def typed(mouth: Stranger) -> list[str]:
    """The types of the messages that it got."""
    return [type(message).__name__ for message in mouth.messages]


# --- consumers -------------------------------------------------------------------------------


@takers
@pytest.mark.parametrize("hasty", [False, True])
async def test_must_subscribe_before_asking(taker: type[Any], hasty: bool) -> None:
    """*hasty*: the program cancels while it is told of the subscription."""

    class Hasty(taker):  # type: ignore[misc]
        def handle_subscribe(self, subscription: Any) -> None:
            super().handle_subscribe(subscription)
            subscription.cancel()

    mouth = Stranger()
    async with Topology() as topology:
        kind = Hasty if hasty else taker
        topology.start(kind(), subscribe_to=mouth.to(max_demand=4, cancel="temporary"))
        await quiet(topology, mouth.messages)
        assert typed(mouth) in (["Subscribe", "Cancel"] if hasty else ["Subscribe", "Ask"],)
        assert mouth.messages[0].tag is mouth.messages[1].tag


@takers
async def test_must_use_a_new_tag(taker: type[Any]) -> None:
    mouth = Stranger()
    async with Topology() as topology:
        stage, handle, first = await consuming(topology, taker, mouth)
        await handle.subscribe(mouth.to())
        await handle.resubscribe(first, mouth.to())
        tags = [message.tag for message in mouth.of(Subscribe)]
        assert len({tag.number for tag in tags}) == len(set(tags)) == 3
        assert all(tag.consumer.name == handle.name and tag.producer is mouth for tag in tags)
        assert [one.tag for one in stage.subscribed if one.peer_is == "producer"] == tags


@takers
@pytest.mark.parametrize("stops", [False, True])
async def test_must_take_what_it_asked_for(taker: type[Any], stops: bool) -> None:
    topology, signals = watched()
    mouth = Stranger()
    async with topology:
        stage, handle, tag = await consuming(topology, taker, mouth)
        if stops:
            handle.send(Events(tag, [1]))
            await stage.batches.reach(1)
            handle.stop()
        handle.send(Events(tag, [1]))
        handle.send(Events(tag, [2, 3]))
        await quiet(topology, stage.batches)
    lost = sum(one.count or 0 for one in signals if one.kind == "events-dropped")
    assert (stage.events, lost) == (([1], 3) if stops else ([1, 2, 3], 0))


async def test_must_ask_after_handling() -> None:
    mouth = Stranger()
    async with Topology() as topology:
        sleeper, handle, tag = await consuming(topology, Sleeper, mouth)
        handle.send(Events(tag, [1, 2]))
        handle.send(Events(tag, [3, 4]))
        await sleeper.batches.reach(1)
        await quiet(topology, mouth.messages)
        assert [ask.demand for ask in mouth.of(Ask)] == [4]
        sleeper.wake.set()
        await mouth.messages.until(lambda _: len(mouth.of(Ask)) == 3)
        assert [ask.demand for ask in mouth.of(Ask)] == [4, 2, 2]


@takers
@pytest.mark.conformance("GS-008")
async def test_must_refuse_what_it_did_not_ask_for(taker: type[Any]) -> None:
    topology, signals = watched()
    mouth = Stranger("mouth")
    async with topology:
        stage, handle, tag = await consuming(topology, taker, mouth)
        handle.send(Events(tag, [1, 2, 3, 4, 5, 6, 7]))
        cancel = await mouth.first(Cancel)
        assert (cancel.tag, cancel.reason.kind, cancel.reason.down) == (tag, "failed", False)
        assert isinstance(cancel.reason.error, DemandExceeded)
        assert f"mouth sent 3 events more to {handle.name} than" in str(cancel.reason.error)
        assert stage.events == [1, 2, 3, 4, 5, 6, 7]
        asked = len(mouth.of(Ask))
        handle.send(Cancelled(tag, cancel.reason))
        await quiet(topology)
        assert (handle.alive, len(mouth.of(Ask)), len(stage.cancelled)) == (True, asked, 1)
    assert [(one.kind, one.count) for one in signals] == [("protocol-error", 3)]


@takers
@pytest.mark.conformance("GS-097")
@pytest.mark.parametrize("which", ["never made", "over"])
async def test_must_answer_events_of_an_unknown_tag(taker: type[Any], which: str) -> None:
    topology, signals = watched()
    mouth = Stranger()
    async with topology:
        stage, handle, tag = await consuming(topology, taker, mouth)
        if which == "over":
            handle.send(Cancelled(tag, NORMAL))
        else:
            tag = Tag(handle, mouth)
        handle.send(Events(tag, [1, 2]))
        cancel = await mouth.first(Cancel)
        await quiet(topology)
        assert handle.alive
    assert cancel.tag is tag
    assert (cancel.reason.kind, type(cancel.reason.error)) == ("failed", StageError)
    assert "2 events were dropped" in str(cancel.reason.error)
    assert stage.batches == []
    assert [(one.kind, one.count) for one in signals] == [("events-dropped", 2)]


def fail(stage: Any) -> None:
    raise ValueError("it broke")


@pytest.mark.parametrize("kind", [Forwarder, Silent, pytest.param("both", id="Middle")])
@pytest.mark.parametrize("how", ["stopped", "stopped with an error", "failed", "closed"])
async def test_must_say_that_it_ends(kind: Any, how: str) -> None:
    """To its producers and to its consumers, behind what they were sent before."""
    kind = Middle if kind == "both" else kind
    topology, _ = watched()
    above, below = Stranger("above"), Stranger("below")
    told: list[Stranger] = []
    async with topology:
        stage = kind()
        takes, gives = kind is not Silent, kind is not Forwarder
        to = [above.to(cancel="temporary")] if takes else []
        handle = topology.start(stage, subscribe_to=to, restart="temporary")
        if takes:
            await above.first(Ask)
            told.append(above)
        if gives:
            below.subscribe(handle, ask=9)
            told.append(below)
            handle.cast(lambda stage: stage.emit([1, 2]))
            await below.reach(2)
        match how:
            case "stopped":
                handle.cast(lambda stage: stage.stop())
            case "stopped with an error":
                handle.stop(ValueError("it broke"))
            case "failed":
                handle.cast(fail)
            case _:
                await topology.aclose()
        await handle.wait()
    kinds_of_end = {"stopped": "normal", "closed": "shutdown"}
    for mouth in told:
        last = mouth.messages[-1]
        assert type(last) is (Cancel if mouth is above else Cancelled)
        assert (last.reason.kind, last.reason.down) == (kinds_of_end.get(how, "failed"), True)
        assert (last.reason.error is not None) == (last.reason.kind == "failed")
        assert len(mouth.of(type(last))) == 1
    assert below.events == ([1, 2] if gives else [])


# --- producers -------------------------------------------------------------------------------


@givers
async def test_must_send_no_more_than_was_asked_for(giver: type[Any]) -> None:
    async with Topology() as topology:
        _, handle, mouth, tag = await giving(topology, giver)
        asked = 0
        for emitted, ask in ((7, 3), (0, 2), (1, 10), (20, 0), (0, 4)):
            await emit(handle, range(emitted))
            if ask:
                handle.send(Ask(tag, ask))
            asked += ask
            await quiet(topology, mouth.messages)
            assert len(mouth.events) <= asked
        assert len(mouth.events) == asked == 19


@givers
async def test_must_keep_the_order(giver: type[Any]) -> None:
    async with Topology() as topology:
        _, handle, mouth, tag = await giving(topology, giver)
        first = 0
        for emitted, ask in ((3, 5), (4, 1), (1, 1), (2, 9), (5, 2)):
            await emit(handle, range(first, first + emitted))
            handle.send(Ask(tag, ask))
            first += emitted
        assert await mouth.reach(15) == list(range(15))


@givers
@pytest.mark.conformance("GS-095")
async def test_must_refuse_a_duplicate_tag(giver: type[Any]) -> None:
    topology, signals = watched()
    async with topology:
        stage, handle, mouth, tag = await giving(topology, giver, ask=2)
        handle.send(Subscribe(tag, SubscribeOptions()))
        cancelled = await mouth.first(Cancelled)
        assert cancelled.tag is tag
        assert (cancelled.reason.kind, type(cancelled.reason.error)) == ("failed", StageError)
        assert "each subscription needs a new tag" in str(cancelled.reason.error)
        await emit(handle, [1, 2, 3])
        assert await mouth.reach(2) == [1, 2]
        assert (len(stage.subscribed), stage.cancelled) == (1, [])
    assert kinds(signals)[0] == "protocol-error"


PARTITIONS = PartitionDispatcher(2)


@givers
@pytest.mark.parametrize(
    ("dispatcher", "options", "message"),
    [
        (None, {"max_demand": 0}, "max_demand must be"),
        (None, {"max_demand": 5, "min_demand": 5}, "min_demand must be"),
        (PARTITIONS, {}, "partition"),
        (PARTITIONS, {"extra": {"partition": 7}}, "partition"),
        (PARTITIONS, {"extra": {"partition": 0}}, "partition"),
        (PARTITIONS, {"extra": {"partition": []}}, "partition"),
        (BroadcastDispatcher(), {"extra": {"selector": 5}}, "selector must be"),
    ],
)
async def test_must_refuse_what_it_cannot_serve(
    giver: type[Any], dispatcher: Dispatcher | None, options: dict[str, Any], message: str
) -> None:
    topology, signals = watched()
    good, bad = Stranger("good"), Stranger("bad")
    async with topology:
        handle = topology.start(giver(), restart="temporary", dispatcher=dispatcher)
        extra = {"partition": 0} if dispatcher is PARTITIONS else {}
        good.subscribe(handle, ask=3, extra=extra)
        tag = bad.subscribe(handle, **options)
        cancelled = await bad.first(Cancelled)
        assert (cancelled.tag, cancelled.reason.kind, cancelled.reason.down) == (
            *(tag, "failed"),
            False,
        )
        assert isinstance(cancelled.reason.error, ConfigError)
        assert message in str(cancelled.reason.error)
        handle.cast(lambda stage: stage.emit([event for event in range(50)]))
        await good.reach(3)
        assert handle.alive
        assert typed(bad) == ["Cancelled"]
    assert kinds(signals)[0] == "subscription-refused"


@givers
@pytest.mark.conformance("GS-096")
@pytest.mark.parametrize("which", ["never made", "over"])
async def test_must_answer_an_unknown_tag(giver: type[Any], which: str) -> None:
    async with Topology() as topology:
        _, handle, mouth, tag = await giving(topology, giver)
        if which == "over":
            handle.send(Cancel(tag, NORMAL))
            await mouth.first(Cancelled)
        else:
            tag = Tag(mouth, handle)
        handle.send(Ask(tag, 5))
        await mouth.messages.reach(2 if which == "over" else 1)
        last = mouth.messages[-1]
        assert (type(last), last.tag, last.reason.kind) == (Cancelled, tag, "failed")
        assert "it was never made, or is over" in str(last.reason.error)
        assert handle.alive


@givers
async def test_must_ignore_a_cancel_of_an_unknown_tag(giver: type[Any]) -> None:
    topology, signals = watched()
    async with topology:
        stage, handle, mouth, tag = await giving(topology, giver, ask=1)
        handle.send(Cancel(Tag(mouth, handle), NORMAL))
        handle.send(Cancel(Tag(mouth, handle), Reason("failed", ValueError("it broke"), down=True)))
        await quiet(topology, mouth.messages)
        assert (mouth.messages, stage.cancelled, kinds(signals)) == ([], [], [])
        await emit(handle, [1])
        assert (await mouth.first(Events)).tag is tag
