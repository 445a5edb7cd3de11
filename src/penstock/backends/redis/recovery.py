"""Recovery: what keeps a member's groups from losing their place.

Does        make groups, and make lost ones anew where all was acked; look after them: move their
            marks, notice that another has made them anew, find what was trimmed unread or pending;
            keep our events from consumers that go by idle time alone.
Does not    hand out events (`takeovers.py`), or decide when to look: its caller does.
Invariants  1. the mark is moved by the script that computes it, never ahead of the acks.
            2. a group that is lost is made anew at its mark, or at the oldest event; never at `$`.
            3. what was trimmed is counted once, by whoever looks first, and never handed out.
Source      reliability notes 1.3, 1.4; DESIGN.md, "Loss of the group is survived".
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, Final, NamedTuple

from penstock.backends.redis.edge import ReplyError
from penstock.backends.redis.group_scripts import ACK
from penstock.backends.redis.keys import PARKED, Keys
from penstock.backends.redis.link import Link
from penstock.backends.redis.recovery_scripts import GAP, MAKE, RENEW, REPARK, TEND
from penstock.backends.redis.replies import text
from penstock.backends.redis.scripts import PAGE
from penstock.backends.redis.wire import Arg
from penstock.event import Shard
from penstock.ports import GroupVanished, MemberOptions, ShardsCame
from penstock.signals import Kind

_OLDEST: Final = "0-0"


class Mark(NamedTuple):
    """Up to where a group has acked everything, as ids, with what the stream was like then.

    `token` is born with the group: another one means another group of the same name.
    """

    token: str
    position: str = ""
    added: str = ""
    last: str = ""


class Made(NamedTuple):
    """What became of making a group: `made`, `again` (it was lost), or `there` already."""

    how: str
    mark: Mark


async def make_group(
    link: Link, keys: Keys, group: str, start: str, *, copy: Mark | None = None, plain: bool = False
) -> Made:
    """Make the group, and the stream if need be; a lost one begins where it had acked everything.

    Args:
        link: for one call.
        keys: the stream's.
        group: its name.
        start: where a new group begins: ``0``, ``$`` or an id.
        copy: the mark as a member remembers it, for when the server has lost its own.
        plain: begin at *start* even if a group of this name was lost.

    Raises:
        ShardsCame: it was to be one key, and is in shards by now.
    """
    names = [keys.stream, keys.mark(group), keys.parked(group), keys.attempts(group), keys.meta]
    known = copy or Mark("")
    args = (group, PARKED, start, secrets.token_hex(8), int(not plain), *known[1:])
    reply = await link.run(MAKE, names, *args, verb="join a group of", key=keys.stream)
    how, token, at = map(text, reply)
    if how == "sharded":
        raise ShardsCame(keys.stream)
    return Made(how, Mark(token, at))


class Recovery:
    """What one member does for its groups, beside handing out events.

    Args:
        link: a connection that does not block.
        keys: the names of each stream.
        group: the group's name.
        name: the member's name.
        options: how the member behaves.
        signal: tells observers: kind, message, shard, count.

    Attributes:
        family: what the member's beats begin with.
        marks: each group's mark, as it was last seen.
        due: by shard, in how many seconds the next parked event is due, as it was last seen.
        untimed: where events are parked that have lost their time, and how far that was looked at.
        unowned: trimmed events that stand in our pending list and that the program may not hold.
    """

    def __init__(  # noqa: PLR0917 - made by Takeovers alone
        self,
        link: Link,
        keys: Mapping[Shard, Keys],
        group: str,
        name: str,
        options: MemberOptions,
        signal: Callable[[Kind, str, Shard, int | None], None],
    ) -> None:
        self._link = link
        self._keys = keys
        self._group = group
        self._name = name
        self._foreign_idle = int(max(options.lease, options.foreign_idle) * 1000)
        self._signal = signal
        self._cursors: dict[Shard, str] = {}
        self._lock = asyncio.Lock()
        self._forgotten = False
        self._checking: list[Shard] = []
        self.family = ""
        self.marks: dict[Shard, Mark] = {}
        self.due: dict[Shard, float] = {}
        self.untimed: dict[Shard, str] = {}
        self.unowned: dict[Shard, list[bytes]] = {}

    def remove(self, shard: Shard) -> None:
        """Look after one shard less."""
        for kept in (self.marks, self.due, self.untimed, self.unowned, self._cursors):
            kept.pop(shard, None)

    async def remake(self) -> None:
        """See which groups are gone, and make them anew.

        Raises:
            GroupVanished: one was, or another member has made it anew already.
        """
        async with self._lock:
            await self._remake()

    async def _remake(self) -> None:
        for shard, keys in [(shard, self._keys[shard]) for shard in self._own()]:
            if shard not in self._keys:  # left meanwhile
                continue
            known = self.marks.get(shard)
            made = await make_group(self._link, keys, self._group, "0", copy=known)
            if made.how != "there" or (known is not None and made.mark.token != known.token):
                self._vanished(shard, made.mark, by_us=made.how != "there")

    async def tend(self, shard: Shard) -> None:
        """Look after the group of one shard.

        Raises:
            GroupVanished: it is not the group that we knew; the mark is that of the new one.
            NotFound: the group, or the stream, is gone.
        """
        async with self._lock:
            if shard in self._keys:
                await self._tend(shard)

    async def _tend(self, shard: Shard) -> None:
        keys, group = self._keys[shard], self._group
        names = [keys.stream, keys.mark(group), keys.parked(group), keys.attempts(group)]
        names += [keys.beats(group), keys.trimmed]
        known = self.marks.get(shard) or Mark(secrets.token_hex(8))
        args = (group, self._name, PARKED, known.token, secrets.token_hex(8), self._foreign_idle)
        cursor = self._cursors.get(shard, "-")
        reply = await self._link.run(TEND, names, *args, cursor, PAGE, *known[1:], verb="read")
        if shard not in self._keys:  # left meanwhile
            return
        if reply[0] == b"other":
            self._vanished(shard, Mark(text(reply[1]), text(reply[2])), by_us=False)
        _, token, position, added, last, lost, swept, own, cursor, due = reply
        self.marks[shard] = Mark(text(token), text(position), text(added), text(last))
        self._cursors[shard] = text(cursor)
        self.due[shard] = due / 1000 if due >= 0 else float("inf")
        if own:
            self.unowned[shard] = own
        self._tell_unread(shard, lost)
        self.tell_pending(shard, swept)

    async def drop_unowned(self, known: Callable[[Shard], Container[bytes]]) -> None:
        """Take trimmed events that the program does not hold off our pending list.

        Only while no read is under way: what that was given is in nobody's books yet.
        """
        unowned, self.unowned = self.unowned, {}
        for shard, ids in unowned.items():
            held, keys = known(shard), self._keys.get(shard)
            lost = [entry_id for entry_id in ids if entry_id not in held]
            if lost and keys is not None:
                group = self._group
                names = [keys.stream, keys.beats(group), keys.attempts(group)]
                args = (group, self._name, self.family, 0, *lost)
                self.tell_pending(shard, await self._link.run(ACK, names, *args, verb="read"))

    def checks(self) -> list[tuple[Arg, ...]]:
        """What goes before a read, in one write with it: see what was trimmed until then."""
        how = ("EVAL", GAP.text) if self._forgotten else ("EVALSHA", GAP.sha)
        self._checking = self._own()
        return [
            (*how, GAP.keys, keys.stream, keys.mark(self._group), keys.trimmed, self._group)
            for keys in map(self._keys.__getitem__, self._checking)
        ]

    def checked(self, replies: Sequence[Any]) -> None:
        """Take the answers of `checks`; one that is missing is made up for by the next `tend`."""
        self._forgotten = False
        for shard, reply in zip(self._checking, replies, strict=True):
            if not isinstance(reply, ReplyError):
                self._tell_unread(shard, reply)
            elif reply.code == "NOSCRIPT":
                self._forgotten = True

    async def renew(self, shard: Shard) -> None:
        """Make our events of one shard, and the parked ones, young again: none is stolen."""
        for owner in (self._name, PARKED):
            cursor = "-"
            while cursor and (keys := self._keys.get(shard)) is not None:
                args = (self._group, owner, cursor, PAGE)
                reply = await self._link.run(RENEW, [keys.stream], *args, verb="read")
                cursor = text(reply[0])
                self.tell_pending(shard, reply[1])

    async def repark(self) -> None:
        """Where what is parked has lost its times (deleted, evicted), make it due now: a page."""
        for shard, cursor in list(self.untimed.items()):
            if (keys := self._keys.get(shard)) is None:  # left meanwhile
                continue
            names = [keys.stream, keys.parked(self._group)]
            args = (self._group, PARKED, cursor, PAGE)
            following, added = await self._link.run(REPARK, names, *args, verb="read")
            self.untimed[shard] = text(following)
            if not following or shard not in self._keys:
                self.untimed.pop(shard, None)
            if added:
                message = (
                    f"{added} events that group {self._group!r} of {shard.stream!r} was to try "
                    f"again had lost their time; they are due now"
                )
                self._signal("parked-untimed", message, shard, added)

    def tell_pending(self, shard: Shard, count: int) -> None:
        """Signal pending events that were trimmed or removed."""
        if count:
            message = (
                f"{count} events that group {self._group!r} of {shard.stream!r} had not finished "
                f"were trimmed or removed; they are lost to it"
            )
            self._signal("trimmed-pending", message, shard, count)

    def _own(self) -> list[Shard]:
        """Those that are streams: of what was replayed nothing is trimmed, and no place kept."""
        return [shard for shard in self._keys if not shard.replay]

    def _tell_unread(self, shard: Shard, count: int) -> None:
        if count:
            number = count if count > 0 else None
            message = (
                f"{number or 'an unknown number of'} events of {shard.stream!r} were trimmed or "
                f"removed before group {self._group!r} came to them; they are lost to it"
            )
            self._signal("trimmed-unread", message, shard, number)

    def _vanished(self, shard: Shard, mark: Mark, *, by_us: bool) -> None:
        self.marks[shard] = mark
        self._cursors.pop(shard, None)
        self.unowned.pop(shard, None)
        known = mark.position not in {"", _OLDEST}
        start = f"behind {mark.position}" if known else "the oldest event"
        whom = "" if by_us else " by another"
        message = (
            f"group {self._group!r} of {shard.stream!r} was lost and has been made anew{whom}, "
            f"from {start}; what was acked since then comes again"
        )
        self._signal("group-lost", message, shard, None)
        raise GroupVanished(shard.stream, start)
