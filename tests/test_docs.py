"""What the papers show, runs: README.md and docs/*.md.

- A ``python`` block that begins with an import is a program. It is run, on memory and on Valkey;
  a ``text`` block behind it is what it prints (``…`` stands for anything in a line).
- Any other ``python`` block is a fragment. It must compile in a coroutine, and the names and
  keywords of ours that it uses must be there.
- The ``$`` lines of a ``console`` block are run by a shell, those of one paper in one directory
  and against one server; what follows each is what it prints.
- ``penstock`` in a ``sh`` block must have the options that are shown; it is not run.
"""

from __future__ import annotations

import ast
import functools
import inspect
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import penstock
from penstock import testing
from penstock.pipeline.handlers import OnKeywords
from penstock.signals import SEVERITY
from penstock.streams.group_options import GroupKeywords
from support.servers import Server

ROOT = Path(__file__).parent.parent
PAPERS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LIMIT = 60.0  # seconds; pytest's own limit is above


class Block(NamedTuple):
    """A fenced block, where it stands, and what it prints if that is said."""

    place: str
    language: str
    code: str
    prints: str | None = None


def blocks_of(paper: Path) -> Iterator[Block]:
    text = paper.read_text(encoding="utf-8")
    found = list(FENCE.finditer(text))
    for at, match in enumerate(found):
        line = text.count("\n", 0, match.start()) + 1
        prints = None
        if at + 1 < len(found) and found[at + 1][1] == "text":
            between = text[match.end() : found[at + 1].start()]
            prints = None if between.strip() else found[at + 1][2]
        yield Block(f"{paper.relative_to(ROOT)}:{line}", match[1], match[2], prints)


BLOCKS = [block for paper in PAPERS for block in blocks_of(paper)]
PYTHON = [block for block in BLOCKS if block.language == "python"]
PROGRAMS = [block for block in PYTHON if block.code.startswith(("import ", "from "))]
FRAGMENTS = [block for block in PYTHON if block not in PROGRAMS]
NEEDS_REDIS = re.compile(r"client\.redis|redis://|embedded://")


def place_of(block: Block) -> str:
    return block.place


# --- programs --------------------------------------------------------------------------------


def test_the_readme_begins_with_a_program_of_at_most_twelve_lines() -> None:
    """The first thing that a newcomer sees is complete, and short."""
    first = next(block for block in PROGRAMS if block.place.startswith("README.md"))
    assert first is next(block for block in PYTHON if block.place.startswith("README.md"))
    assert len(first.code.splitlines()) <= 12
    assert first.prints


@pytest.mark.parametrize("block", PROGRAMS, ids=place_of)
@pytest.mark.conformance("CR-042")
def test_a_program_runs_on_a_server(block: Block, embedded_server: Server) -> None:
    """Each complete program does what its paper says, on Valkey."""
    embedded_server.flush()
    run(block, embedded_server.url)


@pytest.mark.parametrize(
    "block", [block for block in PROGRAMS if not NEEDS_REDIS.search(block.code)], ids=place_of
)
@pytest.mark.conformance("CR-042")
def test_a_program_runs_in_memory(block: Block) -> None:
    """… and the same without any server."""
    run(block, "memory://docs")


def run(block: Block, url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", block.code],
        env=os.environ | {"PENSTOCK_URL": url},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    said = f"{block.place} said:\n{done.stdout}{done.stderr}"
    assert done.returncode == 0, said
    assert "Traceback" not in done.stderr, said
    assert block.prints is None or matches(block.prints, done.stdout), said


def matches(promised: str, printed: str) -> bool:
    """Whether *printed* is what was promised, where ``…`` stands for anything in a line."""
    pattern = re.escape(promised.strip()).replace("…", ".*")
    return re.fullmatch(pattern, printed.strip()) is not None


# --- fragments -------------------------------------------------------------------------------


@pytest.mark.parametrize("block", FRAGMENTS, ids=place_of)
def test_a_fragment_is_python_that_uses_what_there_is(block: Block) -> None:
    """Parts of programs compile, and name nothing of ours that is not there."""
    wrapped = "async def fragment():\n" + textwrap.indent(block.code, "    ")
    tree = ast.parse(wrapped)
    compile(tree, block.place, "exec")
    assert list(strangers(tree)) == []


def strangers(tree: ast.AST) -> Iterator[str]:
    """What a fragment uses of ours that we do not have."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "penstock" and not hasattr(penstock, node.attr):
                yield f"penstock.{node.attr}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            ours = keywords_of(node.func.attr)
            yield from (
                f"{node.func.attr}({word.arg}=)"
                for word in node.keywords
                if word.arg and ours and word.arg not in ours
            )


def keywords_of(method: str) -> set[str]:
    """Every parameter that a public function or method of that name takes; none if there is none.

    One that hands its keywords on takes what its namesake takes.
    """
    things = [getattr(module, name) for module in (penstock, testing) for name in module.__all__]
    found = [getattr(thing, method, None) for thing in things if inspect.isclass(thing)]
    found.append(getattr(penstock, method, None))
    return {
        name
        for function in found
        if inspect.isfunction(function)
        for name in (*inspect.signature(function).parameters, *unpacked(function))
    }


def unpacked(function: Any) -> frozenset[str]:
    """The keywords of ``**options: Unpack[GroupKeywords]``, and of those of an App's handlers."""
    takes = str(function.__annotations__.get("options", ""))
    told = [keywords for keywords in (GroupKeywords, OnKeywords) if keywords.__name__ in takes]
    return told[0].__optional_keys__ if told else frozenset()


# --- the file map ----------------------------------------------------------------------------


def test_every_error_and_every_signal_is_on_its_page() -> None:
    page = (ROOT / "docs/errors.md").read_text("utf-8")
    errors = {name for name, one in vars(penstock.errors).items() if isinstance(one, type)}
    assert {name for name in errors if not re.search(rf"\b{name}\b", page)} == set()
    rows = re.findall(r"^\| (`[a-z`, -]+) \| ([a-z, ]+) \|", page, re.MULTILINE)
    told = {
        kind: severity
        for kinds, severities in rows
        for kind, severity in zip(
            re.findall(r"`([a-z-]+)`", kinds), severities.split(", "), strict=True
        )
    }
    assert told == SEVERITY


def test_the_file_map_has_every_file() -> None:
    """DESIGN.md says in a line what each file of the source is for, and names no file twice."""
    source = ROOT / "src" / "penstock"
    files = sorted(path.relative_to(source).as_posix() for path in source.rglob("*.py"))
    wanted = [name for name in files if not name.endswith("__init__.py")]
    design = (ROOT / "DESIGN.md").read_text(encoding="utf-8")
    mapped = sorted(re.findall(r"^\| `([\w/]+\.py)` \| .+ \|$", design, re.MULTILINE))
    assert mapped == wanted


# --- shells ----------------------------------------------------------------------------------


def commands_of(paper: Path) -> list[tuple[str, str, str]]:
    """The commands of a paper's console blocks: where, what, and what each prints."""
    found: list[tuple[str, str, str]] = []
    for block in blocks_of(paper):
        if block.language == "console":
            for part in re.split(r"^\$ ", block.code, flags=re.MULTILINE)[1:]:
                command, _, prints = part.partition("\n")
                found.append((block.place, command, prints))
    return found


@pytest.mark.parametrize(
    "paper", [paper for paper in PAPERS if commands_of(paper)], ids=lambda paper: paper.name
)
def test_commands_print_what_is_shown(paper: Path, tmp_path: Path, embedded_server: Server) -> None:
    """The commands of one paper, one after the other, in one directory."""
    embedded_server.flush()
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for place, command, prints in commands_of(paper):
        done = subprocess.run(
            ["sh", "-c", command],
            env=os.environ | {"PENSTOCK_URL": embedded_server.url, "PATH": tools},
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        said = f"{place}: {command} said:\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr, said
        assert matches(prints, done.stderr + done.stdout), said


def test_commands_that_are_not_run_have_their_options() -> None:
    """Endless commands and those of other machines are at least spelt right."""
    pytest.importorskip("click")
    shown = [
        words
        for block in BLOCKS
        if block.language == "sh"
        for line in block.code.splitlines()
        for words in pieces(line)
        if words[:1] == ["penstock"]
    ]
    assert shown
    for words in shown:
        depth = 3 if words[1] == "dead" else 2  # the one command that has commands of its own
        helped = _help_of(*words[1:depth])
        missing = [word for word in words[2:] if word.startswith("--") and word not in helped]
        assert not missing, f"{shlex.join(words)}: no {missing}"


@functools.cache
def _help_of(*command: str) -> str:
    """Asked once for each command: a process takes its time where others run too."""
    return subprocess.run(
        [sys.executable, "-m", "penstock", *command, "--help"],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    ).stdout


def pieces(line: str) -> Iterator[list[str]]:
    """The commands of a pipeline, each as words, without what is redirected."""
    for piece in re.split(r"[|;]", line.partition("#")[0]):
        yield shlex.split(piece.partition("<")[0].partition(">")[0])
