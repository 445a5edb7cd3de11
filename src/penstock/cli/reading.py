"""``penstock read``: a stream's events onto standard output, one a line.

Does        read to what was the end, or follow; print values, whole events, or text; as a member
            of a group, ack what was printed.
Does not    know how an event is printed (`formats`).
Invariants  1. an event is acked only after its line was written.
            2. an event that cannot be printed is said on stderr, and reading goes on.
            3. memory is flat: it reads ahead within bounds, and prints what it reads.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import click

from penstock import (
    END,
    NEWEST,
    OLDEST,
    Client,
    ConfigError,
    DecodeError,
    Event,
    Group,
    NotFound,
    PositionLost,
    Stream,
    after,
    at,
)
from penstock.cli.commands import closed_pipe
from penstock.cli.formats import Mode, OpaqueCodec, Render, renderer
from penstock.cli.options import complain, connect, tell, url_option
from penstock.cli.output import Output
from penstock.cli.progress import Progress, progress
from penstock.cli.running import run
from penstock.event import Start

BATCH: Final = 1000
"""Events that are written at once."""


class Request(NamedTuple):
    """What the command line asks for."""

    url: str | None
    stream: str
    mode: Mode
    start: Start
    follow: bool
    most: int | None
    where: str | None
    group: str | None
    member: str | None
    chosen: bool


@click.command()
@click.argument("stream")
@click.option("--start", metavar="WHERE", help="oldest, newest, a position (after it), or a time.")
@click.option("--follow", is_flag=True, help="Go on for ever; start with what is new.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N events.")
@click.option("--where", metavar="TOPIC", help="Only events of this topic, or topics: 'eu.*'.")
@click.option("--group", metavar="NAME", help="Read as a member of this group, and ack.")
@click.option("--member", metavar="NAME", help="The member's name; by default one of its own.")
@click.option("--events", is_flag=True, help="Print whole events: 'append --events' takes them.")
@click.option("--text", is_flag=True, help="Print the stored bytes and a newline.")
@click.option("--json", "_as_json", is_flag=True, help="Print JSON values: the default.")
@url_option
def read(
    *,
    url: str | None,
    stream: str,
    start: str | None,
    follow: bool,
    count: int | None,
    where: str | None,
    group: str | None,
    member: str | None,
    events: bool,
    text: bool,
    _as_json: bool,
) -> int:
    """Print the events of STREAM, a JSON value a line, from the oldest to the newest there is.

    With --group, an existing group goes on where it stands; an event is acked when its line was
    written. Bytes that are not UTF-8 are printed as {"base64": "..."}, except with --text.
    """
    if member is not None and group is None:
        raise click.UsageError("--member needs --group")
    if text and events:
        raise click.UsageError("--text and --events exclude each other")
    mode: Mode = "text" if text else "events" if events else "values"
    begin = parse_start(start) if start is not None else NEWEST if follow else OLDEST
    request = Request(
        url, stream, mode, begin, follow, count, where, group, member, start is not None
    )
    return run(_read(request))


def parse_start(text: str) -> Start:
    """What ``--start`` says.

    Raises:
        ConfigError: neither oldest, newest, a position, nor a time with its zone.
    """
    if text in ("oldest", "newest"):
        return OLDEST if text == "oldest" else NEWEST
    if re.fullmatch(r"[0-9]+(-[0-9]+)?", text):
        return after(text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.utcoffset() is None:
        raise ConfigError(
            f"--start must be oldest, newest, a position such as 1700000000000-0, or a time with "
            f"its zone such as 2026-01-31T12:00:00Z, got {text!r}"
        )
    return at(time)


async def _read(request: Request) -> int:
    async with connect(request.url, remarks=_is_ignored(request)) as client:
        stream = await _existing(client, request)
        shown = not sys.stdout.isatty()
        with progress("reading", await _total(stream, request), shown=shown) as work:
            printer = Printer(stream, request.mode, work)
            task = asyncio.current_task()
            assert task is not None
            if request.follow:
                printer.output.on_closed(lambda: printer.on_closed(task))
            try:
                await (_as_member if request.group else _alone)(stream, request, printer)
            except BrokenPipeError:
                return closed_pipe()
            except asyncio.CancelledError:
                if not printer.closed:
                    raise
                return closed_pipe()
            finally:
                printer.output.forget()
        return 1 if printer.failed else 0


def _is_ignored(request: Request) -> bool:
    """Whether ``--start`` may be of no use, so that it must be said: an existing group goes on."""
    return request.chosen and request.group is not None


async def _existing(client: Client, request: Request) -> Stream[Any]:
    """The stream, by whatever name: it is not made here. Only --follow waits for it."""
    stream = client.stream(request.stream, foreign=True)
    try:
        marks = (await stream.info()).marks
    except NotFound:
        if not request.follow:
            raise
        client.stream(request.stream)  # it will have to be made under a name that may be
        tell(f"there is no stream {request.stream!r} yet; waiting for it")
        return stream
    if marks is None or (request.mode == "values" and marks.codec in ("fields", "json", "raw")):
        return stream
    if request.mode == "values":
        raise ConfigError(
            f"stream {request.stream!r} has codec {marks.codec!r}, which is not ours to decode; "
            f"print its bytes with --text, or whole events with --events"
        )
    if marks.codec not in ("fields", "json", "raw"):
        codec = OpaqueCodec(marks.codec, marks.layout)
        return client.stream(request.stream, codec=codec, foreign=True)
    return stream


async def _total(stream: Stream[Any], request: Request) -> int | None:
    """How many events there will be, where that is known."""
    if request.follow or request.start != OLDEST or request.group:
        return request.most
    length = await stream.length()
    return length if request.most is None else min(length, request.most)


class Printer:
    """Prints batches of events."""

    def __init__(self, stream: Stream[Any], mode: Mode, work: Progress) -> None:
        self.output = Output()
        self.failed = 0
        self.closed = False
        self._stream = stream
        self._mode: Mode = mode
        self._work = work
        self._render: Render | None = None

    async def check(self) -> None:
        """Choose how to print, by the stream's marks.

        Raises:
            ConfigError: ``--text``, and the events have fields, no payload.
        """
        form = await self._stream.format()
        if self._mode == "text" and form.layout.body == "fields":
            raise ConfigError(
                f"--text needs a stream whose events are bytes or JSON, and those of "
                f"{self._stream.name!r} are fields; leave --text out"
            )
        self._render = renderer(self._mode, form.layout, form.codec.name)

    async def print(self, events: Sequence[Event[Any]]) -> list[Event[Any]]:
        """Print what can be printed; those events, once they are written."""
        if self._render is None:
            await self.check()
        assert self._render is not None
        lines: list[bytes] = []
        printed: list[Event[Any]] = []
        for event in events:
            try:
                lines.append(self._render(event))
            except DecodeError as error:
                self._complain(event, error)
            else:
                printed.append(event)
        lines.append(b"")
        await self.output.write(b"\n".join(lines))
        self._work.advance(len(events), len(events))
        return printed

    def on_closed(self, task: asyncio.Task[Any]) -> None:
        """Nobody reads any more: end *task*, which waits for events that nobody would see."""
        self.closed = True
        task.cancel()

    def _complain(self, event: Event[Any], error: DecodeError) -> None:
        self.failed += 1
        reason = error.__cause__ or error
        hint = "" if self._mode == "events" else "; --events prints its bytes"
        complain(f"event {event.position} of {event.stream!r} is undecodable: {reason}{hint}")


async def _alone(stream: Stream[Any], request: Request, printer: Printer) -> None:
    until = None if request.follow else END
    async with stream.reader(
        start=request.start, until=until, where=request.where, prefetch=4 * BATCH
    ) as reader:
        await _check_now(stream, printer)
        batches = _past_losses(reader.batches(BATCH, 0.0), printer)
        async for batch in _counted(batches, request.most):
            await printer.print(batch)


async def _past_losses(
    batches: AsyncIterator[list[Event[Any]]], printer: Printer
) -> AsyncIterator[list[Event[Any]]]:
    """The batches; what was trimmed before it was read is said, and the exit code says it too."""
    while True:
        try:
            batch = await anext(batches)
        except StopAsyncIteration:
            return
        except PositionLost as lost:
            printer.failed += 1
            complain(str(lost))
        else:
            yield batch


async def _as_member(stream: Stream[Any], request: Request, printer: Printer) -> None:
    assert request.group is not None
    await _check_now(stream, printer)
    size = min(BATCH, request.most or BATCH)
    closed: BrokenPipeError | asyncio.CancelledError | None = None
    async with stream.group(
        request.group,
        start=request.start,
        member=request.member,
        until=None if request.follow else END,
        where=request.where,
        max_in_flight=max(2, 4 * size),
    ) as group:
        try:
            await _print_and_ack(group, size, request.most, printer)
        except (BrokenPipeError, asyncio.CancelledError) as error:
            closed = error  # no failure of an event: what was not printed is handed back
    if closed is not None:
        raise closed


async def _print_and_ack(group: Group[Any], size: int, count: int | None, printer: Printer) -> None:
    async for batch in _counted(group.batches(size, 0.0), count):
        group.ack(await printer.print(batch))


async def _check_now(stream: Stream[Any], printer: Printer) -> None:
    """A stream that exists is checked before anything is read; one that does not, later."""
    if await stream.client.backend.describe(stream.name) is not None:
        await printer.check()


async def _counted(
    batches: AsyncIterator[list[Event[Any]]], count: int | None
) -> AsyncIterator[list[Event[Any]]]:
    """The batches, up to *count* events."""
    left = count
    async for batch in batches:
        if left is None:
            yield batch
            continue
        yield batch[:left]
        left -= len(batch)
        if left <= 0:
            return
