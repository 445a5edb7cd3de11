"""Run every example, as a reader would, and say which one fails.

An example is a program ``examples/<nn>_<name>.py`` that ends by itself. It is run with
``$PENSTOCK_URL`` set to a server that goes with it, unless the caller has set one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"
LIMIT = 60.0  # seconds; an example is for reading, not for waiting


def main() -> int:
    """Run the examples that were named, else all; 1 if one failed or there is none."""
    names = sys.argv[1:]
    files = [Path(name) for name in names] or sorted(EXAMPLES.glob("[0-9]*.py"))
    failed = [file.name for file in files if not run(file)]
    print(f"{len(files) - len(failed)} of {len(files)} examples ran" + _list(failed))
    return 1 if failed or not files else 0


def run(file: Path) -> bool:
    """Run one; print what it said only if it failed."""
    started = time.monotonic()
    environment = {"PENSTOCK_URL": "embedded://?temporary"} | os.environ
    try:
        done = subprocess.run(
            [sys.executable, str(file)],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        code, said = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired as late:
        code, said = 124, f"not done after {LIMIT} s\n{late.stdout or ''}{late.stderr or ''}"
    print(f"{'ok    ' if code == 0 else 'FAILED'} {file.name} {time.monotonic() - started:.1f} s")
    if code:
        print(said)
    return code == 0


def _list(names: list[str]) -> str:
    return f"; failed: {', '.join(names)}" if names else ""


if __name__ == "__main__":
    sys.exit(main())
