"""What members of groups that share events begin is broken off half-way: nothing is stranded."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from faults.machinery import GROUP, STREAM, add, asked, pending_of, soon, take, watched
from faults.scenarios import LEASE
from penstock import OLDEST, BackendUnavailable, Client, ConfigError, Group, Retry
from penstock.backends.redis.group_scripts import LOOK, PARK
from penstock.backends.redis.joining import take_names
from penstock.backends.redis.keys import Keys
from penstock.backends.redis.member import RedisMember
from penstock.backends.redis.recovery_scripts import RENEW
from penstock.backends.redis.takeovers import LOOK_EVERY
from penstock.event import Shard
from penstock.ports import MemberOptions
from penstock.testing import ManualClock

pytestmark = pytest.mark.one_loop

MORE = "more"


class Gate:
    """Holds the call of one script on one stream, once."""

    def __init__(self, client: Client, script: Any, stream: str) -> None:
        self.link: Any = client.backend.link
        self.reached, self.open = asyncio.Event(), asyncio.Event()
        self._run, self._what = self.link.run, (script, stream)
        self.link.run = self.run

    async def run(self, script: Any, keys: Any, *args: Any, **more: Any) -> Any:
        reply = await self._run(script, keys, *args, **more)
        if (script, keys[0]) == self._what and not self.reached.is_set():
            self.reached.set()
            await self.open.wait()
        return reply


def member_of(group: Group[Any]) -> Any:
    """What is a member of a group on the server."""
    work: Any = group._work
    return work._member


def answered(member: RedisMember) -> Callable[[], bool]:
    """Whether the read that is under way has its answer."""
    reading: Any = member._reads._reading
    return lambda: bool(reading.done())


@asynccontextmanager
async def bare(client: Client, *streams: str, **options: Any) -> AsyncGenerator[RedisMember]:
    """A member with nothing above it."""
    given: Any = {"start": OLDEST, "name": None, "lease": 5.0, "hold": 5.0, **options}
    backend: Any = client.backend
    member = await backend.join([Shard(one) for one in streams], GROUP, MemberOptions(**given))
    member.tell_known(lambda _: ())
    try:
        yield member
    finally:
        await member.leave()


async def test_a_stream_goes_while_a_member_with_full_hands_looks(servers: str) -> None:
    """Its groups are looked after as before."""
    async with watched(servers) as (client, signals):
        streams = [client.stream(STREAM), client.stream(MORE)]
        add(servers, range(2))
        async with client.group(GROUP, streams, lease=LEASE, max_in_flight=2) as group:
            await take([group], 2)
            gate = Gate(client, LOOK, STREAM)
            await asyncio.wait_for(gate.reached.wait(), 10.0)
            await group.remove_stream(streams[1])
            gate.open.set()
            keeping = member_of(group)._keeping
            await asyncio.sleep(0.1)
            assert not keeping.done()
            asked(servers, "XGROUP", "DESTROY", STREAM, GROUP)
            await soon(lambda: "group-lost" in [one.kind for one in signals], "it is looked after")


async def test_a_stream_goes_while_events_are_renewed(servers: str) -> None:
    """Foreign consumers are in all groups: what is renewed changes meanwhile."""
    async with watched(servers) as (client, _):
        streams = [client.stream(name) for name in (STREAM, MORE, "most")]
        async with client.group(GROUP, streams, lease=LEASE) as group:
            gates = [Gate(client, RENEW, one.name) for one in streams]
            for stream in streams:
                asked(servers, "XGROUP", "CREATECONSUMER", stream.name, GROUP, "foreign")
            await soon(lambda: any(gate.reached.is_set() for gate in gates), "they are renewed")
            held = next(at for at, gate in enumerate(gates) if gate.reached.is_set())
            for at in range(3):
                if at != held:
                    gates[at].open.set()
            await group.remove_stream(streams[(held + 1) % 3])
            gates[held].open.set()
            for name in (streams[held].name, streams[(held + 2) % 3].name):
                add(servers, range(1), key=name)
            group.ack(await take([group], 2))
            await group.flush()


async def test_resting_that_cannot_hand_back_does_so_later(servers: str) -> None:
    """The read that it ended was given events: they go to others, though nobody asks here."""
    async with watched(servers) as (client, _), bare(client, STREAM) as member:
        await member.fetch(10, 0.0)
        add(servers, range(20))
        await soon(answered(member), "the read is answered")
        link: Any = member._link
        run, refused = link.run, 0

        async def broken(script: Any, *args: Any, **more: Any) -> Any:
            nonlocal refused
            if script is PARK and not refused:
                refused += 1
                raise BackendUnavailable("cut", backend="redis", verb="hand back", key=STREAM)
            return await run(script, *args, **more)

        link.run = broken
        with pytest.raises(BackendUnavailable):
            await member.rest()
        assert refused
        await member.rest()
        await soon(lambda: pending_of(servers, member.name) == 0, "all is handed back", 5.0)


async def test_resting_that_is_cancelled_hands_back_all_the_same(servers: str) -> None:
    async with watched(servers) as (client, _), bare(client, STREAM) as member:
        await member.fetch(10, 0.0)
        add(servers, range(20))
        await soon(answered(member), "the read is answered")
        link: Any = member._link
        run = link.run

        async def slow(script: Any, *args: Any, **more: Any) -> Any:
            if script is PARK:
                await asyncio.sleep(10.0)
            return await run(script, *args, **more)

        link.run = slow
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await member.rest()
        link.run = run
        await member.rest()
        await soon(lambda: pending_of(servers, member.name) == 0, "all is handed back", 5.0)


async def test_a_stream_whose_adding_is_cancelled_at_its_end_is_not_shared(servers: str) -> None:
    async with watched(servers) as (client, _):
        streams = [client.stream(STREAM), client.stream(MORE)]
        async with streams[0].group(GROUP, lease=LEASE) as group:
            member = member_of(group)
            end = member._reads.end

            async def slow() -> bool:
                await asyncio.sleep(10.0)
                return await end()

            member._reads.end = slow
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await group.add_stream(streams[1])
            member._reads.end = end
            add(servers, range(5), key=MORE)
            async with (
                watched(servers) as (other, _),
                other.stream(MORE).group(GROUP, lease=LEASE) as heir,
            ):
                taken = await take([heir], 5)
                heir.ack(taken)


# --- a name that somebody had ----------------------------------------------------------------


async def test_a_lost_group_delays_nobody_where_letters_were_replayed(servers: str) -> None:
    """The member has its name there, and waits for no lease to take it up again."""
    async with watched(servers) as (client, signals):
        stream = client.stream(STREAM)
        add(servers, range(3))
        async with stream.group(GROUP, lease=30.0, retry=Retry(attempts=1)) as group:
            group.nack(await take([group], 1))
            await group.flush()
            letters = stream.dead_letters(GROUP)
            await letters.replay([letter async for letter in letters])
            group.ack(await take([group], 3))
            await group.flush()
            asked(servers, "XGROUP", "DESTROY", STREAM, GROUP)
            await soon(lambda: "group-lost" in [one.kind for one in signals], "it is made anew")
            seen: set[int] = set()
            for first in (3, 6):
                await asyncio.sleep(LOOK_EVERY)  # it looks for replayed events again
                add(servers, range(first, first + 3))
                while not seen >= set(range(first, first + 3)):
                    (event,) = await take([group], 1)
                    seen.add(int(event.value["n"]))
                    group.ack(event)


async def test_letters_that_a_dead_bearer_of_the_name_held_delay_nothing(servers: str) -> None:
    """They come when he is known to be dead; all else comes at once."""
    async with watched(servers) as (client, _):
        stream = client.stream(STREAM)
        add(servers, range(1))
        async with stream.group(GROUP, lease=LEASE, retry=Retry(attempts=1)) as group:
            group.nack(await take([group], 1))
            await group.flush()
        letters = stream.dead_letters(GROUP)
        await letters.replay([letter async for letter in letters])
        replay = Keys(Keys(STREAM).replay(GROUP))
        asked(servers, "XREADGROUP", "GROUP", GROUP, "w1", "STREAMS", replay.stream, ">")
        asked(servers, "HSET", replay.beats(GROUP), "w1", "badcafe:600000:7")
        add(servers, range(1, 5))
        async with stream.group(GROUP, lease=LEASE, member="w1") as group:
            assert [int(event.value["n"]) for event in await take([group], 4)] == [1, 2, 3, 4]
            asked(servers, "HSET", replay.beats(GROUP), "w1", "struck")
            assert [int(event.value["n"]) for event in await take([group], 1)] == [0]


async def test_a_name_that_a_dead_one_had_is_taken_in_all_streams_after_one_lease() -> None:
    clock = ManualClock()
    beats = {Shard("orders", n, 8): f"badcafe:10000:{n}" for n in range(1, 8)}

    class Groups:
        def __init__(self) -> None:
            self.clock = clock

        async def enter(self, shard: Shard, _: str, __: str, own: str, seen: str) -> str:
            if (beat := beats.get(shard, "struck")) not in {"struck", seen}:
                return beat
            beats[shard] = f"{own}:0"
            return "joined"

    groups: Any = Groups()
    shards = [Shard("orders", n, 8) for n in range(8)]
    taking = asyncio.create_task(take_names(groups, shards, GROUP, "w1", "ours.1:10000", 10.0))
    await clock.advance(5.0)
    assert beats[shards[0]] == "ours.1:10000:0"
    beats[shards[0]] = "struck"  # it does not beat yet: somebody took it for dead
    await clock.advance(4.9)
    assert not taking.done()
    await clock.advance(2.6)
    assert taking.done()
    assert set(beats.values()) == {"ours.1:10000:0"}


async def test_a_name_whose_bearer_lives_in_one_of_the_streams_is_refused() -> None:
    clock = ManualClock()
    counter = itertools.count()

    class Groups:
        def __init__(self) -> None:
            self.clock = clock

        async def enter(self, shard: Shard, *_: str) -> str:
            return f"badcafe:10000:{next(counter)}" if shard.stream == "b" else "joined"

    groups: Any = Groups()
    shards = [Shard("a"), Shard("b")]
    taking = asyncio.create_task(take_names(groups, shards, GROUP, "w1", "ours.1:10000", 10.0))
    await clock.advance(12.0)
    with pytest.raises(ConfigError, match=r"'w1' is in group 'g' of 'b'"):
        await taking
