"""Calls: when the reply comes, and what becomes of who waits for it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock.errors import StageError
from penstock.stages import LATER, Call, Consumer, StageHandle, Subscription, Topology
from stages.fixtures import Forwarder, Middle, Silent, Sleeper, quiet, watched

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


def order_of(topology: Topology, answers: Any) -> tuple[StageHandle[Any], list[str]]:
    """A producer that emits and answers when it is called, and what its consumer sees."""
    order: list[str] = []
    producer = topology.start(overridden(Silent, handle_call=answers))
    taker = overridden(Forwarder, handle_events=lambda *_: order.append("events"))
    topology.start(taker, subscribe_to=producer)
    return producer, order


@pytest.mark.conformance("GS-102")
@FORMS
async def test_a_reply_comes_behind_the_events_that_were_emitted(form: str) -> None:
    def answer(stage: Any, request: Any, _: Call) -> Any:
        stage.emit([request])
        return "done"

    topology, _ = watched()
    async with topology:
        producer, order = order_of(topology, in_form(form, answer))
        await quiet(topology)
        order.append(await producer.call(1))
        assert order == ["events", "done"]


@pytest.mark.conformance("GS-103")
async def test_an_early_reply_comes_before_the_events() -> None:
    async def answer(stage: Any, request: Any, call: Call) -> Any:
        call.reply("early")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        stage.emit([request])
        return "late"

    topology, _ = watched()
    async with topology:
        producer, order = order_of(topology, answer)
        await quiet(topology)
        order.append(await producer.call(1))
        await quiet(topology)
        assert order == ["early", "events"], "and the second reply is dropped"


async def test_a_reply_may_come_after_the_callback() -> None:
    class Asked(Forwarder):
        def handle_call(self, request: Any, call: Call) -> Any:
            assert call.request == request
            self.waiting = call
            return LATER

        def handle_info(self, message: Any) -> None:
            assert not self.waiting.answered
            self.waiting.reply(message)
            assert self.waiting.answered

    topology, _ = watched()
    async with topology:
        handle = topology.start(Asked())
        answer = asyncio.create_task(handle.call("what?"))
        await quiet(topology)
        assert not answer.done()
        handle.info("that")
        assert await answer == "that"


@pytest.mark.conformance("GS-104")
@KINDS
async def test_a_call_may_stop_the_stage_and_is_answered_all_the_same(kind: type[Any]) -> None:
    def answer(stage: Any, request: Any, _: Call) -> Any:
        stage.stop(request)
        return "bye"

    topology, _ = watched()
    async with topology:
        for error in (None, OSError("enough")):
            handle = topology.start(overridden(kind, handle_call=answer), restart="temporary")
            assert await handle.call(error) == "bye"
            assert (await handle.wait()).error is error


@pytest.mark.conformance("GS-110")
@KINDS
async def test_a_call_that_raises_is_told_its_caller_and_ends_the_stage(kind: type[Any]) -> None:
    def answer(_: Any, request: Any, __: Call) -> Any:
        raise KeyError(request)

    topology, _ = watched()
    async with topology:
        handle = topology.start(overridden(kind, handle_call=answer), restart="temporary")
        with pytest.raises(StageError, match=r"Other.handle_call raised KeyError") as caught:
            await handle.call("price")
        assert isinstance(caught.value.__cause__, KeyError)
        assert (await handle.wait()).error is caught.value


async def test_a_call_of_a_stage_that_takes_none_fails_for_the_caller_alone() -> None:
    class Deaf(Consumer[Any]):
        def handle_events(self, events: list[Any], source: Subscription) -> None:
            pass

    topology, _ = watched()
    async with topology:
        handle = topology.start(Deaf())
        for _ in range(2):
            with pytest.raises(StageError, match="Deaf has no handle_call"):
                await handle.call("anybody?")
        assert handle.alive


class Patient(Sleeper):
    """Answers later, or not at all; may be busy."""

    async def handle_cast(self, request: Any) -> None:
        await self.wake.wait()
        self.stop()

    async def handle_call(self, request: Any, call: Call) -> Any:
        if request == "sit":
            await self.wake.wait()
        return LATER


async def fails_as_ended(waiting: Any) -> None:
    """Who waits is told at once, not when a timeout comes."""
    with pytest.raises(StageError, match="shop has ended"):
        async with asyncio.timeout(1):
            await waiting


async def test_who_waits_for_a_call_that_was_not_begun_is_told_of_the_end() -> None:
    topology, _ = watched()
    async with topology:
        stage = Patient()
        handle = topology.start(stage, name="shop")
        handle.cast("sit")
        waiting = asyncio.create_task(handle.call(1, timeout=None))
        await quiet(topology)
        stage.wake.set()
        await fails_as_ended(waiting)


async def test_who_waits_for_a_reply_that_was_to_come_later_is_told_of_the_end() -> None:
    topology, _ = watched()
    async with topology:
        handle = topology.start(Patient(), name="shop")
        waiting = asyncio.create_task(handle.call(1, timeout=None))
        await quiet(topology)
        handle.stop()
        await fails_as_ended(waiting)


async def test_who_waits_for_a_call_that_is_cancelled_is_told_of_the_end() -> None:
    topology, _ = watched()
    async with topology:
        handle = topology.start(Patient(), name="shop", shutdown=0)
        waiting = asyncio.create_task(handle.call("sit", timeout=None))
        await quiet(topology)
        await topology.aclose()
        await fails_as_ended(waiting)


async def test_a_stage_that_has_ended_answers_no_call() -> None:
    topology, _ = watched()
    async with topology:
        handle = topology.start(Patient(), name="shop")
        handle.stop()
        await handle.wait()
        await fails_as_ended(handle.call(3))


async def test_a_stage_cannot_call_itself() -> None:
    class Narcissus(Forwarder):
        handle: Any = None

        async def handle_cast(self, request: Any) -> None:
            try:
                await self.handle.call("me")
            except StageError as error:
                self.infos.append(error)

    topology, _ = watched()
    async with topology:
        stage = Narcissus()
        stage.handle = topology.start(stage)
        stage.handle.cast("look")
        await stage.infos.reach(1)
        assert "wait for itself" in str(stage.infos[0])
        assert stage.handle.alive
