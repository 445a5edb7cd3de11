"""``penstock append``: what becomes of lines."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from cli.shell import PATIENCE, Shell, wait_until


def test_an_object_a_line_becomes_fields(shell: Shell, stored: Any) -> None:
    """Text and numbers as redis-cli would show them; how many is said on stderr."""
    done = shell("append", "orders", stdin=b'{"id": 7, "state": "paid"}\n{"amount": 1.5}\n')
    assert (done.code, done.out) == (0, b"")
    assert done.err == "appended 2 events to 'orders'\n"
    entries = [fields for _, fields in stored.xrange("orders")]
    assert entries == [{b"id": b"7", b"state": b"paid"}, {b"amount": b"1.5"}]


def test_layout_value_keeps_any_json_as_it_was_written(shell: Shell) -> None:
    """Nested values, null, and the digits of a number."""
    lines = b'{"a":[1,{"b":null}],"price":1.10}\n"text"\n12345678901234567890123\n'
    assert shell("append", "orders", "--layout", "value", stdin=lines).code == 0
    assert shell("read", "orders").out == lines


def test_an_existing_stream_keeps_its_kind(shell: Shell) -> None:
    """JSON is adopted: no option is needed the second time."""
    shell("append", "orders", "--layout", "value", stdin=b'{"a":[1]}\n')
    assert shell("append", "orders", stdin=b'{"a":[2]}\n').code == 0
    assert shell("read", "orders").out == b'{"a":[1]}\n{"a":[2]}\n'


def test_metadata_is_given_for_all_or_taken_from_a_field(shell: Shell, stored: Any) -> None:
    """The key of each event may come out of it."""
    options = ("--topic", "eu", "--name", "paid", "--key-field", "id")
    assert shell("append", "orders", *options, stdin=b'{"id":7}\n{"id":"x"}\n').code == 0
    first, second = [fields for _, fields in stored.xrange("orders")]
    assert first[b"penstock.key"], second[b"penstock.key"] == (b"7", b"x")
    assert (first[b"penstock.topic"], first[b"penstock.name"]) == (b"eu", b"paid")


def test_a_missing_key_field_is_refused_with_its_line(shell: Shell, stored: Any) -> None:
    """The line before it is stored."""
    done = shell("append", "orders", "--key-field", "id", stdin=b'{"id":7}\n{"x":1}\n')
    assert done.code == 1
    assert "line 2 of standard input: it must have the field 'id'" in done.err
    assert stored.xlen("orders") == 1


def test_files_are_appended_in_order(shell: Shell, tmp_path: Path) -> None:
    """A line number is that of its file."""
    (tmp_path / "a").write_bytes(b'{"n":1}\n{"n":2}')
    (tmp_path / "b").write_bytes(b'\n{"n":3}\nno\n')
    done = shell("append", "orders", str(tmp_path / "a"), str(tmp_path / "b"), "--json")
    assert done.code == 1
    assert f"line 3 of {tmp_path / 'b'}: it must be a JSON object" in done.err
    summary = json.loads(done.out)
    assert (summary["stream"], summary["appended"]) == ("orders", 3)
    assert "line 3" in summary["error"]
    assert shell("read", "orders").out == b'{"n":"1"}\n{"n":"2"}\n{"n":"3"}\n'


def test_text_comes_back_byte_for_byte(shell: Shell) -> None:
    """Carriage returns, NUL, invalid UTF-8, empty lines, and no newline at the end."""
    rng = random.Random(7)
    alphabet = [b"\r", b"\0", b"\xff", b"\xc3\xa9", b"\n", b"\n", b"a", b"\x1b", b'"', b"\xed\xa0"]
    text = b"".join(rng.choice(alphabet) for _ in range(20_000)) + b"end"
    assert shell("append", "logs", "--text", stdin=text).code == 0
    assert shell("read", "logs", "--text").out == text + b"\n"
    assert shell("info", "logs", "--json").code == 0


def test_a_large_text_comes_back_in_order(shell: Shell) -> None:
    """More than is pending at once, and than a pipe holds."""
    text = b"".join(b"line %d\n" % number for number in range(30_000))
    done = shell("append", "logs", "--text", stdin=text)
    assert (done.code, done.err) == (0, "appended 30000 events to 'logs'\n")
    assert shell("read", "logs", "--text").out == text


def test_a_line_is_stored_while_the_pipe_stays_open(shell: Shell, stored: Any) -> None:
    """``tail -f log | penstock append``: nothing waits for the end."""
    with shell.running("append", "logs", "--text") as process:
        assert process.stdin is not None
        process.stdin.write(b"first\nsec")
        process.stdin.flush()
        wait_until(lambda: stored.xlen("logs") == 1)
        process.stdin.write(b"ond\n")
        process.stdin.flush()
        wait_until(lambda: stored.xlen("logs") == 2)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_stores_what_came_and_says_how_much(
    shell: Shell, stored: Any, number: int, code: int
) -> None:
    """Nothing half-done goes unsaid."""
    with shell.running("append", "logs", "--text") as process:
        assert process.stdin is not None
        process.stdin.write(b"one\ntwo\nthr")
        process.stdin.flush()
        wait_until(lambda: stored.xlen("logs") == 2)
        process.send_signal(number)
        assert process.wait(PATIENCE) == code
        assert process.stderr is not None
        assert process.stderr.read() == b"interrupted; 2 events are stored in 'logs'\n"


def test_refused_lines_leave_no_mark(shell: Shell, stored: Any) -> None:
    """The advice to use another layout can be followed."""
    assert shell("append", "orders", stdin=b'{"a":null}\n').code == 1
    assert stored.keys() == []
    assert shell("append", "orders", "--layout", "value", stdin=b'{"a":null}\n').code == 0
    assert shell("read", "orders").out == b'{"a":null}\n'


def test_nothing_appended_makes_no_stream(shell: Shell, stored: Any) -> None:
    """No lines, no stream, no error."""
    for options in ((), ("--text",), ("--events",)):
        done = shell("append", "orders", *options)
        assert (done.code, done.err) == (0, "appended 0 events to 'orders'\n")
    assert stored.keys() == []
