"""Commands: the table of all commands, and what becomes of their errors.

Does        import a command when it is called, and none for the help; turn every error into one
            sentence and an exit code.
Does not    do anything itself.
Invariants  1. no traceback for an error of ours, an interrupt, or a closed pipe.
            2. exit code 2: the call is wrong, nothing was started; 1: anything else.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from penstock import ConfigError, PenstockError, __version__
from penstock.cli.options import complain

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "demo": ("penstock.cli.demo:demo", "Watch a group share a stream, and lose nothing."),
    "server": ("penstock.cli.serving:server", "Run a server of your own in the foreground."),
    "append": ("penstock.cli.appending:append", "Append lines to a stream: JSON, text or events."),
    "read": ("penstock.cli.reading:read", "Print a stream's events, one a line."),
    "info": ("penstock.cli.inspecting:info", "Describe the server, or one stream."),
    "groups": ("penstock.cli.grouping:groups", "List a stream's groups, and look after them."),
    "lag": ("penstock.cli.grouping:lag", "How far groups are behind, in events and seconds."),
    "pending": ("penstock.cli.grouping:pending", "List what a group has not acked yet."),
    "dead": ("penstock.cli.dead:dead", "Look after what groups have given up."),
    "trim": ("penstock.cli.inspecting:trim", "Remove a stream's oldest events."),
    "run": ("penstock.cli.run:run", "Run the handlers of an App, in one process or in several."),
    "rescue": (
        "penstock.cli.rescuing:rescue",
        "Give entries that nobody will ack to the living.",
    ),
    "doctor": ("penstock.cli.doctor:doctor", "Check this installation and the server."),
}
"""Where each command is, and what it does: the help is made of this, without importing any."""

CLOSED_PIPE: Final = 141
"""What a shell reports of a program that SIGPIPE ended: 128 + 13."""


class Commands(click.Group):
    """The commands of `COMMANDS`, each imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List them for the help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="penstock %(version)s")
def penstock() -> None:
    """Move events through streams, and lose none.

    Every command takes --url, or $PENSTOCK_URL: redis://localhost:6379, or embedded:// for a
    server of your own that Penstock starts itself.
    """


def run(arguments: Sequence[str]) -> int:
    """Run one command line; its exit code."""
    try:
        code = _invoke(list(arguments))
        sys.stdout.flush()
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        return closed_pipe()
    except PenstockError as error:
        complain(str(error))
        return 2 if isinstance(error, ConfigError) else 1
    except OSError as error:
        complain(str(error))
        return 1
    return code


def closed_pipe() -> int:
    """Whoever read our output went away: not an error, and nobody is left to be told."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the exit
    return CLOSED_PIPE


def _invoke(arguments: list[str]) -> int:
    """Run the command; not by `main`, which takes a closed pipe for an error."""
    if "_PENSTOCK_COMPLETE" in os.environ:  # the shell asks for completions
        penstock.main(arguments, prog_name="penstock")
    with penstock.make_context("penstock", arguments) as context:
        code: Any = penstock.invoke(context)
    return code if isinstance(code, int) else 0
