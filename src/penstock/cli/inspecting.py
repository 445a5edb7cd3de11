"""``penstock info``, ``groups``, ``pending`` and ``trim``: look at streams, and shorten them.

Does        ask the API, and show what it says.
Does not    lay anything out (`render`), or make a stream: any existing key can be looked at.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from penstock import Client, NotFound, Stream
from penstock.cli import facts, render
from penstock.cli.options import connect, events, json_option, tell, url_option
from penstock.cli.render import Table
from penstock.cli.running import run
from penstock.ports import StreamInfo

MOST_STREAMS: Final = 1000
"""Streams that `info` lists at most: each costs the server a look."""

_SCAN: Final = 1000  # keys that one SCAN looks at: under a millisecond of the server's time


@click.command()
@click.argument("stream", required=False)
@url_option
@json_option
def info(url: str | None, stream: str | None, *, as_json: bool) -> int:
    """Describe STREAM: length, oldest, newest, codec, groups, bytes; without it, the server."""
    return run(_info(url, stream, as_json))


@click.command()
@click.argument("stream")
@url_option
@json_option
def groups(url: str | None, stream: str, *, as_json: bool) -> int:
    """List the groups of STREAM with their members.

    Lag: events that were not handed out yet. Pending: handed out, and not acked. Parked: handed
    back, and due later.
    """
    return run(_groups(url, stream, as_json))


@click.command()
@click.argument("stream")
@click.argument("group")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, metavar="N")
@url_option
@json_option
def pending(url: str | None, stream: str, group: str, *, limit: int, as_json: bool) -> int:
    """List the oldest events of STREAM that GROUP has handed out and that nobody has acked."""
    return run(_pending(url, stream, group, limit, as_json))


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
            server = facts.about(await facts.ask(client), client)
            _show([render.stream_table(about, server)], None, as_json)
            return 0
        server = facts.about(await facts.ask(client), client)
        names, more = await stream_names(client, MOST_STREAMS)
        infos = [one for name in names if (one := await _described(client, name)) is not None]
        table = render.streams_table(infos)
        objects = {**server, "streams": render.objects_of(table)}
        _show([render.single_table(server), table], [objects], as_json)
        if more:
            tell(f"these are {MOST_STREAMS} of the streams; there are more")
    return 0


async def _groups(url: str | None, name: str, as_json: bool) -> int:
    async with connect(url) as client:
        stream = await _existing(client, name)
        found = await stream.groups()
        tables = [render.groups_table(found), render.members_table(found)]
        _show(tables, render.group_objects(found), as_json)
        if not found:
            tell(f"stream {name!r} has no groups")
    return 0


async def _pending(url: str | None, name: str, group: str, limit: int, as_json: bool) -> int:
    async with connect(url) as client:
        stream = await _existing(client, name)
        await _require_group(stream, group)
        found = [
            one
            for index in range(stream.shards)
            for one in await client.backend.pending(stream.shard(index), group, limit)
        ]
        _show([render.pending_table(found)], None, as_json)
        if len(found) >= limit:
            tell(f"these are the oldest {limit}; there may be more: --limit")
    return 0


async def _trim(url: str | None, name: str, most: int, force: bool, as_json: bool) -> int:
    async with connect(url) as client:
        stream = await _existing(client, name)
        removed = await stream.trim(max_events=most, acked_only=not force)
        left = await stream.length()
        if as_json:
            sys.stdout.write(render.as_json([{"stream": name, "removed": removed, "left": left}]))
        tell(f"removed {events(removed)} of {name!r}; {left} left")
        if left > most and not force:
            tell(f"{events(left - most)} more kept, not acked by every group: --force removes them")
    return 0


async def stream_names(client: Client, most: int) -> tuple[list[str], bool]:
    """The names of up to *most* streams, sorted, and whether there are more; none for memory://."""
    try:
        redis: Any = client.redis
    except ValueError:  # ConfigError: no server
        return [], False
    names: set[str] = set()
    cursor: Any = 0
    while len(names) <= most:
        cursor, keys = await redis.scan(cursor, count=_SCAN, _type="stream")
        names.update(key.decode("utf-8", "surrogateescape") for key in keys)
        if not int(cursor):
            break
    return sorted(names)[:most], len(names) > most


async def _described(client: Client, name: str) -> StreamInfo | None:
    try:
        return await client.stream(name, foreign=True).info()
    except NotFound:  # removed meanwhile
        return None


async def _existing(client: Client, name: str) -> Stream[Any]:
    stream = client.stream(name, foreign=True)
    await stream.info()
    return stream


async def _require_group(stream: Stream[Any], group: str) -> None:
    known = sorted({one.name for one in await stream.groups()})
    if group not in known:
        there = f"its groups are {', '.join(map(repr, known))}" if known else "it has none"
        raise NotFound(
            f"there is no group {group!r} of stream {stream.name!r}; {there}",
            verb="list pending of",
            key=stream.name,
        )


def _show(
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
