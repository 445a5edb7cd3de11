"""Settling: what is handed back is forgotten when it was answered, and nothing else is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import pytest

from penstock import BackendUnavailable, Event
from penstock.clock import SystemClock
from penstock.event import Shard
from penstock.ports import EventMember, ParkedFull
from penstock.rules.ledger import Ledger
from penstock.streams.settling import Settling

pytestmark = pytest.mark.one_loop

Park = Callable[[Sequence[bytes]], Awaitable[Sequence[bytes]]]


class Where:
    """The origin of a stream's events."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.shard = 0


class Parking:
    """A member that is only asked to park; `park_ids` says how that goes."""

    def __init__(self, park_ids: Park) -> None:
        self.park_ids = park_ids
        self.asked: list[tuple[str, list[bytes]]] = []
        self.began = asyncio.Event()

    async def park(self, shard: Shard, ids: Sequence[bytes], *_: Any, **__: Any) -> Sequence[bytes]:
        self.asked.append((shard.stream, list(ids)))
        self.began.set()
        return await self.park_ids(ids)


async def takes(ids: Sequence[bytes]) -> Sequence[bytes]:
    return ids


def world(*streams: str) -> tuple[Ledger, Settling, dict[str, Any]]:
    ledger = Ledger(10.0)
    settling = Settling(
        ledger, 0.05, SystemClock(), missed=lambda *_: None, settled=lambda: None, most=10
    )
    origins = {name: cast("Any", Where(name)) for name in streams}
    for name, origin in origins.items():
        ledger.open(origin, Shard(name))
    return ledger, settling, origins


def fetched(ledger: Ledger, origin: Any, *numbers: int) -> list[Event[Any]]:
    events = [Event[Any](origin, b"%d-0" % n, [b"n", b"x"], 1, 0, 10) for n in numbers]
    ledger.fetched(origin, events)
    return events


@pytest.mark.parametrize("streams", [("a",), ("a", "b")])
async def test_a_group_lost_while_events_are_handed_back(streams: tuple[str, ...]) -> None:
    """The other streams' events are handed back; the sender goes on."""
    ledger, settling, origins = world(*streams)
    gate = asyncio.Event()

    async def waits(ids: Sequence[bytes]) -> Sequence[bytes]:
        await gate.wait()
        return ids

    for origin in origins.values():
        settling.hand_back(fetched(ledger, origin, 1), 0.0)
    member = Parking(waits)
    flush = asyncio.create_task(settling.flush(cast("EventMember", member)))
    await member.began.wait()
    settling.lose("a")
    gate.set()
    await flush
    assert [stream for stream, _ in member.asked] == list(streams)
    await settling.flush(cast("EventMember", member))
    assert len(member.asked) == len(streams)
    assert all(not ledger.known(Shard(name)) for name in streams)


async def test_what_failed_to_be_handed_back_goes_when_its_group_is_lost() -> None:
    ledger, settling, origins = world("a", "b")
    gate = asyncio.Event()

    async def breaks(_: Sequence[bytes]) -> Sequence[bytes]:
        await gate.wait()
        raise BackendUnavailable("gone")

    member = Parking(breaks)
    for origin in origins.values():
        settling.hand_back(fetched(ledger, origin, 1), 0.0)
    flush = asyncio.create_task(settling.flush(cast("EventMember", member)))
    await member.began.wait()
    settling.lose("a")
    gate.set()
    with pytest.raises(BackendUnavailable):
        await flush
    member.park_ids = takes
    await settling.flush(cast("EventMember", member))
    assert member.asked == [("a", [b"1-0"]), ("b", [b"1-0"])]


async def test_an_event_that_came_again_is_not_known_for_ever() -> None:
    """Its hand-back had arrived, and the reply was lost: a known one would never be claimed."""
    ledger, settling, origins = world("a")

    async def loses_the_reply(_: Sequence[bytes]) -> Sequence[bytes]:
        raise BackendUnavailable("gone")

    member = Parking(loses_the_reply)
    settling.hand_back(fetched(ledger, origins["a"], 1), 0.0)
    with pytest.raises(BackendUnavailable):
        await settling.flush(cast("EventMember", member))
    again = fetched(ledger, origins["a"], 1)
    member.park_ids = takes
    await settling.flush(cast("EventMember", member))
    assert member.asked[-1] == ("a", [])
    assert ledger.known(Shard("a")) == {b"1-0"}
    ledger.lapse(again)
    assert not ledger.known(Shard("a"))


async def test_what_was_no_longer_ours_is_not_known_after_a_crowd() -> None:
    ledger, settling, origins = world("a")

    async def is_full(_: Sequence[bytes]) -> Sequence[bytes]:
        raise ParkedFull([b"1-0"], [b"2-0"])  # and 3-0 is another's by now

    member = Parking(is_full)
    settling.hand_back(fetched(ledger, origins["a"], 1, 2, 3), 0.0)
    await settling.flush(cast("EventMember", member))
    assert ledger.known(Shard("a")) == {b"2-0"}
    member.park_ids = takes
    await settling.flush(cast("EventMember", member))
    assert not ledger.known(Shard("a"))
