"""The house rule: imports go down. Reads the source and reports ``file:line: reason``.

The table is that of DESIGN.md, "The house". A new module or folder at the top of the package needs
a line in `STOREY`, a new third-party package one in `THIRD_PARTY`: that is the moment to think.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

SRC = Path(__file__).parent.parent / "src"
MAX_LINES = 400
MAX_FOLDERS = 3  # penstock/backends/redis

STOREY = {
    **dict.fromkeys(("_version", "errors", "event", "info", "url", "signals"), 1),
    **dict.fromkeys(("codecs", "layouts", "rules"), 1),
    **dict.fromkeys(("ports", "group_ports", "shard_ports", "clock", "manual_clock"), 2),
    **dict.fromkeys(("observers", "backends", "stages"), 2),
    **dict.fromkeys(("streams", "flow", "pipeline", "__init__"), 3),
    **dict.fromkeys(("gateway", "observability", "cli", "testing", "__main__"), 4),
}
"""The storey of each module and folder directly under ``penstock``."""

APART = {
    "ports": {"backends", "stages", "clock", "observers"},
    "group_ports": {"ports", "backends", "stages", "clock", "observers"},
    "shard_ports": {"ports", "backends", "stages", "clock", "observers"},
    "clock": {"backends", "stages"},
    "manual_clock": {"backends", "stages"},
    "observers": {"backends", "stages"},
    "backends": {"stages"},
    "stages": {"backends"},
    "streams": {"flow", "pipeline"},
    "flow": {"streams", "pipeline"},
    "pipeline": {"backends"},
    "gateway": {"observability", "cli", "testing"},
    "observability": {"gateway", "cli", "testing"},
    "cli": {"testing"},
    "testing": {"gateway", "observability", "cli"},
}
"""What a module may not import although it lies no higher."""

DRIVERS = {
    "memory": "memory",
    "kafka": "kafka",
    **dict.fromkeys(("redis", "embedded", "keeper", "server"), "redis"),
}
"""The family of a driver, by how its name begins; families do not import each other."""

THIRD_PARTY = {
    "msgspec": ("penstock",),
    "redis": ("penstock/backends/redis",),
    "hiredis": ("penstock/backends/redis",),
    "confluent_kafka": ("penstock/backends/kafka",),
    "click": ("penstock/cli",),
    "rich": ("penstock/cli",),
    "uvloop": ("penstock/cli",),
    "penstock": ("penstock",),
}
"""Who may import what is not ours and not Python's."""

FOR_TYPES = {"redis": ("penstock/streams", "penstock/backends/redis")}
"""Who may name it for type checkers only, which costs nothing at run time: `Client.redis`."""

LATE = {"redis": "takes 180 ms", "confluent_kafka": "is an extra", "uvloop": "is an extra"}
"""What is imported inside functions only, and why."""

IMPURE = {
    *("asyncio", "concurrent", "http", "logging", "multiprocessing", "os", "random", "secrets"),
    *("select", "selectors", "shutil", "signal", "socket", "sqlite3", "ssl", "subprocess"),
    *("tempfile", "threading", "time"),
}
"""What the first storey may not know: event loops, clocks, chance, I/O."""

UNSAFE = {"dill", "marshal", "pickle", "shelve"}
UNSAFE_CALLS = {"eval", "exec"}


class Import(NamedTuple):
    """One imported module, by its full name."""

    name: str
    line: int
    late: bool
    for_types: bool


def test_the_source_keeps_the_storeys() -> None:
    """Every violation at once, each as ``file:line: reason``."""
    found = [
        f"{file.relative_to(SRC.parent)}:{violation}"
        for file in sorted(SRC.rglob("*.py"))
        for violation in violations(file.relative_to(SRC), file.read_text(encoding="utf-8"))
    ]
    assert not found, "\n" + "\n".join(found)


BAD = [
    ("errors.py", "import asyncio", "1: the first storey is pure: no asyncio"),
    ("rules/acks.py", "from time import monotonic", "1: the first storey is pure: no time"),
    ("rules/acks.py", "from penstock.ports import Log", "1: storey 1 must not import storey 2"),
    ("codecs/json.py", "import orjson", "1: orjson is not allowed in penstock/codecs"),
    ("ports.py", "from penstock import backends", "1: ports must not import backends"),
    ("ports.py", "from .stages import stage", "1: ports must not import stages"),
    ("backends/memory.py", "import penstock.stages", "1: backends must not import stages"),
    ("backends/memory_groups.py", "from . import redis", "1: driver memory must not import redis"),
    ("backends/embedded.py", "from .memory import Log", "1: driver redis must not import memory"),
    ("backends/redis/log.py", "x = 1\nimport redis", "2: redis takes 180 ms: import it inside"),
    ("backends/redis/log.py", "from penstock import connect", "1: storey 2 must not import"),
    ("streams/client.py", "import penstock.flow", "1: streams must not import flow"),
    ("streams/client.py", "import penstock", "1: must not import the package that it is a part of"),
    ("streams/client.py", "def f():\n  import redis", "2: redis is not allowed"),
    ("flow/flow.py", "from penstock.cli import main", "1: storey 3 must not import storey 4"),
    ("testing/kit.py", "import penstock.cli.main", "1: testing must not import cli"),
    ("cli/main.py", "import penstock.streams._tasks", "1: penstock.streams._tasks is private"),
    ("cli/main.py", "from penstock.event import _x", "1: penstock.event._x is private"),
    ("cli/main.py", "import pickle", "1: no pickle"),
    ("cli/main.py", "x = (", "1: not Python"),
    ("cli/main.py", "f = lambda x: eval(x)", "1: no eval"),
    ("cli/main.py", "y = 0\n" * 401, "401: no file over 400 lines"),
    ("a/b/c.py", "", "1: 'a' has no storey: give it one in STOREY"),
    ("backends/redis/lua/x.py", "", "1: no folder more than 3 deep"),
]


@pytest.mark.parametrize(("file", "source", "reason"), BAD)
def test_a_bad_source_is_reported(file: str, source: str, reason: str) -> None:
    """The test of the test: each rule finds what it is there for."""
    found = list(violations(Path("penstock", file), source))
    assert [text for text in found if text.startswith(reason)], found


GOOD = [
    ("event.py", "import msgspec\nfrom penstock.errors import PenstockError"),
    ("ports.py", "import asyncio\nfrom penstock.event import Event"),
    ("backends/redis/log.py", "import hiredis\ndef f():\n  import redis.asyncio"),
    ("backends/embedded.py", "from penstock.backends.redis.log import RedisLog"),
    ("streams/client.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n  import redis"),
    ("streams/client.py", "def f():\n  from penstock.backends.memory import MemoryLog"),
    ("__init__.py", "from penstock._version import __version__\nimport penstock.streams"),
    ("cli/main.py", "import click\nimport penstock\nfrom penstock import connect"),
]


@pytest.mark.parametrize(("file", "source"), GOOD)
def test_a_good_source_is_not_reported(file: str, source: str) -> None:
    """What the house allows passes."""
    assert list(violations(Path("penstock", file), source)) == []


def violations(file: Path, source: str) -> Iterator[str]:
    """Everything in *source* that the house does not allow, as ``line: reason``."""
    yield from _sizes(file, source)
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        yield f"{error.lineno}: not Python: {error.msg}"
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in UNSAFE_CALLS:
            yield f"{node.lineno}: no {node.func.id}"  # type: ignore[attr-defined]
    for found in imports(tree, file):
        yield from (f"{found.line}: {reason}" for reason in _reasons(file, found))


def _sizes(file: Path, source: str) -> Iterator[str]:
    lines = source.count("\n")
    if lines > MAX_LINES:
        yield f"{lines}: no file over {MAX_LINES} lines"
    if len(file.parts) - 1 > MAX_FOLDERS:
        yield f"1: no folder more than {MAX_FOLDERS} deep"
    if _top(file) not in STOREY:
        yield f"1: {_top(file)!r} has no storey: give it one in STOREY"


def _reasons(file: Path, found: Import) -> Iterator[str]:
    """Why *file* must not import it."""
    root = found.name.partition(".")[0]
    if root in UNSAFE:
        yield f"no {root}"
    elif root == "penstock":
        yield from _ours(file, found.name)
    elif root not in sys.stdlib_module_names:
        yield from _theirs(file, found, root)
    elif STOREY.get(_top(file)) == 1 and root in IMPURE:
        yield f"the first storey is pure: no {root}"


def _ours(file: Path, name: str) -> Iterator[str]:
    top, parts = _top(file), name.split(".")
    if len(parts) == 1:
        if STOREY.get(top, 0) < 4 and top != "__init__":
            yield "must not import the package that it is a part of"
        return
    target = parts[1]
    # What the package itself exports, `from penstock import connect`, is the third storey's.
    storey, own = STOREY.get(target, 3), STOREY.get(top, 0)
    if storey > own:
        yield f"storey {own} must not import storey {storey} ({name})"
    elif target in APART.get(top, ()):
        yield f"{top} must not import {target}"
    elif own == 4 and target != top and any(_is_private(part) for part in parts[1:]):
        yield f"{name} is private: the tools use the API only"
    yield from _drivers(file, parts)


def _drivers(file: Path, parts: list[str]) -> Iterator[str]:
    if _top(file) == "backends" and parts[1] == "backends" and len(parts) > 2:
        own, other = _family(file.parts[2]), _family(parts[2])
        if own and other and own != other:
            yield f"driver {own} must not import {other}"


def _theirs(file: Path, found: Import, root: str) -> Iterator[str]:
    where = file.parent.as_posix()
    if found.for_types and _under(where, FOR_TYPES.get(root, ())):
        return
    if not _under(where, THIRD_PARTY.get(root, ())):
        yield f"{root} is not allowed in {where}"
    elif root in LATE and not found.late:
        yield f"{root} {LATE[root]}: import it inside the function that needs it"


def imports(tree: ast.Module, file: Path) -> Iterator[Import]:
    """All imports of a file, however they are written, with relative names made absolute."""
    late = _lines(tree, ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    for_types = _lines(tree, ast.If, only=_is_type_checking)
    for node in ast.walk(tree):
        for name in _names(node, file):
            line = node.lineno  # type: ignore[attr-defined]  # whatever imports has a line
            yield Import(name, line, line in late, line in for_types)


def _names(node: ast.AST, file: Path) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = _absolute(node, file)
        # A module or a name in one: the longer form says more, and is judged the same.
        yield from (f"{base}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
        yield from (str(name.value) for name in node.args[:1] if isinstance(name, ast.Constant))


def _absolute(node: ast.ImportFrom, file: Path) -> str:
    if not node.level:
        return node.module or ""
    package = file.parent.parts[: len(file.parent.parts) - node.level + 1]
    return ".".join([*package, *([node.module] if node.module else [])])


def _lines(tree: ast.Module, *kinds: type[ast.AST], only: object = None) -> set[int]:
    """The lines inside nodes of these kinds."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, kinds)]
    chosen = [node for node in nodes if only is None or only(node)]  # type: ignore[operator]
    return {line for node in chosen for line in range(node.lineno, (node.end_lineno or 0) + 1)}  # type: ignore[attr-defined]


def _is_type_checking(node: ast.If) -> bool:
    return "TYPE_CHECKING" in ast.unparse(node.test)


def _top(file: Path) -> str:
    """The module or folder directly under ``penstock`` that *file* is or lies in."""
    return Path(file.parts[1]).stem


def _family(name: str) -> str:
    stem = Path(name).stem
    return next((family for start, family in DRIVERS.items() if stem.startswith(start)), "")


def _under(where: str, folders: tuple[str, ...]) -> bool:
    return any(where == folder or where.startswith(folder + "/") for folder in folders)


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")
