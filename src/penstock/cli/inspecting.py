"""``penstock info`` and ``trim``: look at streams, and shorten them.

Does        ask the API, and show what it says.
Does not    lay anything out (`render`), or make a stream: any existing key can be looked at.
"""

from __future__ import annotations

import sys
from typing import Any, Final

import click

from penstock import BackendError, Client, NotFound, Stream
from penstock.cli import facts, render
from penstock.cli.options import connect, events, json_option, tell, url_option, warn
from penstock.cli.running import run
from penstock.cli.showing import show
from penstock.ports import StreamInfo

MOST_STREAMS: Final = 1000
"""Streams that `info` lists at most: each costs the server a look."""


@click.command()
@click.argument("stream", required=False)
@url_option
@json_option
def info(url: str | None, stream: str | None, *, as_json: bool) -> int:
    """Describe STREAM: length, oldest, newest, codec, groups, bytes; without it, the server."""
    return run(_info(url, stream, as_json))


@click.command()
@click.argument("stream")
@click.option("--max-events", type=click.IntRange(min=0), required=True, metavar="N")
@click.option("--force", is_flag=True, help="Remove also what groups have not acked: it is lost.")
@url_option
@json_option
def trim(url: str | None, stream: str, *, max_events: int, force: bool, as_json: bool) -> int:
    """Remove the oldest events of STREAM, down to N; what a group has not acked stays."""
    return run(_trim(url, stream, max_events, force, as_json))


async def _info(url: str | None, name: str | None, as_json: bool) -> int:
    async with connect(url) as client:
        if name is not None:
            about = await client.stream(name, foreign=True).info()
            server = await _server(client)
            show([render.stream_table(about, server)], None, as_json)
            return 0
        server = await _server(client)
        names, more = await _names(client)
        infos = [one for name in names if (one := await _described(client, name)) is not None]
        table = render.streams_table(infos)
        objects = {**server, "streams": render.objects_of(table)}
        show([render.single_table(server), table], [objects], as_json)
        if more:
            tell(f"these are {MOST_STREAMS} of the streams; there are more")
    return 0


async def _server(client: Client) -> dict[str, Any]:
    """The server in a few words; without the right to ask, that is said, and the rest is shown."""
    try:
        return facts.about(await facts.ask(client), client)
    except BackendError as error:
        warn(str(error))
        return {"url": str(client.url), "server": None, "durability": None}


async def _trim(url: str | None, name: str, most: int, force: bool, as_json: bool) -> int:
    async with connect(url) as client:
        stream = await existing(client, name)
        removed = await stream.trim(max_events=most, acked_only=not force)
        left = await stream.length()
        if as_json:
            sys.stdout.write(render.as_json([{"stream": name, "removed": removed, "left": left}]))
        tell(f"removed {events(removed)} of {name!r}; {left} left")
        if left > most and not force:
            tell(f"{events(left - most)} more kept, not acked by every group: --force removes them")
    return 0


async def _names(client: Client) -> tuple[list[str], bool]:
    """The names of the streams, sorted, and whether there are more than are shown."""
    names = await client.streams(limit=MOST_STREAMS + 1)
    return names[:MOST_STREAMS], len(names) > MOST_STREAMS


async def _described(client: Client, name: str) -> StreamInfo | None:
    try:
        return await client.stream(name, foreign=True).info()
    except NotFound:  # removed meanwhile
        return None


async def existing(client: Client, name: str) -> Stream[Any]:
    """A handle on a stream that is there; NotFound if it is not."""
    stream = client.stream(name, foreign=True)
    await stream.info()
    return stream
