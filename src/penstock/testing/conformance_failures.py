"""Conformance of failures in groups that share events: counts, dead letters, replay, bounds.

Does        state each promise in a docstring, and check it through the ports alone.
Does not    know any backend, or measure speed.
Invariants  as in conformance_tools.
Used by     conformance_groups.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from penstock.event import Shard
from penstock.ports import DeadLetter, Death, EventMember, ParkedFull, TrimTo
from penstock.testing.conformance_tools import (
    Check,
    Got,
    Harness,
    ack,
    append,
    drain,
    join,
    joined,
    nothing_comes,
    numbered,
    numbers,
    rows,
)


async def check_company_comes_back_with_the_event(harness: Harness) -> None:
    """What failed in a batch says how many it may be handed out with, until it fails again."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        await append(backend, shard, numbered(0, 2))
        async with joined(backend, harness, [shard]) as member:
            ids = [row.id for row in await drain(member, 2)]
            for company, attempts in ((8, 1), (4, 2), (1, 3)):
                await member.park(shard, ids, 0.0, failed=True, company=company)
                got = await drain(member, 2)
                assert {(row.attempts, row.company) for row in got} == {(attempts, company)}
            await member.park(shard, ids, 0.0, failed=False)
            got = await drain(member, 2)
            assert {(row.attempts, row.company) for row in got} == {(3, 1)}
            assert await ack(member, got, fenced=True) == 2


async def check_dead_letters_keep_cause_and_contents(harness: Harness) -> None:
    """Given up, an event is a letter with all that is known of it, and pending no more."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        positions = await append(backend, shard, [[b"n", b"0", b"n", b"\xff", b"", b""]])
        async with joined(backend, harness, [shard]) as member:
            (page,) = await member.fetch(10, 1.0)
            death = Death(page.entries[0][0], 3, "ValueError", "no such customer: \u00fc")
            assert list(await member.bury(shard, [death])) == [death.id]
            (letter,) = await backend.letters(shard, "g", None, 10)
            assert letter.position == positions[0]
            assert (letter.shard, letter.group) == (shard, "g")
            assert (letter.attempts, letter.deliveries) == (3, 1)
            assert (letter.error, letter.reason) == ("ValueError", "no such customer: \u00fc")
            assert list(letter.raw) == [b"n", b"0", b"n", b"\xff", b"", b""]
            assert abs(letter.time - time.time()) < 3600
            (info,) = await backend.groups(shard)
            assert (info.pending, info.parked) == (0, 0)
            assert await member.ack(shard, [death.id], fenced=True) == 0
            assert not await member.bury(shard, [death])
            assert await backend.count_letters(shard, "g") == 1


async def check_only_its_owner_gives_an_event_up(harness: Harness) -> None:
    """Once an event is another's, a former owner cannot bury it."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend, harness.open() as other:
        await append(backend, shard, numbered(0, 1))
        async with joined(backend, harness, [shard]) as a, joined(other, harness, [shard]) as b:
            (row,) = await drain(a, 1)
            await a.park(shard, [row.id], 0.0, failed=False)
            got = await drain(b, 1)
            assert not await a.bury(shard, [Death(row.id, 1)])
            assert not await backend.count_letters(shard, "g")
            assert await ack(b, got, fenced=True) == 1


async def check_letters_are_listed_in_pages(harness: Harness) -> None:
    """Oldest first, behind the letter that was seen last; dropping removes some for good."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        await append(backend, shard, numbered(0, 250))
        async with joined(backend, harness, [shard]) as member:
            await _bury(member, await drain(member, 250))
        found: list[DeadLetter] = []
        while page := await backend.letters(shard, "g", found[-1].id if found else None, 99):
            found += page
        assert [int(letter.raw[1]) for letter in found] == list(range(250))
        dropped = [letter.id for letter in found[10:]]
        assert await backend.drop_letters(shard, "g", dropped) == 240
        assert await backend.drop_letters(shard, "g", dropped) == 0
        assert await backend.count_letters(shard, "g") == 10
        assert not await backend.letters(shard, "nobody", None, 10)
        assert await backend.drop(shard, "g")
        assert not await backend.count_letters(shard, "g")


async def check_replay_goes_to_that_group_alone(harness: Harness) -> None:
    """Replayed, a letter comes again as if it had never failed, once, to the group that failed."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend, harness.open() as other:
        positions = await append(backend, shard, numbered(0, 3))
        async with (
            joined(backend, harness, [shard]) as member,
            joined(other, harness, [shard], group="other") as stranger,
        ):
            await ack(stranger, await drain(stranger, 3))
            got = await drain(member, 3)
            await member.park(shard, [got[0].id], 0.0, failed=True, company=1)
            await _bury(member, [*got[1:], *await drain(member, 1)])
            letters = await backend.letters(shard, "g", None, 10)
            assert sorted(letter.position for letter in letters) == positions
            ids = [letter.id for letter in letters]
            assert await backend.replay(shard, "g", ids) == 3
            assert await backend.replay(shard, "g", ids) == 0
            assert not await backend.count_letters(shard, "g")
            got = await drain(member, 3)
            assert sorted(numbers(got)) == [0, 1, 2]
            assert {(row.deliveries, row.attempts, row.company) for row in got} == {(1, 0, 0)}
            await nothing_comes(stranger, 0.1)
            assert await ack(member, got) == 3
        async with joined(backend, harness, [shard]) as member:
            await nothing_comes(member, 0.7)


async def check_replay_works_where_the_stream_was_trimmed(harness: Harness) -> None:
    """A letter holds its event: it can be handed back, and fail again, when the stream has not."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        positions = await append(backend, shard, numbered(0, 2))
        async with joined(backend, harness, [shard]) as member:
            await _bury(member, await drain(member, 2))
            assert await backend.trim(shard, TrimTo(max_events=0, acked_only=False)) == 2
        letters = await backend.letters(shard, "g", None, 10)
        assert await backend.replay(shard, "g", [letter.id for letter in letters]) == 2
        crashed = await join(backend, harness, [shard])
        assert sorted(numbers(await drain(crashed, 2))) == [0, 1]
        crashed.abandon()
        async with joined(backend, harness, [shard]) as member:
            got = await drain(member, 2)
            await member.park(got[0].shard, [got[0].id], 0.0, failed=True, company=1)
            await _bury(member, [*got[1:], *await drain(member, 1)])
        letters = await backend.letters(shard, "g", None, 10)
        assert sorted(letter.position for letter in letters) == positions
        assert sorted(int(letter.raw[1]) for letter in letters) == [0, 1]


async def check_the_parked_are_bounded(harness: Harness) -> None:
    """Beyond the bound an event stays with its member; what is due makes room."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        await append(backend, shard, numbered(0, 5))
        async with joined(backend, harness, [shard]) as member:
            ids = [row.id for row in await drain(member, 5)]
            await member.park(shard, ids[:1], 0.0, failed=True, company=1, most=3)
            full = await _parked_full(member, shard, ids[1:], 3)
            assert (list(full.kept), list(full.left)) == (ids[1:3], ids[3:])
            (info,) = await backend.groups(shard)
            assert (info.pending, info.parked) == (2, 3)
            assert numbers(await drain(member, 1)) == [0]
            assert await member.park(shard, ids[3:4], 30.0, failed=True, company=1, most=3)


async def check_a_fetch_can_leave_out_what_is_new(harness: Harness) -> None:
    """Then only what was handed out before comes."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        await append(backend, shard, numbered(0, 1))
        async with joined(backend, harness, [shard]) as member:
            (row,) = await drain(member, 1)
            await member.rest()
            await append(backend, shard, numbered(1, 1))
            assert not rows(await member.fetch(10, 0.1, new=False))
            await member.park(shard, [row.id], 0.0, failed=False)
            deadline, found = time.monotonic() + 10.0, list[Got]()
            while not found and time.monotonic() < deadline:
                found = rows(await member.fetch(10, 0.2, new=False))
            assert numbers(found) == [0]
            assert numbers(await drain(member, 1)) == [1]


async def check_a_resting_member_holds_nothing_new(harness: Harness) -> None:
    """What it is given while it rests comes to others at once; later it fetches again."""
    shard = Shard(harness.fresh_name())
    async with (
        harness.open() as backend,
        harness.open() as other,
        joined(backend, harness, [shard]) as a,
    ):
        assert not await a.fetch(10, 0.05)  # its read may go on
        await a.rest()
        await append(other, shard, numbered(0, 5))
        async with joined(other, harness, [shard]) as b:
            got = await drain(b, 5)
            assert [row.attempts for row in got] == [0] * 5
            await ack(b, got)
        await append(other, shard, numbered(5, 1))
        assert numbers(await drain(a, 1)) == [5]


async def check_shards_come_and_go_while_a_member_lives(harness: Harness) -> None:
    """Added, a shard's events come; removed, what was not acked is handed back, uncounted."""
    first, second = Shard(harness.fresh_name()), Shard(harness.fresh_name())
    async with harness.open() as backend, harness.open() as other:
        await append(backend, first, numbered(0, 2))
        await append(backend, second, numbered(10, 3))
        async with joined(backend, harness, [first], name="one") as member:
            assert numbers(await drain(member, 2)) == [0, 1]
            await member.add([second])
            await member.add([second])
            got = await drain(member, 3)
            assert sorted(numbers(got)) == [10, 11, 12]
            assert await member.ack(second, [got[0].id]) == 1
            await member.remove([second])
            assert await member.ack(second, [got[1].id], fenced=True) == 0
            (info,) = await backend.groups(second)
            assert (info.pending, info.parked, info.members) == (0, 2, ())
            async with joined(other, harness, [second], name="one") as taker:
                again = await drain(taker, 2)
                assert sorted(numbers(again)) == sorted(numbers(got[1:]))
                assert [row.attempts for row in again] == [0, 0]
            await append(backend, first, numbered(2, 1))
            assert numbers(await drain(member, 1)) == [2]
            await member.add([second])
            assert sorted(numbers(await drain(member, 2))) == sorted(numbers(got[1:]))


async def check_noack_keeps_nothing(harness: Harness) -> None:
    """Handed out, an event is done: nothing is pending, and a crash loses it."""
    shard = Shard(harness.fresh_name())
    async with harness.open() as backend:
        await append(backend, shard, numbered(0, 3))
        crashed = await join(backend, harness, [shard], noack=True)
        assert numbers(await drain(crashed, 3)) == [0, 1, 2]
        (info,) = await backend.groups(shard)
        assert (info.pending, info.parked) == (0, 0)
        crashed.abandon()
        await append(backend, shard, numbered(3, 1))
        async with joined(backend, harness, [shard]) as member:
            assert numbers(await drain(member, 1)) == [3]


async def _parked_full(
    member: EventMember, shard: Shard, ids: Sequence[bytes], most: int
) -> ParkedFull:
    """Park where there is too little room."""
    try:
        await member.park(shard, ids, 30.0, failed=True, company=1, most=most)
    except ParkedFull as full:
        return full
    raise AssertionError(f"{len(ids)} events more cannot be parked where {most} may be")


async def _bury(member: EventMember, events: Sequence[Got]) -> None:
    for event in events:
        assert await member.bury(event.shard, [Death(event.id, event.attempts + 1, "E", "why")])


FAILURE_CHECKS: Final[Sequence[Check]] = (
    check_company_comes_back_with_the_event,
    check_dead_letters_keep_cause_and_contents,
    check_only_its_owner_gives_an_event_up,
    check_letters_are_listed_in_pages,
    check_replay_goes_to_that_group_alone,
    check_replay_works_where_the_stream_was_trimmed,
    check_the_parked_are_bounded,
    check_a_fetch_can_leave_out_what_is_new,
    check_a_resting_member_holds_nothing_new,
    check_shards_come_and_go_while_a_member_lives,
    check_noack_keeps_nothing,
)
"""What becomes of failures: a part of the checks of event groups."""
