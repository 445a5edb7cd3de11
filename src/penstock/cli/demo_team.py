"""The demo's members, as the parent sees them: processes, and what they say.

Does        start a process for each member; hear its reports; answer them; see it die.
Does not    restart a member that died: the others take its events over, which is the point.
Invariants  1. a report is answered when it has been accounted for and printed, not before.
            2. when `Team` is left, no member runs any more, however it was left.
            3. a URL goes by the environment, so that no password stands in a process list.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Protocol, Self

from penstock.cli.demo_lines import (
    MAX_LINE,
    Drain,
    End,
    Failed,
    FromMember,
    Joined,
    Message,
    Remark,
    Report,
    Taken,
    from_member,
    to_line,
)

LEAVING: Final = 5.0
"""Seconds that a member has to leave the group in order; then it is killed."""


class Listener(Protocol):
    """Who is told what the members do."""

    def on_report(self, member: str, report: Report) -> None:
        """*member* has closed a window; it is answered when this returns."""
        ...

    def on_remark(self, member: str, text: str) -> None:
        """*member* has something to say to people."""
        ...

    def on_death(self, member: str, reason: str) -> None:
        """*member* has ended although nobody asked it to."""
        ...


class Teammate:
    """One member's process. Made by `Team`."""

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self.joined = asyncio.Event()
        self.alive = True
        self._process = process
        self._why = ""
        self._ending = False

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def listen(self, listener: Listener) -> None:
        """Hear what the member says until it ends."""
        assert self._process.stdout is not None
        try:
            while line := await self._process.stdout.readline():
                self._hear(from_member(line), listener)
        finally:
            self.alive = False
        code = await self._process.wait()
        if not self._ending or code:
            listener.on_death(self.name, self._why or _ended(code))
        self.joined.set()

    def say(self, message: Message) -> None:
        """Tell the member; one that has died does not hear it."""
        assert self._process.stdin is not None
        self._ending = self._ending or isinstance(message, End)
        if self.alive:
            self._process.stdin.write(to_line(message))

    def kill(self) -> None:
        """End the process at once."""
        with suppress(ProcessLookupError):
            self._process.kill()

    async def end(self) -> None:
        """Ask the process to leave and end; end it if it does not."""
        self._ending = True
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(LEAVING):
                await self._process.wait()
        finally:
            self.kill()

    def _hear(self, said: FromMember, listener: Listener) -> None:
        match said:
            case Joined():
                self.joined.set()
            case Report():
                listener.on_report(self.name, said)
                self.say(Taken(said.number))
            case Remark():
                listener.on_remark(self.name, said.text)
            case Failed():
                self._why = said.text


class Team:
    """All members; use it with ``async with``, which starts them.

    Args:
        names: the members' names.
        url: where the stream is.
        partitions: how many partitions each spreads its events over.
        listener: who is told what they do.
    """

    def __init__(self, names: Sequence[str], url: str, partitions: int, listener: Listener) -> None:
        self._names = names
        self._url = url
        self._partitions = partitions
        self._listener = listener
        self._listening: list[asyncio.Task[None]] = []
        self.members: list[Teammate] = []

    async def __aenter__(self) -> Self:
        try:
            for name in self._names:
                member = Teammate(name, await self._start(name))
                self.members.append(member)
                self._listening.append(asyncio.create_task(member.listen(self._listener)))
        except BaseException:
            self.kill()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End all members: in order as a rule, at once where the demo is broken off."""
        if isinstance(error, asyncio.CancelledError):
            self.kill()
        try:
            await asyncio.gather(*(member.end() for member in self.members), return_exceptions=True)
        finally:
            self.kill()
            await asyncio.gather(*self._listening, return_exceptions=True)

    @property
    def alive(self) -> list[Teammate]:
        """The members that have not died."""
        return [member for member in self.members if member.alive]

    async def joined(self) -> None:
        """Wait until every member has joined the group, or has died."""
        await asyncio.gather(*(member.joined.wait() for member in self.members))

    async def listen(self) -> None:
        """Wait until every member has died; raise what went wrong in hearing one."""
        done, _ = await asyncio.wait(self._listening, return_when=asyncio.FIRST_EXCEPTION)
        for listening in done:
            listening.result()

    def drain(self) -> None:
        """Tell all that nothing new comes."""
        for member in self.members:
            member.say(Drain())

    def dismiss(self) -> None:
        """Tell all that nothing is left."""
        for member in self.members:
            member.say(End())

    def kill(self) -> None:
        """End all at once."""
        for member in self.members:
            member.kill()

    async def _start(self, name: str) -> Process:
        command = (sys.executable, "-m", "penstock.cli.demo_member", name)
        return await asyncio.create_subprocess_exec(
            *command,
            f"--partitions={self._partitions}",
            stdin=PIPE,
            stdout=PIPE,
            env={**os.environ, "PENSTOCK_URL": self._url},
            limit=MAX_LINE,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then drains
        )


def _ended(code: int) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
