"""The checker of the fault lab: each rule holds for a good history, and is broken by a bad one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from faults.lab.figures import blame, judge, recoveries, report
from faults.lab.history import (
    Attempt,
    DeadEntry,
    Fault,
    Handling,
    History,
    Lag,
    Missed,
    Reader,
    Sample,
)
from faults.lab.promise import Promise
from faults.lab.rules import RULES, longest_stall, takeovers

PROMISE = Promise(lease=1.0, in_flight=10)
G = "g"


def good(count: int = 6) -> History:
    """Events of one producer and two keys, each appended, handled once by m1, and acked."""
    history = History(drained={G: 0.5})
    for n in range(count):
        id_ = f"e{n}"
        history.attempts[id_] = Attempt(id_, "p1.1", f"k{n % 2}", n // 2, n, "ok")
        history.stored.append(id_)
        history.handlings.append(Handling(G, "m1.1", id_, n + 0.1, n + 0.2, 1, (n + 1, 0), n + 0.3))
    return history


def broken(history: History, promise: Promise = PROMISE) -> set[str]:
    """The numbers of the rules that are broken."""
    return {rule.split()[0] for rule in judge(history, promise).breaches}


def change(history: History, at: int, **values: object) -> None:
    history.handlings[at] = history.handlings[at]._replace(**values)  # type: ignore[arg-type]


def outcome(history: History, id_: str, outcome: str) -> None:
    history.attempts[id_] = history.attempts[id_]._replace(outcome=outcome)


def again(id_: str, who: str, start: float, end: float | None, deliveries: int = 2) -> Handling:
    return Handling(G, who, id_, start, end, deliveries)


def test_a_good_history_breaks_no_rule() -> None:
    assert broken(good()) == set()
    assert len(RULES) == 10  # the eleventh is blame


# --- 1: nothing lost ---------------------------------------------------------------------------


def test_what_was_confirmed_and_not_handled_is_lost() -> None:
    history = good()
    del history.handlings[3]
    assert broken(history) == {"1"}
    assert judge(history, PROMISE).groups[G]["lost"] == 1


def test_begun_is_not_handled() -> None:
    history = good()
    change(history, 3, end=None, acked=None)
    assert broken(history) == {"1"}


def test_a_dead_letter_is_not_lost() -> None:
    history = good()
    del history.handlings[3]
    history.dead.append(DeadEntry(G, "e3", 5))
    assert broken(history) == set()


def test_what_was_never_confirmed_may_be_missing() -> None:
    history = good()
    del history.handlings[3]
    history.stored.remove("e3")
    for what in ("unknown", "fail"):
        outcome(history, "e3", what)
        assert broken(history) == set()


def test_only_what_was_confirmed_at_the_promised_level_counts() -> None:
    history = good()
    del history.handlings[3]
    history.stored.remove("e3")
    replicas = replace(PROMISE, levels=frozenset({"replicas"}))
    assert broken(history, replicas) == set()
    history.attempts["e3"] = history.attempts["e3"]._replace(level="replicas")
    assert broken(history, replicas) == {"1", "10"}


def test_what_came_before_a_loss_of_data_is_forgiven_and_no_more() -> None:
    history = good()
    del history.handlings[3]
    history.stored.remove("e3")
    history.forgiven_before = 3.5
    assert broken(history) == set()
    history.forgiven_before = 2.5
    assert broken(history) == {"1", "10"}


def test_a_cell_that_promises_nothing_must_show_loss() -> None:
    shows = replace(PROMISE, shows_loss=True)
    assert broken(good(), shows) == {"1"}
    history = good()
    del history.handlings[3]
    assert broken(history, shows) == set()


def test_trimmed_events_are_reported_each() -> None:
    reports = replace(PROMISE, reports_loss=True)
    history = good()
    del history.handlings[2:4]
    history.reported[G] = 1
    assert broken(history, reports) == {"1"}
    history.reported[G] = 2
    assert broken(history, reports) == set()


# --- 2, 3: nothing invented, all end -----------------------------------------------------------


@pytest.mark.parametrize("id_", ["None", "e99"])
def test_an_event_that_nobody_appended_is_noticed(id_: str) -> None:
    history = good()
    history.handlings.append(again(id_, "m1.1", 7.0, 7.1))
    assert broken(history) == {"2"}


def test_what_is_stuck_in_a_group_is_noticed() -> None:
    history = good()
    outcome(history, "e3", "unknown")
    del history.handlings[3]
    history.left[G] = ["e3"]
    assert broken(history) == {"3"}


def test_what_recovered_is_counted() -> None:
    history = good()
    outcome(history, "e3", "unknown")
    outcome(history, "e4", "unknown")
    history.stored.remove("e4")
    del history.handlings[4]
    verdict = judge(history, PROMISE)
    assert (verdict.unknown, verdict.recovered, verdict.good) == (2, 1, True)


# --- 4: duplicates -----------------------------------------------------------------------------


def test_a_duplicate_without_a_fault_is_noticed() -> None:
    history = good()
    history.handlings.append(again("e3", "m2.1", 7.0, 7.1))
    assert broken(history) == {"4"}


def test_who_stood_still_for_a_lease_may_have_been_taken_for_dead() -> None:
    history = good()
    history.handlings.append(again("e3", "m2.1", 7.0, 7.1))
    history.lags.append(Lag("m1.1", 5.0, 5.5))
    assert broken(history) == {"4"}
    history.lags.append(Lag("m1.1", 6.0, 6.9))
    assert broken(history) == set()
    history.faults.append(Fault("freeze member", 5.9, 6.9, ("m1.1",)))  # it was we who did that
    assert broken(history) == {"4"}


def test_duplicates_are_bounded_by_what_was_in_flight() -> None:
    history = good()
    history.faults.append(Fault("kill member", 6.0, 6.5, ("m1.1",), {G: 1}))
    history.handlings.append(again("e3", "m2.1", 7.0, 7.1))
    assert broken(history) == set()
    history.handlings.append(again("e4", "m2.1", 7.2, 7.3))
    assert broken(history) == {"4"}


# --- 5: order ----------------------------------------------------------------------------------


def test_events_of_a_key_are_stored_in_the_order_of_their_sends() -> None:
    history = good()
    history.stored[1], history.stored[3] = history.stored[3], history.stored[1]
    assert broken(history) == {"5"}
    history.stored[1], history.stored[2] = "e1", "e3"  # e2 is of the other key
    history.stored[3] = "e2"
    assert broken(history) == set()


def test_a_member_is_given_new_events_in_order() -> None:
    history = good()
    change(history, 4, position=(1, 0))
    assert broken(history) == {"5"}
    history.faults.append(Fault("destroy group", 3.5, 3.5, ("*",), {}, loses_group=True))
    assert broken(history) == set()


def test_redelivered_events_may_come_late() -> None:
    history = good()
    change(history, 4, position=(1, 0), deliveries=2)
    assert broken(history) == set()


def test_keys_are_handled_in_order_where_that_is_promised() -> None:
    ordered = replace(PROMISE, ordered=frozenset({G}))
    assert broken(good(), ordered) == set()
    history = good()
    change(history, 2, start=4.5, end=5.5, acked=5.6)  # e4, its successor, began at 4.1
    assert broken(history, ordered) == {"5"}
    assert judge(history, ordered).groups[G]["disorder"] == 1


def test_a_dead_letter_is_a_gap_in_the_order() -> None:
    ordered = replace(PROMISE, ordered=frozenset({G}))
    history = good()
    change(history, 2, end=None, acked=None)
    history.dead.append(DeadEntry(G, "e2", 5))
    assert broken(history, ordered) == set()


# --- 6: one owner ------------------------------------------------------------------------------


def in_two_hands() -> History:
    """m2 begins e5 while m1 still works on it; e5 then counts once."""
    history = good()
    change(history, 5, start=5.0, end=7.0, acked=None)
    history.handlings.append(again("e5", "m2.1", 6.5, None))
    return history


def test_an_event_in_two_living_hands_is_noticed() -> None:
    assert broken(in_two_hands()) == {"6"}


def test_one_that_was_silent_does_not_believe_any_more() -> None:
    history = in_two_hands()
    history.faults.append(Fault("freeze member", 5.5, 6.4, ("m1.1",)))
    assert broken(history) == set()
    history.faults[0] = Fault("freeze member", 5.5, 6.4, ("m3.1",))
    assert broken(history) == {"6"}


def test_a_machine_that_stood_still_is_no_proof() -> None:
    history = in_two_hands()
    history.lags.append(Lag("m1.1", 5.5, 6.3))
    assert broken(history) == set()


def test_what_was_handed_back_is_in_one_hand() -> None:
    history = in_two_hands()
    change(history, 5, end=None, released=5.5)
    outcome(history, "e5", "unknown")
    assert broken(history) == set()


# --- 7: acks -----------------------------------------------------------------------------------


def test_an_ack_before_its_handling_is_noticed() -> None:
    history = good()
    change(history, 3, acked=3.15)
    assert broken(history) == {"7"}


def test_an_ack_that_finds_nothing_is_noticed_where_nothing_was_broken() -> None:
    history = good()
    history.missed.append(Missed(G, "m1.1", 4.0, 3))
    assert broken(history) == {"7"}
    history.faults.append(Fault("freeze member", 2.0, 3.5, ("m1.1",)))
    assert broken(history) == set()


def test_a_dead_letter_has_used_up_its_attempts() -> None:
    history = good()
    history.dead.append(DeadEntry(G, "e3", 4))
    assert broken(history) == {"7"}
    history.dead[0] = DeadEntry(G, "e3", 1, "Reject: no such customer")
    assert broken(history) == set()


# --- 8: bounds ---------------------------------------------------------------------------------


def test_more_in_flight_than_allowed_is_noticed() -> None:
    history = good()
    history.samples.append(Sample(1.0, G, {"m1": 10}))
    assert broken(history) == set()
    history.samples.append(Sample(2.0, G, {"m1": 11}))
    assert broken(history) == {"8"}


@pytest.mark.parametrize("what", ["rss", "files"])
def test_what_grows_is_noticed(what: str) -> None:
    history = good()
    step = {"rss": 20 << 20, "files": 5}[what]
    history.samples += [Sample(n, who="m1.1", **{what: n * step}) for n in range(30)]  # type: ignore[arg-type]
    assert broken(history) == {"8"}
    history.samples = [s._replace(rss=5, files=5) for s in history.samples]
    assert broken(history) == set()


def test_dead_consumers_that_are_left_are_noticed() -> None:
    clean = replace(PROMISE, litter=1, members={G: 2})
    history = good()
    history.consumers[G] = 3
    assert broken(history, clean) == set()
    history.consumers[G] = 4
    assert broken(history, clean) == {"8"}


# --- 9: liveness -------------------------------------------------------------------------------


def test_a_group_that_does_not_drain_is_noticed() -> None:
    history = good()
    history.drained[G] = None
    assert broken(history) == {"9"}


def test_a_process_that_ends_by_itself_is_noticed() -> None:
    history = good()
    history.crashes.append("m1.1: RuntimeError()")
    assert broken(history) == {"9"}


def stalled() -> History:
    """Five seconds in which nothing is done, between e2 and e3."""
    history = good()
    for at in (3, 4, 5):
        handling = history.handlings[at]
        change(history, at, start=handling.start + 5, end=at + 5.2, acked=at + 5.3)
    return history


def test_a_stall_with_nothing_broken_is_noticed() -> None:
    assert broken(stalled()) == {"9"}
    assert longest_stall(stalled(), G)[0] == pytest.approx(6.0)


def test_a_stall_counts_from_the_healing() -> None:
    history = stalled()
    history.faults.append(Fault("kill server", 2.5, 6.0, ("*",)))
    assert broken(history) == set()
    assert longest_stall(history, G)[0] == pytest.approx(2.2)
    history.faults[0] = Fault("kill server", 2.5, 3.0, ("*",))
    assert broken(history) == {"9"}


def test_a_machine_that_stands_still_is_no_stall() -> None:
    history = stalled()
    history.lags += [Lag("m1.1", 3.0, 5.0), Lag("m2.1", 4.0, 7.0)]
    assert broken(history) == set()
    assert longest_stall(history, G)[0] == pytest.approx(2.0)


def test_one_that_we_stopped_ourselves_is_no_machine_that_stands_still() -> None:
    history = stalled()
    history.lags.append(Lag("m1.1", 3.0, 7.0))
    history.faults.append(Fault("freeze member", 2.9, 3.1, ("m1.1",)))
    assert broken(history) == {"9"}


def test_when_the_load_has_ended_nothing_may_be_left_to_do() -> None:
    history = stalled()
    history.calm = 5.0
    assert broken(history) == set()


# --- 10: outcomes ------------------------------------------------------------------------------


def test_confirmed_and_not_stored_is_noticed() -> None:
    history = good()
    history.stored.remove("e3")
    assert broken(history) == set()  # all have finished it: it may be trimmed
    del history.handlings[3]
    assert broken(history) == {"1", "10"}


def test_reported_as_not_stored_and_stored_is_noticed() -> None:
    history = good()
    outcome(history, "e3", "fail")
    assert broken(history) == {"10"}


def test_stored_twice_is_noticed() -> None:
    history = good()
    history.stored.append("e5")
    assert broken(history) == {"10"}


# --- 11: blame, and the other figures ----------------------------------------------------------


def test_blame_finds_where_it_was_last_seen() -> None:
    history = good()
    history.stored.remove("e0")
    del history.handlings[1]
    change(history, 1, end=None)
    history.left[G] = ["e3"]
    assert "not in the stream" in blame(history, G, "e0")
    assert "never handled" in blame(history, G, "e1")
    assert "begun by m1.1" in blame(history, G, "e2")
    assert "nobody took it" in blame(history, G, "e3")


def test_recoveries_and_takeovers_are_measured() -> None:
    history = good()
    change(history, 4, end=None, acked=None)
    history.faults.append(Fault("kill member", 4.15, 4.2, ("m1.1",), {G: 3}))
    history.handlings.append(again("e4", "m2.1", 5.65, 5.7))
    assert [round(seconds, 2) for _, seconds in recoveries(history, G)] == [1.0]
    assert [round(seconds, 2) for _, seconds in takeovers(history, G)] == [1.5]
    said = report(judge(history, PROMISE, cell="hand-made", server="paper"))
    assert "hand-made on paper: good" in said
    assert "kill member 1" in said


@pytest.mark.parametrize("apart", [True, False], ids=["alone", "beside another fault"])
def test_what_the_dead_had_in_hand_is_soon_with_others(apart: bool) -> None:
    history = good()
    change(history, 4, end=None, acked=None)
    history.faults.append(Fault("kill member", 4.15, 4.2, ("m1.1",), {G: 3}))
    at = 4.15 + PROMISE.takeover + 0.1
    history.handlings.append(again("e4", "m2.1", at, at + 0.1))
    if not apart:
        history.faults.append(Fault("kill server", 5.0, 5.5, ("*",), {G: 3}))
    assert broken(history) == ({"9"} if apart else set())


@pytest.mark.parametrize("slow", [1.0, 4.0])
def test_a_lease_and_a_half_and_a_poll_are_enough_for_that(slow: float) -> None:
    """However slow the machine is; where it stood still, that does not count."""
    promise = Promise(lease=1.0, in_flight=10, slow=slow)
    assert promise.takeover == 1.5 + 0.25 * slow
    history = good()
    change(history, 4, end=None, acked=None)
    history.faults.append(Fault("kill member", 4.15, 4.2, ("m1.1",), {G: 3}))
    at = 4.15 + promise.takeover + 0.3
    history.handlings.append(again("e4", "m2.1", at, at + 0.1))
    assert broken(history, promise) == {"9"}
    history.lags.append(Lag("m2.1", 5.0, 5.4))
    assert broken(history, promise) == set()


def test_a_history_is_read_from_journals() -> None:
    reader = Reader()
    reader.read(
        [
            {"t": 1.0, "who": "p1.1", "what": "try", "id": "a", "k": "k", "s": 1},
            {"t": 1.1, "who": "p1.1", "what": "ok", "ids": ["a"]},
            {"t": 1.1, "who": "p1.1", "what": "try", "id": "b", "k": "k", "s": 2},
            {"t": 0.5, "who": "m1.1", "what": "joined", "group": "g", "member": "x"},
            {"t": 1.2, "who": "m1.1", "what": "start", "id": "a", "d": 1, "pos": "7-1"},
            {"t": 1.3, "who": "m1.1", "what": "nack", "id": "a"},
            {"t": 1.4, "who": "m1.1", "what": "start", "id": "a", "d": 2, "pos": "7-1"},
            {"t": 1.5, "who": "m1.1", "what": "done", "id": "a"},
            {"t": 1.6, "who": "m1.1", "what": "ack", "id": "a"},
            {"t": 2.0, "who": "m1.1", "what": "lag", "from": 1.7},
            {"t": 2.1, "who": "m1.1", "what": "signal", "kind": "trimmed-pending", "count": 3},
        ]
    )
    history = reader.history
    assert {a.id: a.outcome for a in history.attempts.values()} == {"a": "ok", "b": "unknown"}
    assert history.handlings == [
        Handling("g", "m1.1", "a", 1.2, None, 1, (7, 1), None, 1.3),
        Handling("g", "m1.1", "a", 1.4, 1.5, 2, (7, 1), 1.6),
    ]
    assert history.lag_between(0.0, 9.0) == pytest.approx(0.3)
    assert history.reported == {"g": 3}
