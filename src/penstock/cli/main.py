"""Main: the entry point, which must work where nothing but the core is installed.

Does        answer ``--version`` at once; say what is missing without the extra ``cli``.
Does not    import click or rich: `commands` does, when it is known that they are there.
Used by     the command ``penstock``, ``python -m penstock``.
"""

from __future__ import annotations

import importlib.util
import sys

from penstock import __version__


def main() -> int:
    """Run the command line; its exit code.

    0: done. 1: it went wrong, and a sentence on stderr says what. 2: the call is wrong, and
    nothing was started. 130: interrupted. 141: the reader of a pipe went away.
    """
    if sys.argv[1:] == ["--version"]:  # before click is imported: scripts ask for it
        print(f"penstock {__version__}")
        return 0
    missing = [name for name in ("click", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"error: the command line needs {' and '.join(missing)}, not installed here; "
            f"run: pip install 'penstock[cli]'",
            file=sys.stderr,
        )
        return 1
    from penstock.cli.commands import run

    return run(sys.argv[1:])
