"""The ledger: what is held, what may be acked, and what was held too long."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from penstock import ConfigError, Event, LeaseLost
from penstock.event import Origin, Shard
from penstock.rules import ledger as rules
from penstock.rules.ledger import Acks, Ledger

SHARD = Shard("orders")
HOLD = 10.0


class Where:
    """An origin: its identity is all that the ledger looks at."""

    def __init__(self, stream: str = "orders") -> None:
        self.stream = stream
        self.shard = 0


def made(stream: str = "orders") -> tuple[Ledger, Origin]:
    """A ledger with one open book."""
    ledger, origin = Ledger(HOLD), cast("Origin", Where(stream))
    ledger.open(origin, Shard(stream))
    return ledger, origin


def events(origin: Origin, *numbers: int, attempts: int = 0, size: int = 10) -> list[Event[Any]]:
    """Events, each delivery an object of its own."""
    return [Event(origin, b"%d-0" % n, [b"n", b"x"], 1, attempts, size) for n in numbers]


def ids(*numbers: int) -> list[bytes]:
    return [b"%d-0" % n for n in numbers]


def expired(ledger: Ledger, now: float) -> list[Event[Any]]:
    """All that has expired, whatever it was handed out with."""
    return [event for events in ledger.expired(now) for event in events]


def in_hand(
    ledger: Ledger, origin: Origin, *numbers: int, now: float = 0.0, attempts: int = 0
) -> list[Event[Any]]:
    """Fetched, and handed out at *now*."""
    got = events(origin, *numbers, attempts=attempts)
    ledger.fetched(origin, got)
    ledger.handed(got, now)
    return got


def queued(ledger: Ledger) -> tuple[list[bytes], list[bytes]]:
    """What is to be sent: plain and fenced."""
    acks = ledger.take_acks()
    return [i for a in acks for i in a.plain], [i for a in acks for i in a.fenced]


# --- acks ------------------------------------------------------------------------------------


def test_an_ack_is_queued_once_and_the_event_is_held_no_more() -> None:
    """In the order of the acks; a second ack of the same does nothing."""
    ledger, origin = made()
    one, two = in_hand(ledger, origin, 1, 2)
    assert (ledger.events, ledger.bytes) == (2, 20)

    ledger.ack([two])
    ledger.ack([one])
    ledger.ack([one, two])

    assert (ledger.events, ledger.bytes, ledger.queued) == (0, 0, 2)
    assert ledger.take_acks() == [Acks(SHARD, ids(2, 1), [])]
    assert (ledger.take_acks(), ledger.queued) == ([], 0)


def test_an_event_that_was_handed_back_cannot_be_acked() -> None:
    """It comes again to somebody; the others of the batch are queued all the same."""
    ledger, origin = made()
    one, two, three = in_hand(ledger, origin, 1, 2, 3)
    assert ledger.release([two]) == {SHARD: ids(2)}
    assert ledger.release([two]) == {}

    with pytest.raises(LeaseLost, match=r"'orders' 2-0 was handed back") as error:
        ledger.ack([one, two, three])
    assert error.value.positions == ("2-0",)
    assert queued(ledger) == (ids(1, 3), [])
    assert (ledger.events, ledger.bytes) == (0, 0)


def test_a_refusal_names_the_first_and_counts_the_rest() -> None:
    """All of them are in `positions`."""
    ledger, origin = made()
    got = in_hand(ledger, origin, 1, 2, 3)
    ledger.release(got)

    with pytest.raises(LeaseLost, match="1-0 and 2 more") as error:
        ledger.ack(got)
    assert error.value.positions == ("1-0", "2-0", "3-0")


def test_an_ack_of_an_earlier_delivery_is_refused_while_the_event_is_held_again() -> None:
    """That delivery was lost; the present one is still in hand, with its bytes."""
    ledger, origin = made()
    [before] = in_hand(ledger, origin, 1)
    ledger.release([before])
    [again] = in_hand(ledger, origin, 1, attempts=1)

    with pytest.raises(LeaseLost):
        ledger.ack([before])
    assert ledger.in_hand(again)
    assert not ledger.in_hand(before)
    assert ledger.bytes == 10

    ledger.ack([again])
    assert queued(ledger) == ([], ids(1))


def test_a_redelivered_event_may_be_acked_twice_like_any_other() -> None:
    """That it had been handed back before is forgotten when it comes again."""
    ledger, origin = made()
    ledger.release(in_hand(ledger, origin, 1))
    [again] = in_hand(ledger, origin, 1)

    ledger.ack([again])
    ledger.ack([again])
    assert queued(ledger) == (ids(1), [])


def test_an_event_of_another_group_is_refused_and_nothing_behind_it_is_queued() -> None:
    """With whose it is."""
    ledger, origin = made()
    _, other = made("payments")
    one, two = in_hand(ledger, origin, 1, 2)
    [foreign] = events(other, 1)

    with pytest.raises(ConfigError, match="group that it came from, got one of 'payments'"):
        ledger.ack([one, foreign, two])
    assert queued(ledger) == (ids(1), [])
    assert ledger.in_hand(two)
    with pytest.raises(ConfigError):
        ledger.release([foreign])
    with pytest.raises(ConfigError):
        ledger.extend(foreign, 0.0)


def test_an_event_that_failed_before_is_acked_fenced() -> None:
    """Its count is cleared with it; the others of the batch stay plain."""
    ledger, origin = made()
    failed, fresh = in_hand(ledger, origin, 1, attempts=2) + in_hand(ledger, origin, 2)
    ledger.ack([failed, fresh])

    assert ledger.queued == 2
    assert queued(ledger) == (ids(2), ids(1))


@pytest.mark.conformance("SS-046")
def test_what_could_not_be_sent_goes_first_the_next_time() -> None:
    """In its order, plain and fenced, and is counted as queued again."""
    ledger, origin = made()
    ledger.ack(in_hand(ledger, origin, 1, 2) + in_hand(ledger, origin, 3, attempts=1))
    [taken] = ledger.take_acks()
    ledger.ack(in_hand(ledger, origin, 4) + in_hand(ledger, origin, 5, attempts=1))
    ledger.restore(taken)

    assert ledger.queued == 5
    assert ledger.take_acks() == [Acks(SHARD, ids(1, 2, 4), ids(3, 5))]


def test_each_stream_has_its_own_book() -> None:
    """Equal ids of two streams are two events."""
    ledger, orders = made()
    payments = cast("Origin", Where("payments"))
    ledger.open(payments, Shard("payments"))
    got = in_hand(ledger, orders, 1) + in_hand(ledger, payments, 1)
    ledger.ack(got)

    assert ledger.take_acks() == [Acks(SHARD, ids(1), []), Acks(Shard("payments"), ids(1), [])]


def test_lost_deliveries_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The latest ones: what is older is taken for acked."""
    monkeypatch.setattr(rules, "REMEMBERED", 3)
    ledger, origin = made()
    got = in_hand(ledger, origin, 1, 2, 3, 4)
    ledger.release(got)

    ledger.ack(got[:1])
    with pytest.raises(LeaseLost):
        ledger.ack(got[1:2])
    assert ledger.queued == 0


# --- hold ------------------------------------------------------------------------------------


def test_what_is_held_too_long_is_due_from_exactly_hold_on() -> None:
    """Only what was handed out and is neither acked nor handed back."""
    ledger, origin = made()
    one, two, three = in_hand(ledger, origin, 1, 2, 3, now=5.0)
    unseen = events(origin, 4)
    ledger.fetched(origin, unseen)
    ledger.ack([one])
    ledger.release([two])

    assert expired(ledger, 14.9) == []
    assert expired(ledger, 15.0) == [three]
    assert ledger.in_hand(unseen[0])


def test_what_expired_is_reported_once_and_refused_when_it_was_released() -> None:
    """Whoever watches releases it; the ack that comes late is told."""
    ledger, origin = made()
    [one] = in_hand(ledger, origin, 1)
    due = expired(ledger, HOLD)
    assert due == [one]
    assert expired(ledger, HOLD) == []
    ledger.release(due)

    with pytest.raises(LeaseLost, match=r"held for longer than `hold`.*extend"):
        ledger.ack([one])
    with pytest.raises(LeaseLost):
        ledger.extend(one, HOLD)


def test_what_was_extended_is_forgotten_with_the_hand_that_it_lay_in() -> None:
    """Its id may name a later event, whose hold would never be over."""
    ledger, origin = made()
    one, _ = in_hand(ledger, origin, 1, 2)
    ledger.extend(one, 1.0)
    ledger.ack([one])
    assert ledger.in_hands()
    assert not ledger._extended


def test_extending_counts_the_hold_anew() -> None:
    """Of that event alone, as often as one likes."""
    ledger, origin = made()
    one, two = in_hand(ledger, origin, 1, 2)
    ledger.extend(one, 6.0)
    ledger.extend(one, 8.0)

    assert expired(ledger, 10.0) == [two]
    assert expired(ledger, 17.9) == []
    assert expired(ledger, 18.0) == [one]


def test_hands_that_are_close_in_time_keep_their_hold() -> None:
    """Kept together where a quarter of a second makes no difference, apart where it does."""
    ledger, origin = made()
    one = in_hand(ledger, origin, 1, now=0.0)
    two = in_hand(ledger, origin, 2, now=0.2)
    three = in_hand(ledger, origin, 3, now=0.4)

    assert expired(ledger, 10.0) == one + two
    assert expired(ledger, 10.3) == []
    assert expired(ledger, 10.4) == three


def test_hands_do_not_leak() -> None:
    """A million events that come and go quickly leave no list of them behind."""
    ledger, origin = made()
    for at in range(200):
        got = in_hand(ledger, origin, *range(at * 1000, at * 1000 + 1000), now=at / 1000)
        ledger.ack(got)
        ledger.take_acks()
        expired(ledger, at / 1000)

    assert sum(len(hand.events) for hand in ledger._hands) <= 21_000
    assert not ledger._books[origin].held


def test_extensions_do_not_leak() -> None:
    """Who says a hundred thousand times that it gets on is believed, in bounded memory."""
    ledger, origin = made()
    [one] = in_hand(ledger, origin, 1)
    for step in range(100_000):
        ledger.extend(one, step / 100_000)
        if step % 1000 == 0:
            expired(ledger, step / 100_000)

    assert len(ledger._hands) <= 25_000
    assert expired(ledger, 10.9) == []
    assert expired(ledger, 11.0) == [one]
    assert not ledger._extended


def test_an_extension_does_not_outlive_its_event() -> None:
    """A later event may come to lie where an extended one lay; its hold counts all the same."""
    ledger, origin = made()
    [first] = in_hand(ledger, origin, 1, now=0.0)
    one, two = in_hand(ledger, origin, 2, 3, now=5.0)
    ledger.extend(one, 6.0)
    place = id(one)
    ledger.ack([first, one])
    ledger.take_acks()
    expired(ledger, 10.0)
    del one

    later: list[Event[Any]] = []
    for number in range(10, 10_000):
        later += events(origin, number)
        if id(later[-1]) == place:
            break
    else:
        pytest.skip("the allocator did not use the place again")
    ledger.fetched(origin, later[-1:])
    ledger.handed(later[-1:], 11.0)

    assert expired(ledger, 15.0) == [two]
    assert expired(ledger, 21.0) == later[-1:]


# --- lapse and loss --------------------------------------------------------------------------


def test_after_a_lapse_what_was_held_is_acked_fenced() -> None:
    """And what was queued before; what was not yet yielded is forgotten, without a trace."""
    ledger, origin = made()
    acked, held = in_hand(ledger, origin, 1, 2)
    unseen = events(origin, 3)
    ledger.fetched(origin, unseen)
    ledger.ack([acked])

    ledger.lapse(unseen)
    assert (ledger.events, ledger.bytes) == (1, 10)
    new = in_hand(ledger, origin, 4)
    ledger.ack([held, *new])

    assert ledger.queued == 3
    assert queued(ledger) == (ids(4), ids(1, 2))
    assert in_hand(ledger, origin, 3)
    assert ledger.bytes == 10


def test_when_the_last_of_the_old_is_settled_acks_are_plain_again() -> None:
    """A lapse costs what was held then, not for ever."""
    ledger, origin = made()
    got = in_hand(ledger, origin, 1, 2)
    ledger.lapse([])
    ledger.ack(got[:1])
    ledger.release(got[1:])

    assert not ledger._books[origin].stale
    ledger.ack(in_hand(ledger, origin, 3))
    assert queued(ledger) == (ids(3), ids(1))


def test_a_lost_group_leaves_nothing_to_ack() -> None:
    """Of its stream alone; what is acked late is refused."""
    ledger, orders = made()
    payments = cast("Origin", Where("payments"))
    ledger.open(payments, Shard("payments"))
    acked, held = in_hand(ledger, orders, 1, 2)
    [other] = in_hand(ledger, payments, 1)
    ledger.ack([acked])

    assert ledger.lose("orders") == 2
    assert (ledger.events, ledger.bytes, ledger.queued) == (1, 10, 0)
    with pytest.raises(LeaseLost):
        ledger.ack([held])
    assert not expired(ledger, 9.0)
    ledger.ack([other])
    assert ledger.take_acks() == [Acks(Shard("payments"), ids(1), [])]


# --- against a model -------------------------------------------------------------------------


class LedgerMachine(RuleBasedStateMachine):
    """Whatever comes: the counts are right, and each delivery is acked at most once."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger, self.origin = made()
        self.now = 0.0
        self.number = 0
        self.held: dict[int, tuple[Event[Any], float]] = {}
        self.lost: list[Event[Any]] = []
        self.done: list[Event[Any]] = []
        self.sent: list[bytes] = []

    def _some(self, pick: int) -> Event[Any] | None:
        return self.held[sorted(self.held)[pick % len(self.held)]][0] if self.held else None

    @rule(count=st.integers(1, 5), size=st.integers(0, 50), again=st.booleans())
    def fetch(self, count: int, size: int, again: bool) -> None:
        numbers = list(range(self.number, self.number + count))
        if again and self.lost:
            numbers.append(int(self.lost.pop().entry_id[:-2]))
        self.number += count
        got = events(self.origin, *numbers, size=size)
        self.ledger.fetched(self.origin, got)
        self.ledger.handed(got, self.now)
        for event in got:
            self.held[int(event.entry_id[:-2])] = (event, self.now)

    @rule(pick=st.integers(0, 50))
    def ack(self, pick: int) -> None:
        if event := self._some(pick):
            del self.held[int(event.entry_id[:-2])]
            self.ledger.ack([event])
            self.done.append(event)

    @rule()
    def ack_again(self) -> None:
        self.ledger.ack(self.done[-1:])

    @rule(pick=st.integers(0, 50))
    def hand_back(self, pick: int) -> None:
        if event := self._some(pick):
            del self.held[int(event.entry_id[:-2])]
            assert self.ledger.release([event]) == {SHARD: [event.entry_id]}
            self.lost.append(event)

    @rule(pick=st.integers(0, 50))
    def extend(self, pick: int) -> None:
        if event := self._some(pick):
            self.ledger.extend(event, self.now)
            self.held[int(event.entry_id[:-2])] = (event, self.now)

    @rule(seconds=st.floats(0.25, 6))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        due = expired(self.ledger, self.now)
        surely = {n for n, (_, since) in self.held.items() if since + HOLD + 0.25 < self.now}
        found = {int(event.entry_id[:-2]) for event in due}
        # Hands that are close in time count as one: up to a quarter of a second early.
        assert surely <= found
        assert all(self.held[n][1] + HOLD - 0.25 <= self.now for n in found)
        self.ledger.release(due)
        for number in found:
            self.lost.append(self.held.pop(number)[0])

    @rule()
    def send(self) -> None:
        for acks in self.ledger.take_acks():
            self.sent += acks.plain + acks.fenced

    @rule()
    def fail_to_send(self) -> None:
        for acks in self.ledger.take_acks():
            self.ledger.restore(acks)

    @rule()
    def lapse(self) -> None:
        self.ledger.lapse([])

    @rule()
    def ack_what_was_lost(self) -> None:
        if self.lost:
            with pytest.raises(LeaseLost):
                self.ledger.ack([self.lost[-1]])

    @invariant()
    def the_counts_are_right(self) -> None:
        assert self.ledger.events == len(self.held)
        assert self.ledger.bytes == sum(event.size for event, _ in self.held.values())
        assert {id(e) for e in self.ledger.held()} == {id(e) for e, _ in self.held.values()}
        waiting = len(self.done) - len(self.sent)
        assert self.ledger.queued == waiting

    def teardown(self) -> None:
        self.send()
        assert sorted(self.sent) == sorted(event.entry_id for event in self.done)


LedgerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
test_the_ledger_holds_its_promises_whatever_comes = LedgerMachine.TestCase
