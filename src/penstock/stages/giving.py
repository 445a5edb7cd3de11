"""The producing side of a running stage.

Does        answer consumers' messages, send events, and ask the program for more.
Does not    decide who gets what (`rules.outlet`).
Invariants  those of a producer in `protocol`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

from penstock.errors import ConfigError, StageError
from penstock.rules.buffer import Buffer, Overflow
from penstock.rules.dispatch import AlreadySubscribed, Delivery, DemandDispatcher
from penstock.rules.outlet import Outlet
from penstock.rules.trace import Carrier
from penstock.stages.calls import Info, Kept, Mode, Nudge, trace_of
from penstock.stages.protocol import (
    Ask,
    Cancel,
    Cancelled,
    Events,
    Reason,
    Subscribe,
    Tag,
)
from penstock.stages.stage import Giving, Producer
from penstock.stages.subscription import Subscription
from penstock.stages.taking import Lost

if TYPE_CHECKING:
    from penstock.stages.runner import Runner

_NUDGE = Nudge()


class GivingSide:
    """What a producer or producer-consumer does for its consumers."""

    __slots__ = (
        *(
            "_handle",
            "_nudged",
            "_produces",
            "_runner",
            "_said_stuck",
            "_stage",
            "calls",
            "consumers",
        ),
        *("discarded", "former", "outlet", "seconds"),
    )

    def __init__(self, runner: Runner, stage: Giving[Any]) -> None:
        self._runner = runner
        self._stage = stage
        dispatcher = stage.dispatcher or DemandDispatcher()
        self.outlet = Outlet(
            dispatcher.fresh(),
            Buffer(stage.buffer_size, stage.buffer_keep),
            accumulate=isinstance(stage, Producer) and stage.demand == "accumulate",
        )
        self.consumers: dict[Tag, Subscription] = {}
        self.former: list[Subscription] = []  # those that were there at the end
        self._produces = isinstance(stage, Producer)
        self._handle: Any = stage.handle_demand if isinstance(stage, Producer) else None
        self._nudged = self._said_stuck = False
        self.discarded = self.calls = 0
        self.seconds = 0.0

    @property
    def has_room(self) -> bool:
        """Whether anybody has asked for more than was given out."""
        return self.outlet.dispatcher.room > 0

    # --- messages of consumers -------------------------------------------------------------------

    async def subscribe(self, message: Subscribe) -> None:
        """Take a consumer in, or refuse it."""
        tag, options = message.tag, message.options
        if tag in self.consumers:
            error = StageError(f"{tag!r} is subscribed already: each subscription needs a new tag")
            self._runner.signal("protocol-error", str(error))
            tag.consumer.send(Cancelled(tag, Reason("failed", error)))
            return
        if message.replaces and message.replaces[0] in self.consumers:
            await self._remove(message.replaces[0], message.replaces[1])
        try:
            options.check()
            check_extra(self._stage, options.extra)
        except ConfigError as error:
            await self._refuse(tag, error)
            return
        subscription = Subscription(tag, options, "consumer")
        self.consumers[tag] = subscription
        mode = await self._runner.program.hook("handle_subscribe", subscription)
        if mode not in {None, "automatic"}:
            raise StageError(
                f"{self._runner.name}: handle_subscribe on a producer's side must return None or "
                f"'automatic'; it returned {mode!r}",
                stage=self._runner.name,
            )
        try:
            given = {"max_demand": options.max_demand, **options.extra}
            self._send(self.outlet.subscribe(tag, given))
            self._ask_again()
        except ConfigError as error:
            del self.consumers[tag]
            await self._refuse(tag, error, subscription)

    def ask(self, message: Ask) -> Awaitable[None] | None:
        """A consumer has room. Returns what is to be awaited, if anything is."""
        tag, demand = message.tag, message.demand
        subscription = self.consumers.get(tag)
        if subscription is None:
            error = StageError(f"{self._runner.name} has no {tag!r}: it was never made, or is over")
            tag.consumer.send(Cancelled(tag, Reason("failed", error)))
            return None
        if type(demand) is not int or demand < 1:
            error = StageError(f"{tag!r} asked for {demand!r}: it must be a number, 1 or more")
            self._runner.signal("protocol-error", str(error))
            return self._remove(tag, Reason("failed", error))
        subscription.asked += demand
        deliveries = self.outlet.ask(tag, demand)
        if deliveries:
            self._send(deliveries)
        return self.nudged()

    async def cancel(self, message: Cancel) -> None:
        """A consumer leaves."""
        if message.tag in self.consumers:
            await self._remove(message.tag, message.reason)

    # --- what the program emits ------------------------------------------------------------------

    def emit(self, events: list[Any], carrier: Carrier | None) -> None:
        """Hand *events* out, as far as they were asked for, and keep the rest."""
        outlet, consumers = self.outlet, self.consumers
        try:
            deliveries = outlet.emit(events, carrier)
        except Exception as error:  # noqa: BLE001 - raised again, with a name
            self._runner.program.fail("dispatcher", error)
        for tag, part, follows in deliveries:
            consumers[tag].events += len(part)
            tag.consumer.send(Events(tag, part, follows))
        if outlet.rare or outlet.dispatcher.room > outlet.outstanding + outlet.buffer.count:
            self._ask_again()

    def emit_by_hand(self, events: Sequence[Any], of: Kept | Iterable[Kept] | None) -> None:
        """The program emits by itself, in a callback or elsewhere."""
        runner = self._runner
        if runner.ended is not None:
            raise StageError(f"{runner.name} has ended: it can emit nothing any more")
        several = runner.program.listed(events, "emit")
        if several:
            # A task of the stage's own may emit while a call is under way that is none of its.
            own = runner.trace if runner.trace is not None and runner.in_callback() else None
            trace = own if of is None else trace_of(of)
            if trace is not None:  # what comes of a call belongs to that call's inputs
                trace.add(len(several))
            self.emit(several, trace)

    def supply(self, events: list[Any], carrier: Carrier | None) -> None:
        """Events come from a task of the stage's own; where it has ended, they are returned."""
        if self._runner.ended is None:
            self.emit(events, carrier)
        elif carrier is not None:
            carrier.fail(events, None)

    def inform(self, info: Info) -> bool:
        """Let *info* out behind all that was emitted; False: it is due now."""
        return self.outlet.info(info.message)

    def nudged(self) -> Awaitable[None] | None:
        """See whether the program is to be asked for more. Returns what is to be awaited."""
        self._nudged = False
        if self._produces:
            wanted = self.outlet.wanted()
            return self._produce(wanted) if wanted else None
        return self._runner.pump()

    async def mode(self, message: Mode) -> None:
        """Accumulate, or forward."""
        if not self._produces:
            if message.accumulate:
                self._runner.signal(
                    "protocol-error", f"{self._runner.name} consumes too: it cannot accumulate"
                )
        elif message.accumulate:
            self.outlet.accumulating = True
        elif self.outlet.accumulating:
            self._send(self.outlet.forward())
            for _ in range(self.outlet.kept_asks):  # one by one, as they came
                wanted = self.outlet.wanted()
                if wanted and not self._runner.ending and (rest := self._produce(wanted)):
                    await rest
            self._ask_again()

    async def tend(self) -> None:
        """Do what happens rarely: overflow, infos that are due, broken subscriptions."""
        outlet = self.outlet
        self._finish_skipped()
        overflow, infos, broken = outlet.overflow, outlet.infos, outlet.broken
        outlet.rare, outlet.overflow, outlet.infos, outlet.broken = False, [], [], []
        infos = [*(info for one in overflow for info in one.infos), *infos]
        given_up = [self._give_up(one) for one in overflow]  # before anything can raise
        for lost in given_up:
            await self._say_dropped(lost)
        for info in infos:  # at once: one that comes later must not overtake it
            await self._runner.program.hook("handle_info", info)
        for tag, error in broken:
            if tag in self.consumers:
                failure = StageError(f"{tag!r}: its selector raised {error!r}")
                failure.__cause__ = error
                self._runner.signal("subscription-refused", str(failure))
                await self._remove(tag, Reason("failed", failure))
        for warning in outlet.dispatcher.warnings():
            self._runner.signal("greedy-consumer", f"{self._runner.name}: {warning}")
        if outlet.failure is not None:
            self._runner.program.fail("dispatcher", outlet.failure)

    def say_if_stuck(self) -> None:
        """Finishing waits for consumers; say so, once, where there are none for what is left."""
        outlet, taking = self.outlet, self._runner.taking
        if self.consumers:
            unowned = outlet.dispatcher.unowned if self._runner.finishing else 0
        else:
            ending = self._runner.finishing or (taking is not None and taking.end_is_queued)
            queued = taking.queued if taking is not None else 0
            unowned = outlet.waiting + queued if ending else 0
        if unowned and not self._said_stuck:
            self._said_stuck = True
            self._runner.signal(
                "stage-waiting",
                f"{self._runner.name} has finished but for {unowned} events that it holds for "
                f"consumers that are not there; it ends when some come, or when it is closed",
                unowned,
            )

    def end(self, reason: Reason, lost: Lost) -> None:
        """Tell all consumers, and give up what they will not get."""
        down = reason.as_down()
        self.former = list(self.consumers.values())
        for tag, subscription in self.consumers.items():
            subscription.open = False
            tag.consumer.send(Cancelled(tag, down))
        self.consumers.clear()
        self._finish_skipped()
        pieces = self.outlet.clear()
        for overflow in self.outlet.overflow:  # there was no time to say so
            pieces += overflow.dropped
        for events, carrier in pieces:
            lost.add(events, carrier)

    # --- helpers ---------------------------------------------------------------------------------

    def _send(self, deliveries: Sequence[Delivery]) -> None:
        consumers = self.consumers
        for tag, events, carrier in deliveries:
            consumers[tag].events += len(events)
            tag.consumer.send(Events(tag, events, carrier))

    def _produce(self, wanted: int) -> Awaitable[None] | None:
        """Ask the program for *wanted* events. Returns what is to be awaited, if anything is."""
        runner = self._runner
        if runner.finishing:
            return None
        started = perf_counter()
        try:
            events = self._handle(wanted)
        except BaseException as error:  # noqa: BLE001 - raised again, with a name
            runner.program.fail("handle_demand", error)
        finally:
            self.calls += 1
            self.seconds += perf_counter() - started
        if type(events) is list:
            if events:
                self.emit(cast("list[Any]", events), None)
            return None
        return self._produced(events) if events is not None else None

    async def _produced(self, result: Any) -> None:
        started = perf_counter()
        try:
            events = await self._runner.program.resolve(result, "handle_demand")
        except BaseException as error:  # noqa: BLE001 - raised again, with a name
            self._runner.program.fail("handle_demand", error)
        finally:
            self.seconds += perf_counter() - started
        if events:
            self.emit(events, None)

    def _ask_again(self) -> None:
        """Come back: demand is still open where events were discarded, or left out by all."""
        if not self._nudged:
            self._nudged = True
            self._runner.send(_NUDGE)

    async def _remove(self, tag: Tag, reason: Reason) -> None:
        """End a subscription: confirm, let the others have what it held up, tell the program."""
        subscription = self.consumers.pop(tag)
        subscription.open = False
        tag.consumer.send(Cancelled(tag, reason))
        self._send(self.outlet.cancel(tag))
        self._ask_again()
        await self._runner.program.hook("handle_cancel", reason, subscription)

    async def _refuse(
        self, tag: Tag, error: ConfigError, subscription: Subscription | None = None
    ) -> None:
        reason = Reason("refused" if isinstance(error, AlreadySubscribed) else "failed", error)
        self._runner.signal("subscription-refused", f"{self._runner.name} refused {tag!r}: {error}")
        tag.consumer.send(Cancelled(tag, reason))
        if subscription is not None:  # the program has been told of it
            subscription.open = False
            await self._runner.program.hook("handle_cancel", reason, subscription)

    def _finish_skipped(self) -> None:
        skipped, self.outlet.skipped = self.outlet.skipped, []
        for events, carrier in skipped:
            if carrier:
                carrier.finish(events)

    def _give_up(self, overflow: Overflow) -> Lost:
        lost = Lost()
        for events, carrier in overflow.dropped:
            lost.add(events, carrier)
        self.discarded += lost.dropped + lost.returned
        return lost

    async def _say_dropped(self, lost: Lost) -> None:
        count = lost.dropped + lost.returned
        if await self._runner.program.hook("handle_discarded", count) is not False:
            stage = self._stage
            lost.say(
                self._runner,
                f"{self._runner.name}: the buffer of {stage.buffer_size} events is full",
                f", the {stage.buffer_keep} are kept",
            )


def check_extra(stage: Giving[Any], extra: Mapping[str, Any]) -> None:
    """Raise ConfigError for options of a subscription that *stage* can never serve.

    What its dispatcher does not know is refused, unless its `handle_subscribe` may know it.
    """
    dispatcher = stage.dispatcher or DemandDispatcher()
    if _overrides(stage, "handle_subscribe"):
        known = getattr(dispatcher, "known", extra)
        extra = {name: value for name, value in extra.items() if name in known}
    dispatcher.check(extra)


def _overrides(stage: object, callback: str) -> bool:
    return getattr(type(stage), callback) is not getattr(Giving, callback)
