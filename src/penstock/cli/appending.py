"""``penstock append``: lines into a stream.

Does        read files or standard input, store each line as an event, say how many are stored.
Does not    know what a line means (`intake`), or cut them (`lines`).
Invariants  1. whatever stops it, what came before is stored, and how much that is, is said.
            2. memory is flat: what is pending is bounded, and so is a line.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Final, Literal, NamedTuple

import click
import msgspec

from penstock import Client, ConfigError, PenstockError
from penstock.cli.intake import BadLine, EventsIntake, Fixed, Intake, JsonIntake, TextIntake
from penstock.cli.lines import InputError, Lines, read_lines, total_size
from penstock.cli.options import complain, connect, events, json_option, tell, url_option
from penstock.cli.progress import Progress, progress
from penstock.cli.running import run

ESCAPED: Final = 8
"""A JSON line may be longer than its event: a byte may be written as the six of ``\\u0000``."""


class Request(NamedTuple):
    """What the command line asks for."""

    url: str | None
    stream: str
    files: tuple[str, ...]
    kind: Literal["json", "text", "events"]
    layout: str | None
    fixed: Fixed
    foreign: bool
    as_json: bool


@click.command()
@click.argument("stream")
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--text", is_flag=True, help="A line of text an event, its bytes untouched.")
@click.option(
    "--events", "whole", is_flag=True, help="What 'read --events' prints: copies a stream."
)
@click.option(
    "--layout",
    type=click.Choice(["fields", "value"]),
    help="How a new stream stores JSON: an object's items as fields, or any value as it is. "
    "Default: fields; an existing stream keeps its own.",
)
@click.option("--key", help="The key of every event: what it is about.")
@click.option("--key-field", metavar="FIELD", help="Take each event's key from this field.")
@click.option("--topic", default="", help="The topic of every event: what readers filter by.")
@click.option("--name", default="", help="The name of every event: what happened.")
@click.option("--foreign", is_flag=True, help="Take a key that others made, whatever its name.")
@url_option
@json_option
def append(
    *,
    url: str | None,
    stream: str,
    files: tuple[str, ...],
    text: bool,
    whole: bool,
    layout: str | None,
    key: str | None,
    key_field: str | None,
    topic: str,
    name: str,
    foreign: bool,
    as_json: bool,
) -> int:
    """Append lines of FILES, or of standard input, to STREAM.

    A line is a JSON object, whose items become the event's fields; with --text a line of text;
    with --events a whole event, as 'penstock read --events' prints it:

        penstock read a --events | penstock append b --events
    """
    kind = "events" if whole else "text" if text else "json"
    fixed = Fixed(name, topic, key, key_field)
    request = Request(url, stream, files, kind, layout, fixed, foreign, as_json)
    _check(request, text and whole)
    return run(_append(request))


def _check(request: Request, both: bool) -> None:
    if both:
        raise click.UsageError("--text and --events exclude each other")
    if request.kind != "json" and (request.layout or request.fixed.key_field):
        raise click.UsageError("--layout and --key-field go with JSON lines alone")
    if request.kind == "events" and request.fixed != Fixed():
        raise click.UsageError("with --events, each line says its own key, topic and name")
    if request.fixed.key is not None and request.fixed.key_field:
        raise click.UsageError("--key and --key-field exclude each other")


async def _append(request: Request) -> int:
    async with connect(request.url) as client:
        intake = await _intake(client, request)
        longest = client.max_event_bytes * (1 if request.kind == "text" else ESCAPED)
        problem: BaseException | None = None
        with progress("appending", total_size(request.files), shown=_is_long(request)) as work:
            try:
                async with intake:
                    async for lines in read_lines(request.files, longest):
                        await _take(intake, lines, work)
            except ConfigError:
                raise
            except (PenstockError, OSError, asyncio.CancelledError) as error:
                problem = error
        return _report(request, intake, problem)


def _is_long(request: Request) -> bool:
    """Whether progress is worth showing: not to somebody who types the lines."""
    return bool(request.files) or not sys.stdin.isatty()


async def _intake(client: Client, request: Request) -> Intake:
    """What takes the lines: by what was asked for, and by what the stream is."""
    name, foreign = request.stream, request.foreign
    if request.kind == "events":
        return EventsIntake(client, name, foreign=foreign)
    if request.kind == "text":
        stream: Any = client.stream(name, layout="value", codec="raw", foreign=foreign)
        await stream.format()  # an existing stream of another kind is said at once
        return TextIntake(stream, request.fixed)
    stream = client.stream(name, layout=request.layout, foreign=foreign)
    codec = (await stream.format()).codec.name
    if codec not in ("fields", "json"):
        raise ConfigError(
            f"stream {name!r} has codec {codec!r}, so its events are not JSON; "
            f"append to it with {'--text' if codec == 'raw' else 'a program that has the codec'}"
        )
    return JsonIntake(stream, request.fixed, codec)


async def _take(intake: Intake, lines: Lines, work: Progress) -> None:
    try:
        await intake.take(lines.lines)
    except BadLine as error:
        number = lines.first + intake.at
        raise InputError(f"line {number} of {lines.file}: {error}") from error
    work.advance(len(lines.lines), lines.size)


def _report(request: Request, intake: Intake, problem: BaseException | None) -> int:
    """Say what is stored, and what went wrong; the exit code."""
    sent, stored = intake.counts
    interrupted = isinstance(problem, asyncio.CancelledError)
    count = events(stored)
    said = f"{count} before it {'is' if stored == 1 else 'are'} stored in {request.stream!r}"
    said = said if stored else "nothing was stored"
    if sent > stored:
        said += f", {sent - stored} more were sent and are not known to be"
    if problem is None:
        tell(f"appended {count} to {request.stream!r}")
    elif interrupted:
        tell(f"interrupted; {said.replace(' before it', '')}")
    else:
        complain(f"{problem}; {said}")
    if request.as_json:
        _summarise(request, stored, "interrupted" if interrupted else str(problem or ""))
    if interrupted:
        assert problem is not None
        raise problem
    return 0 if problem is None else 1


def _summarise(request: Request, stored: int, error: str) -> None:
    summary: dict[str, Any] = {"stream": request.stream, "appended": stored}
    if error:
        summary["error"] = error
    sys.stdout.write(msgspec.json.encode(summary).decode() + "\n")
