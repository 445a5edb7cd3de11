"""When the embedded server cannot be had: what must hold, what is, and what to do."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from embedded.machinery import HERE, runs, talk, until
from penstock.backends.embedded import EmbeddedServer
from penstock.backends.opening import Opening
from penstock.errors import BackendUnavailable, ConfigError


def distrusted(directory: Path) -> Path:
    """The runtime directory of *directory*, made by somebody else."""
    path = Path(Opening(directory, None).runtime)
    path.mkdir(mode=0o700)
    return path


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
async def test_a_foreign_runtime_directory_is_refused(directory: Path) -> None:
    theirs = distrusted(directory)
    os.chown(theirs, 65534, 65534)
    with pytest.raises(ConfigError, match="it belongs to user 65534; remove it"):
        await EmbeddedServer.open(directory)
    theirs.rmdir()


async def test_an_open_runtime_directory_is_refused(directory: Path) -> None:
    theirs = distrusted(directory)
    theirs.chmod(0o770)
    with pytest.raises(ConfigError, match="others may enter it"):
        await EmbeddedServer.open(directory)
    theirs.rmdir()


async def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="Not a directory; name another"):
        await EmbeddedServer.open(tmp_path / "file" / "data")


async def test_a_directory_that_cannot_be_written_is_refused(directory: Path) -> None:
    (directory / "penstock.lock").mkdir(parents=True)  # even root cannot write this
    with pytest.raises(ConfigError, match=r"penstock.lock': .*; make that directory writable"):
        await EmbeddedServer.open(directory)


def spoil(directory: Path) -> None:
    (log,) = directory.glob("appendonlydir/*.incr.aof")
    log.write_bytes(b"nonsense\r\n" + log.read_bytes())


async def test_a_corrupt_log_is_refused_with_the_servers_words(directory: Path) -> None:
    async with await EmbeddedServer.open(directory) as server:
        talk(server.socket, "SET kept 7")
    until(lambda: not runs(server.pid), "the server ends")
    spoil(directory)
    with pytest.raises(ConfigError, match=r"Bad file format.*check-aof --fix"):
        await EmbeddedServer.open(directory)


async def test_a_port_is_local_and_one(directory: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BackendUnavailable, match=r"Address already in use.*end the program"):
            await EmbeddedServer.open(directory, port=port)
    async with await EmbeddedServer.open(directory, port=port) as server:
        assert server.port == port
        assert talk(server.socket, "CONFIG GET bind").split()[-1] == "127.0.0.1"
        async with await EmbeddedServer.open(directory) as other:
            assert other.port == port
        with pytest.raises(ConfigError, match="but it runs already, with port"):
            await EmbeddedServer.open(directory, port=port - 1)


@pytest.mark.parametrize("port", [0, 65536])
async def test_a_wrong_port_is_refused(port: int) -> None:
    with pytest.raises(ConfigError, match="from 1 to 65535"):
        await EmbeddedServer.open(None, port=port)


async def test_a_temporary_server_takes_no_directory(directory: Path) -> None:
    with pytest.raises(ConfigError, match="omit one of the two"):
        await EmbeddedServer.open(directory, temporary=True)


async def test_no_answer_in_time_leaves_nothing(directory: Path) -> None:
    with pytest.raises(BackendUnavailable, match=r"must answer within 0\.001 s"):
        await EmbeddedServer.open(directory, timeout=0.001)


async def test_cancelled_openers_leave_nothing(directory: Path) -> None:
    for delay in (0.0, 0.01, 0.03, 0.05, 0.07):
        task = asyncio.create_task(EmbeddedServer.open(directory))
        done, _ = await asyncio.wait([task], timeout=delay)
        task.cancel()
        if done:
            await task.result().aclose()


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    space = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]
    if shutil.which("unshare") is None or subprocess.run([*space, "true"], check=False).returncode:
        pytest.skip("a small disk needs root, or a user namespace that may mount")
    words = [*space, sys.executable, str(HERE / "full_disk.py"), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=50.0, check=False)
    assert done.returncode == 0, done.stderr
    assert "-MISCONF" in done.stdout
    assert "No space left on device" in done.stdout
    assert '"again": "+OK' in done.stdout
    assert '"start": "BackendUnavailable: the embedded server must' in done.stdout
    assert "free some space on that disk" in done.stdout
