"""Bad input, and what it gets: issue 2's table, row by row, on the command line.

Each: an exit code (2 for a call that is wrong, 1 for the rest), one sentence that says what must
hold, what was given and what to do, no traceback, and nothing stored that is not said.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.shell import PATIENCE, Shell, environment

WRONG_URLS = [
    ("foo://localhost", "scheme must be one that is known, got 'foo'"),
    ("localhost:6379", "must look like scheme://"),
    ("redis://localhost:port", "a number from 1 to 65535"),
    ("redis://localhost:0", "must be from 1 to 65535"),
    ("redis://localhost/db", "a database must be a whole number"),
    ("redis://localhost?colour=red", "got 'colour'"),
    ("kafka://localhost", "not offered yet"),
]


@pytest.mark.parametrize(("url", "reason"), WRONG_URLS)
def test_a_wrong_url_is_a_wrong_call(url: str, reason: str) -> None:
    """Whichever command it is given to, by option or environment."""
    for command in (("read", "s"), ("append", "s"), ("info",), ("pending", "s", "g")):
        for done in (Shell("")(*command, "--url", url), Shell(url)(*command)):
            assert (done.code, done.out) == (2, b"")
            assert done.err.startswith("error: ")
            assert reason in done.err


def test_no_url_names_the_way_out() -> None:
    """A server of one's own is one word away."""
    for command in (("read", "s"), ("append", "s"), ("info",), ("trim", "s", "--max-events", "1")):
        done = Shell("")(*command)
        assert done.code == 2
        assert "$PENSTOCK_URL" in done.err
        assert "embedded://" in done.err


WRONG_NAMES = ["", "n" * 250, "two words", "glob*", "what?", "orders:7", "{a}{b}", "näme"]


@pytest.mark.parametrize("name", WRONG_NAMES)
@pytest.mark.parametrize("options", [(), ("--text",), ("--events",)])
def test_a_wrong_name_is_a_wrong_call(
    shell: Shell, stored: Any, name: str, options: tuple[str, ...]
) -> None:
    """Nothing is stored under it."""
    done = shell("append", name, *options, stdin=b'{"fields":"1"}\n')
    assert done.code == 2
    assert "a stream's name must" in done.err
    assert "foreign=True" not in done.err  # that is how a program says --foreign
    assert stored.keys() == []


def test_an_existing_foreign_key_is_appended_to_by_an_option(shell: Shell, stored: Any) -> None:
    """Whatever it is called."""
    stored.xadd("orders:7", {"a": "1"})
    refused = shell("append", "orders:7", stdin=b'{"a":2}\n')
    assert (refused.code, "--foreign" in refused.err) == (2, True)
    assert shell("append", "orders:7", "--foreign", stdin=b'{"a":2}\n').code == 0
    assert shell("read", "orders:7").out == b'{"a":"1"}\n{"a":"2"}\n'


WRONG_VALUES = [
    (b'{"a":null}', "the value of field 'a' must be text or a number, got null"),
    (b'{"a":true}', "the value of field 'a' must be text or a number, got true"),
    (b'{"a":{"b":1}}', "the value of field 'a' must be text or a number, got {\"b\":1}"),
    (b'{"a":[1]}', "the value of field 'a' must be text or a number, got [1]"),
    (b"[1]", "it must be a JSON object"),
    (b"7", "it must be a JSON object"),
    (b"{}", "at least one field"),
    (b'{"a":1}{"b":2}', "trailing characters"),
    (b'{"a":"\xff"}', "utf-8"),
    (b'{"a":"\\ud800."}', "it must be a JSON object"),
    (b"\0", "it must be a JSON object"),
    (b"{" * 100_000, "it must be a JSON object"),
    (b'{"penstock.key":1}', "must not begin with 'penstock.'"),
]


@pytest.mark.parametrize(("line", "reason"), WRONG_VALUES)
def test_a_value_that_is_no_fields_is_refused_with_its_line(
    shell: Shell, stored: Any, line: bytes, reason: str
) -> None:
    """And how to store it all the same, where there is a way."""
    done = shell("append", "orders", stdin=b'{"a":1}\n\n' + line + b'\n{"a":3}\n')
    assert done.code == 1
    assert "error: line 3 of standard input: " in done.err
    assert reason in done.err
    assert done.err.endswith("; 1 event before it is stored in 'orders'\n")
    assert stored.xlen("orders") == 1


def test_malformed_json_on_line_17_leaves_16_stored(shell: Shell, stored: Any) -> None:
    """And says both."""
    lines = b"".join(b'{"n":%d}\n' % number for number in range(1, 17))
    done = shell("append", "orders", "--json", stdin=lines + b'{"n":\n{"n":18}\n')
    assert done.code == 1
    assert "line 17 of standard input" in done.err
    assert "16 events before it are stored in 'orders'" in done.err
    summary = json.loads(done.out)
    assert summary["appended"] == 16
    assert "line 17" in summary["error"]
    assert stored.xlen("orders") == 16


BIG = b"x" * (1 << 20)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--text",), BIG),
        (("--text",), BIG * 3),
        ((), b'{"a":"' + BIG + b'"}'),
        (("--layout", "value"), b'"' + BIG + b'"'),
        (("--events",), b'{"fields":{"a":"' + BIG + b'"}}'),
        ((), b'{"a":"' + BIG * 9),
    ],
)
def test_a_line_over_the_limit_is_refused(
    shell: Shell, stored: Any, options: tuple[str, ...], line: bytes
) -> None:
    """With its number and the limit; the one before it is stored, and nothing of this one."""
    first = b'{"fields":{"a":"1"}}\n' if "--events" in options else b'{"a":1}\n'
    done = shell("append", "logs", *options, stdin=first + line + b"\n" + first)
    assert done.code == 1
    assert "error: line 2 of standard input" in done.err
    assert "1048576" in done.err or "8388608" in done.err
    assert done.err.endswith("; 1 event before it is stored in 'logs'\n")
    assert len(done.err) < 1000
    assert stored.xlen("logs") == 1


def test_an_unreachable_server_is_named_without_its_password() -> None:
    """Host and port, within the timeout."""
    url = "redis://someone:secret@127.0.0.1:1?timeout=0.3"
    for command in (("read", "s"), ("append", "s"), ("info",), ("groups", "s"), ("doctor",)):
        done = Shell("")(*command, "--url", url)
        said = done.err + done.out.decode()
        assert done.code == 1
        assert "127.0.0.1:1" in said
        assert "secret" not in said


def test_a_wrong_password_is_refused_and_not_shown(shell: Shell, stored: Any) -> None:
    """With what to look at."""
    stored.config_set("requirepass", "right")
    try:
        host = shell.url.removeprefix("redis://")
        wrong = shell("info", "--url", f"redis://default:secret@{host}?timeout=1")
        none = shell("info", "--url", f"redis://{host}?timeout=1")
        right = shell("info", "--url", f"redis://default:right@{host}")
        doctor = shell("doctor", "--url", f"redis://default:right@{host}")
    finally:
        stored.config_set("requirepass", "")
    assert (wrong.code, none.code, right.code, doctor.code) == (1, 1, 0, 0)
    assert "password" in wrong.err
    assert "secret" not in wrong.err
    assert "password" in none.err
    assert "right" not in (right.out + right.err.encode() + doctor.out).decode()


def test_a_wrong_type_of_key_is_refused(shell: Shell, stored: Any) -> None:
    """It is somebody's, and left alone."""
    stored.set("orders", "text")
    for command in (
        ("append", "orders"),
        ("append", "orders", "--text"),
        ("append", "orders", "--events"),
        ("read", "orders"),
        ("read", "orders", "--follow"),
        ("read", "orders", "--group", "g"),
        ("info", "orders"),
        ("groups", "orders"),
        ("pending", "orders", "g"),
        ("trim", "orders", "--max-events", "1"),
    ):
        done = shell(*command, stdin=b'{"fields":{"a":1}}\n')
        assert (done.code, done.out) == (1, b""), command
        assert "WRONGTYPE" in done.err
        assert "not a stream" in done.err
    assert stored.get("orders") == b"text"


def test_what_is_not_there_is_said(shell: Shell, stored: Any, tmp_path: Path) -> None:
    """And it is not made."""
    for command in (
        ("read", "nosuch"),
        ("read", "nosuch", "--group", "g"),
        ("info", "nosuch"),
        ("groups", "nosuch"),
        ("pending", "nosuch", "g"),
        ("trim", "nosuch", "--max-events", "1"),
    ):
        done = shell(*command)
        assert (done.code, done.out) == (1, b"")
        assert "there is no stream 'nosuch'" in done.err
    assert stored.keys() == []
    missing = shell("append", "orders", str(tmp_path / "nosuch"))
    assert missing.code == 2
    assert "does not exist" in missing.err


def test_another_kind_of_stream_is_a_wrong_call(shell: Shell, stored: Any) -> None:
    """The stream's own kind is said, and it is left as it is."""
    shell("append", "orders", stdin=b'{"a":1}\n')
    shell("append", "logs", "--text", stdin=b"line\n")
    for arguments in (("orders", "--text"), ("orders", "--layout", "value"), ("logs",)):
        done = shell("append", *arguments, stdin=b'{"a":2}\n')
        assert done.code == 2, done
        assert "codec" in done.err
    assert "--text" in shell("append", "logs", stdin=b"{}\n").err
    assert (stored.xlen("orders"), stored.xlen("logs")) == (1, 1)


def test_wrong_calls_are_usage_errors(shell: Shell) -> None:
    """Exit code 2, by click."""
    for command in (
        ("nosuch",),
        ("append",),
        ("append", "s", "--text", "--events"),
        ("append", "s", "--text", "--key-field", "a"),
        ("append", "s", "--events", "--key", "a"),
        ("append", "s", "--key", "a", "--key-field", "a"),
        ("append", "s", "--layout", "other"),
        ("trim", "s"),
        ("trim", "s", "--max-events", "-1"),
        ("pending", "s"),
        ("server", "--port", "0"),
    ):
        done = shell(*command)
        assert done.code == 2, command
        assert done.err


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    """One sentence; the version is still told."""
    block = "import sys; sys.modules['click'] = None; sys.modules['rich'] = None\n"
    hide = (
        "import importlib.util as u; f = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n in ('click', 'rich') else f(n, *a)\n"
    )
    run = "from penstock.cli.main import main; sys.exit(main())\n"
    (tmp_path / "run.py").write_text(block + hide + run)
    for arguments, code in ((["read", "s"], 1), ([], 1), (["--version"], 0)):
        done = subprocess.run(
            [sys.executable, str(tmp_path / "run.py"), *arguments],
            capture_output=True,
            text=True,
            env=environment("") | {"PYTHONPATH": os.pathsep.join(sys.path)},
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == code, done
        assert ("pip install 'penstock[cli]'" in done.stderr) == bool(code)
        assert "Traceback" not in done.stderr
