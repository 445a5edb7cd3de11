"""``penstock dead``: what groups have given up: list it, look at it, give it back, let it go.

Does        ask the API, and show what it says; ask people before it changes anything.
Does not    decide what is given up: groups do.
Invariants  1. nothing is replayed or dropped without being named, or --all.
            2. where nobody can be asked (a pipe), --yes must say it.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import click
import msgspec

from penstock import ConfigError, DeadLetter, DeadLetters, DecodeError, NotFound
from penstock.cli import render
from penstock.cli.formats import renderer
from penstock.cli.grouping import require_group
from penstock.cli.inspecting import existing
from penstock.cli.options import connect, json_option, tell, url_option
from penstock.cli.progress import progress
from penstock.cli.render import Table
from penstock.cli.running import run
from penstock.cli.showing import show

PAGE: Final = 100
"""Letters that are worked on at once: each holds an event, which may be large."""


class Place(NamedTuple):
    """Whose dead letters; `error`: only those of that class."""

    url: str | None
    stream: str
    group: str
    error: str | None = None


class Change(NamedTuple):
    """What is to be done to letters: to those of *ids*, or to *every* one."""

    verb: str
    ids: tuple[str, ...]
    every: bool
    yes: bool
    as_json: bool


@click.group()
def dead() -> None:
    """Look after the dead letters of a group: events that it has given up."""


def _letters_of(command: Any) -> Any:
    """STREAM GROUP, and what all of these commands take."""
    return click.argument("stream")(click.argument("group")(url_option(command)))


_ids = click.argument("ids", nargs=-1, metavar="[ID]...")
_all = click.option("--all", "every", is_flag=True, help="All of them, or all of --error.")
_error = click.option("--error", metavar="CLASS", help="Only what failed with this class of error.")
_yes = click.option("--yes", is_flag=True, help="Do not ask.")


@dead.command("ls")
@_letters_of
@_error
@click.option(
    *("--limit", "limit"),
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="N",
    help="At most so many.",
)
@json_option
def list_letters(
    stream: str, group: str, url: str | None, *, error: str | None, limit: int, as_json: bool
) -> int:
    """List the dead letters of GROUP, oldest first."""
    return run(_list(Place(url, stream, group, error), limit, as_json))


@dead.command("show")
@_letters_of
@click.argument("letter_id", metavar="ID")
@json_option
def show_letter(stream: str, group: str, url: str | None, *, letter_id: str, as_json: bool) -> int:
    """Show one dead letter whole, with the event that it holds."""
    return run(_show(Place(url, stream, group), letter_id, as_json))


@dead.command("replay")
@_letters_of
@_ids
@_all
@_error
@_yes
@json_option
def replay(
    stream: str,
    group: str,
    url: str | None,
    *,
    ids: Sequence[str],
    every: bool,
    error: str | None,
    yes: bool,
    as_json: bool,
) -> int:
    """Give letters back to GROUP, as if new.

    They come again as if they had never failed; no other group sees them.
    """
    wanted = Change("replay", tuple(ids), every, yes, as_json)
    return run(_change(wanted, Place(url, stream, group, error)))


@dead.command("drop")
@_letters_of
@_ids
@_all
@_error
@_yes
@json_option
def drop(
    stream: str,
    group: str,
    url: str | None,
    *,
    ids: Sequence[str],
    every: bool,
    error: str | None,
    yes: bool,
    as_json: bool,
) -> int:
    """Remove letters for good."""
    wanted = Change("drop", tuple(ids), every, yes, as_json)
    return run(_change(wanted, Place(url, stream, group, error)))


@asynccontextmanager
async def _opened(place: Place) -> AsyncGenerator[DeadLetters[Any]]:
    async with connect(place.url) as client:
        stream = await existing(client, place.stream)
        letters = stream.dead_letters(place.group)
        if not await letters.count():  # they may outlive their group
            await require_group(stream, place.group)
        yield letters


async def _list(place: Place, limit: int, as_json: bool) -> int:
    async with _opened(place) as letters:
        found: list[DeadLetter[Any]] = []
        more = False
        async for letter in letters:
            if place.error in (None, letter.error):
                more = len(found) >= limit
                if more:
                    break
                found.append(letter)
        show([_table(found)], None, as_json)
        if not found:
            tell(f"group {place.group!r} of {place.stream!r} has no dead letters{_of(place.error)}")
        if more:
            tell(f"these are the oldest {limit}; there are more: --limit")
    return 0


async def _show(place: Place, letter_id: str, as_json: bool) -> int:
    async with _opened(place) as letters:
        letter = await _get(letters, letter_id, place.group)
        about = {
            "letter": _id(letter),
            "position": str(letter.event.position),
            "group": letter.group,
            "error": letter.error,
            "reason": letter.reason,
            "attempts": letter.attempts,
            "deliveries": letter.deliveries,
            "time": _time(letter.time),
            "id": letter.event.id,
            "key": letter.event.key,
        }
        if as_json:
            origin: Any = letter.event.origin
            whole = renderer("events", origin.layout, origin.codec.name)(letter.event)
            sys.stdout.write(render.as_json([{**about, "event": msgspec.Raw(whole)}]))
            return 0
        show([render.single_table({**about, "value": _value(letter)})], None, False)
    return 0


async def _change(wanted: Change, place: Place) -> int:
    verb = wanted.verb
    if bool(wanted.ids) == wanted.every or (wanted.ids and place.error is not None):
        raise ConfigError(f"dead {verb} takes either the ids of letters, or --all (and --error)")
    async with _opened(place) as letters:
        if wanted.ids:
            chosen = [await _get(letters, one, place.group) for one in dict.fromkeys(wanted.ids)]
            there = {(one.shard, one.id) for one in chosen}
        else:  # not the letters themselves: they may be more than memory has room for
            there = {
                (one.shard, one.id) async for one in letters if place.error in (None, one.error)
            }
            chosen = None
        what = f"{len(there)} dead letter{'' if len(there) == 1 else 's'}{_of(place.error)}"
        if there and not wanted.yes:
            _ask(f"{verb} {what} of group {place.group!r} of {place.stream!r}?", verb)
        act = letters.replay if verb == "replay" else letters.drop
        done = await act(chosen) if chosen is not None else await _in_pages(letters, there, act)
        past = "replayed" if verb == "replay" else "dropped"
        tell(f"{past} {done} of {what}")
        if wanted.as_json:
            about = {"stream": place.stream, "group": place.group, "chosen": len(there), past: done}
            sys.stdout.write(render.as_json([about]))
    return 0


async def _in_pages(letters: DeadLetters[Any], there: set[Any], act: Any) -> int:
    """Do it to those that were *there*, and not to those that come meanwhile."""
    done, page = 0, list[DeadLetter[Any]]()
    with progress("letters", len(there), shown=True) as bar:
        async for letter in letters:
            if (letter.shard, letter.id) in there:
                page.append(letter)
            if len(page) >= PAGE:
                done += await act(page)
                bar.advance(len(page), len(page))
                page = []
        return done + await act(page)


def _ask(question: str, verb: str) -> None:
    if not sys.stdin.isatty():
        raise ConfigError(f"dead {verb} must be told --yes where nobody can be asked")
    click.confirm(render.visible(question), abort=True, err=True)


async def _get(letters: DeadLetters[Any], text: str, group: str) -> DeadLetter[Any]:
    shard, _, letter_id = text.rpartition(":")
    if shard and not shard.isdigit():
        raise ConfigError(f"a letter's id must be as `dead ls` shows it, got {text!r}")
    letter = await letters.get(letter_id, shard=int(shard or 0))
    if letter is None:
        raise NotFound(f"there is no dead letter {text!r} of group {group!r}", verb="show")
    return letter


def _table(letters: Sequence[DeadLetter[Any]]) -> Table:
    headings = ("letter", "time", "position", "error", "reason", "attempts", "key")
    rows = [
        (
            _id(one),
            _time(one.time),
            str(one.event.position),
            one.error or None,
            one.reason or None,
            one.attempts,
            one.event.key,
        )
        for one in letters
    ]
    return Table(headings, rows)


def _id(letter: DeadLetter[Any]) -> str:
    return f"{letter.shard.index}:{letter.id}" if letter.shard.of > 1 else str(letter.id)


def _of(error: str | None) -> str:
    return f" of {error}" if error else ""


def _time(seconds: float) -> str:
    time = datetime.fromtimestamp(seconds, UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _value(letter: DeadLetter[Any]) -> str:
    try:
        return str(letter.event.value)
    except DecodeError as error:
        return f"cannot be read: {error}"
