"""The artefact: the wheel, installed alone in a fresh environment, does the main job.

Run by ``make wheel``, on our own Python or on each of ``$PENSTOCK_PYTHONS`` (joined by colons).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYTHONS = [name for name in os.environ.get("PENSTOCK_PYTHONS", "").split(":") if name]
RUNNERS = ["pytest", "pytest-asyncio"]
SETTINGS = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
markers = smoke
"""

pytestmark = [pytest.mark.wheel, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sources."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def constraints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pinned versions without their hashes, which a wheel of our own cannot have."""
    pinned = (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8")
    file = tmp_path_factory.mktemp("pins") / "constraints.txt"
    file.write_text("\n".join(re.findall(r"^[\w.-]+==[^\\\n]+", pinned, re.MULTILINE)))
    return file


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """The types are marked, the licence is there, and no test has strayed in."""
    names = zipfile.ZipFile(wheel).namelist()
    assert "penstock/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"penstock"}


@pytest.mark.parametrize("extras", ["", "[all]"], ids=["core", "all"])
@pytest.mark.parametrize("python", PYTHONS or [sys.executable])
def test_the_wheel_works_alone(
    python: str, extras: str, wheel: Path, constraints: Path, tmp_path: Path
) -> None:
    """The smoke tests pass with the wheel and what it asks for, with ``src/`` out of reach."""
    run("sh", ROOT / "scripts" / "setup.sh", "empty", tmp_path / "venv", PYTHON=python)
    inside = tmp_path / "venv" / "bin" / "python"
    install(inside, "--constraint", constraints, f"{wheel}{extras}", *RUNNERS)

    shutil.copytree(ROOT / "tests" / "smoke", tmp_path / "smoke")
    settings = tmp_path / "pytest.ini"
    settings.write_text(SETTINGS)
    said = run(inside, "-m", "pytest", "-p", "no:valkey", "-c", settings, "smoke", cwd=tmp_path)
    print(said)

    where = run(inside, "-c", "import penstock; print(penstock.__file__)", cwd=tmp_path)
    assert str(tmp_path) in where


def install(python: Path, *arguments: object) -> None:
    """Install with uv where there is one, else with the environment's pip."""
    if shutil.which("uv"):
        run("uv", "pip", "install", "--quiet", "--python", python, *arguments)
    else:
        run(python, "-m", "pip", "install", "--quiet", *arguments)


def run(*command: object, cwd: Path | None = None, **extra: str) -> str:
    """What the command printed; its failure is the test's, with all that it said."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment | extra,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout
