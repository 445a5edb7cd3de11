"""The embedded server, with real processes: one server for all, none for nobody, no orphan."""

import asyncio
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from embedded.machinery import HERE, Holder, marked, names, runs, stat_mode, talk, until
from penstock.backends.embedded import EmbeddedServer, default_directory
from penstock.backends.server_binary import platform_refusal

pytestmark = pytest.mark.skipif(
    platform_refusal() is not None, reason="no embedded server on this platform"
)


@pytest.mark.usefixtures("bound")
async def test_a_temporary_server_is_gone_with_its_directory(runtime: Path) -> None:
    async with await EmbeddedServer.open(None, temporary=True) as server:
        assert talk(server.socket, "PING") == "+PONG\r\n"
        assert server.directory.parent == runtime
        assert talk(server.socket, "CONFIG GET appendonly").split()[-1] == "no"
    assert not runs(server.pid)
    assert names(runtime) == []
    await server.aclose()  # again: nothing


async def test_a_directory_is_served_as_asked(directory: Path) -> None:
    async with await EmbeddedServer.open(directory) as server:
        assert server.port is None
        assert server.version.startswith(("Valkey ", "Redis "))
        assert f"process_id:{server.pid}\r\n" in talk(server.socket, "INFO server")
        assert stat_mode(Path(server.socket)) == 0o700
        assert stat_mode(Path(server.socket).parent) == 0o700
        wanted = {
            "port": "0",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "dir": str(directory),
            "maxmemory-policy": "noeviction",
            "enable-debug-command": "no",
        }
        for option, value in wanted.items():
            assert talk(server.socket, f"CONFIG GET {option}").split("\r\n")[4] == value


async def test_the_debug_command_is_for_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_TEST_DEBUG_COMMAND", "1")
    async with await EmbeddedServer.open(None, temporary=True) as server:
        assert talk(server.socket, "DEBUG SLEEP 0") == "+OK\r\n"


async def test_two_at_once_get_one_server(directory: Path) -> None:
    one, two = await asyncio.gather(EmbeddedServer.open(directory), EmbeddedServer.open(directory))
    assert (one.pid, one.socket) == (two.pid, two.socket)
    await one.aclose()
    assert talk(two.socket, "PING") == "+PONG\r\n"
    await two.aclose()
    until(lambda: not runs(two.pid), "the server ends behind its last user")


def linked(directory: Path) -> Path:
    directory.mkdir()
    link = directory.with_name("link")
    link.symlink_to(directory)
    return link


async def test_the_directory_may_be_written_in_several_ways(directory: Path) -> None:
    link = linked(directory)
    async with await EmbeddedServer.open(directory) as one, await EmbeddedServer.open(link) as two:
        assert one.pid == two.pid


async def test_programs_may_differ_in_their_runtime_root(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await EmbeddedServer.open(directory) as one:
        monkeypatch.delenv("XDG_RUNTIME_DIR")
        async with await EmbeddedServer.open(directory) as two:
            assert one.pid == two.pid


async def test_data_survives_a_restart(directory: Path) -> None:
    async with await EmbeddedServer.open(directory) as server:
        talk(server.socket, "SET kept 7")
    until(lambda: not runs(server.pid), "the server ends behind its last user")
    async with await EmbeddedServer.open(directory) as server:
        assert talk(server.socket, "GET kept") == "$1\r\n7\r\n"


async def test_no_directory_means_the_users_own(tmp_path: Path) -> None:
    async with await EmbeddedServer.open(None) as server:
        assert server.directory == tmp_path / "home" / "penstock" == default_directory()


@pytest.mark.usefixtures("bound")
@pytest.mark.parametrize("where", ["data", "-"])
def test_a_killed_user_holds_nothing(where: str, tmp_path: Path) -> None:
    holder = Holder(where if where == "-" else tmp_path / where)
    holder.process.kill()
    holder.end()
    until(lambda: not runs(holder.facts["server"]), "the server ends behind a killed user")
    until(lambda: not runs(holder.facts["keeper"]), "the keeper ends behind a killed user")


def test_a_forked_child_holds_nothing(directory: Path) -> None:
    holder = Holder(directory, "forks")
    try:
        holder.process.kill()
        until(lambda: not runs(holder.facts["server"]), "the server ends in spite of the child")
        assert runs(holder.facts["child"])
    finally:
        os.kill(holder.facts["child"], signal.SIGKILL)
        holder.end()


@pytest.mark.usefixtures("bound")
async def test_a_killed_keeper_takes_its_server_along(directory: Path) -> None:
    async with await EmbeddedServer.open(directory) as server:
        talk(server.socket, "SET kept 7")
        os.kill(server.keeper_pid, signal.SIGKILL)
        until(lambda: not runs(server.pid), "the server dies with its keeper")
        until(lambda: not server.alive, "the user can see it")
        async with await EmbeddedServer.open(directory) as another:
            assert talk(another.socket, "GET kept") == "$1\r\n7\r\n"


@pytest.mark.usefixtures("bound")
async def test_a_killed_keeper_of_a_temporary_server(runtime: Path) -> None:
    server = await EmbeddedServer.open(None, temporary=True)
    os.kill(server.keeper_pid, signal.SIGKILL)
    until(lambda: not runs(server.pid), "the server dies with its keeper")
    await server.aclose()
    assert names(runtime) == []


async def test_what_was_left_of_a_temporary_server_is_swept(runtime: Path) -> None:
    holder = Holder("-")
    left = Path(holder.facts["socket"]).parent
    os.kill(holder.facts["keeper"], signal.SIGKILL)
    holder.process.kill()
    holder.end()
    until(lambda: not runs(holder.facts["server"]), "the server dies with its keeper")
    os.utime(left, (0, 0))
    async with await EmbeddedServer.open(None, temporary=True) as server:
        assert names(runtime) == [server.directory.name]


async def test_a_keeper_that_is_told_to_end_ends_well(directory: Path) -> None:
    async with await EmbeddedServer.open(directory) as server:
        os.kill(server.keeper_pid, signal.SIGTERM)
        until(lambda: not runs(server.keeper_pid), "the keeper ends")
        assert not runs(server.pid)
        assert not server.alive


@pytest.mark.usefixtures("bound")
async def test_a_killed_server_is_restarted_with_its_data(directory: Path) -> None:
    async with await EmbeddedServer.open(directory) as server:
        talk(server.socket, "SET kept 7")
        for _ in range(3):
            killed = server.pid
            os.kill(killed, signal.SIGKILL)
            until(lambda pid=killed: server.pid != pid, "the keeper restarts the server")
            assert talk(server.socket, "GET kept") == "$1\r\n7\r\n"
        assert server.alive


@pytest.mark.one_loop  # it takes seconds
async def test_a_server_that_keeps_dying_is_given_up(directory: Path) -> None:
    async with await EmbeddedServer.open(directory) as server:
        log = directory / "appendonlydir"

        def kill() -> bool:
            pid = server.pid
            if runs(pid):
                os.kill(pid, signal.SIGKILL)
            return not server.alive

        shutil.rmtree(log)
        log.write_text("this is no directory, so no server can start")
        until(kill, "the keeper gives up")


async def test_a_killed_guard_is_replaced(
    directory: Path, monkeypatch: pytest.MonkeyPatch, runtime: Path
) -> None:
    monkeypatch.setenv("PENSTOCK_TEST_GUARD", "1")
    async with await EmbeddedServer.open(directory) as server:

        def guards() -> set[int]:
            return {pid for pid, words in marked(str(runtime)).items() if words.endswith("guard ")}

        (guard,) = guards()
        os.kill(guard, signal.SIGKILL)
        until(lambda: guards() - {guard}, "the keeper starts another guard")
        until(lambda: Path(f"/proc/{min(guards())}").exists(), "it runs")
        os.kill(server.keeper_pid, signal.SIGKILL)
        until(lambda: not runs(server.pid), "the new guard kills the server")
    async with await EmbeddedServer.open(directory):
        pass


@pytest.mark.parametrize("frozen", [False, True])
async def test_an_earlier_server_without_a_keeper_is_ended(
    directory: Path, frozen: bool, monkeypatch: pytest.MonkeyPatch, runtime: Path
) -> None:
    """The one case that slips through the guard: it and the keeper are killed together."""
    monkeypatch.setenv("PENSTOCK_TEST_GUARD", "1")
    async with await EmbeddedServer.open(directory) as server:
        talk(server.socket, "SET kept 7")
        if frozen:
            os.kill(server.pid, signal.SIGSTOP)
        (guard,) = (pid for pid, words in marked(str(runtime)).items() if words.endswith("guard "))
        os.kill(server.keeper_pid, signal.SIGSTOP)  # or it would start another guard
        os.kill(guard, signal.SIGKILL)
        os.kill(server.keeper_pid, signal.SIGKILL)
        until(lambda: not runs(server.keeper_pid), "the keeper is gone")
        assert runs(server.pid)
        async with await EmbeddedServer.open(directory) as another:
            assert not runs(server.pid)
            assert talk(another.socket, "GET kept") == "$1\r\n7\r\n"


async def test_hammering_in_one_loop(directory: Path) -> None:
    for _ in range(5):
        servers = await asyncio.gather(
            *(EmbeddedServer.open(directory, timeout=40.0) for _ in range(20))
        )
        assert len({server.pid for server in servers}) == 1
        await asyncio.gather(*(server.aclose() for server in servers))


async def test_hammering_the_closing_race(directory: Path) -> None:
    """Users of several programs come and go all the time: none fails, and no visit is lost."""
    words = [sys.executable, str(HERE / "hammer.py"), str(directory), "5", "5"]
    crowd = [await asyncio.create_subprocess_exec(*words) for _ in range(4)]
    assert [await process.wait() for process in crowd] == [0] * 4
    async with await EmbeddedServer.open(directory) as server:
        assert talk(server.socket, "GET visits") == "$3\r\n100\r\n"


async def test_ctrl_c_does_not_reach_the_server(directory: Path) -> None:
    async with await EmbeddedServer.open(directory) as server:
        holder = Holder(directory)
        assert holder.facts["server"] == server.pid
        os.killpg(holder.process.pid, signal.SIGINT)
        assert holder.end() != 0
        assert talk(server.socket, "PING") == "+PONG\r\n"
        assert server.alive


def test_ctrl_c_of_the_program_that_started_it(directory: Path) -> None:
    starter = Holder(directory)
    other = Holder(directory)
    os.killpg(starter.process.pid, signal.SIGINT)
    assert starter.end() != 0
    assert talk(other.facts["socket"], "PING") == "+PONG\r\n"
    assert other.end() == 0


async def test_long_names_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("long " * 40) / ("näme'\"" * 25)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / ("r" * 100)))
    (tmp_path / ("r" * 100)).mkdir()
    async with await EmbeddedServer.open(deep) as server:
        assert len(server.socket) < 104
        assert talk(server.socket, "SET kept 7") == "+OK\r\n"
    assert (deep / "appendonlydir").is_dir()


async def test_the_system_server_serves_too(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = shutil.which("redis-server")
    if system is None:
        pytest.skip("no redis-server on PATH")
    monkeypatch.setenv("PENSTOCK_REDIS_SERVER", system)
    async with await EmbeddedServer.open(directory) as server:
        talk(server.socket, "SET kept 7")
        os.kill(server.keeper_pid, signal.SIGKILL)
    async with await EmbeddedServer.open(directory) as server:
        assert talk(server.socket, "GET kept") == "$1\r\n7\r\n"
