"""Worker processes of functions in the program's own file; and what they load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stages.fixtures import PATIENCE

HERE = Path(__file__).parent


def ran(*arguments: str, where: Path = HERE) -> subprocess.CompletedProcess[str]:
    """What Python said when it was run so."""
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, capture_output=True, check=False, cwd=where, text=True, timeout=PATIENCE * 3
    )


PROGRAM = """
import asyncio
from penstock.stages import Consumer, Topology
from penstock.stages.sources import IterableStage
from penstock.stages.workers import WorkerMap

def triple(number: int) -> int:
    return number * 3

class Show(Consumer):
    def handle_events(self, events, source):
        print(*events)

async def main():
    topology = Topology()
    numbers = topology.start(IterableStage([1, 2]))
    tripled = topology.start(WorkerMap(triple, on="processes", workers=1), subscribe_to=numbers)
    topology.start(Show(), subscribe_to=tripled.with_options(max_demand=1))
    await topology.run()

{guard}asyncio.run(main())
"""


@pytest.mark.parametrize("arguments", [(), ("-m", "program")], ids=["file", "module"])
def test_functions_of_the_programs_own_file_work(tmp_path: Path, arguments: Any) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(guard='if __name__ == "__main__":\n    '))
    told = ran(*(arguments or [str(program)]), where=tmp_path)
    assert (told.stdout, told.stderr) == ("3\n6\n", "")


def test_a_program_without_the_guard_is_told_what_to_do(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(guard=""))
    told = ran(str(program))
    assert told.returncode == 1
    assert 'if __name__ == "__main__"' in told.stderr


def test_a_worker_process_imports_msgspec_and_nothing_else_of_ours(tmp_path: Path) -> None:
    module = tmp_path / "looking.py"
    module.write_text(
        "import sys\ndef loaded(event: int) -> list[str]:\n    return sorted(sys.modules)\n"
    )
    program = tmp_path / "program.py"
    program.write_text(
        PROGRAM.replace("triple, on", "loaded, on")
        .replace("def triple", "from looking import loaded\ndef triple")
        .replace("IterableStage([1, 2])", "IterableStage([1])")
        .format(guard='if __name__ == "__main__":\n    ')
    )
    told = ran(str(program))
    names = told.stdout
    assert "'msgspec'" in names, told
    assert not [name for name in ("'penstock", "'asyncio'", "'redis'") if name in names]
