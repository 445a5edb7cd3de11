"""The protocol between stages: five messages. Whoever keeps to it, is a stage.

A *subscription* joins one consumer to one producer. It is known by its `Tag`, which the consumer
makes, and which is never used again. All messages of a subscription carry its tag; each goes into
the inbox of the other side by `Peer.send`, which never waits and never raises. A peer handles its
messages one by one, in the order in which they were sent.

==============  =====================  =============================================================
Subscribe       consumer to producer   begin a subscription; `replaces`: after having ended that one
Ask             consumer to producer   so many more events may be sent
Cancel          consumer to producer   end the subscription
Events          producer to consumer   events, in order
Cancelled       producer to consumer   the subscription is over
==============  =====================  =============================================================

What a consumer MUST and MAY do:

- MUST subscribe_before_asking: send Subscribe before any other message of a tag.
- MUST use_a_new_tag: make a new tag for each subscription, also with the same producer.
- MUST take_what_it_asked_for: handle, or count as lost, every event up to what it has asked for.
- MUST ask_after_handling: ask for more than is left only when what came has been handled.
- MUST refuse_what_it_did_not_ask_for: cancel a subscription with DemandExceeded when more comes.
- MUST answer_events_of_an_unknown_tag: drop them, say so, and answer Cancel.
- MUST say_that_it_ends: send Cancel, with a reason that is `down`, for each subscription, when it
  ends, for whatever reason, behind everything else that it has sent.
- MAY ask at once, without waiting for an acceptance: there is none.
- MAY ask in any portions, and subscribe several times to one producer.

What a producer MUST and MAY do:

- MUST send_no_more_than_was_asked_for: keep the sum of events below the sum of asks, per tag.
- MUST keep_the_order: send the events of a tag in the order in which it gives them out.
- MUST refuse_a_duplicate_tag: answer Cancelled to a Subscribe with a known tag; the first goes on.
- MUST refuse_what_it_cannot_serve: answer Cancelled to a Subscribe with options that it cannot
  serve, and take no harm from it.
- MUST answer_an_unknown_tag: answer Cancelled to an Ask with a tag that it does not know.
- MUST ignore_a_cancel_of_an_unknown_tag: the subscription is over; it may have been told already.
- MUST confirm_a_cancel: answer Cancelled, with the same reason, and send no event of it any more.
- MUST replace_in_one_step: end what `replaces` names, if it knows that, before it accepts the new.
- MUST say_that_it_ends: send Cancelled, with a reason that is `down`, for each subscription, when
  it ends, for whatever reason, behind everything else that it has sent.
- MUST outlive_its_consumers: go on when one leaves or fails.
- MAY send fewer events than were asked for, in any portions, whenever it likes.
- MAY send an empty list, which means nothing.
- MAY cancel a subscription by itself.

Both:

- MUST answer_when_it_has_ended: answer Subscribe with Cancelled, and Events as those of an unknown
  tag; ignore the rest.
- MUST ignore_messages_of_the_wrong_direction: say so, and go on.
- MUST settle_what_it_drops: where events carry a `carrier`, tell it what became of them.

Does        define the messages, the tag and the reasons.
Does not    hold any behaviour: `runner`, `giving` and `taking` do.
Source      GenStage's protocol. What a death notice is there (a monitor's message), is here the
            last Cancel or Cancelled, whose reason is `down`; so it comes behind all events.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any, Final, Literal, Protocol

import msgspec

from penstock.errors import ConfigError
from penstock.rules.demand import DEFAULT_MAX_DEMAND, check_bounds
from penstock.rules.trace import Carrier

CancelMode = Literal["permanent", "transient", "temporary"]
"""What a consumer does when a subscription ends; see `Reason`."""

CANCEL_MODES: Final[tuple[CancelMode, ...]] = ("permanent", "transient", "temporary")

_numbers = count(1)


class Peer(Protocol):
    """The other side of a subscription."""

    @property
    def name(self) -> str:
        """What it is called in errors and signals."""
        ...

    def send(self, message: Message) -> None:
        """Put *message* behind all others in its inbox. Never waits, never raises."""
        ...


class Tag:
    """A subscription's identity, and how to reach its two sides. Equal to itself alone."""

    __slots__ = ("consumer", "number", "producer")

    def __init__(self, consumer: Peer, producer: Peer) -> None:
        self.number = next(_numbers)
        self.consumer = consumer
        self.producer = producer

    def __repr__(self) -> str:
        return f"<Tag {self.number}: {self.producer.name} → {self.consumer.name}>"


class Reason(msgspec.Struct, frozen=True):
    """Why a subscription or a stage ended.

    ============  ==================  ==================  ============
    kind          permanent           transient           temporary
    ============  ==================  ==================  ============
    normal        ends, in the end    lives               lives
    shutdown      ends                lives               lives
    failed        ends with `error`   ends with `error`   lives
    refused       lives               lives               lives
    ============  ==================  ==================  ============

    "In the end": when its last permanent subscription has ended, and everything that it was given
    and has given out is handled. (In GenStage the first end of any ends the stage, and loses what
    the others still send.) "refused" is a second subscription to a producer that takes one alone.

    Attributes:
        kind: the row of the table.
        error: why it failed; None for the others.
        down: the other side has ended; else it, or this side, has cancelled.
    """

    kind: Literal["normal", "shutdown", "failed", "refused"]
    error: BaseException | None = None
    down: bool = False

    @classmethod
    def of(cls, reason: Reason | BaseException | str | None) -> Reason:
        """What users give as a reason: None or ``"normal"``, ``"shutdown"``, or an exception."""
        if isinstance(reason, Reason):
            return reason
        if isinstance(reason, BaseException):
            return cls("failed", reason)
        if reason is None or reason == "normal":
            return NORMAL
        if reason == "shutdown":
            return SHUTDOWN
        raise ConfigError(
            f"a reason must be None, 'normal', 'shutdown' or an exception; got {reason!r}"
        )

    def ends(self, mode: CancelMode) -> bool:
        """Whether a consumer that subscribed with *mode* ends because of it."""
        if mode == "temporary" or self.kind == "refused":
            return False
        return mode == "permanent" or self.kind == "failed"

    def as_down(self) -> Reason:
        """The same, said by the side that has ended."""
        return Reason(self.kind, self.error, down=True)

    def __str__(self) -> str:
        return f"{self.kind}: {self.error}" if self.error else self.kind


NORMAL: Final = Reason("normal")
SHUTDOWN: Final = Reason("shutdown")


class SubscribeOptions(msgspec.Struct, frozen=True):
    """How a consumer subscribes.

    Attributes:
        max_demand: the most events that it lets the producer send ahead of its work.
        min_demand: ask for more when so few of them are left; None: half of `max_demand`.
        cancel: what it does when the subscription ends.
        extra: what the producer and its dispatcher understand: ``partition``, ``selector``, ….
    """

    max_demand: int = DEFAULT_MAX_DEMAND
    min_demand: int | None = None
    cancel: CancelMode = "permanent"
    extra: Mapping[str, Any] = {}

    def check(self) -> SubscribeOptions:
        """Itself, or ConfigError for what is out of range."""
        check_bounds(self.max_demand, self.min_demand)
        if self.cancel not in CANCEL_MODES:
            raise ConfigError(
                f"cancel must be one of {', '.join(CANCEL_MODES)}; got {self.cancel!r}"
            )
        return self


class Subscribe(msgspec.Struct):
    """Begin a subscription."""

    tag: Tag
    options: SubscribeOptions
    replaces: tuple[Tag, Reason] | None = None


# Not tracked by the garbage collector: they are made for every batch, and are never part of a cycle
# once they have left an inbox.
class Ask(msgspec.Struct, gc=False):
    """`demand` more events may be sent; above 0."""

    tag: Tag
    demand: int


class Cancel(msgspec.Struct):
    """End the subscription."""

    tag: Tag
    reason: Reason


class Events(msgspec.Struct, gc=False):
    """Events, in order. The list is the receiver's, the events are shared."""

    tag: Tag
    events: list[Any]
    carrier: Carrier | None = None


class Cancelled(msgspec.Struct):
    """The subscription is over."""

    tag: Tag
    reason: Reason


Message = Subscribe | Ask | Cancel | Events | Cancelled
