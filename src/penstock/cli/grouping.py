"""``penstock groups``, ``lag`` and ``pending``: look at consumer groups, and look after them.

Does        list groups, members and what is pending; make, set back and remove groups.
Does not    lay anything out (`render`), or make a stream: any existing key can be looked at.
Invariants  1. what takes something from a group asks first; where nobody can be asked, --yes must
               say it. --dry-run says what would be done, and does nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import click

from penstock import Client, ConfigError, NotFound, Stream
from penstock.cli import render
from penstock.cli.inspecting import existing
from penstock.cli.options import connect, events, json_option, tell, url_option, warn
from penstock.cli.reading import parse_start
from penstock.cli.running import run
from penstock.cli.showing import Shown, show, watch
from penstock.event import OLDEST, Start
from penstock.ports import GroupInfo
from penstock.streams.names import check_label

_EVERY = click.FloatRange(min=0.1)
_watch = click.option(
    "--watch", type=_EVERY, is_flag=False, flag_value=1.0, metavar="SECONDS", help="Look again."
)


class Change(NamedTuple):
    """What is to be done to one group of a stream."""

    url: str | None
    stream: str
    start: Start
    said: str
    dry_run: bool
    yes: bool
    as_json: bool

    def done(self, change: str, group: str, infos: Sequence[GroupInfo] = ()) -> int:
        """Say what was done, or would be; as JSON with where the group stood before, by shard."""
        would, past, where = _SAID[change]
        whom = f"group {group!r} of {self.stream!r}{where and f' {where} {self.said}'}"
        tell(f"would {would} {whom}" if self.dry_run else f"{past} {whom}")
        if self.as_json:
            stood = render.objects_of(render.groups_table(infos, shards=True))
            shown = {
                "stream": self.stream,
                "group": group,
                "change": change,
                "start": self.said if where else None,
                "done": not self.dry_run,
                "before": [{k: v for k, v in one.items() if k != "group"} for one in stood],
            }
            sys.stdout.write(render.as_json([shown]))
        return 0


_SAID: Final = {
    "create": ("make", "made", "at"),
    "reset": ("set", "set", "to"),
    "delete": ("remove", "removed", ""),
}
"""Of each change: what would be done, what was, and what stands before its start."""


@click.command()
@click.argument("stream")
@_watch
@click.option("--create", metavar="NAME", help="Make this group, at --start.")
@click.option("--reset", metavar="NAME", help="Set this group to --start: forwards loses events.")
@click.option("--delete", metavar="NAME", help="Remove this group, with all that is kept for it.")
@click.option("--start", metavar="WHERE", help="oldest, newest, a position (after it), or a time.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@url_option
@json_option
def groups(
    url: str | None,
    stream: str,
    *,
    watch: float | None,
    create: str | None,
    reset: str | None,
    delete: str | None,
    start: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """List the groups of STREAM with their members; make, set back or remove one.

    Lag: events that were not handed out yet. Pending: handed out, and not acked. Parked: handed
    back, and due later. Dead: given up; see `penstock dead`.
    """
    changes = [one for one in (create, reset, delete) if one is not None]
    if len(changes) > 1 or (changes and watch is not None):
        raise ConfigError("groups takes one of --create, --reset, --delete and --watch")
    if start is not None and create is None and reset is None:
        raise ConfigError("--start goes with --create or --reset")
    begin = OLDEST if start is None else parse_start(start)
    wanted = Change(url, stream, begin, start or "oldest", dry_run, yes, as_json)
    if create is not None:
        return run(_create(wanted, create))
    if reset is not None:
        if start is None:
            raise ConfigError("--reset must be told --start: oldest, newest, a position or a time")
        return run(_reset(wanted, reset))
    if delete is not None:
        return run(_delete(wanted, delete))
    return run(_list(url, stream, watch, as_json))


@click.command()
@click.argument("stream", required=False)
@click.argument("group", required=False)
@_watch
@url_option
@json_option
def lag(
    url: str | None, stream: str | None, group: str | None, *, watch: float | None, as_json: bool
) -> int:
    """How far groups are behind, in events and in seconds: all, or those of STREAM, or GROUP."""
    return run(_lag(url, stream, group, watch, as_json))


@click.command()
@click.argument("stream")
@click.argument("group")
@click.option(
    *("--limit", "limit"),
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="N",
    help="At most so many, of each shard.",
)
@_watch
@url_option
@json_option
def pending(
    url: str | None,
    stream: str,
    group: str,
    *,
    limit: int,
    watch: float | None,
    as_json: bool,
) -> int:
    """List the oldest events of STREAM that GROUP has handed out and that nobody has acked."""
    return run(_pending(url, stream, group, limit, watch, as_json))


async def _list(url: str | None, name: str, every: float | None, as_json: bool) -> int:
    async with connect(url) as client:
        stream = await existing(client, name)

        async def look() -> Shown:
            found = await stream.groups()
            tables = [render.groups_table(found), render.members_table(found)]
            remark = "" if found else f"stream {name!r} has no groups"
            return Shown(tables, render.group_objects(found), remark)

        await _once_or_again(look, every, as_json)
    return 0


async def _lag(
    url: str | None, name: str | None, group: str | None, every: float | None, as_json: bool
) -> int:
    async with connect(url) as client:

        async def look() -> Shown:
            names = [name] if name is not None else await client.streams()
            found = [one for each in names for one in await _groups_of(client, each, group)]
            remark = "" if found else "there is no group"
            return Shown([render.lag_table(found)], None, remark)

        if name is not None:
            stream = await existing(client, name)
            if group is not None:
                await require_group(stream, group)
        await _once_or_again(look, every, as_json)
    return 0


async def _pending(  # noqa: PLR0917
    url: str | None, name: str, group: str, limit: int, every: float | None, as_json: bool
) -> int:
    async with connect(url) as client:
        stream = await existing(client, name)
        await require_group(stream, group)

        async def look() -> Shown:
            found = [
                one
                for index in range(stream.shards)
                for one in await client.backend.pending(stream.shard(index), group, limit)
            ]
            remark = "" if found else f"nothing of {name!r} is in the hands of group {group!r}"
            if len(found) >= limit:
                remark = f"these are the oldest {limit}; there may be more: --limit"
            return Shown([render.pending_table(found)], None, remark)

        await _once_or_again(look, every, as_json)
    return 0


async def _once_or_again(look: Any, every: float | None, as_json: bool) -> None:
    if every is not None:
        await watch(look, every, as_json)
    shown = await look()
    show(shown.tables, shown.objects, as_json)
    if shown.remark:
        tell(shown.remark)


async def _create(wanted: Change, group: str) -> int:
    async with connect(wanted.url) as client:
        stream = await existing(client, wanted.stream)
        if any(one.name == group for one in await stream.groups()):
            raise ConfigError(
                f"stream {wanted.stream!r} has a group {group!r} already; --reset moves it"
            )
        check_label("group", group)
        if not wanted.dry_run:
            await stream.create_group(group, wanted.start)
        return wanted.done("create", group)


async def _reset(wanted: Change, group: str) -> int:
    async with connect(wanted.url) as client:
        stream = await existing(client, wanted.stream)
        infos = await require_group(stream, group)
        _tell_where(infos)
        if living := sorted({one.name for info in infos for one in info.members if one.beating}):
            more = ", …" if len(living) > 3 else ""
            raise ConfigError(
                f"group {group!r} can be set back when no member lives, and {len(living)} do "
                f"({', '.join(living[:3])}{more}); stop them first"
            )
        if not wanted.dry_run:
            _ask(
                f"set group {group!r} of {wanted.stream!r} to {wanted.said}; what is pending is "
                f"forgotten?",
                wanted.yes,
            )
            if silent := sum(one.beating is False for info in infos for one in info.members):
                tell(f"watching for up to a lease that {silent} silent members are dead")
            await stream.reset_group(group, wanted.start)
        return wanted.done("reset", group, infos)


async def _delete(wanted: Change, group: str) -> int:
    async with connect(wanted.url) as client:
        stream = await existing(client, wanted.stream)
        infos = await require_group(stream, group)
        _tell_where(infos)
        if any(one.beating for info in infos for one in info.members):
            warn(f"group {group!r} has members that live: they will make it anew")
        if not wanted.dry_run:
            _ask(f"remove group {group!r} of {wanted.stream!r}, with its dead letters?", wanted.yes)
            await stream.drop_group(group)
        return wanted.done("delete", group, infos)


async def require_group(stream: Stream[Any], group: str) -> list[GroupInfo]:
    """The group in each shard; NotFound, with the names that there are, where it is in none."""
    found = await stream.groups()
    known = sorted({one.name for one in found})
    if group not in known:
        there = f"its groups are {', '.join(map(repr, known))}" if known else "it has none"
        raise NotFound(
            f"there is no group {group!r} of stream {stream.name!r}; {there}",
            verb="look at",
            key=stream.name,
        )
    return [one for one in found if one.name == group]


def _tell_where(infos: Sequence[GroupInfo]) -> None:
    for info in infos:
        lag = "an unknown number" if info.lag is None else events(info.lag)
        tell(
            f"shard {info.shard.index}: stands at {info.last or 'the beginning'}, {lag} behind the "
            f"newest, {events(info.pending)} pending, {events(info.parked)} parked"
        )


def _ask(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError("groups must be told --yes where nobody can be asked")
    click.confirm(render.visible(question), abort=True, err=True)


async def _groups_of(client: Client, name: str, group: str | None) -> list[GroupInfo]:
    try:
        found = await client.stream(name, foreign=True).groups()
    except NotFound:  # removed meanwhile
        return []
    return [one for one in found if group in (None, one.name)]
