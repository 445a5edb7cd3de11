"""Run every example, as a reader would, and say which one fails.

An example is a program ``examples/<nn>_<name>.py`` of at most 60 lines that ends by itself, and
whose last lines say what it prints (``…`` stands for anything)::

    # Prints:
    #  | stored: 2

It is run with ``$PENSTOCK_URL`` set to a server of its own, whose data go with it, unless the
caller has set one. It fails if it ends with an error, prints something else, leaves an exception
unheard, or if ``penstock doctor --strict`` then finds anything wrong with what it left behind.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from penstock.backends.keeper import free

EXAMPLES = Path(__file__).parent.parent / "examples"
LIMIT = 60.0  # seconds; an example is for reading, not for waiting
LINES = 60  # of an example at most, for the same reason
PRINTS = "\n# Prints:\n"
LINE = "#  | "
DOCTOR = ("doctor", "--strict", "--json", "--idle", "1")
MACHINE = ("extra", "server-binary")  # about what is installed here, not about the example
UNHEARD = ("Traceback", "was never retrieved", "was never awaited")


def main() -> int:
    """Run the examples that were named, else all; 1 if one failed or there is none."""
    names = sys.argv[1:]
    files = [Path(name) for name in names] or sorted(EXAMPLES.glob("[0-9]*.py"))
    failed = [file.name for file in files if not run(file)]
    print(f"{len(files) - len(failed)} of {len(files)} examples ran" + _list(failed))
    return 1 if failed or not files else 0


def run(file: Path) -> bool:
    """Run one, and have the doctor look at what it left; print what it said only if it failed."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="penstock-example-") as data:
        environment = {"PENSTOCK_URL": f"embedded://{data}"} | os.environ
        try:
            done = process([str(file)], environment)
            wrong, said = fault(file, done), done.stdout + done.stderr
            if not wrong:
                wrong = illness(process(["-m", "penstock", *DOCTOR], environment))
        except subprocess.TimeoutExpired as late:
            wrong, said = f"not done after {LIMIT} s", f"{late.stdout or ''}{late.stderr or ''}"
        wrong = wrong or lingering(data)
    print(f"{'FAILED' if wrong else 'ok    '} {file.name} {time.monotonic() - started:.1f} s")
    if wrong:
        print(f"{wrong}; it said:\n{said}")
    return not wrong


def process(arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run this Python with *arguments* to its end, within `LIMIT`."""
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def illness(done: subprocess.CompletedProcess[str]) -> str:
    """What the doctor found wrong with the server and its streams; "" if it found nothing."""
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    wrong = [one for one in findings if one["verdict"] != "ok" and one["check"] not in MACHINE]
    if wrong or not any(one["check"] == "connection" for one in findings):
        return f"the doctor found {wrong or 'no server'} (exit code {done.returncode})"
    return ""


def lingering(data: str) -> str:
    """Wait for the server to be gone: it ends behind its last user, and still writes its files."""
    deadline = time.monotonic() + LIMIT
    while not free(data):
        if time.monotonic() > deadline:
            return f"its server still runs after {LIMIT} s"
        time.sleep(0.02)
    return ""


def fault(file: Path, done: subprocess.CompletedProcess[str]) -> str:
    """What is wrong with an example that has run; "" if nothing is."""
    text = file.read_text(encoding="utf-8")
    _, marked, tail = text.partition(PRINTS)
    promised = [line.removeprefix(LINE) for line in tail.splitlines()]
    if done.returncode:
        return f"ended with exit code {done.returncode}"
    if unheard := [words for words in UNHEARD if words in done.stderr]:
        return f"said {unheard[0]!r}"
    if not marked or len(text.splitlines()) > LINES:
        return f"must have at most {LINES} lines, and end with '# Prints:' and what it prints"
    if not matches("\n".join(promised), done.stdout):
        return "printed something else than it promises:\n" + "\n".join(promised) + "\n"
    return ""


def matches(promised: str, printed: str) -> bool:
    """Whether *printed* is what was promised, where ``…`` stands for anything in a line."""
    pattern = re.escape(promised.strip()).replace("…", ".*")
    return re.fullmatch(pattern, printed.strip()) is not None


def _list(names: list[str]) -> str:
    return f"; failed: {', '.join(names)}" if names else ""


if __name__ == "__main__":
    sys.exit(main())
