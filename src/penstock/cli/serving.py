"""``penstock server``: the embedded server, in the foreground.

Does        hold the server of a directory until it is told to end; print where it is.
Does not    end it under the feet of others: it runs on while a program holds it.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from penstock import BackendUnavailable
from penstock.backends.embedded import EmbeddedServer
from penstock.cli.options import json_option, tell
from penstock.cli.running import run

LOOK: Final = 1.0
"""Seconds between two looks at whether the server is still kept."""


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), metavar="P", help="Listen on 127.0.0.1:P.")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="D",
    help="Where its data is; default: your own, that of embedded://.",
)
@click.option("--temporary", is_flag=True, help="Start empty, keep nothing on disk.")
@json_option
def server(*, port: int | None, directory: Path | None, temporary: bool, as_json: bool) -> int:
    """Run a server of your own in the foreground, until Ctrl-C.

    Its URL is the first line on standard output. Programs on this machine also reach it as
    embedded:// (or embedded:///directory); while one of them is connected, the server outlives
    this command.
    """
    place = directory.absolute() if directory else None
    return run(_serve(port, place, temporary, as_json))


async def _serve(port: int | None, directory: Path | None, temporary: bool, as_json: bool) -> int:
    async with await EmbeddedServer.open(directory, temporary=temporary, port=port) as held:
        _announce(held, as_json)
        try:
            while held.alive:  # noqa: ASYNC110 - it is told to nobody: one has to look
                await asyncio.sleep(LOOK)
        except asyncio.CancelledError:  # Ctrl-C is how this is meant to end
            tell("ending")
            return 0
    raise BackendUnavailable(
        f"the server of {str(held.directory)!r} must be kept running, but its keeper has ended; "
        f"see the log in that directory, and start it again",
        backend="embedded",
        verb="keep",
    )


def _announce(held: EmbeddedServer, as_json: bool) -> None:
    url = f"redis://127.0.0.1:{held.port}" if held.port else f"redis+unix://{held.socket}"
    if as_json:
        said: dict[str, Any] = {
            "url": url,
            "socket": held.socket,
            "directory": str(held.directory),
            "server": held.version,
            "pid": held.pid,
        }
        sys.stdout.write(msgspec.json.encode(said).decode() + "\n")
    else:
        sys.stdout.write(url + "\n")
    sys.stdout.flush()
    tell(f"{held.version}, process {held.pid}, data in {held.directory}; Ctrl-C ends it")
