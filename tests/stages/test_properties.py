"""Stages that run, and whatever may happen to them: nothing is lost, doubled or reordered.

Does        draw a topology and a story (subscribe, ask, cancel, pause, fail, …), run it with real
            stages on a real event loop, and let `judging` look whenever all is at rest.
Does not    know how any of it is done: messages, callbacks, signals and figures are all it sees.

``PENSTOCK_EXAMPLES=2000`` makes it thorough.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from penstock.stages import (
    BroadcastDispatcher,
    DemandDispatcher,
    PartitionDispatcher,
    RoundRobinDispatcher,
    StageHandle,
    Subscription,
    To,
)
from penstock.stages.protocol import NORMAL, Ask, Cancel, Subscribe, SubscribeOptions, Tag
from stages.judging import judge_at_rest, judge_outcomes
from stages.modelling import (
    Actor,
    Boom,
    Leaf,
    Line,
    Middle,
    RestingLoop,
    Selector,
    Source,
    Stranger,
    Wire,
    World,
    number,
)

EXAMPLES = int(os.environ.get("PENSTOCK_EXAMPLES", "60"))
STEPS = 25
MOST_CONSUMERS = 4

few = st.integers(0, 7)
which = st.integers(0, 11)
at_rest = st.sampled_from([True, True, False])
cancel_modes = st.sampled_from(["temporary", "permanent", "transient"])
bounds = st.sampled_from([(1, 0), (2, None), (3, 0), (4, 3), (5, 2), (8, 6), (8, None)])
reasons = st.sampled_from([None, "shutdown", "failure"])
dispatchers = st.sampled_from(["demand", "shuffled", "round robin", "broadcast", "partition"])
buffers = st.sampled_from([None, None, None, (0, "last"), (2, "last"), (3, "first")])
sources = st.tuples(
    st.sampled_from(["prompt", "prompt", "generous", "late"]),
    st.sampled_from(["return", "emit", "carry", "carry"]),
    dispatchers,
    buffers,
    st.sampled_from(["temporary", "transient", "transient"]),
    st.sampled_from(["forward"] * 5 + ["accumulate"]),
)
middles = st.tuples(
    st.sampled_from(["same", "half", "double", "later", "kept"]),
    dispatchers,
    buffers,
    bounds,
    # One that starts again must not end with its producer: where that is gone it would for ever.
    st.sampled_from([("temporary", "temporary"), ("transient", "temporary")])
    | cancel_modes.map(lambda cancel: ("temporary", cancel)),
)


consumers = st.tuples(st.sampled_from([False, False, False, True]), which, bounds, cancel_modes, which)
rarely = st.sampled_from([False, False, False, True])


class StageMachine(RuleBasedStateMachine):
    """One topology, from its first stage to its end."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = RestingLoop()
        self.world = World()
        self.givers: list[StageHandle[Any]] = []
        self.wires: list[Wire] = []
        self.leaves: list[StageHandle[Any]] = []
        self.strangers: list[Stranger] = []
        self.waiting: set[asyncio.Task[Any]] = set()
        self.shutdown = 5.0

    @initialize(
        first=sources,
        second=st.none() | sources,
        middle=st.none() | middles,
        leaves=st.lists(consumers, max_size=3),
        fuel=st.integers(0, 30),
        cut_short=st.booleans(),
    )
    def begin(
        self, first: Any, second: Any, middle: Any, leaves: Any, fuel: int, cut_short: bool
    ) -> None:
        self.shutdown = 0.0 if cut_short else 5.0
        self.leave = asyncio.Event()
        self.life = self.loop.create_task(self._live())
        self.loop.run_until_complete(self.loop.rest())
        for config in filter(None, (first, second)):
            self.do(lambda config=config: self._start_source(*config))
        if middle:
            self.do(lambda: self._start_middle(*middle))
        for config in leaves:
            self._start_consumer(*config)
        self.feed_all(fuel)

    async def _live(self) -> None:
        async with self.world.topology:
            await self.leave.wait()

    def _start_source(
        self, manner: str, way: str, sharing: str, buffer: Any, restart: Any, demand: Any
    ) -> None:
        name = f"source {len(self.givers)}"

        def make() -> Source:
            source = Source(self.world, name, manner, way)
            source.sharing = sharing
            return source

        self._giver(make, name, sharing, buffer, restart=restart, demand=demand)

    def _start_middle(
        self, manner: str, sharing: str, buffer: Any, bounds: Any, ends: tuple[Any, Any]
    ) -> None:
        restart, cancel = ends
        above = [
            # A selector notes what it is shown: where it is used again, that would be mixed up.
            To(wire, self._options(handle, bounds, cancel, turn * (1 if cancel != "temporary" else 3)))
            for turn, (handle, wire) in enumerate(zip(self.givers, self.wires, strict=True))
        ]

        def make() -> Middle:
            middle = Middle(self.world, "middle", manner)
            middle.sharing = sharing
            return middle

        self._giver(make, "middle", sharing, buffer, restart=restart, subscribe_to=above)

    def _giver(
        self, make: Callable[[], Any], name: str, sharing: str, buffer: Any, **options: Any
    ) -> None:
        if buffer:
            options.update(buffer_size=buffer[0], buffer_keep=buffer[1])
        handle = self.world.topology.start(
            make,
            name=name,
            dispatcher=self._dispatcher(sharing, len(self.givers)),
            shutdown=self.shutdown,
            **options,
        )
        self.givers.append(handle)
        self.wires.append(Wire(self.world, handle))

    def _dispatcher(self, sharing: str, index: int) -> Any:
        def choose(event: Any) -> int | None:
            lane = None if number(event) % 5 == 4 else number(event) % 2
            log = self.givers[index].runner.stage.log
            self.world.expect(event not in log.hashed, event, "is hashed twice")
            log.hashed[event] = lane
            return lane

        return {
            "demand": DemandDispatcher(),
            "shuffled": DemandDispatcher(shuffle=True),
            "round robin": RoundRobinDispatcher(per_turn=2),
            "broadcast": BroadcastDispatcher(),
            "partition": PartitionDispatcher(2, hash=choose),
        }[sharing]

    def _options(self, handle: Any, bounds: Any, cancel: Any, turn: int) -> SubscribeOptions:
        sharing = handle.runner.stage.sharing
        extra: dict[str, Any] = {}
        if sharing == "partition":
            extra["partition"] = turn % 2
        elif sharing == "broadcast" and turn % 3:
            extra["selector"] = Selector(turn % 4)
        return SubscribeOptions(*bounds, cancel, extra)

    # --- doing, and looking ----------------------------------------------------------------------

    def do(self, act: Callable[[], Any], rest: bool = True) -> None:
        """Do something on the event loop; then, mostly, let all come to rest, and look."""

        async def doing() -> None:
            act()
            if rest:
                await self.loop.rest()

        self.loop.run_until_complete(doing())
        assert not self.life.done(), self.life
        if rest:
            judge_at_rest(self.world)

    def actors(self) -> list[StageHandle[Any]]:
        return [handle for handle in (*self.givers, *self.leaves) if handle.alive]

    def lines(self) -> list[Line]:
        return [line for line in self.world.lines.values() if line.over is None]

    def later(self, coroutine: Any) -> None:
        task = self.loop.create_task(coroutine)
        self.waiting.add(task)

    # --- consumers -------------------------------------------------------------------------------

    @precondition(lambda self: sum(leaf.alive for leaf in self.leaves) < MOST_CONSUMERS)
    @rule(
        config=consumers,
        rest=at_rest,
    )
    def start_consumer(self, config: Any, rest: bool) -> None:
        self._start_consumer(*config, rest)

    def _start_consumer(
        self, manual: bool, to: int, bounds: Any, cancel: Any, turn: int, rest: bool = True
    ) -> None:
        name = f"leaf {len(self.leaves)}"
        to = to % len(self.givers)
        options = self._options(self.givers[to], bounds, cancel, turn)
        self.do(
            lambda: self.leaves.append(
                self.world.topology.start(
                    Leaf(self.world, name, manual=manual),
                    name=name,
                    subscribe_to=To(self.wires[to], options),
                    restart="temporary",
                    shutdown=self.shutdown,
                )
            ),
            rest,
        )

    @rule(to=which, turn=which, ask=few, rest=at_rest)
    def subscribe_a_stranger(self, to: int, turn: int, ask: int, rest: bool) -> None:
        to = to % len(self.givers)
        stranger = Stranger(f"stranger {len(self.strangers)}")
        self.strangers.append(stranger)
        options = self._options(self.givers[to], (8, None), "temporary", turn)
        tag = Tag(stranger, self.wires[to])
        self.do(lambda: tag.producer.send(Subscribe(tag, options)), rest and not ask)
        if ask:
            self.do(lambda: tag.producer.send(Ask(tag, ask)), rest)

    @precondition(lambda self: self.leaves)
    @rule(
        who=which, to=which, bounds=bounds, cancel=cancel_modes, turn=which, rest=at_rest
    )
    def subscribe(
        self, who: int, to: int, bounds: Any, cancel: Any, turn: int, rest: bool
    ) -> None:
        leaf, to = self.leaves[who % len(self.leaves)], to % len(self.givers)
        options = self._options(self.givers[to], bounds, cancel, turn)
        self.do(lambda: self.later(leaf.subscribe(To(self.wires[to], options))), rest)

    @precondition(lambda self: any(line.taker for line in self.lines()))
    @rule(which=which, bounds=bounds, cancel=cancel_modes, turn=which, reason=reasons, rest=at_rest)
    def resubscribe(
        self, which: int, bounds: Any, cancel: Any, turn: int, reason: Any, rest: bool
    ) -> None:
        lines = [line for line in self.lines() if line.taker]
        line = lines[which % len(lines)]
        handle = self.world.topology.stages[line.taker.name]
        index = self.givers.index(self.world.topology.stages[line.giver.name])
        options = self._options(self.givers[index], bounds, cancel, turn)
        why = Boom() if reason == "failure" else reason
        to = To(self.wires[index], options)
        self.do(lambda: self.later(handle.resubscribe(line.tag, to, reason=why)), rest)

    @precondition(lambda self: self.lines())
    @rule(which=which, by_producer=st.booleans(), reason=reasons, rest=at_rest)
    def cancel(self, which: int, by_producer: bool, reason: Any, rest: bool) -> None:
        lines = self.lines()
        line = lines[which % len(lines)]
        why = Boom() if reason == "failure" else reason
        side = line.giver if by_producer else line.taker
        if side is None:
            self.do(lambda: line.tag.producer.send(Cancel(line.tag, NORMAL)), rest)
            return
        self.do(lambda: [one.cancel(why) for one in self._side(side, line)], rest)

    def _side(self, log: Any, line: Line) -> list[Subscription]:
        return [one for one in log.runner.subscriptions if one.tag is line.tag]

    @precondition(lambda self: any(line.manual for line in self.lines()))
    @rule(which=which, demand=st.integers(1, 6), rest=at_rest)
    def ask(self, which: int, demand: int, rest: bool) -> None:
        lines = [line for line in self.lines() if line.manual]
        line = lines[which % len(lines)]
        if line.taker is None:
            self.do(lambda: line.tag.producer.send(Ask(line.tag, demand)), rest)
        else:
            log = line.taker
            self.do(lambda: [one.ask(demand) for one in self._side(log, line)], rest)

    @precondition(lambda self: self.strangers)
    @rule(to=which, how=st.sampled_from(["ask", "cancel", "again"]))
    def a_stranger_is_wrong(self, to: int, how: str) -> None:
        tags = [line.tag for line in self.world.lines.values() if line.taker is None]
        if not tags:
            return
        tag = tags[to % len(tags)]
        message = {
            "ask": Ask(Tag(self.strangers[0], tag.producer), 3),
            "cancel": Cancel(Tag(self.strangers[0], tag.producer), NORMAL),
            "again": Subscribe(tag, SubscribeOptions()),
        }[how]
        line = self.world.lines[tag]
        if how == "again" and (line.leaving or not line.live):
            return
        self.do(lambda: tag.producer.send(message))

    # --- producers -------------------------------------------------------------------------------

    @rule(which=which, fuel=st.integers(1, 12), rest=at_rest)
    def feed(self, which: int, fuel: int, rest: bool) -> None:
        self._at(which, lambda stage: stage.feed(fuel), rest)

    @rule(fuel=st.integers(4, 30))
    def feed_all(self, fuel: int) -> None:
        for index in range(len(self._sources())):
            self._at(index, lambda stage: stage.feed(fuel), True)

    @rule(which=which, count=st.integers(1, 5), rest=at_rest)
    def spill(self, which: int, count: int, rest: bool) -> None:
        self._at(which, lambda stage: stage.spill(count), rest)

    @rule(which=which, count=st.integers(1, 5), rest=at_rest)
    def supply_from_outside(self, which: int, count: int, rest: bool) -> None:
        sources = self._sources()
        if sources:
            stage = sources[which % len(sources)].runner.stage
            self.do(lambda: stage.carried(stage.make(count)), rest)

    @rule(which=which, mode=st.sampled_from(["forward", "forward", "accumulate"]), rest=at_rest)
    def change_mode(self, which: int, mode: Any, rest: bool) -> None:
        sources = self._sources()
        if sources:
            self.do(lambda: sources[which % len(sources)].demand(mode), rest)

    def _sources(self) -> list[StageHandle[Any]]:
        return [one for one in self.givers if one.alive and isinstance(one.runner.stage, Source)]

    def _at(self, which: int, act: Callable[[Any], None], rest: bool) -> None:
        sources = self._sources()
        if sources:
            self.do(lambda: sources[which % len(sources)].cast(act), rest)

    # --- any stage -------------------------------------------------------------------------------

    @rule(which=which, rest=at_rest)
    def inform(self, which: int, rest: bool) -> None:
        def send() -> None:
            actors = self.actors()
            if actors:
                handle = actors[which % len(actors)]
                self.world.infos += 1
                handle.info((self.world.infos, len(handle.runner.stage.log.emitted)))

        self.do(send, rest)

    @rule(which=which, really=rarely | st.booleans())
    def pause(self, which: int, really: bool) -> None:
        actors = self.actors()
        if actors and really:
            actors[which % len(actors)].runner.stage.hold = True

    @rule(rest=at_rest)
    def release(self, rest: bool) -> None:
        self.do(self._release, rest)

    def _release(self) -> None:
        for handle in self.actors():
            handle.runner.stage.release()

    @rule(
        which=which,
        how=st.sampled_from(["cast", "events", "gate", "spill", "stop", "fail", "finish"]),
        really=rarely,
        rest=at_rest,
    )
    def end(self, which: int, how: str, really: bool, rest: bool) -> None:
        actors = self.actors()
        if not actors or not really:
            return
        handle = actors[which % len(actors)]
        stage = handle.runner.stage
        stage.log.told_to_end = how
        self.do(lambda: _end(handle, stage, how), rest)

    # --- the end ---------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            if hasattr(self, "leave"):
                self._finish()
        finally:
            self._tidy()
            self.loop.close()

    def _tidy(self) -> None:
        """Where something failed, nothing of it may run on."""
        while tasks := asyncio.all_tasks(self.loop):
            for task in tasks:
                task.cancel()
            self.loop.run_until_complete(asyncio.wait(tasks))

    def _finish(self) -> None:
        if self.shutdown:
            self.do(self._release)
        for log in self.world.logs:
            log.told_to_end = log.told_to_end or "close"
        self.leave.set()
        self.loop.run_until_complete(self.life)
        self.loop.run_until_complete(asyncio.wait(self.waiting) if self.waiting else _nothing())
        for task in self.waiting:
            task.exception()
        self.loop.run_until_complete(self.loop.rest())
        assert not asyncio.all_tasks(self.loop)
        judge_at_rest(self.world)
        judge_outcomes(self.world)


async def _nothing() -> None:
    """Nothing waits."""


def _end(handle: Any, stage: Actor, how: str) -> None:
    """End a stage in one of many ways."""

    def fail(stage: Any) -> None:
        if how == "spill" and isinstance(stage, Source):
            stage.spill(3)
        raise Boom

    if how == "stop":
        handle.stop()
    elif how == "fail":
        handle.stop(Boom())
    elif how == "finish":
        handle.finish()
    elif how == "events":
        stage.doomed = True
    elif how == "gate" and stage.gate is not None:
        stage.release(Boom())
    else:
        handle.cast(fail)


@pytest.mark.one_loop
@pytest.mark.timeout(900)
def test_whatever_happens_nothing_is_lost_doubled_reordered_or_stranded() -> None:
    run_state_machine_as_test(
        StageMachine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
