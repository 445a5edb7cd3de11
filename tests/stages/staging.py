"""A topology of the property tests: how it is drawn, begun, steered and ended.

Does        start stages on a loop of their own; let all come to rest, and `judging` look.
Does not    tell what happens to them: the rules in `test_properties` do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize

from penstock.stages import (
    BroadcastDispatcher,
    DemandDispatcher,
    PartitionDispatcher,
    RoundRobinDispatcher,
    StageHandle,
    Subscription,
    To,
)
from penstock.stages.protocol import SubscribeOptions
from stages.acting import Leaf, Middle, Source, Stranger
from stages.judging import judge_at_rest, judge_outcomes
from stages.modelling import Line, RestingLoop, Selector, Wire, World, number

few = st.integers(0, 7)
which = st.integers(0, 11)
at_rest = st.sampled_from([True, True, False])
cancel_modes = st.sampled_from(["temporary", "permanent", "transient"])
bounds = st.sampled_from([(1, 0), (2, None), (3, 0), (4, 3), (5, 2), (8, 6), (8, None)])
reasons = st.sampled_from([None, "shutdown", "failure"])
dispatchers = st.sampled_from(
    ["demand", "shuffled", "round robin", *["broadcast", "partition"] * 2]
)
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
consumers = st.tuples(
    st.sampled_from([False, False, False, True]), which, bounds, cancel_modes, which
)
rarely = st.sampled_from([False, False, False, True])


class Staged(RuleBasedStateMachine):
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
            To(
                wire,
                self._options(handle, bounds, cancel, turn * (1 if cancel != "temporary" else 3)),
            )
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

    def _side(self, log: Any, line: Line) -> list[Subscription]:
        return [one for one in log.runner.subscriptions if one.tag is line.tag]

    def _sources(self) -> list[StageHandle[Any]]:
        return [one for one in self.givers if one.alive and isinstance(one.runner.stage, Source)]

    def _at(self, which: int, act: Callable[[Any], None], rest: bool) -> None:
        sources = self._sources()
        if sources:
            self.do(lambda: sources[which % len(sources)].cast(act), rest)

    def _release(self) -> None:
        for handle in self.actors():
            handle.runner.stage.release()

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
