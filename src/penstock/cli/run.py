"""``penstock run module:app``: an App's handlers, in this process or in several.

Does        the options; configure logs; choose between one process and several.
Does not    import the App (`run_worker.py`), or keep processes running (`run_processes.py`).
"""

from __future__ import annotations

import os
import sys

import click

from penstock.cli.options import url_option
from penstock.cli.run_processes import keep_running
from penstock.cli.run_worker import configure_logs, run_app, worker_task

LEVELS = ("debug", "info", "warning", "error")


@click.command()
@click.argument("target", metavar="MODULE:APP")
@click.option(
    "--processes",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Run in N processes, each started again when it dies.",
)
@click.option(
    "--drain",
    type=click.FloatRange(0, 86_400),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long calls that run may take to end, after SIGTERM or Ctrl-C.",
)
@click.option("--log-level", type=click.Choice(LEVELS), default="info", show_default=True)
@url_option
def run(
    *, target: str, processes: int | None, drain: float, log_level: str, url: str | None
) -> int:
    """Run the handlers of an App until SIGTERM or Ctrl-C.

    MODULE is imported from the current directory or the environment; APP is its name there, "app"
    if left out. --url is used instead of the App's own.

    SIGTERM and Ctrl-C drain: nothing more is taken, what nobody has begun with is handed back, and
    calls that run may end. A second one cuts them short: their events are handed back too.

    Exit codes: 0 when everything ended in order, 1 when a handler or the server ended it, 2 when
    it could not be started as it was called, 128 and the signal when calls were cut short.
    """
    _open_standard_streams()
    configure_logs(log_level)
    if (task := worker_task()) is not None:
        return run_app(target, task.url, drain, task)
    if processes is None:
        return run_app(target, url, drain, None)
    return keep_running(target, processes, url, drain, log_level)


def _open_standard_streams() -> None:
    """What a supervisor has closed leads nowhere; else a connection would get its number.

    What handlers print would then go to the server, and libuv ends a process that closes one.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            setattr(sys, name, os.fdopen(opened, "w" if number else "r", closefd=False))
