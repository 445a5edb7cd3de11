"""Conformance of groups that share shards: one owner each, in order, from what was committed.

Does        state each promise in a docstring, and check it through the ports alone.
Does not    know any backend, or measure speed.
Invariants  as in conformance_tools.
Used by     conformance.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from penstock.errors import ClosedError, LeaseLost
from penstock.event import NEWEST, Position, Shard
from penstock.ports import Along, Burial, TrimTo
from penstock.testing.conformance_owners import OWNER_CHECKS
from penstock.testing.conformance_tools import (
    PATIENCE,
    Check,
    Got,
    Harness,
    Owner,
    append,
    fill,
    numbered,
    numbers,
    own,
    owning,
    refused_name,
    settled,
    shards_of,
    sizes,
)

ALL: Final = {0, 1, 2, 3}


async def check_a_lone_member_owns_all_shards(harness: Harness) -> None:
    """It is told so, and gets each shard in order, its pages with the epoch that it owns it in."""
    name = harness.fresh_name()
    async with harness.open() as backend:
        await fill(backend, name, 4, 20)
        async with owning(backend, harness, name, 4) as owner:
            await settled([owner], lambda: len(owner.events) == 80)
            assert sorted(owner.gained) == shards_of(name, 4)
            for shard, ownership in owner.member.owned.items():
                mine = [row for row in owner.events if row.shard == shard]
                assert numbers(mine) == list(range(20))
                assert {row.epoch for row in mine} == {ownership.epoch}
                assert (ownership.committed, ownership.state) == (None, None)


async def check_a_newcomer_gets_its_fair_share(harness: Harness) -> None:
    """Shards are spread evenly, and no more of them move than the newcomer is due."""
    name = harness.fresh_name()
    async with harness.open() as backend, harness.open() as other:
        await fill(backend, name, 4, 1)
        async with owning(backend, harness, name, 4) as a:
            await settled([a], lambda: a.shards == ALL)
            async with owning(other, harness, name, 4) as b:
                await settled([a, b], lambda: len(a.shards) == len(b.shards) == 2)
                assert a.shards | b.shards == ALL
                assert {shard.index for shard in a.lost} == b.shards
                async with owning(other, harness, name, 4) as c:
                    await settled([a, b, c], lambda: sizes(a, b, c) == [1, 1, 2])
                    assert a.shards | b.shards | c.shards == ALL
                    assert len(a.lost) + len(b.lost) == 3


async def check_each_event_is_handed_out_by_its_owner(harness: Harness) -> None:
    """While nothing moves, members together get every event once, each shard in order."""
    name = harness.fresh_name()
    async with (
        harness.open() as backend,
        harness.open() as other,
        owning(backend, harness, name, 4) as a,
        owning(other, harness, name, 4) as b,
    ):
        await settled([a, b], lambda: len(a.shards) == len(b.shards) == 2)
        await fill(backend, name, 4, 25)
        await settled([a, b], lambda: len(a.events) + len(b.events) >= 100)
        for shard in shards_of(name, 4):
            found = [row for row in a.events + b.events if row.shard == shard]
            assert numbers(found) == list(range(25))


async def check_what_is_committed_is_handed_over(harness: Harness) -> None:
    """Position and state, in one step; the next owner begins behind them, in a later epoch."""
    name = harness.fresh_name()
    async with harness.open() as backend, harness.open() as other:
        await fill(backend, name, 1, 10)
        async with owning(backend, harness, name, 1) as a:
            await settled([a], lambda: len(a.events) == 10)
            await a.commit(a.events[2], b"early")
            await a.commit(a.events[5], b"sum=15\x00\xff")
            assert next(iter(a.member.owned.values())).committed == _position(a.events[5])
        async with owning(other, harness, name, 1) as b:
            await settled([b], lambda: len(b.events) == 4)
            assert numbers(b.events) == [6, 7, 8, 9]
            (ownership,) = b.member.owned.values()
            assert ownership.committed == _position(a.events[5])
            assert ownership.state == b"sum=15\x00\xff"
            assert ownership.epoch > a.events[0].epoch


async def check_notes_and_letters_go_with_the_position(harness: Harness) -> None:
    """The next owner has the notes, and knows how old they are; a letter is kept once."""
    name = harness.fresh_name()
    async with harness.open() as backend, harness.open() as other:
        await fill(backend, name, 1, 4)
        async with owning(backend, harness, name, 1) as a:
            await settled([a], lambda: len(a.events) == 4)
            event = a.events[1]
            raw = [b"n", b"1"]
            burial = Burial(event.id, 3, 2, "ValueError", "no", raw)
            along = Along(b"notes\x00\xff", (burial,))
            await a.member.commit(event.shard, event.epoch, _position(event), None, along)
            (letter,) = await backend.letters(event.shard, "g", None, 10)
            assert (letter.position, letter.attempts, letter.deliveries) == (_position(event), 3, 2)
            assert (letter.error, letter.reason, list(letter.raw)) == ("ValueError", "no", raw)
            await asyncio.sleep(0.05)
        async with owning(other, harness, name, 1) as b:
            await settled([b], lambda: len(b.events) == 2)
            (ownership,) = b.member.owned.values()
            assert ownership.notes == b"notes\x00\xff"
            assert 0.03 < ownership.age < PATIENCE
            last = b.events[-1]
            assert await backend.replay(last.shard, "g", [letter.id]) == 1
            await settled([b], lambda: len(b.events) == 3)
            again = b.events[-1]
            assert (again.shard.replay, again.number, again.epoch) == (True, 1, ownership.epoch)
            await b.member.commit(
                last.shard, last.epoch, _position(last), None, Along(replayed=(again.id,))
            )
        async with owning(other, harness, name, 1) as c:
            await settled([c], lambda: c.shards == {0})
            await c.step(wait=0.3)
            assert c.events == []


async def check_what_others_are_due_is_named_first(harness: Harness) -> None:
    """Nothing more comes of it; released, it moves at once, and nothing else does."""
    name = harness.fresh_name()
    async with harness.open() as backend, harness.open() as other:
        await fill(backend, name, 2, 1)
        async with owning(backend, harness, name, 2) as a:
            await settled([a], lambda: len(a.events) == 2)
            async with owning(other, harness, name, 2) as b:
                await settled([a, b], lambda: bool(a.member.yielding) or bool(b.shards))
                for shard in a.member.yielding:
                    await a.member.release(shard)
                await settled([a, b], lambda: len(a.shards) == len(b.shards) == 1)
                assert a.member.yielding == ()


async def check_a_resting_member_is_due_no_shard(harness: Harness) -> None:
    """Alone it keeps them; while another is awake all are that one's, until it rests no more."""
    name = harness.fresh_name()
    async with harness.open() as backend, harness.open() as other:
        await fill(backend, name, 4, 1)
        async with owning(backend, harness, name, 4) as a:
            await settled([a], lambda: len(a.events) == 4)
            a.member.rest(True)
            await _for_a_while(harness, a)
            assert (a.shards, a.member.yielding) == (ALL, ())
            async with owning(other, harness, name, 4) as b:
                await _handed_over(a, b)
                await settled([b], lambda: len(b.events) == 4)
                a.member.lapse()
                await _for_a_while(harness, a, b)
                assert (a.shards, b.shards, b.member.yielding) == (set(), ALL, ())
                b.member.rest(True)
                a.member.rest(False)
                await _handed_over(b, a)
                b.member.rest(False)
                await settled([a, b], lambda: len(a.shards) == len(b.shards) == 2)


async def check_only_the_owner_commits(harness: Harness) -> None:
    """A commit in a former epoch, or in one that never was, is refused and keeps nothing."""
    name = harness.fresh_name()
    async with harness.open() as backend, harness.open() as other:
        await fill(backend, name, 2, 5)
        async with owning(backend, harness, name, 2) as a:
            await settled([a], lambda: len(a.events) == 10)
            async with owning(other, harness, name, 2) as b:
                await settled([a, b], lambda: sizes(a, b) == [1, 1])
                lost = [row for row in a.events if row.shard.index in b.shards]
                kept = [row for row in a.events if row.shard.index in a.shards]
                assert await _refused(a, lost[4], b"late")
                assert await _refused(a, kept[4]._replace(epoch=kept[4].epoch + 1), b"never")
                await a.commit(kept[4], b"own")
                (theirs,) = b.member.owned.values()
                assert (theirs.committed, theirs.state) == (None, None)


async def check_leaving_frees_shards_at_once(harness: Harness) -> None:
    """Another has them within a second, and who left commits no more, not even before that."""
    name = harness.fresh_name()
    async with harness.open() as backend, harness.open() as other:
        await fill(backend, name, 3, 1)
        a = await own(backend, harness, name, 3)
        await settled([a], lambda: len(a.shards) == 3)
        async with owning(other, harness, name, 3) as b:
            await settled([a, b], lambda: sizes(a, b) == [1, 2])
            await append(backend, Shard(name, min(a.shards), 3), numbered(1, 1))
            await settled([a], lambda: 1 in numbers(a.events))
            await a.member.leave()
            assert await _refused(a, a.events[-1], b"too late")
            await settled([b], lambda: len(b.shards) == 3, 1.0)


async def check_a_living_owner_name_is_refused(harness: Harness) -> None:
    """Two living members never bear one name."""
    name = harness.fresh_name()
    async with harness.open() as backend, harness.open() as other:
        async with owning(backend, harness, name, 1, name="one"):
            assert await refused_name(own(other, harness, name, 1, name="one"))
        async with owning(other, harness, name, 1, name="one") as again:
            assert again.member.name == "one"


async def check_a_shard_group_begins_at_its_start(harness: Harness) -> None:
    """NEWEST is anchored when the group is made, not when a shard is taken."""
    name = harness.fresh_name()
    async with harness.open() as backend:
        await fill(backend, name, 2, 3)
        async with owning(backend, harness, name, 2, start=NEWEST) as owner:
            for shard in shards_of(name, 2):
                await append(backend, shard, numbered(3, 2))
            await settled([owner], lambda: len(owner.events) >= 4)
            assert sorted(numbers(owner.events)) == [3, 3, 4, 4]


async def check_a_waiting_owner_wakes_on_an_append(harness: Harness) -> None:
    """It returns when something comes, not when its time is over."""
    name = harness.fresh_name()
    async with (
        harness.open() as backend,
        harness.open() as other,
        owning(backend, harness, name, 1) as owner,
    ):
        await settled([owner], lambda: owner.shards == {0})
        waiting = asyncio.create_task(owner.step(wait=60.0))
        await asyncio.sleep(0.05)  # so that it most likely waits; right either way
        await append(other, Shard(name), numbered(0, 1))
        await asyncio.wait_for(waiting, PATIENCE)
        assert numbers(owner.events) == [0]


async def check_trimming_keeps_what_is_not_committed(harness: Harness) -> None:
    """acked_only leaves whatever lies behind the committed position."""
    name = harness.fresh_name()
    async with harness.open() as backend:
        await fill(backend, name, 1, 10)
        async with owning(backend, harness, name, 1) as owner:
            await settled([owner], lambda: len(owner.events) == 10)
            assert await backend.trim(Shard(name), TrimTo(max_events=0)) == 0
            await owner.commit(owner.events[3])
            assert await backend.trim(Shard(name), TrimTo(max_events=0)) == 4


async def check_how_far_behind_a_shard_is_told(harness: Harness) -> None:
    """In events and seconds, behind what was committed, also where that is within a page."""
    name = harness.fresh_name()
    async with harness.open() as backend:
        await fill(backend, name, 1, 10)
        async with owning(backend, harness, name, 1) as owner:
            await settled([owner], lambda: len(owner.events) == 10)
            for done, behind in ((None, 10), (3, 6), (9, 0)):
                if done is not None:
                    await owner.commit(owner.events[done])
                (info,) = await backend.groups(Shard(name))
                assert (info.lag, info.deliveries) == (behind, 10 - behind)
                assert info.lag_seconds is not None
                assert 0 <= info.lag_seconds < PATIENCE
            assert info.lag_seconds == 0


async def _handed_over(old: Owner, new: Owner) -> None:
    """*old* gives up what is named, until *new* has all: sooner than by waiting a lease."""
    while new.shards != ALL:
        await settled([old, new], lambda: bool(old.member.yielding) or new.shards == ALL)
        for shard in old.member.yielding:
            await old.member.release(shard)
        await asyncio.gather(old.step(), new.step())


async def _for_a_while(harness: Harness, *owners: Owner) -> None:
    """Fetch for a lease."""
    loop = asyncio.get_running_loop()
    end = loop.time() + harness.lease
    while loop.time() < end:
        await asyncio.gather(*(owner.step() for owner in owners))


async def _refused(owner: Owner, event: Got, state: bytes) -> bool:
    try:
        await owner.commit(event, state)
    except (LeaseLost, ClosedError):
        return True
    return False


def _position(event: Got) -> Position:
    return Position.of(event.id)


SHARD_GROUP_CHECKS: Final[Sequence[Check]] = (
    check_a_lone_member_owns_all_shards,
    check_a_newcomer_gets_its_fair_share,
    check_each_event_is_handed_out_by_its_owner,
    check_what_is_committed_is_handed_over,
    check_notes_and_letters_go_with_the_position,
    check_what_others_are_due_is_named_first,
    check_a_resting_member_is_due_no_shard,
    check_only_the_owner_commits,
    check_leaving_frees_shards_at_once,
    check_a_living_owner_name_is_refused,
    check_a_shard_group_begins_at_its_start,
    check_a_waiting_owner_wakes_on_an_append,
    check_trimming_keeps_what_is_not_committed,
    check_how_far_behind_a_shard_is_told,
    *OWNER_CHECKS,
)
"""What every backend with `Features.shard_groups` promises."""
