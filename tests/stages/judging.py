"""What must hold of stages at rest, and when all is over: the model of the property tests.

Does        compare what was seen on the wires with what the stages did, and with their figures.
Does not    look inside a stage: it knows messages, callbacks, signals and `statistics`.
Source      the promises in `protocol`, `outlet` and the dispatchers, as sums over what was seen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from penstock.errors import ConfigError
from penstock.stages import StageStatistics
from penstock.stages.statistics import statistics_of
from stages.acting import Leaf, Middle, Source
from stages.modelling import Line, Log, World

UNCLAIMED = 1000
"""What a partition holds at most before it ever had a consumer: the default of `max_demand`."""


def judge_at_rest(world: World) -> None:
    """Raise AssertionError where something is wrong now, while no stage does anything."""
    assert not world.faults, world.faults
    figures = {id(log): statistics_of(log.runner) for log in world.logs}
    given, taken = _by_stage(world.lines.values())
    for log in world.logs:
        lines = given.get(id(log), [])
        mine = figures[id(log)]
        if log.stage.sharing:
            _given_out(log, lines, mine)
        if log.stage.gate is None and log.runner.ended is None:
            _nothing_stranded(log, lines, taken.get(id(log), []), mine)
            _modes(log, taken.get(id(log), []), mine)
        _ends(log, taken.get(id(log), []))
        _finishes(log, taken.get(id(log), []), mine)
    _nothing_lost(world, figures, taken)
    _direct_outcomes(world)


def _by_stage(lines: Iterable[Line]) -> tuple[dict[int, list[Line]], dict[int, list[Line]]]:
    given: dict[int, list[Line]] = defaultdict(list)
    taken: dict[int, list[Line]] = defaultdict(list)
    for line in lines:
        given[id(line.giver)].append(line)
        if line.taker is not None:
            taken[id(line.taker)].append(line)
    return given, taken


# --- what is given out -----------------------------------------------------------------------


def _given_out(log: Log, lines: list[Line], figures: StageStatistics) -> None:
    """What a producer gave out: all of it, in order, and once each, or to all."""
    assert figures.emitted == len(log.emitted), (log.name, figures, log.emitted)
    if log.stage.sharing == "broadcast":
        _all_see_all(log, lines, figures)
        return
    assert figures.delivered == len(log.sent), (log.name, figures, log.sent)
    gone = {*log.sent, *(event for event, lane in log.hashed.items() if lane is None)}
    kept = {event for event, lane in log.hashed.items() if lane is not None} - gone
    if not figures.discarded and log.runner.ended is None and log.stage.gate is None:
        # What has been taken, delivered or not, came before all that still waits.
        waiting = figures.buffered - len(kept)
        taken = len(log.emitted) - waiting
        assert {*gone, *kept} == {*log.emitted[:taken]}, (log.name, figures, gone, kept)
    if isinstance(log.stage, Source) and log.stage.sharing != "partition":
        asked = sum(line.asked for line in lines)  # what a partition holds leaves its demand open
        assert log.wanted <= asked + figures.discarded, (log.name, log.wanted, asked)


def _all_see_all(log: Log, lines: list[Line], figures: StageStatistics) -> None:
    """A broadcast: all were shown the same events in the same order, from their beginning on."""
    for line in lines:
        selector = line.options.extra.get("selector")
        shown = selector.shown if selector is not None else line.sent
        if selector is not None:
            assert line.sent == list(filter(selector.wants, shown)), (line, shown)
        if line.start is None:
            assert not shown, (line, shown)
            continue
        for place in range(line.checked, len(shown)):
            one = log.dispatched.setdefault(line.start + place, shown[place])
            assert one == shown[place], (line, place, one, shown)
        line.checked = len(shown)
        if line.live and log.runner.ended is None and log.stage.gate is None:
            assert line.start + len(shown) == figures.delivered, (line, shown, figures)


# --- demand ----------------------------------------------------------------------------------


def _nothing_stranded(
    log: Log, lines: list[Line], taken: list[Line], figures: StageStatistics
) -> None:
    """Where somebody still waits, there is nothing to give, and more was asked for."""
    stage = log.stage
    for line in taken:
        if not line.manual and line.live and not line.leaving and not figures.queued:
            least = line.options.min_demand
            assert line.open > (line.options.max_demand // 2 if least is None else least), line
    if not stage.sharing or log.runner.giving.outlet.accumulating or log.runner.finishing:
        return
    room, unhashed = _room(log, [line for line in lines if line.live], figures)
    if isinstance(stage, Source):
        assert room - unhashed <= log.owed, (log.name, "was not asked", room, unhashed, log.owed)
        if stage.manner != "late":
            assert not (log.owed and stage.fuel), (log.name, "does not serve")
    if room > 0:
        assert unhashed == 0, (log.name, room, "asked for, and buffered", unhashed)
        assert figures.queued == 0, (log.name, room, "asked for, and queued", figures)


def _room(log: Log, live: list[Line], figures: StageStatistics) -> tuple[int, int]:
    """How many events would be taken now, and how many wait until somebody can take them."""
    sharing, total = log.stage.sharing, sum(line.open for line in live)
    if sharing == "broadcast":
        return min((line.open for line in live), default=0), figures.buffered
    if sharing != "partition":
        return total, figures.buffered
    spaces, held = [], 0
    for lane in (0, 1):
        mine = [event for event, one in log.hashed.items() if one == lane]
        holds = sum(event not in log.sent for event in mine)
        owner = next((line for line in live if line.options.extra["partition"] == lane), None)
        waits = owner.open if owner else 0
        assert not (holds and waits), (log.name, lane, "holds", holds, "and waits for", waits)
        spaces.append(waits + _capacity(log, lane) - holds)
        held += holds
    return min(total, *spaces), figures.buffered - held


def _capacity(log: Log, lane: int) -> int:
    owners = [
        line.options.max_demand
        for line in log.joined
        if line.options.extra.get("partition") == lane
        and not (line.over is not None and isinstance(line.over.error, ConfigError))
    ]
    return owners[-1] if owners else UNCLAIMED


# --- ends ------------------------------------------------------------------------------------


def _modes(log: Log, taken: list[Line], figures: StageStatistics) -> None:
    """A stage does not outlive what its cancel mode says that it does not."""
    if log.runner.finishing or figures.queued:
        return
    for line in taken:
        over = line.over
        if over is not None and over.kind != "normal":
            assert not _ended_by(line), (log.name, "lives on after", line)


def _ends(log: Log, taken: list[Line]) -> None:
    """A stage ends as it was told to, or as a subscription's cancel mode says; nothing else."""
    if log.runner.ended is None or log.told_to_end:
        return
    cause = [line for line in taken if _ended_by(line)]
    assert cause, (log.name, "ended by itself", log.runner.ended, taken)


def _finishes(log: Log, taken: list[Line], figures: StageStatistics) -> None:
    """A stage that was told to finish has served everything before it ended."""
    ended = log.runner.ended
    if log.told_to_end != "finish" or ended is None or ended.kind != "normal":
        return
    skipped = sum(lane is None for lane in log.hashed.values())
    given = figures.delivered + figures.discarded + skipped
    assert figures.emitted == given, (log.name, "finished without serving all", figures)
    came = sum(len(line.sent) for line in taken)
    assert came == len(log.handled), (log.name, "finished without handling all", came)


def _ended_by(line: Line) -> bool:
    """Whether the end of *line* ends its consumer, by the table in the papers."""
    mode, kind = line.options.cancel, line.over.kind if line.over else "open"
    return (mode, kind) in {
        ("permanent", "normal"),
        ("permanent", "shutdown"),
        ("permanent", "failed"),
        ("transient", "failed"),
    }


def _nothing_lost(
    world: World, figures: dict[int, StageStatistics], taken: dict[int, list[Line]]
) -> None:
    """All that went into a stage came out, is in it, or was said to be dropped."""
    dropped: dict[str, int] = defaultdict(int)
    for signal in world.signals:
        if signal.kind in {"events-dropped", "events-returned"}:
            dropped[str(signal.stage)] += signal.count or 0
    by_name: dict[str, list[Log]] = defaultdict(list)
    for log in world.logs:
        by_name[log.name].append(log)
    for name, logs in by_name.items():
        if any(log.stage.gate is not None for log in logs):
            continue
        came = sum(len(line.sent) for log in logs for line in taken.get(id(log), []))
        came += sum(len(log.emitted) for log in logs)
        went = sum(len(log.handled) + log.failed for log in logs)
        for log in logs:
            mine = figures[id(log)]
            went += mine.delivered + sum(lane is None for lane in log.hashed.values())
            went += mine.buffered + mine.queued
        assert came == went + dropped[name], (name, came, went, dropped[name])
        if all(log.runner.ended is None for log in logs):
            full = sum(figures[id(log)].discarded for log in logs)
            assert dropped[name] == full, (name, "dropped what its buffer had room for", dropped)


# --- outcomes --------------------------------------------------------------------------------


def _direct_outcomes(world: World) -> None:
    """What a consumer has handled, of a source that gives each event to one, is done."""
    for log in world.logs:
        if not isinstance(log.stage, Leaf):
            continue
        for event in log.handled:
            lines = [line for one in world.logs for line in one.sent.get(event, ())]
            if event not in world.settled or len(lines) > 1:
                continue
            if lines[0].giver.stage.sharing != "broadcast":
                assert world.settled[event] == ["done"], (event, world.settled[event])


def judge_outcomes(world: World) -> None:
    """When all is over: every event was settled once, and as done only if nothing of it is lost."""
    for event, kinds in world.settled.items():
        assert len(kinds) == 1, (event, "was settled", kinds)
        if kinds == ["done"]:
            giver = next(log for log in world.logs if event in log.place)
            assert _arrived(giver, event), (event, "is done, and was lost")


def _arrived(giver: Log, event: Any) -> bool:
    """Whether everything that came of *event* was handled, or wanted by nobody."""
    if event not in giver.sent:
        selectors = [line.options.extra.get("selector") for line in giver.joined]
        refused = any(selector and event in selector.shown for selector in selectors)
        return refused or giver.hashed.get(event, "unknown") is None
    return all(_handled(line, event) for line in giver.sent[event])


def _handled(line: Line, event: Any) -> bool:
    taker = line.taker
    if taker is None:
        return True
    if event not in taker.handled:
        return False
    if not isinstance(taker.stage, Middle) or taker.stage.manner == "later":
        return True
    outputs = taker.outputs.get(event)
    return outputs is not None and all(_arrived(taker, output) for output in outputs)
