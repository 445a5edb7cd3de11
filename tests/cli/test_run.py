"""``penstock run``: real processes, killed and drained under load."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from cli.shell import PATIENCE, Done, environment, wait_until
from penstock import ConfigError
from penstock.cli.run_worker import find_app

SHOP = """
import asyncio, os, penstock

app = penstock.App()
log = open(os.environ["SHOP_LOG"], "a", buffering=1)

@app.on("orders", group="billing", concurrency=4, lease=float(os.environ["SHOP_LEASE"]))
async def bill(order: dict[str, str]) -> None:
    log.write(f"begin {order['n']} {os.getpid()}\\n")
    await asyncio.sleep(float(order.get("takes", "0.01")))
    log.write(f"end {order['n']} {os.getpid()}\\n")

other = 7
empty = penstock.App()
"""

FATAL = """
import os, penstock
app = penstock.App()

@app.on("orders", group="billing", lease=0.3)
async def bill(order: dict[str, str]) -> None:
    if not os.path.exists("died"):
        open("died", "w").close()
        os._exit(0)
"""


class Shop:
    """A directory with a module to run, and what its handlers have logged."""

    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        self.log = directory / "log"
        self.url = url
        self.lease = 0.5
        (directory / "shop.py").write_text(SHOP)
        (directory / "broken.py").write_text("import penstock\nraise RuntimeError('half made')\n")
        (directory / "leaving.py").write_text("import sys\nsys.exit(0)\n")
        (directory / "fatal.py").write_text(FATAL)
        (directory / "needy.py").write_text("import no_such_package\n")
        (directory / "crashing.py").write_text(
            "import os, penstock\napp = penstock.App()\nos._exit(3)\n"
        )

    def __call__(self, *arguments: str) -> Done:
        """Run to the end."""
        done = subprocess.run(
            self._command(arguments),
            capture_output=True,
            cwd=self.directory,
            env=self._environment(),
            timeout=PATIENCE,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr.decode())

    @contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run beside the test; nothing of it is left afterwards."""
        with (self.directory / "stderr").open("w") as said:
            process = subprocess.Popen(
                self._command(arguments),
                stderr=said,
                cwd=self.directory,
                env=self._environment(),
                start_new_session=True,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            for worker in self.workers():
                with suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)

    @property
    def said(self) -> str:
        """What it has said on stderr so far."""
        return (self.directory / "stderr").read_text()

    def workers(self) -> list[int]:
        """The processes that it said it started, oldest first."""
        return [int(pid) for pid in re.findall(r"is process (\d+)", self.said)]

    def lines(self, word: str) -> list[tuple[int, int]]:
        """What handlers logged: numbers, and in which process."""
        text = self.log.read_text() if self.log.exists() else ""
        found = [line.split() for line in text.splitlines()]
        return [(int(one[1]), int(one[2])) for one in found if one[0] == word]

    def ended(self) -> set[int]:
        """The numbers that were handled."""
        return {number for number, _ in self.lines("end")}

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "penstock", "run", *arguments]

    def _environment(self) -> dict[str, str]:
        return {**environment(self.url), "SHOP_LOG": str(self.log), "SHOP_LEASE": str(self.lease)}


@pytest.fixture
def shop(tmp_path: Path, embedded_url: str) -> Shop:
    """A module with an App, and a server."""
    return Shop(tmp_path, embedded_url)


def fill(stored: Any, count: int, takes: float = 0.01, first: int = 0) -> None:
    """Orders, as another program would append them."""
    pipeline = stored.pipeline()
    for number in range(first, first + count):
        pipeline.xadd("orders", {"n": number, "takes": takes})
    pipeline.execute()


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def pending(stored: Any) -> int:
    """What the group has handed out, and nobody has acked."""
    return int(stored.xpending("orders", "billing")["pending"])


def test_one_process_handles_until_it_is_told_to_end(shop: Shop, stored: Any) -> None:
    """SIGTERM drains: the call that runs ends, the exit code is 0, nothing is pending."""
    fill(stored, 20)
    with shop.running("shop") as process:
        wait_until(lambda: len(shop.ended()) == 20)
        fill(stored, 1, takes=0.5, first=20)
        wait_until(lambda: (20, process.pid) in shop.lines("begin"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    assert shop.ended() == set(range(21))
    assert pending(stored) == 0
    assert "running 1 handler at redis://" in shop.said
    assert "drained" in shop.said


def test_a_second_signal_cuts_and_hands_back(shop: Shop, stored: Any) -> None:
    """The event is not acked, and not counted as failed: another member has it at once."""
    fill(stored, 1, takes=60)
    with shop.running("shop:app") as process:
        wait_until(lambda: bool(shop.lines("begin")))
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 128 + signal.SIGTERM
    assert shop.lines("end") == []
    began = time.monotonic()
    with shop.running("shop:app"):
        wait_until(lambda: len(shop.lines("begin")) == 2)
    assert time.monotonic() - began < PATIENCE


def test_the_budget_of_a_drain_is_kept(shop: Shop, stored: Any) -> None:
    """What takes longer than --drain is cut, and told."""
    fill(stored, 1, takes=60)
    with shop.running("shop", "--drain", "0.3") as process:
        wait_until(lambda: bool(shop.lines("begin")))
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 128 + signal.SIGTERM
    assert "1 calls of bill" in shop.said


def test_a_killed_worker_starts_again_and_nothing_is_lost(shop: Shop, stored: Any) -> None:
    """Kill -9 under load: the others take over what it held, and each order is handled."""
    fill(stored, 300, takes=0.02)
    with shop.running("shop", "--processes", "3") as process:
        wait_until(lambda: len(shop.ended()) >= 40)
        victim = shop.lines("end")[-1][1]
        held = {n for n, pid in shop.lines("begin") if pid == victim} - shop.ended()
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(shop.ended()) == 300)
        wait_until(lambda: len(shop.workers()) == 4)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        assert not any(map(alive, shop.workers()))
    twice = len(shop.lines("end")) - 300
    assert twice <= len(held) + 20  # what was in flight when it died
    assert pending(stored) == 0
    assert "was ended by SIGKILL; it starts again in" in shop.said


def test_workers_end_when_their_parent_is_killed(shop: Shop, stored: Any) -> None:
    """However it went: they notice by a pipe, drain, and are gone."""
    with shop.running("shop", "--processes", "2") as process:
        fill(stored, 1, takes=0.5)
        wait_until(lambda: bool(shop.lines("begin")))
        wait_until(lambda: shop.said.count("running 1 handler") == 2)
        process.kill()
        process.wait()
        wait_until(lambda: not any(map(alive, shop.workers())))
    assert shop.ended() == {0}
    assert pending(stored) == 0


def test_a_rolling_restart_loses_and_delays_nothing(shop: Shop, stored: Any) -> None:
    """One after the other is drained under load; nothing waits for a lease, nothing comes twice."""
    shop.lease = 3 * PATIENCE
    with shop.running("shop", "--processes", "2") as old:
        fill(stored, 100, takes=0.02)
        wait_until(lambda: len(shop.ended()) >= 20)
        second = subprocess.Popen(
            shop._command(("shop",)), cwd=shop.directory, env=shop._environment()
        )
        try:
            old.send_signal(signal.SIGTERM)
            assert old.wait(PATIENCE) == 0
            fill(stored, 1, first=100)  # for the second one alone: it runs, and can be told to end
            wait_until(lambda: len(shop.ended()) == 101)
        finally:
            second.send_signal(signal.SIGTERM)
            assert second.wait(PATIENCE) == 0
    assert len(shop.lines("end")) == 101
    assert pending(stored) == 0


def test_a_crash_loop_is_given_up(shop: Shop) -> None:
    """It is told each time, with growing pauses, and ends with 1."""
    done = shop("crashing", "--processes", "2")
    assert done.code == 1
    assert done.err.count("ended with exit code 3") == 4
    assert "died 5 times in a row" in done.err


def test_a_worker_that_leaves_without_a_word_starts_again(shop: Shop, stored: Any) -> None:
    """An exit code of 0 is that of whatever called `os._exit`, not the App's end."""
    fill(stored, 3)
    with shop.running("fatal", "--processes", "1") as process:
        wait_until(lambda: len(shop.workers()) == 2)
        wait_until(lambda: stored.xinfo_groups("orders")[0]["lag"] == 0 and not pending(stored))
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    assert "left with exit code 0 before its App had ended; it starts again" in shop.said


def test_standard_streams_that_are_closed_are_nobodys_connection(shop: Shop, stored: Any) -> None:
    """A supervisor may close them; a connection would get the number, and what is printed there."""
    fill(stored, 3)
    closed = [*shop._command(("shop",)), "<&-", ">&-", "2>&-"]
    process = subprocess.Popen(
        ["sh", "-c", f"exec {' '.join(closed)}"], cwd=shop.directory, env=shop._environment()
    )
    try:
        wait_until(lambda: shop.ended() == {0, 1, 2})
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()


def test_a_second_signal_ends_all_processes(shop: Shop, stored: Any) -> None:
    """The parent waits for the hand-back, a moment, and not for the calls."""
    fill(stored, 20, takes=60)
    with shop.running("shop", "--processes", "2") as process:
        wait_until(lambda: len({pid for _, pid in shop.lines("begin")}) == 2)
        process.send_signal(signal.SIGINT)
        wait_until(lambda: "draining 2 workers" in shop.said)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 128 + signal.SIGINT
        assert not any(map(alive, shop.workers()))
    assert shop.lines("end") == []


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nowhere:app", "there is no module 'nowhere'"),
        ("shop.more:app", "there is no module 'shop.more'"),
        ("shop:nothing", "the module has no 'nothing'; it has shop:app, shop:empty"),
        ("shop:other", "the module has a int there"),
        ("shop.py", "must be MODULE:APP"),
        (":app", "must be MODULE:APP"),
    ],
)
def test_what_to_run_is_found_or_it_is_said_why_not(
    shop: Shop, target: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its path from the current directory."""
    monkeypatch.chdir(shop.directory)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("SHOP_LOG", os.devnull)
    monkeypatch.setenv("SHOP_LEASE", "0.5")
    for name in ("shop", "nowhere"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    assert repr(find_app("shop")) == "<App idle: bill>"
    with pytest.raises(ConfigError, match=said):
        find_app(target)
    sys.modules.pop("shop").log.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("shop:empty",), 2, "at least one handler"),
        (("broken",), 2, "RuntimeError: half made"),
        (("needy",), 2, "No module named 'no_such_package'"),
        (("leaving",), 2, "left by sys.exit(0) while it was imported"),
        (("leaving", "--processes", "2"), 2, "left by sys.exit(0) while it was imported"),
        (("shop", "--url", "memory://", "--processes", "2"), 2, "one process's own"),
        (("shop", "--url", "redis://127.0.0.1:1?timeout=0.5"), 1, "127.0.0.1:1"),
    ],
    ids=["empty", "broken", "needy", "leaving", "all leaving", "memory", "away"],
)
def test_what_is_wrong_is_said(
    shop: Shop, arguments: tuple[str, ...], code: int, said: str
) -> None:
    """A sentence, or the traceback of the user's own module."""
    done = shop(*arguments)
    assert (done.code, said in done.err) == (code, True), done.err
    assert ("Traceback" in done.err) == (arguments[0] in {"broken", "needy"})
