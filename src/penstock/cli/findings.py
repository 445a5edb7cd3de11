"""Findings: what the doctor says, and how it is shown.

Does        hold one finding; print all as text, as JSON, or in colours; give the exit code.
Does not    look at anything.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Literal, NamedTuple

from penstock.cli import render

Verdict = Literal["ok", "warn", "bad"]


class Finding(NamedTuple):
    """What was looked at, and how it is.

    Attributes:
        verdict: ``bad`` loses events or stops work; ``warn`` may; ``ok`` does neither.
        check: the check's name, the same in every release.
        about: the stream, group, consumer or setting; ``""`` for the whole.
        text: what was found and what to do, for people.
    """

    verdict: Verdict
    check: str
    about: str
    text: str


def exit_code(findings: Sequence[Finding], *, strict: bool) -> int:
    """1 if something is bad; with *strict*, also if there is a warning."""
    worst = {finding.verdict for finding in findings}
    return int("bad" in worst or (strict and "warn" in worst))


def show(findings: Sequence[Finding], *, as_json: bool) -> None:
    """Print all; names in them are others' words, and shown as `render.visible` shows them."""
    findings = [
        one._replace(about=render.visible(one.about), text=render.visible(one.text))
        for one in findings
    ]
    table = render.Table(("verdict", "check", "about", "text"), findings)
    if as_json:
        sys.stdout.write(render.as_json(render.objects_of(table)))
    elif not sys.stdout.isatty():
        sys.stdout.write(render.as_plain(table))
    else:
        _show_rich(findings)


def _show_rich(findings: Sequence[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {"ok": "green", "warn": "yellow", "bad": "bold red"}
    table = Table(box=None, show_header=False, pad_edge=False)
    for _ in range(4):
        table.add_column(overflow="fold")
    for finding in findings:
        verdict = Text(finding.verdict, style=colours[finding.verdict])
        about = Text(finding.about)
        table.add_row(verdict, Text(finding.check, style="bold"), about, Text(finding.text))
    Console(highlight=False).print(table)
