"""What the demo shows: JSON lines, plain text, or a live picture on a terminal.

Does        print windows, the clock line, remarks and the summary, each in three manners.
Does not    count or wait.
Invariants  1. what goes through a pipe is plain text or JSON, a line at a time, sent at once.
            2. a remark is never lost: the live picture scrolls it out above itself.
            3. the summary comes last, below the picture: it is shown after leaving ``with``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any, Protocol, Self

import msgspec
from rich.box import ROUNDED
from rich.columns import Columns
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from penstock.cli.demo_rules import Number, Part


class Clock(msgspec.Struct, frozen=True):
    """How the demo stands at one moment; rates in events a second, `time` in ms since 1970."""

    time: int
    produced: int
    consumed: int
    events_per_second: int
    lag: int | None
    pending: int
    newest: Number | None
    position: str | None


class Summary(msgspec.Struct, frozen=True):
    """How it ended; `consumed` by member, `seconds` from the first event to the last ack."""

    produced: int
    consumed: dict[str, int]
    lost: int
    duplicated: int
    left_over: int
    seconds: float
    events_per_second: int
    died: list[str]


class Screen(Protocol):
    """Where the demo shows itself; use it with ``with``."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...
    def started(self, url: str, members: dict[str, int], partitions: int) -> None:
        """The members, by name and process id, have joined."""
        ...

    def window(self, member: str, parts: Sequence[Part]) -> None:
        """A member has closed a window."""
        ...

    def clock(self, clock: Clock) -> None:
        """A second is over."""
        ...

    def remark(self, text: str, member: str = "") -> None:
        """Something that people should know."""
        ...

    def summary(self, summary: Summary) -> None:
        """It is over."""
        ...


class JsonScreen:
    """An object a line; `type` says what it is."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def started(self, url: str, members: dict[str, int], partitions: int) -> None:
        """See `Screen`."""
        _put("start", url=url, members=members, partitions=partitions)

    def window(self, member: str, parts: Sequence[Part]) -> None:
        """See `Screen`."""
        of = len(parts)
        for part in parts:
            _put("window", member=member, of=of, time=_now(), **msgspec.structs.asdict(part))

    def clock(self, clock: Clock) -> None:
        """See `Screen`."""
        _put("clock", **_plain(clock))

    def remark(self, text: str, member: str = "") -> None:
        """See `Screen`."""
        _put("remark", time=_now(), member=member, text=text)

    def summary(self, summary: Summary) -> None:
        """See `Screen`."""
        _put("summary", **_plain(summary))


class PlainScreen:
    """Lines of text, for pipes and logs."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def started(self, url: str, members: dict[str, int], partitions: int) -> None:
        """See `Screen`."""
        print(started_line(url, members, partitions), flush=True)

    def window(self, member: str, parts: Sequence[Part]) -> None:
        """See `Screen`."""
        for part in parts:
            print(
                f"{member:<8} partition {part.partition + 1} of {len(parts)}   "
                f"count {part.count:>7}   average {_average(part):>7}   last {_time(part.last)}"
            )
        sys.stdout.flush()

    def clock(self, clock: Clock) -> None:
        """See `Screen`."""
        print(clock_line(clock), flush=True)

    def remark(self, text: str, member: str = "") -> None:
        """See `Screen`."""
        print(remark_line(text, member), flush=True)

    def summary(self, summary: Summary) -> None:
        """See `Screen`."""
        print("\n".join(summary_lines(summary)), flush=True)


class LiveScreen:
    """A table per member, refreshed in place, for terminals."""

    def __init__(self) -> None:
        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False)
        self._tables: dict[str, Table] = {}
        self._clock = Text("waiting for the first events …", style="dim")
        self._newest = Text("")

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.__exit__(None, None, None)

    def started(self, url: str, members: dict[str, int], partitions: int) -> None:
        """See `Screen`."""
        self._live.console.print(Text(started_line(url, members, partitions), style="dim"))
        for member in members:
            self._tables[member] = _table(member, [])
        self._show()

    def window(self, member: str, parts: Sequence[Part]) -> None:
        """See `Screen`."""
        self._tables[member] = _table(member, parts)
        self._show()

    def clock(self, clock: Clock) -> None:
        """See `Screen`."""
        self._clock = Text(clock_line(clock, newest=False), style="bold")
        self._newest = Text(newest_line(clock), style="cyan")
        self._show()

    def remark(self, text: str, member: str = "") -> None:
        """See `Screen`."""
        self._live.console.print(Text(remark_line(text, member), style="yellow"))

    def summary(self, summary: Summary) -> None:
        """See `Screen`."""
        style = "bold red" if summary.lost else "bold green"
        self._console.print(Text("\n".join(summary_lines(summary)), style=style))

    def _show(self) -> None:
        tables = Columns(self._tables.values(), padding=(0, 2))
        self._live.update(Group(tables, self._clock, self._newest), refresh=True)


def started_line(url: str, members: dict[str, int], partitions: int) -> str:
    """The first line."""
    names = ", ".join(f"{name} (process {pid})" for name, pid in members.items())
    return f"stream penstock-demo on {url}, group example: {names}; {partitions} partitions each"


def clock_line(clock: Clock, *, newest: bool = True) -> str:
    """The line of a second."""
    lag = "unknown" if clock.lag is None else f"{clock.lag:,}"
    line = (
        f"{_time(clock.time)[:8]}   {clock.events_per_second:>9,} events/s   "
        f"produced {clock.produced:,}   consumed {clock.consumed:,}   lag {lag}"
    )
    return f"{line}   {newest_line(clock)}" if newest else line


def newest_line(clock: Clock) -> str:
    """The newest entry of the stream."""
    if clock.newest is None:
        return "newest -"
    entry = clock.newest
    return f"newest {entry.number:>4} at {_time(entry.at)}, no {entry.seq}, {clock.position}"


def remark_line(text: str, member: str) -> str:
    """Something that happened."""
    return f"{_time(_now())[:8]}   {member + ': ' if member else ''}{text}"


def summary_lines(summary: Summary) -> list[str]:
    """The end."""
    by = ", ".join(f"{name} {count:,}" for name, count in summary.consumed.items())
    return [
        f"produced {summary.produced:,}   consumed {sum(summary.consumed.values()):,} ({by})",
        f"lost {summary.lost:,}   duplicated {summary.duplicated:,}",
        f"{summary.events_per_second:,} events/s over {summary.seconds:.1f} s",
    ]


def _table(member: str, parts: Sequence[Part]) -> Table:
    table = Table(title=member, title_style="bold", header_style="dim", box=ROUNDED)
    for heading in ("partition", "count", "average", "last event"):
        table.add_column(heading, justify="right")
    for part in parts:
        name = f"{part.partition + 1} of {len(parts)}"
        table.add_row(name, f"{part.count:,}", _average(part), _time(part.last))
    return table


def _average(part: Part) -> str:
    return "-" if part.average is None else f"{part.average:.1f}"


def _time(ms: int | None) -> str:
    if ms is None:
        return "-"
    return time.strftime("%H:%M:%S", time.localtime(ms / 1000)) + f".{ms % 1000:03}"


def _now() -> int:
    return time.time_ns() // 1_000_000


def _plain(value: msgspec.Struct) -> dict[str, Any]:
    return msgspec.to_builtins(value)


def _put(kind: str, **about: object) -> None:
    print(json.dumps({"type": kind, **about}), flush=True)
