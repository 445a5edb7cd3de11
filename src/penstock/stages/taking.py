"""The consuming side of a running stage.

Does        subscribe, cut messages into calls, ask for more, and act when a subscription ends.
Does not    know what the program does with events.
Invariants  those of a consumer in `protocol`; and of a producer-consumer: events wait, in order,
            with the ends of subscriptions and infos, until somebody asks for what comes of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable
from time import perf_counter
from typing import TYPE_CHECKING, Any, NoReturn, cast

from penstock.errors import DemandExceeded, StageError, SubscriptionCancelled
from penstock.rules.trace import Carrier, Trace
from penstock.stages.calls import Info, Join, Missing
from penstock.stages.protocol import (
    NORMAL,
    Cancel,
    Cancelled,
    Events,
    Peer,
    Reason,
    Subscribe,
    Tag,
)
from penstock.stages.stage import Consumer, ProducerConsumer
from penstock.stages.subscription import Subscription

if TYPE_CHECKING:
    from penstock.stages.runner import Runner


class TakingSide:
    """What a consumer or producer-consumer does with its producers."""

    __slots__ = (
        *("_asked", "_handle", "_runner", "calls", "had_sources", "handled", "queue", "received"),
        *("seconds", "sources"),
    )

    def __init__(self, runner: Runner, stage: Consumer[Any] | ProducerConsumer[Any, Any]) -> None:
        self._runner = runner
        self._handle: Any = stage.handle_events
        self.sources: dict[Tag, Subscription] = {}
        self.queue: deque[Events | Cancelled | Info] = deque()
        self.had_sources = False
        self._asked = 0
        self.received = self.handled = self.calls = 0
        self.seconds = 0.0

    @property
    def asked(self) -> int:
        """What was asked for, of all producers so far."""
        return self._asked + sum(one.asked for one in self.sources.values())

    @property
    def queued(self) -> int:
        """Events that wait for demand."""
        return sum(len(entry.events) for entry in self.queue if type(entry) is Events)

    @property
    def end_is_queued(self) -> bool:
        """Whether the end of a subscription waits behind events."""
        return any(type(entry) is Cancelled for entry in self.queue)

    async def join(self, join: Join) -> Subscription:
        """Subscribe: tell the program, and send the request. `begin` asks for the first events."""
        tag = Tag(self._runner, self._find(join.producer))
        subscription = Subscription(tag, join.options, "producer")
        self.sources[tag] = subscription
        self.had_sources = True
        tag.producer.send(Subscribe(tag, join.options, join.replaces))
        subscription.early = 0
        mode = await self._runner.program.hook("handle_subscribe", subscription)
        early, subscription.early = subscription.early, None
        if mode not in {None, "automatic", "manual"}:
            raise StageError(
                f"{self._runner.name}: handle_subscribe must return 'automatic', 'manual' or None; "
                f"it returned {mode!r}",
                stage=self._runner.name,
            )
        if early and mode != "manual":
            raise StageError(
                f"{self._runner.name}: handle_subscribe asked for {early} events; then it must "
                f"return 'manual'; it returned {mode!r}",
                stage=self._runner.name,
            )
        if mode == "manual":
            subscription.be_manual()
            if early:
                subscription.send_ask(early)
        return subscription

    @staticmethod
    def begin(subscription: Subscription) -> None:
        """Ask for the first events, unless the program does."""
        demand = subscription.demand
        if subscription.open and not demand.manual and not subscription.asked:
            demand.grant(demand.max)
            subscription.send_ask(demand.max)

    def events(self, message: Events) -> Awaitable[None] | None:
        """Handle a message of events, or queue it until there is demand.

        Returns what is to be awaited, if anything is.
        """
        source = self.sources.get(message.tag)
        if source is None:
            self._unknown(message)
            return None
        count = len(message.events)
        source.events += count
        self.received += count
        giving = self._runner.giving
        if giving is not None and (self.queue or not giving.has_room):
            self.queue.append(message)
            return None
        return self._handle_message(source, message)

    async def cancelled(self, message: Cancelled) -> None:
        """A subscription has ended; a producer-consumer first handles what came before."""
        if self.queue:
            self.queue.append(message)
        else:
            await self._end_source(message)

    def pump(self) -> Awaitable[None] | None:
        """Go on with what is queued, as long as there is demand. Returns what is to be awaited."""
        while self._may_go_on():
            rest = self._next()
            if rest is not None:
                return self._pump(rest)
        return None

    async def _pump(self, rest: Awaitable[None]) -> None:
        """The same, from where something is to be awaited."""
        await rest
        while self._may_go_on():
            if (more := self._next()) is not None:
                await more

    def _may_go_on(self) -> bool:
        """Whether the next entry may be handled: events need demand for what comes of them."""
        if not self.queue or self._runner.ending:
            return False
        giving = self._runner.giving
        return type(self.queue[0]) is not Events or giving is None or giving.has_room

    def _next(self) -> Awaitable[None] | None:
        """Handle the next entry. Returns what is to be awaited, if anything is."""
        entry = self.queue.popleft()
        if type(entry) is Events:
            # Its source may have ended behind it; the events are handled all the same.
            source = self.sources.get(entry.tag)
            if source is not None:
                return self._handle_message(source, entry)
            self._unknown(entry)
            return None
        if type(entry) is Cancelled:
            return self._end_source(entry)
        return self._runner.informed(cast("Info", entry))

    def end(self, reason: Reason, lost: Lost) -> None:
        """Leave all producers, and give up what was not handled."""
        down = reason.as_down()
        self._asked = self.asked
        for tag, subscription in self.sources.items():
            subscription.open = False
            tag.producer.send(Cancel(tag, down))
        self.sources.clear()
        for entry in self.queue:
            if type(entry) is Events:
                lost.add(entry.events, entry.carrier)
        self.queue.clear()

    # --- helpers ---------------------------------------------------------------------------------

    def _handle_message(self, source: Subscription, message: Events) -> Awaitable[None] | None:
        """The common case: one call that does not wait. Returns what is to be awaited, if not."""
        events = message.events
        if not events:
            return None
        ask = source.demand.whole(len(events))
        if ask < 0:
            return self._handle_slices(source, message)
        rest = self._call(events, source, message.carrier)
        if rest is not None:
            return self._handle_rest(rest, source, ask)
        if ask and not self._runner.ending:
            source.send_ask(ask)
        return None

    async def _handle_rest(self, rest: Awaitable[None], source: Subscription, ask: int) -> None:
        await rest
        if ask and not self._runner.ending:
            source.send_ask(ask)

    async def _handle_slices(self, source: Subscription, message: Events) -> None:
        events, carrier = message.events, message.carrier
        start, count = 0, len(events)
        for size, ask in source.demand.received(count):
            chunk = events if size == count else events[start : start + size]
            start += size
            try:
                if (rest := self._call(chunk, source, carrier)) is not None:
                    await rest
            except BaseException:
                self._give_up(message, start)
                raise
            if self._runner.ending:
                self._give_up(message, start)
                return
            if ask:
                source.send_ask(ask)
        if source.demand.excess and not source.ending:
            self._exceeded(source)

    def _give_up(self, message: Events, start: int) -> None:
        """The stage ends in the middle of a message."""
        self._runner.lost.add(message.events[start:], message.carrier)

    def _call(
        self, chunk: list[Any], source: Subscription, carrier: Carrier | None
    ) -> Awaitable[None] | None:
        """One call of the program, and what follows from it. Returns what is to be awaited."""
        runner = self._runner
        runner.trace = trace = carrier.begin(chunk) if carrier is not None else None
        count = len(chunk)  # before the call: the list is the program's from then on
        started = perf_counter()
        try:
            result = self._handle(chunk, source)
            if result is not None and type(result) is not list:
                return self._called(result, count, trace)
            self._done(cast("list[Any] | None", result), count, trace)
        except BaseException as error:  # noqa: BLE001 - raised again, with a name
            self._fail(error, trace)
        finally:
            self.seconds += perf_counter() - started
        return None

    async def _called(self, result: Any, count: int, trace: Trace | None) -> None:
        """The rest of a call that waits."""
        started = perf_counter()
        try:
            events: list[Any] | None = await self._runner.program.resolve(result, "handle_events")
            self._done(events, count, trace)
        except BaseException as error:  # noqa: BLE001 - raised again, with a name
            self._fail(error, trace)
        finally:
            self.seconds += perf_counter() - started

    def _done(self, result: list[Any] | None, count: int, trace: Trace | None) -> None:
        self.calls += 1
        self.handled += count
        if result:
            giving = self._runner.giving
            if giving is None:
                raise self._runner.program.gives_nothing(result)
            if trace is not None:
                trace.add(len(result))
            giving.emit(result, trace)
        if trace is not None:
            self._runner.trace = None
            trace.close(count)

    def _fail(self, error: BaseException, trace: Trace | None) -> NoReturn:
        self._runner.trace = None
        if trace is not None:
            trace.fail((), error if isinstance(error, Exception) else None)
        self._runner.program.fail("handle_events", error)

    async def _end_source(self, message: Cancelled) -> None:
        subscription = self.sources.pop(message.tag, None)
        if subscription is None:
            return
        subscription.open = False
        self._asked += subscription.asked
        reason, runner = message.reason, self._runner
        await runner.program.hook("handle_cancel", reason, subscription)
        if runner.ending or runner.finishing:
            return
        mode = subscription.options.cancel
        if reason.ends(mode):
            if reason.kind == "normal":
                if not any(one.options.cancel == "permanent" for one in self.sources.values()):
                    runner.finish(NORMAL)
            else:
                runner.stop(self._passed_on(reason, subscription))

    def _passed_on(self, reason: Reason, subscription: Subscription) -> Reason:
        """The reason that this stage ends with: its own error, which names both, and the cause."""
        if reason.error is None:
            return Reason(reason.kind)
        what = "ended" if reason.down else "cancelled"
        error = SubscriptionCancelled(
            f"{self._runner.name} ends as {subscription.peer.name}, to which it was subscribed "
            f"with cancel={subscription.options.cancel!r}, {what}: {reason.error}"
            f" (to go on without it: cancel='temporary'; to start again with it: restart=)"
        )
        error.__cause__ = reason.error
        return Reason(reason.kind, error)

    def _exceeded(self, source: Subscription) -> None:
        excess, source.demand.excess = source.demand.excess, 0
        error = DemandExceeded(
            f"{source.peer.name} sent {excess} events more to {self._runner.name} than were asked "
            f"for; they were handled, and the subscription is cancelled: mend the producer"
        )
        self._runner.signal("protocol-error", str(error), excess)
        source.cancel(error)

    def _unknown(self, message: Events) -> None:
        """Events of a subscription that is not ours, or not any more."""
        lost, tag = Lost(), message.tag
        lost.add(message.events, message.carrier)
        text = f"{self._runner.name} has no {tag!r}"
        lost.say(self._runner, text)
        error = StageError(f"{text}: {len(message.events)} events were dropped")
        tag.producer.send(Cancel(tag, Reason("failed", error)))

    def _find(self, producer: Peer | str) -> Peer:
        found = self._runner.world.find(producer)
        if found is not None:
            return found
        error = StageError(
            f"{self._runner.name} subscribes to {producer!r}: no stage has that name"
        )
        return Missing(str(producer), Reason("failed", error, down=True))


def drop(message: Events, error: BaseException | None) -> int:
    """Tell whom it concerns that these events will not be handled; how many they are."""
    if message.carrier is not None and message.events:
        message.carrier.fail(message.events, error)
    return len(message.events)


class Lost:
    """Events that a stage leaves unserved at its end: gone, or returned to their source."""

    __slots__ = ("dropped", "returned")

    def __init__(self) -> None:
        self.dropped = self.returned = 0

    def add(self, events: list[Any], carrier: Carrier | None) -> None:
        """Give *events* up."""
        if carrier is None:
            self.dropped += len(events)
        elif events:
            self.returned += len(events)
            carrier.fail(events, None)

    def say(self, runner: Runner, text: str, kept: str = "") -> None:
        """Signal what was given up, and why: *text*; and what was *kept*."""
        if self.dropped:
            said = f"{text}; {self.dropped} dropped{kept}"
            runner.signal("events-dropped", said, self.dropped)
        if self.returned:
            said = f"{text}; {self.returned} returned to their source{kept}"
            runner.signal("events-returned", said, self.returned)
