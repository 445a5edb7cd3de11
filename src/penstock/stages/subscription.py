"""A subscription, as one of its two sides sees it.

Does        hold what this side knows of it, and let the program ask and cancel.
Does not    decide: `giving` and `taking` do.
Invariants  1. one object on each side; they share the tag alone.
            2. asking and cancelling only send a message: they never wait, and may be called from
               anywhere on the event loop.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from penstock.errors import ConfigError
from penstock.rules.demand import Demand
from penstock.stages.protocol import Ask, Cancel, Peer, Reason, SubscribeOptions, Tag

Side = Literal["producer", "consumer"]


class Subscription:
    """One side of a subscription. `Stage.handle_subscribe` gets it, and `handle_events` as source.

    Attributes:
        tag: what it is known by on both sides.
        options: how the consumer subscribed.
        peer_is: what the other side is: ``"producer"`` or ``"consumer"``.
        events: how many events came or went.
        asked: how many were asked for.
    """

    __slots__ = (
        "asked",
        "demand",
        "early",
        "ending",
        "events",
        "open",
        "options",
        "peer_is",
        "tag",
    )

    def __init__(self, tag: Tag, options: SubscribeOptions, peer_is: Side) -> None:
        self.tag = tag
        self.options = options
        self.peer_is: Side = peer_is
        self.demand = Demand(options.max_demand, options.min_demand)
        self.events = self.asked = 0
        self.open = True
        self.early: int | None = None  # what is asked for while handle_subscribe has not returned
        self.ending = False  # a cancel is under way: nothing is asked for any more

    @property
    def peer(self) -> Peer:
        """The other side."""
        return self.tag.producer if self.peer_is == "producer" else self.tag.consumer

    def be_manual(self) -> None:
        """The program asks by itself from now on."""
        options = self.options
        self.demand = Demand(options.max_demand, options.min_demand, manual=True)

    def ask(self, demand: int) -> None:
        """Allow the producer to send *demand* more events; 0 does nothing.

        For subscriptions whose `handle_subscribe` returns ``"manual"``, also within it.

        Raises:
            ConfigError: a negative number, an automatic subscription, or the producer's side.
        """
        if type(demand) is not int or demand < 0:
            raise ConfigError(f"ask needs a whole number of events, 0 or more; got {demand!r}")
        if self.early is not None:
            self.early += demand
            return
        if self.peer_is != "producer" or not self.demand.manual:
            raise ConfigError(
                "only a consumer asks, and only where its handle_subscribe returned 'manual'; "
                "elsewhere the stage asks by itself, by max_demand and min_demand"
            )
        if demand:
            self.send_ask(demand)

    def send_ask(self, demand: int) -> None:
        """Ask, and count what was asked for; the ledger already has it where it is automatic."""
        if not self.open or self.ending:
            return
        if self.demand.manual:
            self.demand.grant(demand)
        self.asked += demand
        tag = self.tag
        tag.producer.send(Ask(tag, demand))

    def cancel(self, reason: Reason | BaseException | str | None = None) -> None:
        """End the subscription; both sides' `handle_cancel` are told, the consumer's last.

        What is on its way still comes. Ending one that has ended does nothing.

        Args:
            reason: None (normal), ``"shutdown"``, or an exception: it decides, with the cancel
                mode, whether the consumer ends too.
        """
        checked = Reason.of(reason)
        if self.open and not self.ending:
            self.ending = True
            self.tag.producer.send(Cancel(self.tag, checked))

    def statistics(self) -> SubscriptionStatistics:
        """What has come, or gone, so far."""
        open_demand = (
            self.demand.pending if self.peer_is == "producer" else self.asked - self.events
        )
        return SubscriptionStatistics(
            self.tag.number, self.peer_is, self.peer.name, self.asked, self.events, open_demand
        )

    def __repr__(self) -> str:
        state = "" if self.open else ", over"
        return (
            f"<Subscription {self.tag.number} {self.tag.producer.name} → {self.tag.consumer.name}, "
            f"{self.events} of {self.asked} asked{state}>"
        )


class SubscriptionStatistics(NamedTuple):
    """A subscription at one moment, from one side; in events.

    `asked`: demand so far; `events`: received or sent so far; `open_demand`: asked for and not yet
    there (on the consumer's side: not yet handled).
    """

    number: int
    peer_is: Side
    peer: str
    asked: int
    events: int
    open_demand: int
