"""Info: what a backend says about itself, its streams and their groups, as plain values.

Does        name the facts; None stands for what a backend cannot know.
Does not    ask anybody: `ports` has the verbs that return these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from penstock.event import Position, Shard
from penstock.rules.retention import Retention


class Features(NamedTuple):
    """What a backend can do. The API refuses the rest before anything is started."""

    backend: str
    event_groups: bool
    shard_groups: bool
    shards: bool
    idempotent: bool
    max_event_bytes: int = 1 << 20


class Marks(NamedTuple):
    """What is stored with a stream at its first append, and adopted by every later handle."""

    layout: str
    codec: str
    shards: int = 1


class StreamInfo(NamedTuple):
    """A stream as it stands: `marks` is None for a stream that others made.

    `length` and `added` count events over all shards; `oldest` and `newest` are by shard,
    None where a shard is empty. `bytes` is the backend's own estimate, None if it has none.
    `delayed` events wait for their time, and are not in the stream yet.
    """

    name: str
    marks: Marks | None
    length: int
    added: int | None
    oldest: tuple[Position | None, ...]
    newest: tuple[Position | None, ...]
    groups: int
    bytes: int | None = None
    delayed: int = 0
    retention: Retention | None = None


class MemberInfo(NamedTuple):
    """A member of a group: `beating` is None where the backend does not lease members.

    Of a group that shares shards: `resting`, because its program hangs, it is due no shard;
    `standby`: it owns none.
    """

    name: str
    pending: int
    idle: float
    beating: bool | None
    resting: bool = False
    standby: bool = False


class GroupInfo(NamedTuple):
    """A group of a shard: `lag` (events not yet handed out) is None where it cannot be known.

    Where shards are shared, what is handed out is not kept: lag is what was not yet committed.

    `pending` are held by members; `parked` (handed back, not yet due or not yet taken) come on top.
    `pending_age`: seconds since the oldest of both was handed out or back; None: there is none.
    `lag_seconds`: since when the first event that was not yet handed out has been there; 0: none.
    `mark`: up to where everything is acked, as last noted. `deliveries`: how many events were
    ever appended up to where the group has come. None: the backend, or this kind of group, cannot
    know.
    """

    name: str
    shard: Shard
    lag: int | None
    pending: int
    parked: int
    last: Position | None
    members: tuple[MemberInfo, ...]
    pending_age: float | None = None
    lag_seconds: float | None = None
    dead: int = 0
    mark: Position | None = None
    deliveries: int | None = None


class PendingInfo(NamedTuple):
    """An event that was handed out and neither acked nor handed back; `idle` in seconds."""

    shard: Shard
    position: Position
    member: str
    idle: float
    deliveries: int
    attempts: int


class Death(NamedTuple):
    """Why an event goes to the dead letters: `attempts` counts the last failure too.

    `error` is the name of an error's class, ``""`` if there was none.
    """

    id: bytes
    attempts: int
    error: str = ""
    reason: str = ""


class DeadLetter(NamedTuple):
    """An event that a group has given up, with its cause and its contents as they were.

    `id` is the letter's own position, `position` the event's; `time` in seconds since 1970; `raw`
    are the event's stored fields, flat, untouched.
    """

    shard: Shard
    id: Position
    position: Position
    group: str
    attempts: int
    deliveries: int
    error: str
    reason: str
    time: float
    raw: Sequence[bytes]
