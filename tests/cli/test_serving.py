"""``penstock server``, ``--version`` and the help."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis

import penstock
from cli.shell import PATIENCE, Shell, environment, wait_until


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_server_runs_until_it_is_told_to_end(tmp_path: Path, number: int) -> None:
    """Its URL is the first line; what was stored is there the next time."""
    command = ("server", "--directory", str(tmp_path / "data"))
    for expected in (b"", b'{"a":"1"}\n'):
        with Shell("").running(*command) as process:
            assert process.stdout is not None
            url = process.stdout.readline().decode().strip()
            assert url.startswith("redis+unix:///")
            shell = Shell(url)
            assert shell("read", "orders").out == expected
            assert shell("append", "orders", stdin=b'{"a":1}\n').code == 0
            process.send_signal(number)
            assert process.wait(PATIENCE) == 0
            assert process.stderr is not None
            assert b"Traceback" not in process.stderr.read()
        wait_until(Path(url.removeprefix("redis+unix://")).parent.exists, never=True)


def test_the_server_listens_on_a_port(tmp_path: Path, free_port: int) -> None:
    """For programs that are not ours."""
    command = ("server", "--directory", str(tmp_path), "--port", str(free_port), "--json")
    with Shell("").running(*command) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        assert said["url"] == f"redis://127.0.0.1:{free_port}"
        with redis.Redis.from_url(said["url"]) as client:
            assert client.ping()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0


def test_the_version_is_quick_and_imports_little() -> None:
    """Neither click nor rich nor redis is needed to tell it."""
    code = (
        "import sys; sys.argv = ['penstock', '--version']\n"
        "from penstock.cli.main import main\n"
        "assert main() == 0\n"
        "assert not {'click', 'rich', 'redis', 'uvloop'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"penstock {penstock.__version__}\n"), done.stderr


def test_the_help_tells_every_command_without_importing_any() -> None:
    """Each has a help of its own."""
    shell = Shell("")
    told = shell("--help").out.decode()
    for name in ("server", "append", "read", "info", "groups", "pending", "trim", "run", "doctor"):
        assert f"\n  {name} " in told
        own = shell(name, "--help")
        assert own.code == 0
        assert own.out.startswith(f"Usage: penstock {name} ".encode())
    assert "\n  demo " in told


@pytest.mark.parametrize("command", ["--help", "read --help", "doctor", "info"])
def test_a_closed_pipe_is_no_error(shell: Shell, command: str) -> None:
    """``penstock … | true``."""
    line = f"{sys.executable} -m penstock {command} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        env=environment(shell.url),
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode in {0, 141}  # 0: it was quicker than the end of `true`
    assert done.stderr == b""
