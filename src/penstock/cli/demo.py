"""``penstock demo``: a producer, a group of members, and the proof that nothing is lost.

Does        read the options, choose how it is shown, run the demo, turn signals into a drain.
Does not    do the work. Read on in `demo_member` (a member: streams, groups, acks),
            `demo_producer` (a writer with back-pressure) and `demo_parent` (all together).
Invariants  1. a wrong option is a usage error (exit code 2) with a sentence; nothing was started.
            2. the first SIGINT or SIGTERM drains; the second ends everything at once.
            3. it never touches a server that it was not given by ``--url``.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import sys
from contextlib import suppress
from typing import Final

import click

import penstock
from penstock.cli.demo_loop import run_fast
from penstock.cli.demo_parent import Demo, Options
from penstock.cli.demo_screen import JsonScreen, LiveScreen, PlainScreen, Screen, Summary
from penstock.streams.names import check_label
from penstock.url import parse_url

MOST_MEMBERS: Final = 100
MOST_PARTITIONS: Final = 1000


def _members(_context: click.Context, _option: click.Parameter, text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not 1 <= len(names) <= MOST_MEMBERS or not all(names):
        raise click.BadParameter(
            f"must be 1 to {MOST_MEMBERS} names joined by commas, such as alfred,bob; got {text!r}"
        )
    if len(set(names)) < len(names):
        raise click.BadParameter(f"every member must have a name of its own, got {text!r}")
    for name in names:
        if name.startswith("-"):
            raise click.BadParameter(f"a member's name must not begin with '-', got {name!r}")
        try:
            check_label("member", name)
        except penstock.ConfigError as error:
            raise click.BadParameter(str(error)) from None
    return names


def _above_zero(
    _context: click.Context, _option: click.Parameter, number: float | None
) -> float | None:
    if number is not None and not (math.isfinite(number) and number > 0):
        raise click.BadParameter(f"must be a number above 0, got {number}")
    return number


def _url(_context: click.Context, _option: click.Parameter, text: str) -> str:
    try:
        scheme = parse_url(text).scheme
    except penstock.ConfigError as error:
        raise click.BadParameter(str(error)) from None
    if scheme == "memory":
        raise click.BadParameter(
            "must name a server, as the members are processes of their own and memory:// lives in "
            "one; omit --url for a temporary server"
        )
    return text


@click.command()
@click.option(
    "--seconds",
    type=float,
    callback=_above_zero,
    help="Produce for so long, then drain and sum up; without it: until Ctrl-C.",
)
@click.option(
    "--members",
    default="alfred,bob",
    callback=_members,
    show_default=True,
    help="The members' names; each is a process of its own.",
)
@click.option(
    "--partitions",
    type=click.IntRange(1, MOST_PARTITIONS),
    default=8,
    show_default=True,
    help="Partitions that each member spreads its events over.",
)
@click.option(
    "--rate",
    type=float,
    callback=_above_zero,
    help="Events a second; without it: as fast as the members take them.",
)
@click.option(
    "--url",
    default="embedded://?temporary",
    callback=_url,
    show_default=True,
    help="Where the stream is; a temporary server is started, and gone afterwards.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line.")
def demo(
    *,
    seconds: float | None,
    members: tuple[str, ...],
    partitions: int,
    rate: float | None,
    url: str,
    as_json: bool,
) -> None:
    """Random numbers through a stream, shared by a group; kill a member, and nothing is lost.

    A producer appends numbers to the stream penstock-demo. The members of the group example spread
    them over partitions, and report count, average and time of the last event every 3 seconds.
    Ctrl-C drains and sums up; once more ends at once.
    """
    screen = _screen(as_json)
    try:
        summary = run_fast(_run(Options(url, members, partitions, seconds, rate), screen))
    except penstock.PenstockError as error:
        raise click.ClickException(str(error)) from error
    except asyncio.CancelledError:
        raise SystemExit(128 + signal.SIGINT) from None
    except BrokenPipeError:
        # Whoever read has enough: what Python still flushes at its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    if summary.lost:
        raise SystemExit(1)


def _screen(as_json: bool) -> Screen:
    if as_json:
        return JsonScreen()
    return LiveScreen() if sys.stdout.isatty() else PlainScreen()


async def _run(options: Options, screen: Screen) -> Summary:
    running = asyncio.current_task()
    assert running is not None
    with screen:
        work = Demo(options, screen)
        _on_signals(work, screen, running)
        summary = await work.run()
    screen.summary(summary)
    return summary


def _on_signals(work: Demo, screen: Screen, running: asyncio.Task[Summary]) -> None:
    """The first signal drains, the second does not wait."""
    asked = False

    def heed() -> None:
        nonlocal asked
        if asked:
            running.cancel()
            return
        asked = True
        screen.remark("draining; once more ends at once")
        work.stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(number, heed)


if __name__ == "__main__":
    demo()
