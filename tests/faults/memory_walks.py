"""Random walks of members that share shards in memory: the twin of `shard_walks`, without a server.

Does        let members lapse, vanish, stand still or reach nothing; drop the group.
Does not    judge times, or what comes twice.
Source      the model of `shard_walks`.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, suppress
from typing import Any

from faults.machinery import GROUP
from faults.shard_walks import ShardActor, ShardCrowd, ShardWalk, shards
from faults.walks import DRAINED_WITHIN, Actor, wander
from penstock import BackendUnavailable, Client, connect
from penstock.errors import NotFound, PenstockError


class MemoryActor(ShardActor):
    """A member in memory."""

    @property
    def members(self) -> list[Any]:
        """What it is in the backend, for each stream."""
        work: Any = self.group
        return [share.member for share in work._work._shares.values()]


class MemoryWalk(ShardWalk):
    """A walk over one log in memory. `crowd`: who is there."""

    crowd: MemoryCrowd

    def __init__(self, seed: int, client: Client) -> None:
        super().__init__("", seed, client)
        self._client = client
        self._drops = False

    async def send(self) -> None:
        """Send what waits, and do what `spoil` could not."""
        await super().send()
        if self._drops:
            self._drops = False
            for shard in shards():
                with suppress(NotFound):
                    await self._client.backend.drop(shard, GROUP)

    def spoil(self) -> None:
        """Somebody is told that he is taken for dead, or the group is gone."""
        actors: list[Any] = list(self.crowd.living)
        what = self.chance.choice(("lapse", "group"))
        self.tell(f"spoil {what}")
        if what == "group":
            self._drops = True
        elif actors:
            actor: Any = self.chance.choice(actors)
            actor.group._work._inbox.clear()  # as whoever finds that out does
            for member in actor.members:
                member.lapse()

    async def disturb(self, proxy: Any) -> None:
        """The program stands still, or one member reaches nothing."""
        what, seconds = self.chance.choice(("freeze", "deaf")), self.chance.choice((0.0, 0.1, 0.7))
        self.tell(f"{what} {seconds}")
        if what == "freeze":
            time.sleep(seconds)  # noqa: ASYNC251 - the whole program stands still
            return
        members = proxy.members
        for member in members:
            member.fetch = member.commit = member.release = _unreachable
        await asyncio.sleep(seconds)
        for member in members:
            del member.fetch, member.commit, member.release

    async def quiet(self) -> None:
        """Return when everything is done; fail after `DRAINED_WITHIN` seconds."""
        deadline = time.monotonic() + DRAINED_WITHIN
        while behind := await self.behind():
            assert time.monotonic() < deadline, "\n".join([*self.story, *behind])
            await asyncio.sleep(0.02)
        for stream in self.streams:
            async for letter in stream.dead_letters(GROUP):
                self.done.add(int(letter.event.value["n"]))
        lost = self.appended - self.done
        assert not lost, "\n".join([*self.story, f"lost: {sorted(lost)}"])

    async def behind(self) -> list[str]:
        """The shards of which something is not done."""
        found: list[str] = []
        for shard in shards():
            with suppress(NotFound):
                infos = await self._client.backend.groups(shard)
                if not infos or infos[0].lag:
                    found.append(f"{shard}: {infos}")
        return found


class MemoryCrowd(ShardCrowd):
    """Members of one log."""

    async def join(self) -> None:
        """One more."""
        self._born += 1
        stack = AsyncExitStack()
        client = await stack.enter_async_context(connect(self.walk.url, observer=_nobody))
        actor: Any = MemoryActor(self.walk, self._born, client, None)  # type: ignore[arg-type]
        actor.proxy = actor
        await stack.enter_async_context(actor.group)
        self.living[actor] = stack

    async def leave(self, actor: Actor, stack: AsyncExitStack) -> None:
        """One less: in order, by an exception, after a stop, or as in a crash."""
        member: Any = actor
        self.living.pop(actor, None)
        how = self.walk.chance.choice(("", "failing", "stop", "crash"))
        self.walk.tell(f"{actor.name} leaves {how}")
        error = ValueError("out of the block") if how == "failing" else None
        if how == "stop":
            await actor.group.stop()
        if how == "crash":
            for one in member.members:
                one.abandon()
        with suppress(PenstockError, ValueError):
            await stack.__aexit__(type(error) if error else None, error, None)


async def members(seed: int) -> None:
    """A walk of members; in the end those that are left do it all."""
    async with connect(f"memory://walk-{seed}") as client:
        walk = MemoryWalk(seed, client)
        walk.url = f"memory://walk-{seed}"
        walk.crowd = MemoryCrowd(walk, MemoryActor)
        await wander(walk, walk.crowd, 40)


async def _unreachable(*_: Any, **__: Any) -> Any:
    await asyncio.sleep(0)
    raise BackendUnavailable("nothing is reached")


def _nobody(_: Any) -> None:
    """Nobody reads the signals of a walk."""
