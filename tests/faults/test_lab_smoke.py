"""The fault lab's smoke schedule, and its cells of their own, on each server."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from faults.lab import cells
from faults.lab.calibration import slowness
from faults.lab.figures import Verdict, report
from support.servers import embedded_binary, redis_binary

pytestmark = [pytest.mark.lab, pytest.mark.one_loop, pytest.mark.timeout(600)]


@pytest.fixture(params=["valkey", "redis7"])
def cell(request: pytest.FixtureRequest, tmp_path: Path) -> cells.Cell:
    find = {"valkey": embedded_binary, "redis7": redis_binary}[request.param]
    return cells.Cell(find(), tmp_path, slowness())


def good(verdict: Verdict) -> None:
    """Print what there is to see, store it where $PENSTOCK_LAB says, and look."""
    print(report(verdict))
    if folder := os.environ.get("PENSTOCK_LAB"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        about = json.dumps(verdict.plain(), indent=1)
        (Path(folder) / f"{verdict.cell}-{verdict.server}.json").write_text(about)
    assert verdict.good, report(verdict)


async def test_the_smoke_schedule(cell: cells.Cell) -> None:
    verdict = await cells.smoke(cell, seed=1, events=10_000)
    assert sum(verdict.faults.values()) >= 12
    assert verdict.appended >= 10_000
    good(verdict)


async def test_what_comes_after_a_flush_is_kept(cell: cells.Cell) -> None:
    good(await cells.flush(cell))


async def test_what_comes_after_a_server_that_kept_nothing_is_kept(cell: cells.Cell) -> None:
    good(await cells.wipe(cell))


async def test_what_is_trimmed_behind_the_back_is_reported(cell: cells.Cell) -> None:
    good(await cells.trim(cell))


async def test_what_replicas_have_confirmed_survives_a_failover(cell: cells.Cell) -> None:
    """The replication link is cut first; what only the server had confirmed is lost, and shown."""
    good(await cells.failover(cell))
