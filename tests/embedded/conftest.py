"""Every test has a runtime root of its own, and nothing may be left of it."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded.machinery import HERE, marked, names, until
from penstock.backends import opening


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A runtime root of the test's own; behind the test nothing of it may be left."""
    root = Path(tempfile.mkdtemp(prefix="pst-", dir="/tmp"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(root))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    source = str(Path(opening.__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([source, str(HERE)]))
    try:
        yield root
        until(lambda: not marked(str(root)), f"all processes are gone: {marked(str(root))}")
        until(lambda: not names(root), f"all sockets are gone: {names(root)}")
    finally:
        for pid in marked(str(root)):
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(root)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture(params=["kernel", "guard"])
def bound(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How the server is bound to its keeper: by Linux, or by the guard that macOS needs."""
    if request.param == "guard":
        monkeypatch.setenv("PENSTOCK_TEST_GUARD", "1")
