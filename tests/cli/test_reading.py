"""``penstock read``: what is printed, from where, until when."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from cli.shell import PATIENCE, Shell, environment, wait_until


@pytest.fixture
def numbers(shell: Shell) -> bytes:
    """The stream ``numbers``: 0 to 9; the lines that `read` prints of it."""
    lines = b"".join(b'{"n":"%d"}\n' % number for number in range(10))
    shell("append", "numbers", stdin=lines)
    return lines


def test_values_are_printed_from_the_oldest_to_the_end(shell: Shell, numbers: bytes) -> None:
    """And then it ends."""
    done = shell("read", "numbers")
    assert (done.code, done.out, done.err) == (0, numbers, "")


def test_start_and_count_choose(shell: Shell, numbers: bytes) -> None:
    """A position is excluded, a time included."""
    lines = numbers.splitlines(keepends=True)
    events = [json.loads(line) for line in shell("read", "numbers", "--events").out.splitlines()]
    assert shell("read", "numbers", "--count", "3").out == b"".join(lines[:3])
    after = ("--start", events[6]["position"])
    assert shell("read", "numbers", *after).out == b"".join(lines[7:])
    assert shell("read", "numbers", *after, "--count", "1").out == lines[7]
    assert shell("read", "numbers", "--start", "newest").out == b""
    assert shell("read", "numbers", "--start", "2020-01-01T00:00:00Z").out == numbers
    assert shell("read", "numbers", "--start", "2120-01-01T00:00:00+02:00").out == b""


@pytest.mark.parametrize("start", ["soon", "2026-01-01", "2026-01-01T00:00:00", "1-2-3", ""])
@pytest.mark.usefixtures("numbers")
def test_a_start_that_is_none_is_refused(shell: Shell, start: str) -> None:
    """With what it may be; a time must say its zone."""
    done = shell("read", "numbers", "--start", start)
    assert (done.code, done.out) == (2, b"")
    assert "--start must be oldest, newest, a position" in done.err


def test_where_chooses_by_topic(shell: Shell) -> None:
    """A topic, or a glob."""
    for topic in ("eu.de", "eu.fr", "us"):
        shell("append", "orders", "--topic", topic, stdin=b'{"to":"%s"}\n' % topic.encode())
    assert shell("read", "orders", "--where", "us").out == b'{"to":"us"}\n'
    assert shell("read", "orders", "--where", "eu.*").out.count(b"\n") == 2


def test_bytes_that_are_no_text_are_printed_as_base64(shell: Shell, stored: Any) -> None:
    """In values; names that are no UTF-8 are escaped."""
    shell("append", "logs", "--text", stdin=b"text\n\xff\0\n")
    assert shell("read", "logs").out == b'"text"\n{"base64":"/wA="}\n'
    stored.execute_command("XADD", "foreign", "*", b"a", b"\xff\0", b"\xfe", "é")
    found = json.loads(shell("read", "foreign").out)
    assert found == {"a": {"base64": "/wA="}, "\udcfe": "é"}


def test_a_foreign_stream_is_read_as_fields(shell: Shell, stored: Any) -> None:
    """By whatever name."""
    stored.xadd("my key:7", {"a": "1"})
    assert shell("read", "my key:7").out == b'{"a":"1"}\n'


def test_an_undecodable_value_is_said_and_passed_over(shell: Shell, stored: Any) -> None:
    """The others are printed; exit code 1."""
    shell("append", "orders", "--layout", "value", stdin=b"1\n")
    position = stored.xadd("orders", {"p": "{"}).decode()
    shell("append", "orders", stdin=b"3\n")
    done = shell("read", "orders")
    assert (done.code, done.out) == (1, b"1\n3\n")
    assert f"event {position} of 'orders' is undecodable" in done.err


@pytest.mark.usefixtures("numbers")
def test_what_was_trimmed_behind_the_start_is_said(shell: Shell, stored: Any) -> None:
    """What is left is printed; exit code 1."""
    events = [json.loads(line) for line in shell("read", "numbers", "--events").out.splitlines()]
    stored.execute_command("XTRIM", "numbers", "MAXLEN", 2)
    done = shell("read", "numbers", "--start", events[3]["position"])
    assert (done.code, done.out) == (1, b'{"n":"8"}\n{"n":"9"}\n')
    assert f"behind {events[3]['position']} were trimmed from stream 'numbers'" in done.err


def test_json_that_spans_lines_is_printed_on_one(shell: Shell, stored: Any) -> None:
    """A value a line, whoever wrote it."""
    shell("append", "orders", "--layout", "value", stdin=b"1\n")
    stored.xadd("orders", {"p": '{\n "a": 1.10\n}'})
    assert shell("read", "orders").out == b'1\n{"a":1.10}\n'


@pytest.mark.usefixtures("numbers")
def test_text_of_fields_is_refused(shell: Shell) -> None:
    """They have no bytes of their own."""
    done = shell("read", "numbers", "--text")
    assert done.code == 2
    assert "those of 'numbers' are fields" in done.err


def test_follow_prints_what_comes_later(shell: Shell, numbers: bytes) -> None:
    """At once; an interrupt ends it."""
    with shell.running("read", "numbers", "--follow", "--start", "oldest") as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(10)] == numbers.splitlines(keepends=True)
        shell("append", "numbers", stdin=b'{"n":"later"}\n')
        assert process.stdout.readline() == b'{"n":"later"}\n'
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_follow_starts_with_what_is_new_and_waits_for_a_stream(shell: Shell, stored: Any) -> None:
    """The stream need not be there yet."""
    with shell.running("read", "logs", "--follow", "--text", "--count", "1") as process:
        assert process.stderr is not None
        assert process.stdout is not None
        assert b"waiting for it" in process.stderr.readline()
        wait_until(lambda: any(one["cmd"] == "xread" for one in stored.client_list()))
        shell("append", "logs", "--text", stdin=b"\xff\n")
        assert process.stdout.readline() == b"\xff\n"
        assert process.wait(PATIENCE) == 0


def test_a_group_acks_what_was_printed_and_nothing_else(shell: Shell, stored: Any) -> None:
    """Ten are printed and acked; the next member gets the eleventh."""
    lines = [b"line %d\n" % number for number in range(5000)]
    shell("append", "logs", "--text", stdin=b"".join(lines))
    read = ("read", "logs", "--text", "--group", "g", "--member", "m")
    assert shell(*read, "--count", "10").out == b"".join(lines[:10])
    done = shell(*read)
    assert (done.code, done.err) == (0, "")
    assert sorted(done.out.splitlines(keepends=True)) == sorted(lines[10:])
    assert stored.xpending("logs", "g")["pending"] == 0
    assert shell(*read).out == b""


def test_a_start_that_a_group_ignores_is_said(shell: Shell) -> None:
    """It goes on where it stands; without --start there is nothing to say."""
    shell("append", "logs", "--text", stdin=b"one\n")
    assert shell("read", "logs", "--group", "g").err == ""
    assert shell("read", "logs", "--group", "g").err == ""
    done = shell("read", "logs", "--group", "g", "--start", "newest")
    assert done.code == 0
    assert "group 'g' of 'logs' exists and goes on where it stands" in done.err


def test_a_group_member_whose_reader_goes_away_acks_nothing_more(shell: Shell, stored: Any) -> None:
    """What was not printed comes to the next member."""
    line = b"x" * 1000
    shell("append", "logs", "--text", stdin=(line + b"\n") * 3000)
    read = ("read", "logs", "--text", "--group", "g")
    with shell.running(*read) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.wait(PATIENCE) == 141
        assert process.stderr.read() == b""
    again: list[bytes] = []
    while found := shell(*read).out.splitlines():
        again += found
    assert 1000 < len(again) <= 3000
    assert stored.xpending("logs", "g")["pending"] == 0


def test_an_undecodable_event_is_not_acked(shell: Shell, stored: Any) -> None:
    """It was not printed: it stays for whoever can read it."""
    shell("append", "orders", "--layout", "value", stdin=b"1\n")
    stored.xadd("orders", {"p": "{"})
    for expected in (b"1\n", b""):
        done = shell("read", "orders", "--group", "g")
        assert (done.code, done.out) == (1, expected)


@pytest.mark.parametrize("options", [(), ("--follow", "--start", "oldest")])
def test_a_closed_pipe_ends_it_quietly(shell: Shell, options: tuple[str, ...]) -> None:
    """``penstock read | head -1``."""
    shell("append", "logs", "--text", stdin=b"some text\n" * 50_000)
    command = " ".join([sys.executable, "-m penstock read logs --text", *options])
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -1; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        env=environment(shell.url),
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (141, b"some text\n", b"")


@pytest.mark.usefixtures("numbers")
def test_follow_notices_a_closed_pipe_while_nothing_comes(shell: Shell) -> None:
    """It does not wait for the next event to find out."""
    with shell.running("read", "numbers", "--follow", "--start", "oldest") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        time.sleep(0.3)  # all is printed; were it not, the next write would find out
        process.stdout.close()
        assert process.wait(PATIENCE) == 141
        assert process.stderr.read() == b""


def test_options_that_exclude_each_other_are_refused(shell: Shell) -> None:
    """Exit code 2: the call is wrong."""
    for options in (("--member", "m"), ("--text", "--events"), ("--count", "0")):
        done = shell("read", "numbers", *options)
        assert done.code == 2, done
        assert done.err


MEASURE = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", "penstock", *sys.argv[1:]], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
"""
"""A small parent: a child counts as large as its parent was when it was made."""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel counts in other units")
def test_memory_is_flat(shell: Shell) -> None:
    """Forty megabytes of lines, in and out, take no more than a few do."""
    text = b"".join(b"%0200d\n" % number for number in range(200_000))
    for arguments, given, expected in (
        (("append", "logs", "--text"), text, b""),
        (("read", "logs", "--text"), b"", text),
    ):
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, *arguments],
            input=given,
            capture_output=True,
            env=environment(shell.url),
            timeout=2 * PATIENCE,
            check=True,
        )
        assert done.stdout == expected
        assert int(done.stderr.split()[-1]) < 100_000, "KiB"
