"""Random walks of groups that share shards: as those of `walks`, and keys keep their order.

Does        lose what the group keeps, wholly or in part, and let programs hang.
Does not    judge times, or what comes twice.
Source      a model of one line for each key: what is handed out first comes in the order it was
            appended.
"""

from __future__ import annotations

from typing import Any

from faults.machinery import GROUP, STREAM, asked
from faults.walks import HOLD, LEASE, STREAMS, Actor, Crowd, Walk, wander
from penstock import Client, Event, Retry, Stream, connect
from penstock.backends.redis.keys import Keys
from penstock.event import Shard
from penstock.testing import TcpProxy

OF = {STREAM: 4, "more": 1}
KEYS = 5


class ShardWalk(Walk):
    """A walk over streams in shards."""

    def __init__(self, url: str, seed: int, client: Client) -> None:
        super().__init__(url, seed)
        self.streams = [client.stream(name, shards=OF[name]) for name in STREAMS]
        self.waiting: list[int] = []
        self.of: dict[int, tuple[str, str]] = {}
        self.seen: set[int] = set()
        self.newest: dict[tuple[str, str], int] = {}

    def append(self) -> None:
        """Some events; they are sent before anything else happens."""
        count = self.chance.choice((1, 1, 3, 20))
        self.waiting += range(len(self.appended), len(self.appended) + count)
        self.appended.update(self.waiting)
        self.tell(f"append {count}")

    async def send(self) -> None:
        """Send what waits."""
        for n in self.waiting:
            stream, key = self.chance.choice(self.streams), f"k{self.chance.randrange(KEYS)}"
            self.of[n] = stream.name, key
            await stream.append({"n": n}, key=key)
        self.waiting = []

    def spoil(self) -> None:
        """What others do to the server."""
        what = self.chance.choice(("scripts", "share", "positions", "roster", "group"))
        shard = self.chance.choice(shards())
        keys, roster = Keys.of(shard), Keys(shard.stream).roster(GROUP)
        self.tell(f"spoil {what} {shard}")
        if what == "scripts":
            asked(self.url, "SCRIPT", "FLUSH")
        if what in {"share", "group"}:
            asked(self.url, "DEL", keys.share(GROUP))
        if what in {"positions", "group"}:
            asked(self.url, "DEL", keys.positions)
        if what in {"roster", "group"}:
            asked(self.url, "DEL", roster)

    def left(self) -> str:
        """What is behind a position, or noted behind it; "" for nothing."""
        found: list[str] = []
        for shard in shards():
            keys = Keys.of(shard)
            newest = asked(self.url, "XREVRANGE", keys.stream, "+", "-", "COUNT", 1)
            position = asked(self.url, "HGET", keys.positions, GROUP)
            if newest and newest[0][0] != position:
                share = asked(
                    self.url, "HMGET", keys.share(GROUP), "owner", "beat", "epoch", "token"
                )
                roster = asked(self.url, "HGETALL", Keys(shard.stream).roster(GROUP))
                found.append(f"{shard}: newest {newest[0][0]}, {position}, {share}, {roster}")
        return "\n".join(found)

    def letters(self) -> list[str]:
        """The keys of the dead letters."""
        return [Keys.of(shard).letters(GROUP) for shard in shards()]

    def handed(self, event: Event[Any]) -> None:
        """Of each key, what comes for the first time is newer than all that came."""
        n = int(event.value["n"])
        if n not in self.seen:
            self.seen.add(n)
            before = self.newest.get(self.of[n], -1)
            assert n > before, "\n".join([*self.story, f"{n} came behind {before}"])
            self.newest[self.of[n]] = n


class ShardActor(Actor):
    """A member that shares shards."""

    walk: ShardWalk

    def __init__(self, walk: Walk, name: int, client: Client, proxy: TcpProxy) -> None:
        super().__init__(walk, name, client, proxy)
        chance = walk.chance
        self.streams: list[Stream[Any]] = [client.stream(one, shards=OF[one]) for one in STREAMS]
        retry = Retry(attempts=3, first=0.03, cap=0.1, breaker=chance.choice((0, 3)))
        self.group = client.group(
            GROUP,
            self.streams,
            share="shards",
            lease=chance.choice((LEASE, LEASE, 2 * LEASE)),
            hold=HOLD,
            retry=retry,
            max_in_flight=chance.choice((3, 1000)),
            max_parked=chance.choice((2, 1000)),
            ack_interval=chance.choice((0.02, 0.2)),
        )

    def keep(self, events: list[Event[Any]]) -> None:
        """These were handed out."""
        for event in events:
            self.walk.handed(event)
        super().keep(events)


class ShardCrowd(Crowd):
    """Members that share shards."""

    walk: ShardWalk

    async def step(self) -> None:
        """One thing, after what was appended is there."""
        await self.walk.send()
        await super().step()


def shards() -> list[Shard]:
    """Every shard of every stream."""
    return [Shard(name, index, of) for name, of in OF.items() for index in range(of)]


async def members(url: str, seed: int) -> None:
    """A walk of members; in the end those that are left do it all."""
    async with connect(url) as client:
        walk = ShardWalk(url, seed, client)
        await wander(walk, ShardCrowd(walk, ShardActor), 12)
