"""A test of the lab: every mutant is caught, and without its mutant every cell is good."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from faults.lab import mutant_cells
from faults.lab.calibration import slowness
from faults.lab.figures import report
from support.servers import embedded_binary

pytestmark = [pytest.mark.lab, pytest.mark.one_loop, pytest.mark.timeout(300)]

NAMES = sorted(mutant_cells.CELLS)


@pytest.mark.parametrize("name", NAMES)
async def test_a_mutant_is_caught(name: str, tmp_path: Path) -> None:
    """Where the machine stood still, the rules forgive what that may have caused: then again."""
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        await asyncio.to_thread(folder.mkdir)
        verdict = await mutant_cells.run(
            name, embedded_binary(), folder, mutant=True, slow=slowness()
        )
        broken = {rule.split()[0] for rule in verdict.breaches}
        if mutant_cells.CELLS[name][1] <= broken:
            return
        if not verdict.still:
            break
    pytest.fail(report(verdict))


@pytest.mark.parametrize("name", NAMES)
async def test_without_its_mutant_a_cell_is_good(name: str, tmp_path: Path) -> None:
    verdict = await mutant_cells.run(
        name, embedded_binary(), tmp_path, mutant=False, slow=slowness()
    )
    assert verdict.good, report(verdict)
