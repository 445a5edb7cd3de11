"""Stages that run, and whatever may happen to them: nothing is lost, doubled or reordered.

Does        draw a topology and a story (subscribe, ask, cancel, pause, fail, …), run it with real
            stages on a real event loop, and let `judging` look whenever all is at rest.
Does not    know how any of it is done: messages, callbacks, signals and figures are all it sees.

``PENSTOCK_EXAMPLES=2000`` makes it thorough.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from penstock.stages import To
from penstock.stages.protocol import NORMAL, Ask, Cancel, Subscribe, SubscribeOptions, Tag
from stages.acting import Actor, Boom, Source, Stranger
from stages.staging import (
    Staged,
    at_rest,
    bounds,
    cancel_modes,
    consumers,
    few,
    rarely,
    reasons,
    which,
)

EXAMPLES = int(os.environ.get("PENSTOCK_EXAMPLES", "60"))
STEPS = 25
MOST_CONSUMERS = 4


class StageMachine(Staged):
    """What may happen to them."""

    # --- consumers -------------------------------------------------------------------------------

    @precondition(lambda self: sum(leaf.alive for leaf in self.leaves) < MOST_CONSUMERS)
    @rule(config=consumers, rest=at_rest)
    def start_consumer(self, config: Any, rest: bool) -> None:
        self._start_consumer(*config, rest)

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
    @rule(who=which, to=which, bounds=bounds, cancel=cancel_modes, turn=which, rest=at_rest)
    def subscribe(self, who: int, to: int, bounds: Any, cancel: Any, turn: int, rest: bool) -> None:
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
        if how != "finish" or stage.log.told_to_end is None:
            stage.log.told_to_end = how
        self.do(lambda: _end(handle, stage, how), rest)


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
