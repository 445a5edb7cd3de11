"""``penstock rescue``: what was taken and never acked, by whomever, is handled after all.

Does        show who holds what is stranded; with --apply park it in its own group, due at once.
Does not    decide who is dead (`backends.redis.rescue`), or handle an entry: a member does.
Invariants  1. without --apply nothing is changed.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import click

from penstock import Client, ConfigError
from penstock.backends.redis import rescue as rescuer
from penstock.backends.redis.rescue import PAGE, Holder
from penstock.cli import render
from penstock.cli.options import connect, events, json_option, tell, url_option
from penstock.cli.progress import progress
from penstock.cli.running import run

AT_ONCE: Final = 200
"""Groups that are looked at together."""

PATIENCE: Final = 1.0
"""Seconds after which it is said why nothing happens."""

Place = tuple[str, str]
"""A stream key, and a group of it."""


class Outcome(NamedTuple):
    """What becomes of one consumer's entries."""

    group: str
    holder: Holder
    rescued: int
    trimmed: int
    what: str


@click.command()
@click.argument("stream")
@click.argument("group", required=False)
@click.option("--apply", "apply_", is_flag=True, help="Do it; without this it is only shown.")
@click.option(
    "--idle",
    type=click.FloatRange(min=0.001),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a consumer of others must have done nothing with an entry.",
)
@click.option(
    "--to",
    metavar="CONSUMER",
    help="Hand it to this consumer, which must read its own pending list; default: park it.",
)
@url_option
@json_option
def rescue(
    url: str | None,
    stream: str,
    group: str | None,
    *,
    apply_: bool,
    idle: float,
    to: str | None,
    as_json: bool,
) -> int:
    """Give what is stranded in GROUP of STREAM to the living; without GROUP: in all its groups.

    STREAM may be anybody's. What consumers took and never acked is parked in the same group, due
    at once: a member (penstock read STREAM --group GROUP, or a program of yours) handles it.
    Nothing is taken from a consumer that is alive. Shows what it would do, unless --apply.
    """
    return run(_rescue(url, stream, group, apply_, idle, to, as_json))


async def _rescue(  # noqa: PLR0917 - handed through from the command
    url: str | None,
    stream: str,
    group: str | None,
    apply: bool,
    idle: float,
    to: str | None,
    as_json: bool,
) -> int:
    async with connect(url) as client:
        link = _link(client)
        places: list[Place] = []
        for key in await _keys(client, stream):
            if group is not None:
                await rescuer.require(link, key, group)
            names = [group] if group is not None else await rescuer.group_names(link, key)
            places += [(key, name) for name in names]
        outcomes: list[Outcome] = []
        members = 0
        for (key, name), found in zip(places, await _holders(link, places, idle), strict=True):
            outcomes += await _one_group(link, key, name, found, apply, idle, to)
            members += await rescuer.living_members(link, key, name)
    _show(outcomes, as_json)
    _conclude(outcomes, apply, members, to)
    return 0


async def _holders(link: Any, places: Sequence[Place], idle: float) -> list[Sequence[Holder]]:
    """Who holds what in each group. Members of ours are watched for a lease: all groups at once."""
    found: list[Sequence[Holder]] = []
    for at in range(0, len(places), AT_ONCE):
        page = places[at : at + AT_ONCE]
        asked = [rescuer.holders(link, key, name, idle) for key, name in page]
        looking = asyncio.ensure_future(asyncio.gather(*asked))
        try:
            done, _ = await asyncio.wait([looking], timeout=PATIENCE)
            if not done:
                tell("watching members of Penstock for their lease; who beats is left alone")
            found += await looking
        finally:
            looking.cancel()
    return found


async def _one_group(  # noqa: PLR0917 - handed through from the command
    link: Any,
    key: str,
    group: str,
    found: Sequence[Holder],
    apply: bool,
    idle: float,
    to: str | None,
) -> list[Outcome]:
    if not apply:
        return [_planned(group, holder, idle) for holder in found if holder.consumer != to]
    outcomes: list[Outcome] = []
    total = sum(holder.stranded for holder in found)
    with progress("rescuing", total, shown=True) as bar:
        for holder in found:
            if holder.consumer == to:
                continue
            rescued = trimmed = 0
            if holder.stranded:
                async for page in rescuer.rescue(link, key, group, holder, idle, to):
                    rescued += page.moved
                    trimmed += page.trimmed
                    bar.advance(page.moved, page.moved + page.trimmed)
            what = "rescued" if rescued or trimmed else _planned(group, holder, idle).what
            if holder.stranded and not (rescued or trimmed):
                what = "left: it came back meanwhile"
            outcomes.append(Outcome(group, holder, rescued, trimmed, what))
    return outcomes


def _planned(group: str, holder: Holder, idle: float) -> Outcome:
    if holder.alive:
        return Outcome(group, holder, 0, 0, "left: it is alive")
    if not holder.stranded:
        return Outcome(group, holder, 0, 0, f"left: idle for less than {idle:g} s")
    return Outcome(group, holder, 0, 0, "would be rescued")


def _link(client: Client) -> Any:
    link = getattr(client.backend, "link", None)
    if link is None:
        raise ConfigError(f"rescue needs a Redis or Valkey, got {client.url}")
    return link


async def _keys(client: Client, name: str) -> Sequence[str]:
    """The keys of a stream: one, or one for each shard."""
    stream = client.stream(name, foreign=True)
    info = await stream.info()
    shards = info.marks.shards if info.marks else 1
    return [name] if shards == 1 else [f"{name}:{index}" for index in range(shards)]


def _show(outcomes: Sequence[Outcome], as_json: bool) -> None:
    headings = ("group", "consumer", "pending", "stranded", "idle", "rescued", "trimmed", "what")
    rows = [
        (
            one.group,
            one.holder.consumer,
            one.holder.pending,
            one.holder.stranded,
            round(one.holder.idle, 3),
            one.rescued,
            one.trimmed,
            one.what,
        )
        for one in outcomes
    ]
    table = render.Table(headings, rows)
    if as_json:
        sys.stdout.write(render.as_json(render.objects_of(table)))
    elif not sys.stdout.isatty():
        sys.stdout.write(render.as_plain(table))
    elif rows:
        from rich.console import Console

        Console(highlight=False).print(render.as_rich(table))


def _conclude(outcomes: Sequence[Outcome], apply: bool, members: int, to: str | None) -> None:
    """What was done, and what is left to do, on stderr."""
    if not apply:
        count = sum(one.holder.stranded for one in outcomes)
        more = "at least " if any(one.holder.stranded >= PAGE for one in outcomes) else ""
        tell(f"{more}{events(count)} stranded" + ("; --apply rescues them" if count else ""))
        return
    count = sum(one.rescued for one in outcomes)
    tell(f"rescued {events(count)}")
    if trimmed := sum(one.trimmed for one in outcomes):
        tell(f"{events(trimmed)} had been trimmed, and are lost")
    if count and to is None and not members:
        tell("no member of Penstock is in the group: start one, and it handles them at once")
