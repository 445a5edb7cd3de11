"""Names on Redis: one place where every key is made.

      orders                                  the stream itself; in shards: orders:0, orders:1, …
      penstock:{orders}:orders:meta           its marks: version, layout, codec, shards, hash
      penstock:{orders}:orders:w@<session>    an idempotent append session (a few minutes to hours)
      penstock:{orders}:orders:ids            how ids are kept; ids.0 and ids.1 hold them, in turns
      penstock:{orders}:orders:delayed        events that wait for their time, by that time
      penstock:{orders}:orders:waiting        what those events are
      penstock:{orders}:orders:lock           held by the client that trims, for a moment
      penstock:{orders}:orders:positions      what groups that share shards have committed
      penstock:{orders}:orders:trimmed        how many events went that no group needed any more
      penstock:{orders}:orders:beats@<group>      heartbeats by member
      penstock:{orders}:orders:parked@<group>     events handed back, by the time they are due
      penstock:{orders}:orders:attempts@<group>   failures by event: how many, and its company
      penstock:{orders}:orders:share@<group>      the shard's owner, with what he has kept
      penstock:{orders}:orders:roster@<group>     heartbeats of members that share shards
      penstock:{orders}:orders:dead@<group>       dead letters, a stream
      penstock:{orders}:orders:replay@<group>     what was taken back of them, a stream with the
                                                  group alone; beside it as beside any stream
      penstock:{orders}:orders:mark@<group>       up to where all is acked, and which group it is

Does        name keys so that every script stays in one slot: the tag is the stream's own hash
            tag if it has one, else its name.
Does not    check names: `streams/names.py` does.
Invariants  1. no two things share a key, whatever streams and groups are called: the first ``}``
               ends the tag, the last ``:`` ends the stream's name, and the first ``@`` behind it
               ends what the key is for.
"""

from __future__ import annotations

from typing import Final

from penstock.event import Shard

VERSION: Final = 1
"""Of everything that is kept beside a stream. A newer one is refused."""

PARKED: Final = "@penstock:parked"
"""The consumer that owns events which were handed back, until they are due."""


class Keys:
    """The keys of one stream key.

    Args:
        key: the stream's key on the server.
        base: of a shard, the keys of the stream that it is a part of, in another slot maybe.
    """

    def __init__(self, key: str, base: Keys | None = None) -> None:
        self.stream = key
        self.base = base
        self._prefix = f"penstock:{{{hash_tag(key)}}}:{key}:"
        self.meta = self._prefix + "meta"
        self.ids = self._prefix + "ids"
        self.delayed = self._prefix + "delayed"
        self.waiting = self._prefix + "waiting"
        self.lock = self._prefix + "lock"
        self.trimmed = self._prefix + "trimmed"

    @classmethod
    def of(cls, shard: Shard, group: str = "") -> Keys:
        """The keys of a shard; an unsharded stream is one under its own name.

        *group*: whose replayed events those of a `Shard` with `replay` are.
        """
        if shard.replay:
            return cls(cls.of(shard._replace(replay=False)).replay(group))
        if shard.of == 1:
            return cls(shard.stream)
        return cls(stream_key(shard), cls(shard.stream))

    @property
    def sides(self) -> list[str]:
        """Where ids are kept in turns: the younger ones, and those before."""
        return [f"{self.ids}.0", f"{self.ids}.1"]

    @property
    def kept(self) -> list[str]:
        """Everything that is kept for the stream itself beside it, but for its sessions."""
        return [
            *(self.meta, self.positions, self.ids, *self.sides),
            *(self.delayed, self.waiting, self.lock, self.trimmed),
        ]

    def of_group(self, group: str) -> list[str]:
        """Everything that is kept for a group beside the stream."""
        replay = Keys(self.replay(group))
        beside = [replay.stream, replay.beats(group), replay.parked(group), replay.attempts(group)]
        return [
            *(self.beats(group), self.parked(group), self.attempts(group), self.mark(group)),
            *(self.share(group), self.roster(group), self.letters(group), *beside),
        ]

    def session(self, session: str) -> str:
        """Where an append session stands."""
        return self._of("w", session)

    def beats(self, group: str) -> str:
        """The heartbeats of a group's members."""
        return self._of("beats", group)

    def parked(self, group: str) -> str:
        """The events that were handed back."""
        return self._of("parked", group)

    def attempts(self, group: str) -> str:
        """How often events have failed."""
        return self._of("attempts", group)

    @property
    def positions(self) -> str:
        """What every group that shares shards has committed of this one: guarded trims heed it."""
        return self._prefix + "positions"

    def share(self, group: str) -> str:
        """The shard's owner in a group, his beat, and what he has kept with the position."""
        return self._of("share", group)

    def roster(self, group: str) -> str:
        """The heartbeats of the members that share a stream's shards; under the stream's name."""
        return self._of("roster", group)

    def letters(self, group: str) -> str:
        """The dead letters of a group, a stream."""
        return self._of("dead", group)

    def replay(self, group: str) -> str:
        """Dead letters that are to be handled again by the group, a stream."""
        return self._of("replay", group)

    def mark(self, group: str) -> str:
        """Up to where everything is acked, and which group it is that says so."""
        return self._of("mark", group)

    def _of(self, kind: str, whose: str) -> str:
        return f"{self._prefix}{kind}@{whose.replace('%', '%25').replace(':', '%3A')}"


def stream_key(shard: Shard) -> str:
    """The key that holds a shard's entries."""
    return shard.stream if shard.of == 1 else f"{shard.stream}:{shard.index}"


def as_stored(name: str) -> bytes:
    """The bytes of a key or a name; those that are no UTF-8 came in by surrogateescape."""
    return name.encode("utf-8", "surrogateescape")


def hash_tag(key: str) -> str:
    """The part of *key* that decides its slot, as Redis Cluster does.

    One without a tag is a tag itself, but for braces, which no tag can hold.
    """
    start = key.find("{")
    if start >= 0:
        end = key.find("}", start + 1)
        if end > start + 1:
            return key[start + 1 : end]
    return key.replace("{", "").replace("}", "")
