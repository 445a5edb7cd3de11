"""Options: what all commands share: where the streams are, and how one speaks to people.

Does        the options --url and --json; connect; print errors and warnings on stderr.
Does not    decide exit codes (`commands`), or print results (`render`, `output`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

import penstock
from penstock import Client, Signal
from penstock.cli.render import visible
from penstock.signals import counted

F = TypeVar("F", bound=Callable[..., Any])

_WORDS: Final = {
    "foreign=True": "--foreign",
    "connect(url)": "--url",
}
"""What a message of the API names, and what it is called here."""


events: Final = counted


def url_option(command: F) -> F:
    """``--url``: where the streams are."""
    text = "Where the streams are; default: $PENSTOCK_URL. embedded:// is a server of your own."
    return click.option("--url", metavar="URL", help=text)(command)


def json_option(command: F) -> F:
    """``--json``: for programs."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, an object a line.")(
        command
    )


def connect(url: str | None, *, remarks: bool = False) -> Client:
    """A client that warns people of what it signals; with *remarks*, of everything.

    Raises:
        ConfigError: no URL, or a wrong one.
    """
    return penstock.connect(url, observer=_remark if remarks else _on_signal)


def complain(message: str, *, as_it_is: bool = False) -> None:
    """Say on stderr what went wrong; *as_it_is*: it is about a program, not about options."""
    for word, ours in _WORDS.items():
        message = message if as_it_is else message.replace(word, ours)
    click.echo(click.style("error: ", fg="red", bold=True) + visible(message, keep="\n"), err=True)


def warn(message: str) -> None:
    """Say on stderr what may be wrong."""
    click.echo(click.style("warning: ", fg="yellow") + visible(message, keep="\n"), err=True)


def tell(message: str) -> None:
    """Say something on stderr that is neither."""
    click.echo(visible(message, keep="\n"), err=True)


def _on_signal(signal: Signal) -> None:
    if signal.severity != "info":
        warn(signal.message)


def _remark(signal: Signal) -> None:
    warn(signal.message)
