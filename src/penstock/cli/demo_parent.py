"""The demo's parent process: it produces, accounts for what the members report, and drains.

Does        run a server if none is given, the producer and the members; show what comes of it;
            say at the end what was lost and what came twice.
Does not    count (`demo_rules`), draw numbers (`demo_producer`), speak to processes (`demo_team`),
            print (`demo_screen`), or work as a member (`demo_member`).
Invariants  1. every event has a sequence number; the summary is about these, one by one.
            2. whichever way it ends, no process of it is left, and no server of its own.
            3. it is drained when the group has nothing to hand out and nothing to ack.
Used by     `demo`, the command.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Final, NamedTuple

import penstock
from penstock.cli.demo_lines import GROUP, STREAM, Report
from penstock.cli.demo_producer import Backlog, Producer, look, trim
from penstock.cli.demo_rules import Account, Number
from penstock.cli.demo_screen import Clock, Screen, Summary
from penstock.cli.demo_team import Team
from penstock.url import parse_url

STUCK: Final = 30.0
"""Seconds without any progress after which draining is given up: fifteen leases."""


class Options(NamedTuple):
    """What the command line asked for."""

    url: str
    members: tuple[str, ...]
    partitions: int
    seconds: float | None
    rate: float | None


class DemoError(penstock.PenstockError):
    """The demo cannot go on."""


class Demo:
    """One run.

    Args:
        options: what was asked for.
        screen: where it is shown.
    """

    def __init__(self, options: Options, screen: Screen) -> None:
        self._options = options
        self._screen = screen
        self._account = Account(0, options.members)
        self._stop = asyncio.Event()
        self._died: list[str] = []

    async def run(self) -> Summary:
        """Run until it is to stop; drain; the summary.

        Raises:
            DemoError: every member died, or the drain got stuck.
            PenstockError: the server cannot be reached, refuses, or went away.
        """
        async with _server(self._options.url) as url, penstock.connect(url) as client:
            stream = client.stream(STREAM, type=Number)
            await _refuse_company(stream)
            self._account.first = await _next_sequence(stream)
            names, partitions = self._options.members, self._options.partitions
            async with Team(names, url, partitions, self) as team:
                await team.joined()
                self._check_alive(team)
                pids = {member.name: member.pid for member in team.alive}
                self._screen.started(str(parse_url(self._options.url)), pids, partitions)
                return await self._work(stream, team)

    def stop(self) -> None:
        """Produce nothing more, and drain."""
        self._stop.set()

    def on_report(self, member: str, report: Report) -> None:
        """A member has closed a window: account for it, show it."""
        self._account.take(member, report.runs)
        self._screen.window(member, report.parts)

    def on_remark(self, member: str, text: str) -> None:
        """A member has something to say."""
        self._screen.remark(text, member)

    def on_death(self, member: str, reason: str) -> None:
        """A member has died: the others take over what it held."""
        self._died.append(member)
        self._screen.remark(f"died ({reason}); the others take over what it held", member)

    async def _work(self, stream: penstock.Stream[Number], team: Team) -> Summary:
        """Produce until it is to stop, then drain."""
        began = time.monotonic()
        producer = Producer(stream, self._account, self._options.rate)
        producing = asyncio.create_task(producer.run())
        works = [
            producing,
            asyncio.create_task(producer.watch()),
            asyncio.create_task(self._tick(stream)),
            asyncio.create_task(self._to_stop()),
            asyncio.create_task(team.listen()),
        ]
        try:
            done, _ = await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
            for work in done:
                work.result()
            producer.stop()
            await producing
            await self._drain(stream, team)
            seconds = time.monotonic() - began
            await trim(stream)
        finally:
            await _cancel(*works)
        return self._summary(seconds)

    async def _drain(self, stream: penstock.Stream[Number], team: Team) -> None:
        """Wait until the group has nothing left, then let the members go."""
        team.drain()
        before: Backlog | None = None
        since = time.monotonic()
        while True:
            self._check_alive(team)
            backlog = await look(stream)
            if self._drained(backlog):
                break
            if backlog != before:
                before, since = backlog, time.monotonic()
            elif time.monotonic() - since > STUCK:
                raise DemoError(f"draining got stuck for {STUCK} s: {_left(backlog)}")
            await asyncio.sleep(0.02)
        team.dismiss()

    def _drained(self, backlog: Backlog | None) -> bool:
        if backlog is None:
            return False
        if backlog.lag is None:  # the server cannot tell: then each event must be accounted for
            return not backlog.pending and not self._account.lost()
        return not backlog.lag and not backlog.pending

    async def _tick(self, stream: penstock.Stream[Number]) -> None:
        """A clock line every second; endless."""
        before, then = 0, time.monotonic()
        while True:
            await asyncio.sleep(1.0)
            if (backlog := await look(stream)) is None:
                self._screen.remark("the server does not answer")
                continue
            newest = await stream.read_range(limit=1, reverse=True)
            now, produced = time.monotonic(), self._account.produced
            clock = Clock(
                time=time.time_ns() // 1_000_000,
                produced=produced,
                consumed=sum(self._account.consumed.values()),
                events_per_second=round((produced - before) / (now - then)),
                lag=backlog.lag,
                pending=backlog.pending,
                newest=newest[0].value if newest else None,
                position=str(newest[0].position) if newest else None,
            )
            self._screen.clock(clock)
            before, then = produced, now

    async def _to_stop(self) -> None:
        """Wait until the time is over, or `stop` is called."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._options.seconds):
                await self._stop.wait()

    def _check_alive(self, team: Team) -> None:
        if not team.alive:
            left = self._account.lost()
            raise DemoError(
                f"at least one member must live, and all of {', '.join(self._died)} have died; "
                f"{left} events are not consumed, and still in the stream"
            )

    def _summary(self, seconds: float) -> Summary:
        account = self._account
        return Summary(
            produced=account.produced,
            consumed=account.consumed,
            lost=account.lost(),
            duplicated=account.duplicated,
            left_over=account.left_over,
            seconds=round(seconds, 3),
            events_per_second=round(account.produced / seconds),
            died=self._died,
        )


@asynccontextmanager
async def _server(url: str) -> AsyncGenerator[str]:
    """The URL that members can use too: a temporary server is started here, for all of them."""
    parsed = parse_url(url)
    if parsed.scheme != "embedded" or "temporary" not in parsed.options:
        yield url
        return
    from penstock.backends.embedded import EmbeddedServer

    async with await EmbeddedServer.open(None, temporary=True) as server:
        yield f"redis+unix://{server.socket}"


async def _refuse_company(stream: penstock.Stream[Number]) -> None:
    """Two demos on one stream would count each other's events."""
    groups = [group for group in await stream.groups() if group.name == GROUP]
    living = [member.name for group in groups for member in group.members if member.beating]
    if living:
        raise DemoError(
            f"the demo must have its stream for itself, but {', '.join(living)} of group {GROUP!r} "
            f"live on {STREAM!r} there; end that demo first, or wait a moment if it was killed"
        )


async def _next_sequence(stream: penstock.Stream[Number]) -> int:
    """Where the numbering goes on: behind the newest event, of whichever run of the demo."""
    newest = await stream.read_range(limit=1, reverse=True)
    return newest[0].value.seq + 1 if newest else 0


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _left(backlog: Backlog | None) -> str:
    if backlog is None:
        return "the server does not answer"
    return f"{backlog.lag} events are not handed out, {backlog.pending} not acked"
