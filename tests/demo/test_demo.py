"""The demo as people run it: real processes, a real server, and what is left afterwards."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import subprocess
import sys
import time

import pytest

import penstock
from demo.running import Running, windows
from embedded.machinery import marked
from support.meter import lost

SOME = ("--rate=5000",)  # enough to see, and kind to a machine that runs other tests


def test_ten_seconds_in_small() -> None:
    """Nothing lost, nothing twice, everybody at work, and the averages as they must be."""
    with Running("--seconds=4") as running:
        assert running.end() == 0, running.errors
        summary = running.summary()

    assert summary["lost"] == summary["duplicated"] == summary["left_over"] == 0
    assert set(summary["consumed"]) == {"alfred", "bob"}
    assert all(summary["consumed"].values())
    assert sum(summary["consumed"].values()) == summary["produced"] > 1000
    assert summary["events_per_second"] == pytest.approx(
        summary["produced"] / summary["seconds"], rel=0.01
    )
    for member in ("alfred", "bob"):
        lines = windows(running, member)
        assert {line["partition"] for line in lines if line["count"]} == set(range(8))
        assert {line["of"] for line in lines} == {8}
        assert sum(line["count"] for line in lines) == summary["consumed"][member]
    assert all(
        4800 <= line["average"] <= 5200 for line in windows(running) if line["count"] >= 5000
    )
    assert running.said("clock")[-1]["newest"]["seq"] < summary["produced"]
    assert running.errors == ""


def test_a_pipe_gets_plain_text() -> None:
    with Running("--seconds=3.5", *SOME, json_lines=False) as running:
        assert running.end() == 0, running.errors
    text = "\n".join(running.lines)

    assert "\x1b" not in text
    assert re.search(
        r"^alfred +partition 8 of 8 +count +\d+ +average +\d+\.\d +last \d\d:\d\d:\d\d\.\d{3}$",
        text,
        re.MULTILINE,
    )
    assert re.search(r"^\d\d:\d\d:\d\d +[\d,]+ events/s .* newest +\d+ at ", text, re.MULTILINE)
    assert re.search(r"^lost 0 +duplicated 0$", text, re.MULTILINE)


def test_a_terminal_gets_a_table_for_each_member() -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "penstock.cli.demo", "--seconds=1", *SOME]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = _read_all(ours)
        assert process.wait() == 0
    assert "alfred" in shown
    assert "8 of 8" in shown
    assert "╮" in shown
    assert shown.index("newest") < shown.index("lost 0")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--partitions=0"], "0 is not in the range"),
        (["--members="], "1 to 100 names joined by commas"),
        (["--members=a,,b"], "1 to 100 names joined by commas"),
        (["--members=a,b,a"], "a name of its own, got 'a,b,a'"),
        (["--members=a b"], "without spaces"),
        (["--members=-x"], "must not begin with '-'"),
        (["--rate=0"], "must be a number above 0, got 0"),
        (["--rate=nan"], "must be a number above 0, got nan"),
        (["--rate=fast"], "is not a valid float"),
        (["--seconds=-1"], "must be a number above 0, got -1"),
        (["--seconds=inf"], "must be a number above 0, got inf"),
        (["--url=memory://"], "must name a server"),
        (["--url=nonsense"], "a URL must look like"),
        (["--url=redis://u:secret@h:x/"], "name and a number"),
    ],
)
def test_a_wrong_option_is_a_usage_error(options: list[str], sentence: str) -> None:
    with Running(*options) as running:
        assert running.end() == 2
    assert sentence in re.sub(r"\s+", " ", running.errors)
    assert "Traceback" not in running.errors
    assert "secret" not in running.errors
    assert running.lines == []


def test_a_server_that_does_not_answer_is_said() -> None:
    with Running("--url=redis://:secret@localhost:1") as running:
        assert running.end() == 1
    assert "localhost:1" in running.errors
    assert "secret" not in running.errors
    assert "Traceback" not in running.errors


def test_kill_9_of_bob_loses_nothing() -> None:
    """Alfred takes over within one and a half leases of 2 s."""
    with Running("--seconds=9", "--rate=20000") as running:
        bob = running.started()["bob"]
        assert re.search(r"\bbob\b", marked(running.mark)[bob])
        running.until(lambda: windows(running, "bob"), "bob has reported")
        time.sleep(1.5)  # into the middle of a window
        os.kill(bob, signal.SIGKILL)
        died = time.monotonic()
        running.until(lambda: "takes over" in str(running.said("remark")), "alfred takes over")
        assert time.monotonic() - died < 3.0 + 5.0 + lost(died)
        assert running.end() == 0, running.errors
        summary = running.summary()

    assert summary["lost"] == 0
    assert summary["died"] == ["bob"]
    assert summary["consumed"]["alfred"] > summary["consumed"]["bob"] > 0
    assert "killed by SIGKILL" in running.said("remark")[0]["text"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains_and_sums_up(number: signal.Signals) -> None:
    with Running(*SOME) as running:
        running.started()
        running.until(lambda: running.said("clock"), "a clock line")
        running.process.send_signal(number)
        assert running.end() == 0, running.errors
        summary = running.summary()
    assert summary["lost"] == summary["duplicated"] == 0
    assert sum(summary["consumed"].values()) == summary["produced"] > 0


def test_a_second_signal_ends_at_once() -> None:
    with Running(*SOME) as running:
        members = running.started()
        os.kill(members["bob"], signal.SIGSTOP)  # so that the drain has to wait for his lease
        running.until(lambda: running.said("clock"), "a clock line")
        running.process.send_signal(signal.SIGINT)
        running.until(lambda: "draining" in str(running.said("remark")), "it drains")
        asked = time.monotonic()
        running.process.send_signal(signal.SIGINT)
        assert running.end() == 130
        assert time.monotonic() - asked < 2.0 + lost(asked)
        running.nothing_left()
    assert "Traceback" not in running.errors


def test_nothing_outlives_a_parent_that_is_killed() -> None:
    with Running() as running:
        running.started()
        running.until(lambda: running.said("clock"), "a clock line")
        assert len(marked(running.mark)) >= 4  # the parent, two members, the server
        running.process.kill()
        running.nothing_left()


def test_when_all_members_have_died_it_says_so_and_ends() -> None:
    with Running(*SOME) as running:
        for pid in running.started().values():
            os.kill(pid, signal.SIGKILL)
        assert running.end() == 1
        running.nothing_left()
    assert "all of alfred, bob have died" in running.errors.replace("bob, alfred", "alfred, bob")
    assert "Traceback" not in running.errors


def test_whoever_stops_reading_ends_it_quietly() -> None:
    command = [sys.executable, "-m", "penstock.cli.demo", "--json", *SOME]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert '"type": "start"' in process.stdout.readline()
        process.stdout.close()
        assert process.wait(20) == 1
        assert process.stderr.read() == ""


def test_one_member_and_odd_partitions() -> None:
    with Running("--seconds=1", "--members=solo", "--partitions=3", *SOME) as running:
        assert running.end() == 0, running.errors
    assert {line["partition"] for line in windows(running, "solo")} == {0, 1, 2}
    assert running.summary()["lost"] == 0


def test_a_rate_is_kept() -> None:
    with Running("--seconds=3", "--rate=400") as running:
        assert running.end() == 0, running.errors
    assert running.summary()["produced"] == pytest.approx(1200, rel=0.1)


def test_a_killed_run_leaves_events_and_the_next_consumes_them(embedded_url: str) -> None:
    """It goes on with the numbering, and says how many were left over."""
    with Running(f"--url={embedded_url}", "--rate=500") as running:
        running.started()
        running.until(lambda: windows(running), "a window is closed")
        running.process.kill()
    produced = running.said("clock")[-1]["produced"]

    with Running(f"--url={embedded_url}", "--seconds=2", "--rate=500") as running:
        assert running.end() == 0, running.errors
        summary = running.summary()
    assert summary["lost"] == summary["duplicated"] == 0
    assert summary["left_over"] > 0
    assert sum(summary["consumed"].values()) == summary["produced"]
    assert running.said("clock")[-1]["newest"]["seq"] > produced
    asyncio.run(_nothing_to_do(embedded_url))


def test_a_given_server_keeps_20_000_events(embedded_url: str) -> None:
    """More only as long as they are not acked."""
    with Running(f"--url={embedded_url}", "--rate=30000") as running:
        running.until(lambda: _produced(running) > 40_000, "it has produced more than that")
        running.process.send_signal(signal.SIGINT)
        assert running.end() == 0, running.errors
    assert asyncio.run(_length(embedded_url)) == 20_000


def test_two_demos_on_one_stream_are_refused(embedded_url: str) -> None:
    with Running(f"--url={embedded_url}", *SOME) as first:
        first.started()
        with Running(f"--url={embedded_url}", "--members=carol", *SOME) as second:
            assert second.end() == 1
        assert "must have its stream for itself" in second.errors
        first.process.send_signal(signal.SIGINT)
        assert first.end() == 0
        assert first.summary()["lost"] == 0


def _produced(running: Running) -> int:
    """How many events, as far as it has told."""
    return int(running.said("clock")[-1]["produced"]) if running.said("clock") else 0


async def _length(url: str) -> int:
    async with penstock.connect(url) as client:
        return await client.stream("penstock-demo").length()


async def _nothing_to_do(url: str) -> None:
    """No event of the group is left, in whatever state, and no member."""
    async with penstock.connect(url) as client:
        (group,) = await client.stream("penstock-demo").groups()
        assert (group.lag, group.pending, group.parked, group.members) == (0, 0, 0, ())


def _read_all(descriptor: int) -> str:
    """Everything until the other end closes, which Linux tells by an error."""
    shown = b""
    try:
        while piece := os.read(descriptor, 65536):
            shown += piece
    except OSError:
        pass
    os.close(descriptor)
    return shown.decode()
