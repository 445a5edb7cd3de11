"""Workers and maps in worker processes: what crosses, what dies, and that none is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from penstock import ConfigError, PayloadTooLarge, StageError
from penstock.stages import Topology
from penstock.stages.sources import IterableStage
from penstock.stages.worker_processes import Processes, import_path
from penstock.stages.workers import WorkerMap, Workers
from stages import worker_functions as functions
from stages.fixtures import Forwarder, kinds, watched, within
from stages.test_workers import Shop, turns_until
from stages.test_workers_program import ran
from support import leaks

HERE = Path(__file__).parent


async def mapped(work: Any, events: Sequence[Any], **options: Any) -> list[Any]:
    """What a map in processes makes of *events*."""
    topology, sink = Topology(observer=lambda _: None), Forwarder()
    stage: WorkerMap[Any, Any] = WorkerMap(work, on="processes", **{"workers": 1, **options})
    results = topology.start(stage, subscribe_to=topology.start(IterableStage(events)))
    topology.start(sink, subscribe_to=results)
    async with topology:
        await within(topology)
    return sink.events


def pids(stage: Any) -> list[int]:
    """Its worker processes."""
    return cast("Processes", stage._pool).pids


# --- functions and values ----------------------------------------------------------------------


def nested() -> Callable[[Any], Any]:
    def inner(event: Any) -> Any:
        return event

    return inner


@pytest.mark.conformance("GS-156")
@pytest.mark.parametrize(
    ("work", "says"),
    [
        (lambda event: event, "at the top of a module"),
        (nested(), "at the top of a module"),
        (functions.Holder().method, "no method of an instance"),
        (functions.awaits, "on='tasks'"),
    ],
)
def test_a_function_that_cannot_be_imported_is_refused_at_once(work: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Workers(work, on="processes")
    with pytest.raises(ConfigError, match=says):
        WorkerMap(work, on="processes")


def test_a_function_of_a_session_without_a_file_is_refused() -> None:
    program = (
        "from penstock.stages.workers import Workers\n"
        "def work(event): ...\n"
        "try: Workers(work, on='processes')\n"
        "except ValueError as error: print(error)\n"
    )
    told = ran("-c", program)
    assert "put it into a module" in told.stdout, told


def test_a_function_is_known_by_its_module_and_name() -> None:
    assert import_path(functions.double) == ("stages.worker_functions", "", "double")
    assert import_path(len) == ("builtins", "", "len")


async def test_results_come_back_in_order_from_several_processes() -> None:
    found = await mapped(functions.double, range(2000), workers=2)
    assert found == [number * 2 for number in range(2000)]


async def test_unordered_results_all_come_back() -> None:
    found = await mapped(functions.double, range(300), workers=2, ordered=False)
    assert sorted(found) == [number * 2 for number in range(300)]


async def test_work_is_done_in_other_processes_and_by_all_of_them() -> None:
    topology, sink = Topology(), Forwarder()
    stage: WorkerMap[Any, int] = WorkerMap(functions.pid, on="processes", workers=2)
    async with topology:
        results = topology.start(stage, subscribe_to=topology.start(IterableStage(range(50))))
        topology.start(sink, subscribe_to=results)
        await sink.reach(1)
        await within(topology)
    assert len(set(sink.events)) == 2
    assert os.getpid() not in sink.events


async def test_a_value_is_made_into_what_the_functions_annotation_says() -> None:
    assert await mapped(functions.mirror, [functions.Point(1, 2)]) == [functions.Point(2, 1)]


async def test_without_an_annotation_values_are_plain() -> None:
    found = await mapped(functions.plain, [functions.Point(1, 2), [1, None], "text", b"bytes"])
    assert found == [
        ["dict", {"x": 1, "y": 2}],
        ["list", [1, None]],
        ["str", "text"],
        ["bytes", b"bytes"],
    ]


async def test_what_the_work_prints_or_reads_does_not_touch_the_protocol() -> None:
    assert await mapped(functions.noisy, ["a", "b"]) == ["a", "b"]


async def test_a_failure_says_the_place_the_error_and_where_it_was_raised() -> None:
    with pytest.raises(StageError, match=r"event 3 .* ValueError: three is too many") as raised:
        await mapped(functions.fails_at_three, range(5))
    cause = raised.value.__cause__
    assert cause is not None
    assert "in fails_at_three" in "".join(cause.__notes__)


async def test_errors_that_are_hard_to_tell_are_told() -> None:
    topology, _ = watched()
    workers: Workers[int] = Workers(functions.fails_oddly, on="processes", workers=1, max_bytes=99)
    topology.start(workers, subscribe_to=topology.start(IterableStage(range(300))))
    async with topology:
        await within(topology)
    assert workers.count() == (0, 300, 0, 300, 0, 0)


async def test_a_system_exit_is_the_events_failure_and_the_process_goes_on() -> None:
    topology, signals = watched()
    workers: Workers[int] = Workers(functions.leaves, on="processes", workers=1)
    topology.start(workers, subscribe_to=topology.start(IterableStage(range(5))))
    async with topology:
        await within(topology)
    assert workers.count() == (0, 5, 4, 1, 0, 0)
    assert "SystemExit: 7" in signals[0].message


@pytest.mark.parametrize("work", [functions.no_message, functions.wrongly_typed])
async def test_a_result_that_cannot_cross_or_has_another_type_is_a_failure(work: Any) -> None:
    with pytest.raises(StageError, match=r"object|not of the type"):
        await mapped(work, [1])


@pytest.mark.conformance("GS-157", "GS-163")
async def test_an_event_that_cannot_cross_takes_no_room_and_is_signalled() -> None:
    topology, signals = watched()
    async with topology:
        shop = Shop(topology, work=functions.pid, on="processes", workers=1, max_bytes=100)
        await shop.open(max_demand=2, min_demand=0)
        shop.give(object())
        shop.give("x" * 200)
        await turns_until(lambda: shop.asks in ([2, 1, 1], [2, 2]))
        assert [kind for _, kind, _ in shop.outcomes] == ["failed", "failed"]
        with pytest.raises(PayloadTooLarge) as raised:
            shop.workers.start("x" * 200)
        assert (raised.value.size, raised.value.limit) == (202, 100)
    assert set(kinds(signals)) == {"stage-failed"}
    assert "MessagePack" in signals[0].message


async def test_a_result_over_the_limit_is_a_failure_that_says_both_sizes() -> None:
    assert await mapped(functions.longer, [90], max_bytes=100) == [bytes(90)]
    with pytest.raises(StageError, match=r"at most 100 bytes .* 1003"):
        await mapped(functions.longer, [1000], max_bytes=100)


# --- processes that die ------------------------------------------------------------------------


@pytest.mark.conformance("GS-158")
async def test_a_process_that_dies_fails_what_it_had_in_hand_and_is_replaced() -> None:
    topology, signals = watched()
    workers: Workers[int] = Workers(functions.dies, on="processes", workers=1)
    topology.start(workers, subscribe_to=topology.start(IterableStage([0, 1, 2])))
    async with topology:
        await within(topology)
    assert workers.count() == (0, 3, 2, 1, 0, 1)
    assert sorted(kinds(signals)) == ["stage-failed", "stage-restarted"]
    assert all("killed by signal 9" in signal.message for signal in signals)


async def test_transient_work_in_a_process_that_died_is_done_by_the_next(tmp_path: Path) -> None:
    files = [str(tmp_path / name) for name in "ab"]
    assert await mapped(functions.dies_once, files, restart="transient") == ["done", "done"]


@pytest.mark.conformance("GS-159")
async def test_processes_that_die_too_often_end_the_stage() -> None:
    topology, signals = watched()
    workers: Workers[int] = Workers(
        functions.dies,
        on="processes",
        workers=1,
        restart="transient",
        max_restarts=2,
        shutdown=None,
    )
    numbers = topology.start(IterableStage([0, 0, 0, 0]))
    topology.start(workers, subscribe_to=numbers, shutdown=None)
    with pytest.raises(StageError, match=r"a process for dies .* 2 restarts .* signal 9"):
        async with topology:
            await within(topology)
    assert kinds(signals).count("stage-restarted") == 2


async def test_a_module_that_cannot_be_loaded_there_ends_the_stage_with_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "only_here.py"
    module.write_text("def work(event): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_here  # type: ignore[import-not-found]

    workers: Workers[Any] = Workers(only_here.work, on="processes", workers=2)
    module.write_text("raise RuntimeError('not there')\n")
    topology = Topology()
    topology.start(workers)
    with pytest.raises(StageError, match="cannot load the work: RuntimeError: not there"):
        await topology.run()


# --- their end ---------------------------------------------------------------------------------


@pytest.mark.conformance("GS-160")
async def test_no_process_outlives_its_stage_also_where_its_work_never_ends() -> None:
    topology, signals = watched()
    async with topology:
        shop = Shop(topology, work=functions.never_ends, on="processes", workers=2, shutdown=0)
        await shop.open(max_demand=2, shutdown=None)
        shop.give("a", "b")
        await turns_until(lambda: len(shop.workers.children) == 2)
        ids = pids(shop.workers)
        assert len(ids) == 2
    for pid in ids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert shop.outcomes == [([name], "returned", None) for name in ("a", "b")]
    assert kinds(signals) == ["events-returned"]


SLOW = """
import os, pathlib, time
seen = pathlib.Path({seen!r})
if "PENSTOCK_WORKER_LOADING" in os.environ:
    if seen.exists():
        time.sleep(600)
    seen.touch()
def work(event): ...
"""


def slow_work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Path]:
    """Work that the first process loads at once and all later ones never; what tells them."""
    seen = folder / "seen"
    (folder / "slow_to_load.py").write_text(SLOW.format(seen=str(seen)))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "slow_to_load", raising=False)
    import slow_to_load  # type: ignore[import-not-found]

    return slow_to_load.work, seen


async def test_a_stage_that_is_cancelled_while_processes_start_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, seen = slow_work(tmp_path, monkeypatch)
    seen.touch()
    before = leaks.children()
    async with Topology() as topology:
        topology.start(Workers(work, on="processes", workers=2), shutdown=0)
        await turns_until(lambda: len(leaks.children() - before) == 2)
    assert leaks.children() <= before


async def test_a_stage_that_is_closed_while_a_process_is_replaced_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, seen = slow_work(tmp_path, monkeypatch)
    before = leaks.children()
    async with Topology(observer=lambda _: None) as topology:
        workers: Workers[Any] = Workers(work, on="processes", workers=1)
        topology.start(workers, shutdown=None)
        await turns_until(lambda: len(pids(workers)) == 1)
        (first,) = pids(workers)
        os.kill(first, signal.SIGKILL)
        await turns_until(lambda: bool(leaks.children() - before - {first}))
    assert seen.exists()
    assert leaks.children() <= before


async def test_ctrl_c_in_a_terminal_does_not_end_them() -> None:
    topology, sink = Topology(observer=lambda _: None), Forwarder()
    async with topology:
        shop = Shop(topology, work=functions.pid, on="processes", workers=1)
        await shop.open()
        (pid,) = pids(shop.workers)
        assert os.getsid(pid) == pid
        os.kill(pid, signal.SIGINT)
        await shop.workers.start("a").wait()
        assert pids(shop.workers) == [pid]
    assert sink.events == []


PARENT = """
import asyncio, sys
sys.path.insert(0, {tests!r})
from penstock.stages import Topology
from penstock.stages.workers import Workers
from stages.worker_functions import never_ends

async def main():
    async with Topology() as topology:
        workers = Workers(never_ends, on="processes", workers=2)
        topology.start(workers)
        while len(workers._pool.pids) < 2:
            await asyncio.sleep(0.001)
        for number in range(4):
            workers.start(number)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def test_processes_end_with_their_parent_however_it_dies(tmp_path: Path) -> None:
    program = tmp_path / "parent.py"
    program.write_text(PARENT.format(tests=str(HERE.parent)))
    with subprocess.Popen([sys.executable, program], stderr=subprocess.PIPE) as parent:
        assert parent.stderr is not None
        assert [parent.stderr.readline() for _ in range(2)] == [b"began\n"] * 2
        parent.kill()
        # The workers hold the other end of it: it ends when the last of them has.
        assert parent.stderr.read() == b""
