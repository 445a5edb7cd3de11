"""Render: snapshots as tables, as plain text, or as JSON.

Does        turn what the API says about streams, groups and events into rows, and rows into what
            the reader can use: a table on a terminal, tabs in a pipe, JSON where asked for.
Does not    ask a server anything.
Invariants  1. the same rows, whichever way they are shown; plain text and JSON never round.
            2. names and errors are others' words: what they hold of control characters is shown as
               `visible` shows it, and moves no cursor; a line stays a line, a column a column.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast

import msgspec

from penstock import Position
from penstock.ports import GroupInfo, MemberInfo, PendingInfo, StreamInfo


class Table(NamedTuple):
    """Rows under headings. A table of one row is shown as a list of its headings and values."""

    headings: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]
    single: bool = False


def stream_table(info: StreamInfo, server: Mapping[str, Any]) -> Table:
    """One stream, and where it is."""
    marks = info.marks
    about = {
        "stream": info.name,
        "length": info.length,
        "added": info.added,
        "oldest": _position(info.oldest),
        "oldest_time": _time(info.oldest),
        "newest": _position(info.newest),
        "newest_time": _time(info.newest),
        "layout": marks.layout if marks else "fields",
        "codec": marks.codec if marks else "fields",
        "shards": marks.shards if marks else 1,
        "made_by": "penstock" if marks else "others",
        "groups": info.groups,
        "bytes": info.bytes,
    }
    return single_table({**about, **server})


def streams_table(infos: Sequence[StreamInfo]) -> Table:
    """Several streams, one a row."""
    headings = ("stream", "length", "newest", "codec", "groups", "bytes")
    rows = [
        (
            info.name,
            info.length,
            _time(info.newest),
            info.marks.codec if info.marks else "fields",
            info.groups,
            info.bytes,
        )
        for info in infos
    ]
    return Table(headings, rows)


def groups_table(groups: Sequence[GroupInfo], *, shards: bool = False) -> Table:
    """Groups, one shard of one group a row; with the shard's number where there are several."""
    headings = ("group", "shard", "lag", "pending", "parked", "dead", "members", "last")
    rows = [
        (
            one.name,
            one.shard.index,
            *(one.lag, one.pending, one.parked, one.dead, len(one.members)),
            _or_none(one.last),
        )
        for one in groups
    ]
    return _without_shard(Table(headings, rows), groups, shards)


def lag_table(groups: Sequence[GroupInfo]) -> Table:
    """How far groups are behind, one shard of one group a row."""
    headings = ("stream", "shard", "group", "lag", "lag_s", "pending", "oldest_s", "parked", "dead")
    rows = [
        (
            one.shard.stream,
            one.shard.index,
            one.name,
            one.lag,
            _rounded(one.lag_seconds),
            one.pending,
            _rounded(one.pending_age),
            one.parked,
            one.dead,
        )
        for one in groups
    ]
    return Table(headings, rows)


def members_table(groups: Sequence[GroupInfo]) -> Table:
    """Members of all groups, one a row; one that owns several shards has a row for each."""
    headings = ("group", "shard", "member", "pending", "idle_s", "state")
    rows = [
        (
            group.name,
            group.shard.index,
            *(one.name, one.pending, round(one.idle, 3), _life(one)),
        )
        for group in groups
        for one in group.members
    ]
    return _without_shard(Table(headings, rows), groups, False)


def pending_table(pending: Sequence[PendingInfo]) -> Table:
    """Pending events, one a row."""
    rows = [
        (str(one.position), one.member, round(one.idle, 3), one.deliveries, one.attempts)
        for one in pending
    ]
    return Table(("position", "member", "idle_s", "deliveries", "attempts"), rows)


def single_table(about: Mapping[str, Any]) -> Table:
    """One thing, by its parts."""
    return Table(tuple(about), [tuple(about.values())], single=True)


def group_objects(groups: Sequence[GroupInfo]) -> list[dict[str, Any]]:
    """Groups with their members, for JSON."""
    objects = objects_of(groups_table(groups, shards=True))
    for found, group in zip(objects, groups, strict=True):
        members = objects_of(members_table([group]))
        found["members"] = [
            {k: v for k, v in one.items() if k not in {"group", "shard"}} for one in members
        ]
    return objects


def objects_of(table: Table) -> list[dict[str, Any]]:
    """The rows by their headings."""
    return [dict(zip(table.headings, row, strict=True)) for row in table.rows]


def visible(text: str, *, keep: str = "") -> str:
    """*text* with what is not printable as a backslash and what it is; but for what is in *keep*.

    So no name can colour, move or clear a terminal, or look like another line.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in keep else _escaped(one) for one in text)


def as_json(objects: Sequence[Mapping[str, Any]]) -> str:
    """An object a line; bytes that are no UTF-8 are ``{"base64": "…"}``, as `read` prints them."""
    return "".join(_encoded(one) + "\n" for one in objects)


def as_plain(table: Table) -> str:
    """Columns with tabs between them, under their headings; a single thing a part a line."""
    lines = [table.headings, *table.rows]
    if table.single:
        lines = list(zip(table.headings, table.rows[0], strict=True))
    return "".join("\t".join(map(_plain, line)) + "\n" for line in lines)


def as_rich(table: Table) -> Any:
    """A table for rich."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    if table.single:
        shown = RichTable(box=None, show_header=False, pad_edge=False)
        shown.add_column(style="bold cyan")
        shown.add_column(overflow="fold")
        for heading, value in zip(table.headings, table.rows[0], strict=True):
            if value is not None:
                shown.add_row(_heading(heading), Text(_pretty(value)))
        return shown
    shown = RichTable(box=box.SIMPLE_HEAD, header_style="bold cyan", pad_edge=False)
    for index, heading in enumerate(table.headings):
        numbers = all(isinstance(row[index], (int, float, type(None))) for row in table.rows)
        shown.add_column(
            _heading(heading),
            justify="right" if numbers else "left",
            overflow="fold",
            no_wrap=numbers or index == 0,  # numbers, and what one copies, stay whole
        )
    for row in table.rows:
        shown.add_row(*(Text(_pretty(value)) for value in row))
    return shown


def _without_shard(table: Table, groups: Sequence[GroupInfo], keep: bool) -> Table:
    """The table without its second column, where all streams have one shard."""
    if keep or any(one.shard.of > 1 for one in groups):
        return table
    return Table(
        (table.headings[0], *table.headings[2:]), [(row[0], *row[2:]) for row in table.rows]
    )


def _escaped(one: str) -> str:
    if "\udc80" <= one <= "\udcff":  # a byte that is no UTF-8, by surrogateescape
        return f"\\x{ord(one) - 0xDC00:02x}"
    return one.encode("unicode_escape").decode()


def _heading(name: str) -> str:
    return name.replace("_s", " (s)") if name.endswith("_s") else name.replace("_", " ")


def _pretty(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else _plain(value)


def _plain(value: Any) -> str:
    return "-" if value is None else visible(str(value))


def _encoded(value: Any) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeEncodeError:  # names that are no UTF-8 came by surrogateescape
        return msgspec.json.encode(_encodable(value)).decode()


def _encodable(value: Any) -> Any:
    if isinstance(value, Mapping):
        named = cast("Mapping[str, Any]", value)
        return {name: _encodable(item) for name, item in named.items()}
    if isinstance(value, (list, tuple)):
        return [_encodable(item) for item in cast("Sequence[Any]", value)]
    if isinstance(value, str) and not value.isascii():
        raw = value.encode("utf-8", "surrogateescape")
        return value if _is_text(raw) else {"base64": base64.b64encode(raw).decode()}
    return value


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _position(positions: Sequence[Position | None]) -> str | None:
    known = [str(position) for position in positions if position is not None]
    return " ".join(known) or None


def _time(positions: Sequence[Position | None]) -> str | None:
    """When the event of a position was appended: its first number is milliseconds since 1970."""
    known = [position for position in positions if position is not None and len(position) == 2]
    try:
        time = datetime.fromtimestamp(known[0][0] / 1000, UTC) if known else None
    except (ValueError, OverflowError, OSError):  # others may have chosen any number
        return None
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z") if time else None


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _or_none(position: Position | None) -> str | None:
    return None if position is None else str(position)


def _life(member: MemberInfo) -> str:
    if member.beating is None:
        return "foreign"
    if not member.beating:
        return "silent"
    return "resting" if member.resting else "standby" if member.standby else "alive"
