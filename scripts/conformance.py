"""Write, or check, the pages that say which test shows which line of a checklist.

A checklist is a module ``tests/**/checklist*.py`` of plain data, with `TITLE`, `PAGE` (where its
page goes), `PREFIX` (of its lines' names), `SECTIONS` (titles, each with lines and what must hold),
`FIX` (lines where the original is wrong) and `REASONS` (why a line has no test). A test carries
``@pytest.mark.conformance("GS-001", …)``; a class's mark counts for the class, and a module's
``pytestmark`` for the module.

``--check``      write nothing; 1 if anything is wrong, with every fault in a line
``--root=DIR``   another checkout

Does        read the tests' sources, import nothing of them.
Does not    run the tests: a line that is named here is shown by pytest.
"""

from __future__ import annotations

import argparse
import ast
import runpy
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
MARK = "pytest.mark.conformance"
INTRODUCTION = (
    "Each line says what must hold, and which tests show it, or why there is none. "
    "FIX marks the lines where the original misbehaves, and ours does what was meant."
)


class Checklist(NamedTuple):
    """One module of data."""

    place: str
    title: str
    page: str
    prefix: str
    sections: Mapping[str, Mapping[str, str]]
    fix: frozenset[str]
    reasons: Mapping[str, str]

    @property
    def lines(self) -> dict[str, str]:
        """All lines, with what must hold."""
        return {line: text for lines in self.sections.values() for line, text in lines.items()}


class Mark(NamedTuple):
    """A test that says which lines it shows; `fault`: why that does not count."""

    test: str
    lines: tuple[str, ...]
    fault: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pages, or with ``--check`` compare; 1 if there are faults."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, and name all faults")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout")
    options = parser.parse_args(arguments)
    checklists, marks = read_checklists(options.root), list(read_marks(options.root))
    pages = {checklist.page: page_of(checklist, marks) for checklist in checklists}
    if not options.check:
        for page, text in pages.items():
            (options.root / page).parent.mkdir(parents=True, exist_ok=True)
            (options.root / page).write_text(text, encoding="utf-8")
        print(f"written: {', '.join(pages)}")
        return 0
    faults = [*faults_of(checklists, marks), *stale(options.root, pages)]
    lines = sum(len(checklist.lines) for checklist in checklists)
    print("\n".join([*faults, f"{lines} lines, {len(marks)} tests, {len(faults)} faults"]))
    return 1 if faults else 0


# --- reading ---------------------------------------------------------------------------------


def read_checklists(root: Path) -> list[Checklist]:
    """All checklists below ``tests``, in the order of their paths."""
    found: list[Checklist] = []
    for file in sorted((root / "tests").rglob("checklist*.py")):
        data = runpy.run_path(str(file))
        names = ("TITLE", "PAGE", "PREFIX", "SECTIONS", "FIX", "REASONS")
        found.append(Checklist(file.relative_to(root).as_posix(), *(data[name] for name in names)))
    return found


def read_marks(root: Path) -> Iterator[Mark]:
    """What tests say that they show, in the order of files and lines."""
    for file in sorted((root / "tests").rglob("*.py")):
        source = file.read_text(encoding="utf-8")
        if MARK in source:
            collected = file.name.startswith("test_")
            for mark in marks_in(ast.parse(source), file.relative_to(root).as_posix()):
                yield mark if collected else mark._replace(fault="pytest does not read this file")


def marks_in(tree: ast.Module, place: str) -> Iterator[Mark]:
    """The marks of a module, of its functions, its classes and their methods."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(map(_is_pytestmark, node.targets)):
            given = node.value
            for value in given.elts if isinstance(given, ast.List | ast.Tuple) else [given]:
                yield from _mark(value, place, "")
    yield from _marks_below(tree, place, "test")


def _is_pytestmark(target: ast.expr) -> bool:
    return isinstance(target, ast.Name) and target.id == "pytestmark"


def _marks_below(node: ast.Module | ast.ClassDef, place: str, prefix: str) -> Iterator[Mark]:
    for child in node.body:
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        name = f"{place}::{child.name}"
        wanted = "Test" if isinstance(child, ast.ClassDef) else prefix
        fault = "" if child.name.startswith(wanted) else "pytest does not collect this"
        for decorator in child.decorator_list:
            yield from _mark(decorator, name, fault)
        if isinstance(child, ast.ClassDef):
            yield from _marks_below(child, name, prefix)


def _mark(value: ast.expr, name: str, fault: str) -> Iterator[Mark]:
    if ast.unparse(value).partition("(")[0] != MARK:
        return
    given = value.args if isinstance(value, ast.Call) and not value.keywords else []
    lines = [one.value for one in given if isinstance(one, ast.Constant)]
    names = tuple(line for line in lines if isinstance(line, str))
    if not names or len(names) < len(given):
        fault = fault or "the mark must name lines, each as plain text"
    yield Mark(name, names, fault)


# --- judging ---------------------------------------------------------------------------------


def faults_of(checklists: Sequence[Checklist], marks: Sequence[Mark]) -> Iterator[str]:
    """Everything that is wrong with the lists and the marks."""
    known = {line for checklist in checklists for line in checklist.lines}
    shown = {line for mark in marks if not mark.fault for line in mark.lines}
    for mark in marks:
        if mark.fault:
            yield f"{mark.test}: {mark.fault}"
        yield from (f"{mark.test}: no line {line}" for line in mark.lines if line not in known)
    for checklist in checklists:
        yield from _faults_in(checklist)
        for line in checklist.lines:
            if line not in shown and line not in checklist.reasons:
                yield f"{line}: neither a test nor a reason"
            elif line in shown and line in checklist.reasons:
                yield f"{line}: a test, and a reason why there is none"


def _faults_in(checklist: Checklist) -> Iterator[str]:
    listed = [line for lines in checklist.sections.values() for line in lines]
    wanted = [f"{checklist.prefix}-{number:03}" for number in range(1, len(listed) + 1)]
    if listed != wanted:
        yield f"{checklist.place}: the lines must be {wanted[0]}, … in their order, without a gap"
    for line in sorted((checklist.fix | checklist.reasons.keys()) - set(listed)):
        yield f"{checklist.place}: FIX or REASONS name {line}, which is no line"


def stale(root: Path, pages: Mapping[str, str]) -> Iterator[str]:
    """The pages that are not what they should be."""
    for page, text in pages.items():
        file = root / page
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            yield f"{page}: not up to date; run scripts/conformance.py"


# --- writing ---------------------------------------------------------------------------------


def page_of(checklist: Checklist, marks: Sequence[Mark]) -> str:
    """The page, as Markdown."""
    shown: dict[str, list[str]] = {}
    for mark in marks:
        for line in () if mark.fault else mark.lines:
            shown.setdefault(line, []).append(mark.test)
    parts = [
        f"# {checklist.title}",
        INTRODUCTION,
        f"Written by `scripts/conformance.py` from `{checklist.place}` and the tests' marks.",
    ]
    for title, lines in checklist.sections.items():
        rows = [_row(checklist, line, text, shown.get(line, [])) for line, text in lines.items()]
        head = ["| line | what must hold | shown by |", "|---|---|---|"]
        parts += [f"## {title}", "\n".join([*head, *rows])]
    return "\n\n".join(parts) + "\n"


def _row(checklist: Checklist, line: str, text: str, tests: Sequence[str]) -> str:
    cell = "<br>".join(f"`{test}`" for test in dict.fromkeys(tests))
    if not tests:
        reason = checklist.reasons.get(line)
        cell = f"*{_cell(reason)}*" if reason else "**nothing**"
    name = f"{line} FIX" if line in checklist.fix else line
    return f"| {name} | {_cell(text)} | {cell} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
