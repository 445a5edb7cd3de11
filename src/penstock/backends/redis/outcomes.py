"""Outcomes: what a member tells the server about events that it was given.

Does        ack, hand back, give up; plainly where nobody else can have them, owner-checked where
            somebody may.
Does not    decide which: the ledger above says what must be checked, `member.py` who may be dead.
Invariants  1. every verb may be called again when its outcome is not known.
            2. pages are at most `CHECKED` ids: each costs a look-up in the pending list.
Used by     `member.RedisMember`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from penstock.backends.letter_format import PARTS, REASON, as_bytes
from penstock.backends.redis.cursor import BLOCK
from penstock.backends.redis.edge import ReplyError, mapped, refused
from penstock.backends.redis.group_scripts import ACK, LEAVE, PARK
from penstock.backends.redis.keys import PARKED, Keys
from penstock.backends.redis.letter_scripts import GIVE_UP, LETTERS_AT_ONCE
from penstock.backends.redis.link import Link
from penstock.backends.redis.scripts import PAGE
from penstock.backends.redis.takeovers import CHECKED
from penstock.backends.redis.wire import Arg
from penstock.errors import NotFound
from penstock.event import Shard
from penstock.ports import Death, ParkedFull


class Outcomes:
    """The outcomes of one member's events.

    Args:
        link: the connection.
        group: the group's name.
        member: the member's name.
        family: what its beats begin with: by its name alone, another one could be meant.
        trimmed: told how many events of a shard were gone from the stream.
    """

    def __init__(
        self,
        link: Link,
        group: str,
        member: str,
        family: str,
        trimmed: Callable[[Shard, int], None],
    ) -> None:
        self._link = link
        self._group = group
        self._member = member
        self._who = (group, member, family)
        self._trimmed = trimmed

    async def ack(self, keys: Keys, ids: Sequence[bytes]) -> int:
        """Ack, whoever holds them; how many were pending."""
        chunks = [ids[at : at + 1000] for at in range(0, len(ids), 1000)]
        wire = await self._link.wire()
        commands: list[tuple[Arg, ...]] = [
            ("XACK", keys.stream, self._group, *chunk) for chunk in chunks
        ]
        with mapped(self._link.address.place, verb="ack in", key=keys.stream):
            replies = await wire.call_many(commands, timeout=BLOCK)
        for reply in replies:
            if isinstance(reply, ReplyError):
                raise refused(reply, verb="ack in", key=keys.stream)
        return sum(replies)

    async def ack_own(self, keys: Keys, ids: Sequence[bytes], *, replayed: bool) -> int:
        """Ack what is still the member's, and forget its failures; how many that was."""
        done = 0
        names = [keys.stream, keys.beats(self._group), keys.attempts(self._group)]
        for at in range(0, len(ids), CHECKED):
            args = (*self._who, int(replayed), *ids[at : at + CHECKED])
            try:
                done += await self._link.run(ACK, names, *args, verb="ack in")
            except NotFound:  # the group is gone: nothing is ours, and the next fetch says so
                return done
        return done

    async def park(  # noqa: PLR0917 - called by RedisMember alone
        self,
        shard: Shard,
        keys: Keys,
        ids: Sequence[bytes],
        delay: float,
        counted: int,
        most: int,
    ) -> list[bytes]:
        """Hand back; those that were the member's. *counted*: -1 for no failure, else the company.

        Raises:
            ParkedFull: some found no room.
        """
        group = self._group
        names = [keys.stream, keys.beats(group), keys.parked(group), keys.attempts(group)]
        kept: list[bytes] = []
        for at in range(0, len(ids), CHECKED):
            args = (*self._who, PARKED, int(delay * 1000), counted, most)
            try:
                parked, left, gone = await self._link.run(
                    PARK, names, *args, *ids[at : at + CHECKED], verb="hand back to"
                )
            except NotFound:  # the group is gone: nothing is ours, and the next fetch says so
                return kept
            kept += parked
            if gone:
                self._trimmed(shard, gone)
            if left:
                raise ParkedFull(kept, [*left, *ids[at + CHECKED :]])
        return kept

    async def bury(
        self, keys: Keys, dead: str, shard: Shard, deaths: Sequence[Death]
    ) -> list[bytes]:
        """Move to the letters in *dead*; those that were the member's."""
        done: list[bytes] = []
        names = [keys.stream, keys.beats(self._group), keys.attempts(self._group), dead]
        for at in range(0, len(deaths), LETTERS_AT_ONCE):
            rows: list[Arg] = [
                part
                for death in deaths[at : at + LETTERS_AT_ONCE]
                for part in (
                    death.id,
                    death.attempts,
                    as_bytes(death.error),
                    as_bytes(death.reason[:REASON]),
                )
            ]
            args = (*self._who, int(shard.replay), PARTS, *rows)
            try:
                buried, gone = await self._link.run(GIVE_UP, names, *args, verb="dead-letter from")
            except NotFound:  # the group is gone, as above
                return done
            done += buried
            if gone:
                self._trimmed(shard, gone)
        return done

    async def hand_back(self, shard: Shard, keys: Keys, incarnation: str, *, given: bool) -> None:
        """Hand back all that is pending under the member's name, and delete its consumer.

        *given*: an old read of it may yet be given events, so its name is to be remembered.
        """
        names = [keys.stream, keys.beats(self._group), keys.parked(self._group)]
        args = (self._group, self._member, incarnation, PARKED, PAGE, int(given))
        left = 1
        while left > 0:
            left, gone = await self._link.run(LEAVE, names, *args, verb="leave a group of")
            if gone:
                self._trimmed(shard, gone)
