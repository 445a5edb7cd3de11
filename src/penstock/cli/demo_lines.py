"""The lines between the demo's parent and its members: JSON, one message a line, over pipes.

Does        name every message of both directions, and turn them into lines and back.
Does not    read or write.
Invariants  1. a member acks what it reported when `Taken` has come, not before.
            2. the end of the member's input means that the parent is gone: the member ends.

      member                                   parent
        │  Joined                                │   once, when it is a member of the group
        │  Report 1 (parts, runs)                │   every 3 s
        │ ─────────────────────────────────────► │   prints it, accounts for it
        │                               Taken 1  │
        │ ◄───────────────────────────────────── │
        │  (acks the events of report 1)         │
        │                                 Drain  │   windows close at once from here on
        │                                   End  │   nothing is left: leave
"""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.cli.demo_rules import Part, Run

STREAM: Final = "penstock-demo"
GROUP: Final = "example"

MAX_LINE: Final = 16 * 1024 * 1024
"""The longest line in bytes: a report with a run of its own for every one of 400 000 events."""


class Message(msgspec.Struct, frozen=True, tag=str.lower, tag_field="say"):
    """Anything that is said."""


class Joined(Message, frozen=True):
    """Member: I am a member of the group, and fetch from now on."""


class Report(Message, frozen=True):
    """Member: my window number *number* is closed; these are its partitions and its events."""

    number: int
    seconds: float
    parts: list[Part]
    runs: list[Run]


class Remark(Message, frozen=True):
    """Member: people should know this."""

    text: str


class Failed(Message, frozen=True):
    """Member: I cannot go on, and this is why."""

    text: str


class Taken(Message, frozen=True):
    """Parent: report *number* is accounted for; its events may be acked."""

    number: int


class Drain(Message, frozen=True):
    """Parent: nothing new is produced; close windows as they come."""


class End(Message, frozen=True):
    """Parent: nothing is left; leave the group and end."""


FromMember = Joined | Report | Remark | Failed
FromParent = Taken | Drain | End

_encoder = msgspec.json.Encoder()
_of_members = msgspec.json.Decoder[FromMember](FromMember)
_of_parents = msgspec.json.Decoder[FromParent](FromParent)


def to_line(message: Message) -> bytes:
    """The line of a message, its end included."""
    return _encoder.encode(message) + b"\n"


def from_member(line: bytes) -> FromMember:
    """What a member said."""
    return _of_members.decode(line)


def from_parent(line: bytes) -> FromParent:
    """What the parent said."""
    return _of_parents.decode(line)
