"""Showing: tables on a terminal, plain text in a pipe, JSON where asked for; once, or repeatedly.

Does        choose by where the output goes; redraw in place on a terminal.
Does not    make rows (`render`), or ask anybody.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from penstock import BackendUnavailable
from penstock.cli import render
from penstock.cli.options import warn
from penstock.cli.render import Table


class Shown(NamedTuple):
    """What is shown at one moment: tables for people, objects for programs."""

    tables: Sequence[Table]
    objects: Sequence[Mapping[str, Any]] | None = None
    remark: str = ""


def show(
    tables: Sequence[Table], objects: Sequence[Mapping[str, Any]] | None, as_json: bool
) -> None:
    """The tables on a terminal, or as plain text; *objects*, or the first table's, as JSON."""
    if as_json:
        sys.stdout.write(render.as_json(objects or render.objects_of(tables[0])))
        return
    shown = [table for table in tables if table.rows]
    if not sys.stdout.isatty():
        sys.stdout.write("\n".join(render.as_plain(table) for table in shown))
        return
    from rich.console import Console

    console = Console(highlight=False)
    for table in shown:
        console.print(render.as_rich(table))


async def watch(look: Callable[[], Awaitable[Shown]], every: float, as_json: bool) -> None:
    """Show what *look* says, now and every *every* seconds, until interrupted.

    On a terminal the old picture is replaced; in a pipe each one follows the last. A server that
    is away is said, and looked for again.
    """
    if as_json or not sys.stdout.isatty():
        while True:
            shown = await _patiently(look, every)
            show(shown.tables, shown.objects, as_json)
            sys.stdout.flush()
            await asyncio.sleep(every)
    from rich.console import Group as Together
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False) as live:
        while True:
            shown = await _patiently(look, every)
            tables = [render.as_rich(table) for table in shown.tables if table.rows]
            live.update(Together(*tables, Text(render.visible(shown.remark))), refresh=True)
            await asyncio.sleep(every)


async def _patiently(look: Callable[[], Awaitable[Shown]], every: float) -> Shown:
    """What *look* says, as soon as the server can be reached; said once while it cannot."""
    said = False
    while True:
        try:
            return await look()
        except BackendUnavailable as error:
            if not said:
                warn(f"{error}; looking again")
            said = True
            await asyncio.sleep(every)
