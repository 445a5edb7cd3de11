"""Broker: what the server itself says of streams and groups, asked around all that is tested.

Does        read streams, pending lists and positions by redis-py.
Does not    wait for ever: a server that does not answer is an error here.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import redis

PARKED = "@penstock:parked"


class Broker:
    """One server. `places`: the keys of the stream's shards."""

    def __init__(self, url: str, places: list[str]) -> None:
        self.url = url
        self.places = places
        self._redis = redis.Redis.from_url(url, decode_responses=True, socket_timeout=5)

    def close(self) -> None:
        """End the connection."""
        self._redis.close()

    def command(self, *words: Any) -> Any:
        """The answer to one command."""
        return self._redis.execute_command(*words)

    def stored(self) -> list[str]:
        """The id of every event that is stored, shard by shard, in order."""
        return [id_ for place in self.places for _, id_ in self._entries(place, "-", "+")]

    def pending(self, group: str) -> Counter[str]:
        """How many events each consumer holds; what is parked is nobody's."""
        found: Counter[str] = Counter()
        for place in self.places:
            try:
                summary = self._redis.xpending(place, group)
            except redis.ResponseError:  # no group
                continue
            for one in summary["consumers"] or ():
                found[one["name"]] += int(one["pending"])
        found.pop(PARKED, None)
        return found

    def is_there(self, group: str) -> bool:
        """Whether there is such a group, that shares events, of every stream."""
        return all(self._group(place, group) is not None for place in self.places)

    def is_drained(self, group: str) -> bool:
        """Whether a group that shares events has handed out, and been acked, everything."""
        return all(self._is_drained(place, group) for place in self.places)

    def left(self, group: str) -> list[str]:
        """The events that a group that shares events has not finished."""
        found: list[str] = []
        for place in self.places:
            about = self._group(place, group)
            if about is None:
                found += [id_ for _, id_ in self._entries(place, "-", "+")]
                continue
            behind = "(" + about["last-delivered-id"]
            found += [id_ for _, id_ in self._entries(place, behind, "+")]
            for page in self._pending_ids(place, group):
                found += [id_ for at in page for _, id_ in self._entries(place, at, at)]
        return found

    def consumers(self, group: str) -> int:
        """How many consumers the group has, our own ones for parked events not counted."""
        names = {
            about["name"]
            for place in self.places
            if self._group(place, group) is not None
            for about in self._redis.xinfo_consumers(place, group)
        }
        return len([name for name in names if not name.startswith("@penstock")])

    def count(self) -> int:
        """How many events are stored."""
        return sum(self._redis.xlen(place) for place in self.places)

    def count_dead(self, group: str) -> int:
        """How many dead letters a group has."""
        return sum(self._redis.xlen(self._dead(place, group)) for place in self.places)

    def dead(self, group: str) -> list[dict[str, str]]:
        """The fields of every dead letter of a group, repeated ones left out."""
        keys = [self._dead(place, group) for place in self.places]
        return [fields for key in keys for _, fields in self._redis.xrange(key)]

    @staticmethod
    def _dead(place: str, group: str) -> str:
        return f"penstock:{{{place}}}:{place}:dead@{group}"

    def _is_drained(self, place: str, group: str) -> bool:
        about = self._group(place, group)
        if about is None:
            return not self._redis.xlen(place)
        newest = self._redis.xrevrange(place, count=1)
        behind = newest and _numbers(newest[0][0]) > _numbers(about["last-delivered-id"])
        return not about["pending"] and not behind

    def _group(self, place: str, group: str) -> dict[str, Any] | None:
        try:
            groups = self._redis.xinfo_groups(place)
        except redis.ResponseError:  # no stream
            return None
        return next((about for about in groups if about["name"] == group), None)

    def _entries(self, place: str, first: str, last: str) -> Any:
        while page := self._redis.xrange(place, first, last, count=5000):
            yield from ((at, fields.get("id", "")) for at, fields in page)
            first = "(" + page[-1][0]

    def _pending_ids(self, place: str, group: str) -> Any:
        first = "-"
        while page := self._redis.xpending_range(place, group, first, "+", 1000):
            yield [one["message_id"] for one in page]
            first = "(" + page[-1]["message_id"]
            if len(page) < 1000:
                return


def places(stream: str, shards: int) -> list[str]:
    """The keys of a stream's shards."""
    return [stream] if shards == 1 else [f"{stream}:{n}" for n in range(shards)]


def _numbers(position: str) -> tuple[int, ...]:
    return tuple(map(int, itertools.islice(position.split("-"), 2)))
