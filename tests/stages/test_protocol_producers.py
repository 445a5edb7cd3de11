"""Every MUST of a producer, shown by a consumer that speaks the protocol by hand."""

from __future__ import annotations

from typing import Any

import pytest

from penstock import ConfigError, StageError
from penstock.stages import BroadcastDispatcher, Dispatcher, PartitionDispatcher, Topology
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
from stages.fixtures import Stranger, emit, kinds, quiet, watched
from stages.strangers import givers, giving, typed


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


PARTITIONS = PartitionDispatcher(2, hash=lambda _: 0)


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
        assert (cancelled.tag, cancelled.reason.kind) == (tag, "failed")
        assert not cancelled.reason.down
        assert isinstance(cancelled.reason.error, ConfigError)
        assert message in str(cancelled.reason.error)
        handle.cast(lambda stage: stage.emit([1, 2, 3]))
        assert await good.reach(3) == [1, 2, 3]
        assert handle.alive
        assert typed(bad) == ["Cancelled"]
        handle.send(Ask(tag, 5))
        await bad.messages.reach(2)
        assert "it was never made, or is over" in str(bad.messages[1].reason.error)
        assert [one.peer for one in handle.statistics().subscriptions] == ["good"]
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


@givers
@pytest.mark.parametrize(
    "reason",
    [NORMAL, SHUTDOWN, Reason("failed", ValueError("it broke")), Reason("normal", down=True)],
    ids=str,
)
async def test_must_confirm_a_cancel(giver: type[Any], reason: Reason) -> None:
    """Also where the program emits when it is told of it: nothing of that comes any more."""

    class Parting(giver):  # type: ignore[misc]
        def handle_cancel(self, reason: Reason, subscription: Any) -> None:
            super().handle_cancel(reason, subscription)
            self.emit([3, 4])

    async with Topology() as topology:
        stage, handle, mouth, tag = await giving(topology, Parting, ask=10)
        await emit(handle, [1, 2])
        handle.send(Cancel(tag, reason))
        cancelled = await mouth.first(Cancelled)
        await emit(handle, [5])
        await quiet(topology, mouth.messages)
        assert cancelled == Cancelled(tag, reason)
        assert typed(mouth) == ["Events", "Cancelled"]
        assert handle.estimate_buffered_count() == 3
        assert [one for one, _ in stage.cancelled] == [reason]


@givers
@pytest.mark.conformance("GS-069", "GS-070")
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("dispatcher", [None, BroadcastDispatcher()], ids=["demand", "broadcast"])
async def test_must_replace_in_one_step(
    giver: type[Any], known: bool, dispatcher: Dispatcher | None
) -> None:
    """A broadcast would refuse the new one while the old one is there."""
    async with Topology() as topology:
        stage = giver()
        handle = topology.start(stage, dispatcher=dispatcher)
        mouth = Stranger()
        old = mouth.subscribe(handle) if known else Tag(mouth, handle)
        new = Tag(mouth, handle)
        reason = Reason("failed", ValueError("a better one"))
        handle.send(Subscribe(new, SubscribeOptions(), (old, reason)))
        handle.send(Ask(new, 2))
        await stage.subscribed.reach(2 if known else 1)
        await emit(handle, [1, 2])
        await mouth.reach(2)
        ended = [Cancelled(old, reason)] if known else []
        assert mouth.messages == [*ended, Events(new, [1, 2])]
        assert [(one.tag, why) for why, one in stage.cancelled] == [(old, reason)] * known


@givers
@pytest.mark.parametrize("kind", ["normal", "shutdown", "failed"])
async def test_must_outlive_its_consumers(giver: type[Any], kind: Any) -> None:
    async with Topology() as topology:
        stage, handle, mouth, tag = await giving(topology, giver, ask=5)
        error = ValueError("it broke") if kind == "failed" else None
        handle.send(Cancel(tag, Reason(kind, error, down=True)))
        await mouth.first(Cancelled)
        await emit(handle, [1, 2])
        other = Stranger()
        other.subscribe(handle, ask=2)
        assert await other.reach(2) == [1, 2]
        assert (handle.alive, len(stage.cancelled)) == (True, 1)
