"""What other runtimes give and asyncio does not: each decided here, and shown."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock.errors import StageError
from penstock.stages import BroadcastDispatcher, Call, Subscription
from penstock.stages.protocol import Ask, Cancel, Cancelled, Events, Reason, Tag
from penstock.stages.runner import TURN
from stages.fixtures import (
    Counter,
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

# --- one callback at a time -------------------------------------------------------------------


class Exclusive(Middle):
    """Notes where each callback begins and ends; awaits in all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    async def _note(self, name: str) -> None:
        self.notes.append(f"{name} begins")
        for _ in range(5):
            await asyncio.sleep(0)
        self.notes.append(f"{name} ends")

    async def handle_start(self) -> None:
        await self._note("start")

    async def handle_subscribe(self, subscription: Subscription) -> None:
        await self._note(f"subscribe {subscription.peer_is}")

    async def handle_cancel(self, reason: Reason, subscription: Subscription) -> None:
        await self._note("cancel")

    async def handle_events(self, events: list[Any], source: Subscription) -> Any:
        await self._note("events")
        return events

    async def handle_call(self, request: Any, call: Call) -> Any:
        await self._note("call")

    async def handle_cast(self, request: Any) -> None:
        await self._note("cast")

    async def handle_info(self, message: Any) -> None:
        await self._note("info")

    async def handle_discarded(self, count: int) -> None:  # type: ignore[override]
        await self._note("discarded")

    async def handle_close(self, reason: Reason) -> None:  # type: ignore[override]
        await self._note("close")


async def test_one_callback_runs_at_a_time_to_its_end_whatever_it_awaits() -> None:
    topology, _ = watched()
    stage = Exclusive()
    async with topology:
        source = topology.start(Silent())
        to = source.with_options(max_demand=2, cancel="temporary")
        handle = topology.start(stage, subscribe_to=to, buffer_size=1)
        forwarder = Forwarder()
        reader = topology.start(forwarder, restart="temporary")
        subscription = await reader.subscribe(handle.with_options(max_demand=1))
        await emit(source, range(8))
        calls = [asyncio.create_task(handle.call(1)) for _ in range(3)]
        for _ in range(3):
            handle.cast(1)
            handle.info(1)
        stage.emit([1, 2, 3])
        await asyncio.gather(*calls)
        await forwarder.batches.reach(1)
        subscription.cancel()
        source.finish()
        await quiet(topology)
    begun, ended = stage.notes[::2], stage.notes[1::2]
    assert [note.replace("begins", "ends") for note in begun] == ended
    names = {"start", "subscribe", "cancel", "events", "call", "cast", "info", "discarded", "close"}
    assert {note.split()[0] for note in begun} == names


# --- order ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["stop", "finish", "raise"])
async def test_the_news_of_an_end_comes_behind_all_that_was_sent(how: str) -> None:
    class Last(Silent):
        def handle_cast(self, request: Any) -> None:
            for first in range(0, 100, 10):
                self.emit(range(first, first + 10))
            if how == "raise":
                raise LookupError
            getattr(self, how)()

    topology, _ = watched()
    async with topology:
        order: list[Any] = []

        class Reader(Forwarder):
            async def handle_events(self, events: list[Any], source: Subscription) -> None:
                await asyncio.sleep(0)
                order.extend(events)

            def handle_cancel(self, reason: Reason, subscription: Subscription) -> None:
                order.append(reason.kind)
                super().handle_cancel(reason, subscription)

        reader, last = Reader(), Last()
        spring = topology.start(last, restart="temporary")
        topology.start(reader, subscribe_to=spring.with_options(cancel="temporary"))
        await last.asked.reach(1)
        spring.cast("go")
        await reader.cancelled.reach(1)
    assert order == [*range(100), "failed" if how == "raise" else "normal"]


async def test_messages_of_one_sender_are_handled_in_the_order_of_their_sending() -> None:
    class Listing(Forwarder):
        def handle_call(self, request: Any, call: Call) -> Any:
            return self.infos.append(request)

        def handle_cast(self, request: Any) -> None:
            self.infos.append(request)

    topology, _ = watched()
    async with topology:
        listing = Listing()
        handle = topology.start(listing)
        for number in range(0, 300, 3):
            handle.cast(number)
            handle.info(number + 1)
            await handle.call(number + 2)
        assert listing.infos == list(range(300))


async def test_sending_never_waits_however_much_lies_there() -> None:
    """Demand is the only bound: nothing is lost, and nobody is held up."""
    topology, signals = watched()
    async with topology:
        sleeper = Sleeper()
        source = topology.start(Counter())
        handle = topology.start(sleeper, subscribe_to=source.with_options(max_demand=1))
        await sleeper.reach(1)
        for number in range(20_000):
            handle.info(number)
        assert sleeper.infos == []
        sleeper.wake.set()
        await sleeper.infos.reach(20_000)
        assert sleeper.infos == list(range(20_000))
        assert not signals


@pytest.mark.parametrize("kind", [Silent, Middle, Forwarder])
async def test_a_message_to_oneself_goes_behind_what_waits(kind: type[Any]) -> None:
    topology, _ = watched()
    async with topology:
        stage = kind()
        handle = topology.start(stage)
        handle.cast(lambda stage: stage.info("own"))
        for number in range(3):
            handle.info(number)
        await stage.infos.reach(4)
        assert stage.infos == [0, 1, 2, "own"]


async def test_a_timer_is_a_message_and_interrupts_no_callback() -> None:
    topology, _ = watched()
    async with topology:
        sleeper = Sleeper()
        handle = topology.start(sleeper, subscribe_to=topology.start(Counter()))
        await sleeper.reach(1)
        fired = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.call_later(0, handle.info, "tick")
        loop.call_later(0, fired.set)
        await fired.wait()
        await asyncio.sleep(0)
        assert sleeper.infos == [], "its callback is under way"
        sleeper.wake.set()
        await sleeper.infos.reach(1)


# --- sharing ----------------------------------------------------------------------------------


async def test_a_broadcast_gives_each_a_list_of_its_own_and_shares_the_events() -> None:
    class Greedy(Forwarder):
        """Keeps the very list, and empties it afterwards."""

        def handle_events(self, events: list[Any], source: Subscription) -> None:
            super().handle_events(events, source)
            events.clear()

    topology, _ = watched()
    async with topology:
        spring = topology.start(Silent(), dispatcher=BroadcastDispatcher())
        takers = [Greedy(), Greedy(), Forwarder()]
        for taker in takers:
            topology.start(taker, subscribe_to=spring)
        await quiet(topology)
        sent: list[dict[str, int]] = [{"n": 1}, {"n": 2}]
        await emit(spring, sent)
        for taker in takers:
            await taker.reach(2)
        await quiet(topology)
        assert sent == [{"n": 1}, {"n": 2}], "nor is the program's own list touched"
        for taker in takers:
            assert taker.events[0] is sent[0]
            assert taker.events[1] is sent[1]


# --- the loop ---------------------------------------------------------------------------------


async def test_a_stage_that_never_awaits_still_lets_others_have_their_turn() -> None:
    """At most so many messages at once."""

    class Idle(Forwarder):
        count = 0

        def handle_cast(self, request: Any) -> None:
            self.count += 1

    topology, _ = watched()
    async with topology:
        idle = Idle()
        handle = topology.start(idle)
        for number in range(TURN * 10):
            handle.cast(number)
        before, turns = 0, 0
        while idle.count < TURN * 10:
            await asyncio.sleep(0)
            assert idle.count - before <= TURN
            before, turns = idle.count, turns + 1
        assert turns >= 10


async def test_a_chain_that_never_rests_still_lets_others_have_their_turn() -> None:
    topology, _ = watched()
    async with topology:
        counter = Counter()
        spring = topology.start(counter)
        mill = topology.start(Middle(), subscribe_to=spring.with_options(max_demand=2))
        topology.start(Forwarder(), subscribe_to=mill.with_options(max_demand=2))
        await counter.asked.reach(3)
        before = len(counter.asked)
        for _ in range(200):
            await asyncio.sleep(0)
            assert len(counter.asked) - before <= 4 * TURN
            before = len(counter.asked)


# --- calls ------------------------------------------------------------------------------------


async def test_a_call_that_takes_too_long_is_a_timeout_and_its_late_reply_is_dropped() -> None:
    """The stage handles it all the same; the next call gets its own answer."""

    class Slow(Sleeper):
        async def handle_call(self, request: Any, call: Call) -> Any:
            await self.wake.wait()
            self.infos.append((request, call.answered))
            return request

    topology, signals = watched()
    async with topology:
        slow = Slow()
        handle = topology.start(slow)
        with pytest.raises(TimeoutError):
            await handle.call("first", timeout=0.001)
        following = asyncio.create_task(handle.call("second", timeout=None))
        await quiet(topology)
        slow.wake.set()
        assert await following == "second"
        assert slow.infos == [("first", True), ("second", False)]
        assert handle.alive
    assert not signals


# --- crashes ----------------------------------------------------------------------------------


async def test_the_crash_of_one_stage_touches_those_alone_that_depend_on_it() -> None:
    topology, signals = watched()
    async with topology:
        spring = topology.start(Counter(), name="spring")
        other = topology.start(Silent(), name="other")
        stages = {name: Sleeper() for name in ("first", "second", "third")}
        for name, stage in stages.items():
            to = (other if name == "third" else spring).with_options(max_demand=2)
            topology.start(stage, name=name, subscribe_to=to, restart="temporary")
        await stages["first"].reach(1)
        await stages["second"].reach(1)
        topology.stages["first"].stop(OSError("dead"))
        for stage in stages.values():
            stage.wake.set()
        await topology.stages["first"].wait()
        await stages["second"].reach(50)
        assert await in_stage(other, lambda stage: stage.name) == "other"
        alive = [name for name, handle in topology.stages.items() if handle.alive]
        assert alive == ["spring", "other", "second", "third"]
        assert kinds(signals).count("stage-failed") == 1


# --- tags -------------------------------------------------------------------------------------


async def test_a_tag_is_like_no_other_and_never_used_again() -> None:
    one, two = Stranger("one"), Stranger("two")
    tags = [Tag(one, two) for _ in range(100)]
    assert len(set(tags)) == 100
    numbers = [tag.number for tag in tags]
    assert numbers == sorted(set(numbers))
    topology, _ = watched()
    async with topology:
        consumer = topology.start(Forwarder())
        spring = topology.start(Silent()).with_options(cancel="temporary")
        seen: set[Tag] = set()
        for _ in range(5):
            subscription = await consumer.subscribe(spring)
            seen.add(subscription.tag)
            subscription.cancel()
        assert len(seen) == 5
        assert seen.isdisjoint(tags)


async def test_an_ask_of_a_subscription_that_is_over_is_answered_by_its_tag() -> None:
    topology, _ = watched()
    async with topology:
        spring = topology.start(Counter())
        stranger = Stranger()
        old = stranger.subscribe(spring)
        spring.send(Cancel(old, Reason("normal")))
        new = stranger.subscribe(spring)
        spring.send(Ask(old, 5))
        spring.send(Ask(new, 5))
        await stranger.messages.reach(3)
        assert [type(message) for message in stranger.messages] == [Cancelled, Cancelled, Events]
        assert [message.tag for message in stranger.messages] == [old, old, new]
        assert isinstance(stranger.messages[1].reason.error, StageError)
