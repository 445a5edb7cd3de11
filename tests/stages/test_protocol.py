"""Every MUST of both sides of the protocol; and that none is without its test."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from penstock.rules.trace import Fresh
from penstock.stages import PartitionDispatcher, protocol
from penstock.stages.protocol import (
    NORMAL,
    Ask,
    Cancel,
    Cancelled,
    Events,
    Reason,
    Subscribe,
    SubscribeOptions,
    Tag,
)
from stages.fixtures import Forwarder, Middle, Silent, Stranger, kinds, quiet, watched
from stages.strangers import consuming

HERE = Path(__file__).parent


def test_every_must_has_a_test_of_its_name_and_no_other_test_claims_one() -> None:
    """In this file and those beside it whose names begin with its own."""
    musts = set(re.findall(r"^- MUST (\w+):", protocol.__doc__ or "", re.MULTILINE))
    sources = [file.read_text() for file in HERE.glob("test_protocol*.py")]
    tests = [
        name
        for text in sources
        for name in re.findall(r"^async def test_must_(\w+)", text, re.MULTILINE)
    ]
    assert len(musts) > 15
    assert Counter(tests) == Counter(musts)


def fail(_: Any) -> None:
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


@pytest.mark.parametrize("kind", [Forwarder, Middle, Silent])
@pytest.mark.parametrize("how", ["stopped", "failed", "closed"])
async def test_must_answer_when_it_has_ended(kind: type[Any], how: str) -> None:
    topology, signals = watched()
    mouth = Stranger()
    async with topology:
        handle = topology.start(kind(), restart="temporary")
        await quiet(topology)
        if how == "closed":
            await topology.aclose()
        else:
            handle.stop(ValueError("it broke") if how == "failed" else None)
        reason = await handle.wait()
        signals.clear()
        subscribed = mouth.subscribe(handle, ask=5)
        given = Tag(handle, mouth)
        handle.send(Cancel(Tag(mouth, handle), NORMAL))
        handle.send(Cancelled(given, NORMAL))
        handle.send(Events(given, [1, 2]))
    assert mouth.of(Cancelled) == [Cancelled(subscribed, reason.as_down())]
    assert [(message.tag, message.reason.kind) for message in mouth.of(Cancel)] == [
        (given, "failed")
    ]
    assert len(mouth.messages) == 2
    assert [(one.kind, one.count) for one in signals] == [("events-dropped", 2)]


@pytest.mark.conformance("GS-098")
@pytest.mark.parametrize("kind", [Forwarder, Silent])
async def test_must_ignore_messages_of_the_wrong_direction(kind: type[Any]) -> None:
    topology, signals = watched()
    mouth = Stranger()
    async with topology:
        handle = topology.start(stage := kind(), name="stage")
        ours, theirs = Tag(handle, mouth), Tag(mouth, handle)
        consumers = [Subscribe(theirs, SubscribeOptions()), Ask(theirs, 1), Cancel(theirs, NORMAL)]
        producers = [Events(ours, [1]), Cancelled(ours, NORMAL)]
        wrong = consumers if kind is Forwarder else producers
        for message in wrong:
            handle.send(message)
        handle.info("still here")
        await stage.infos.reach(1)
        assert mouth.messages == []
        assert handle.alive
    what = "consumer" if kind is Forwarder else "producer"
    assert [(one.kind, one.message) for one in signals] == [
        (
            "protocol-error",
            f"stage is a {what} and takes no {type(message).__name__}; it is ignored",
        )
        for message in wrong
    ]


@pytest.mark.parametrize("kind", [Forwarder, Middle, Silent])
async def test_the_end_of_a_subscription_that_is_not_its_own_changes_nothing(
    kind: type[Any],
) -> None:
    topology, signals = watched()
    mouth = Stranger()
    async with topology:
        handle = topology.start(stage := kind())
        down = Reason("failed", ValueError("it broke"), down=True)
        if kind is not Silent:
            handle.send(Cancelled(Tag(handle, mouth), down))
        if kind is not Forwarder:
            handle.send(Cancel(Tag(mouth, handle), down))
        handle.info("still here")
        await stage.infos.reach(1)
        assert (handle.alive, stage.cancelled, mouth.messages) == (True, [], [])
    assert kinds(signals) == []


# --- outcomes --------------------------------------------------------------------------------


class Stopper(Forwarder):
    """Stops in its first call."""

    def handle_events(self, events: list[Any], source: Any) -> None:
        super().handle_events(events, source)
        self.stop()


class Ledger:
    """A source that is told what becomes of its events."""

    def __init__(self) -> None:
        self.kinds: dict[Any, list[str]] = {}
        self.carrier = Fresh(self.settle)

    def settle(self, events: Sequence[Any], kind: str, error: BaseException | None) -> None:
        for event in events:
            self.kinds.setdefault(event, []).append(kind)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        pytest.param(Forwarder, {"tag": "unknown"}, id="of an unknown tag"),
        pytest.param(Silent, {"tag": "unknown"}, id="of the wrong direction"),
        pytest.param(Forwarder, {"stop": "before"}, id="come too late"),
        pytest.param(Forwarder, {"stop": "behind"}, id="in the inbox at the end"),
        pytest.param(Middle, {"ask": 0}, id="waiting for demand at the end"),
        pytest.param(Middle, {"ask": 1}, id="in the buffer at the end"),
        pytest.param(Middle, {"ask": 1, "buffer_size": 0}, id="beyond the buffer"),
        pytest.param(
            Middle,
            {"ask": 4, "dispatcher": PartitionDispatcher(2, hash=lambda _: 1)},
            id="in a partition at the end",
        ),
        pytest.param(Stopper, {}, id="behind the call that stops"),
    ],
)
async def test_must_settle_what_it_drops(kind: type[Any], options: dict[str, Any]) -> None:
    topology, _ = watched()
    ledger, mouth = Ledger(), Stranger()
    stop, which = options.get("stop", "in the end"), options.get("tag", "known")
    options = {name: value for name, value in options.items() if name not in {"stop", "tag"}}
    async with topology:
        if kind is Silent:
            handle, tag = topology.start(Silent()), None
        else:
            _, handle, tag = await consuming(topology, kind, mouth, **options)
        if which == "unknown":
            tag = Tag(handle, mouth)
        if stop == "before":
            handle.stop()
            await handle.wait()
        handle.send(Events(tag, [1, 2, 3, 4], ledger.carrier))
        if stop == "behind":
            handle.stop()
        await quiet(topology)
        handle.stop()
        await handle.wait()
        handled = ["done"] if kind is Stopper else ["returned"]
        assert ledger.kinds == {1: handled, 2: handled, 3: ["returned"], 4: ["returned"]}
