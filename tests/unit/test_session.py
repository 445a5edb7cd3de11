"""The rule of append sessions: in order, each once, unknown only where a connection broke."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock.rules.session import Answer, AppendSession, Flight


def flown(session: AppendSession[str], *batches: str) -> list[Flight[str]]:
    """Those batches, on their way."""
    for batch in batches:
        session.add(batch)
    return list(session.take())


def test_batches_fly_in_order_under_sequences_from_one() -> None:
    """As many as the window holds; the rest waits."""
    session: AppendSession[str] = AppendSession(window=2)
    flights = flown(session, "a", "b", "c")

    assert [(f.batch, f.sequence) for f in flights] == [("a", 1), ("b", 2)]
    assert list(session.take()) == []
    assert session.oldest() == "a"
    assert session.answered(flights[0], "stored")
    assert [(f.batch, f.sequence) for f in session.take()] == [("c", 3)]


@pytest.mark.parametrize("answer", ["stored", "again"])
def test_a_batch_that_is_stored_leaves_the_window(answer: Answer) -> None:
    """Whether this sending stored it or an earlier one."""
    session: AppendSession[str] = AppendSession()
    [flight] = flown(session, "a")

    assert session.in_air
    assert session.answered(flight, answer)
    assert session.idle
    assert not session.in_air
    assert session.oldest() is None
    assert not session.trouble


@pytest.mark.parametrize("answer", ["gap", "missing", "unmarked", "refused", "retry"])
def test_any_other_answer_is_trouble_and_stops_the_sending(answer: Answer) -> None:
    """Nothing may overtake the batch that is in trouble."""
    session: AppendSession[str] = AppendSession()
    [flight] = flown(session, "a")

    assert not session.answered(flight, answer)
    assert session.trouble == {answer}
    assert flown(session, "b") == []
    assert not session.idle

    assert [f.batch for f in session.rewind()] == ["a"]
    assert [f.batch for f in session.take()] == ["b"]


def test_after_a_cut_everything_without_an_answer_goes_again_under_its_own_sequence() -> None:
    """So that the server can tell it from a new one."""
    session: AppendSession[str] = AppendSession()
    first, *_ = flown(session, "a", "b", "c")
    session.answered(first, "stored")
    session.cut()

    assert not session.in_air
    assert [(f.batch, f.sequence) for f in session.rewind()] == [("b", 2), ("c", 3)]
    assert session.in_air


def test_without_a_cut_a_missing_session_loses_nothing() -> None:
    """Every batch was answered "missing", so none was stored: a new session stores them."""
    session: AppendSession[str] = AppendSession()
    for flight in flown(session, "a", "b"):
        session.answered(flight, "missing")

    assert session.missing() == ([], [])
    session.renew()
    session.trouble.clear()
    assert [(f.batch, f.sequence) for f in session.take()] == [("a", 1), ("b", 2)]


def test_after_a_cut_a_missing_session_makes_unknown_what_was_in_the_air() -> None:
    """And what stands behind it is unsent, to keep the order."""
    session: AppendSession[str] = AppendSession(window=2)
    flown(session, "a", "b", "c")
    session.cut()
    for flight in session.rewind():
        session.answered(flight, "missing")

    assert session.missing() == (["a", "b"], ["c"])
    assert session.idle


def test_what_was_sent_first_after_the_cut_is_certainly_not_stored() -> None:
    """Only what flew when the connection broke is unknown."""
    session: AppendSession[str] = AppendSession()
    flown(session, "a")
    session.cut()
    list(session.rewind())
    [later] = flown(session, "b")
    session.answered(later, "missing")

    assert session.give_up() == (["a"], ["b"])


def test_giving_up_while_answers_are_to_come_makes_them_unknown() -> None:
    """What still waits was never sent. Answers that come later are of no use to anyone."""
    session: AppendSession[str] = AppendSession(window=2)
    flights = flown(session, "a", "b", "c")

    assert session.give_up() == (["a", "b"], ["c"])
    assert session.idle
    assert not any(flight.in_air for flight in flights)

    session.add("d")
    session.cut()
    assert session.give_up() == ([], ["d"])
    session.renew()
    assert [(f.batch, f.sequence) for f in flown(session, "e")] == [("e", 1)]


def test_a_refusal_takes_everything_out() -> None:
    """Without a cut, nothing of it was stored, nor of what stands behind it."""
    session: AppendSession[str] = AppendSession(window=2)
    first, second = flown(session, "a", "b", "c")
    session.answered(first, "refused")
    session.answered(second, "gap")

    assert session.refused() == ([], ["a", "b", "c"])
    assert session.idle


def test_a_refusal_after_a_cut_leaves_out_nothing() -> None:
    """A refusal may come before the server looks at the sequence: nobody is left waiting."""
    session: AppendSession[str] = AppendSession(window=2)
    flown(session, "a", "b", "c")
    session.cut()
    first, second = session.rewind()
    session.answered(first, "refused")
    session.answered(second, "gap")

    assert session.refused() == (["a", "b"], ["c"])


def test_a_server_behind_what_it_confirmed_is_noticed() -> None:
    """A failover lost batches; a new session begins at one."""
    session: AppendSession[str] = AppendSession()
    for flight in flown(session, "a", "b", "c"):
        session.answered(flight, "stored")

    assert [session.behind(last) for last in (3, 4, 1, 0)] == [0, 0, 2, 3]
    session.renew()
    assert session.behind(0) == 0
    assert [f.sequence for f in flown(session, "d")] == [1]


@given(st.integers(1, 5), st.integers(0, 20), st.data())
def test_a_window_is_never_exceeded(window: int, count: int, data: st.DataObject) -> None:
    """Whatever is answered, and in whatever order."""
    session: AppendSession[int] = AppendSession(window)
    flying: list[Flight[int]] = []
    for batch in range(count):
        session.add(batch)
        flying += session.take()
        assert len(flying) <= window
        if flying and data.draw(st.booleans()):
            session.answered(flying.pop(data.draw(st.integers(0, len(flying) - 1))), "stored")


# --- against a server that loses replies, state and patience ---------------------------------


class Server:
    """What the scripts do: a log, and sessions with the answers that they keep."""

    def __init__(self) -> None:
        self.log: list[int] = []
        self.sessions: dict[str, int] = {}
        self.down: Answer | None = None

    def append(self, session: str, sequence: int, batch: int) -> tuple[Answer, int]:
        if self.down is not None:
            return self.down, 0
        last = self.sessions.get(session)
        if last is None:
            return "missing", 0
        if sequence <= last:
            return "again", last
        if sequence != last + 1:
            return "gap", last
        self.log.append(batch)
        self.sessions[session] = sequence
        return "stored", last


class AppendMachine(RuleBasedStateMachine):
    """Appends over a connection that may be cut at any point, to a server that may forget."""

    def __init__(self) -> None:
        super().__init__()
        self.server = Server()
        self.rules: AppendSession[int] = AppendSession(window=3)
        self.names = iter(f"session-{n}" for n in range(10_000))
        self.session = next(self.names)
        self.opened = False
        self.requests: deque[tuple[Flight[int], str]] = deque()
        self.replies: deque[tuple[Flight[int], Answer, int]] = deque()
        self.stands_at = 0
        self.sent = 0
        self.outcomes: dict[int, str] = {}
        self.was_cut = False
        self.server_lost: set[int] = set()
        self.behind = 0

    # the program

    @rule(count=st.integers(1, 4))
    def submit(self, count: int) -> None:
        for _ in range(count):
            self.rules.add(self.sent)
            self.sent += 1
        self.go_on()

    # the network

    @precondition(lambda self: self.requests)
    @rule()
    def a_request_arrives(self) -> None:
        flight, session = self.requests.popleft()
        self.replies.append((flight, *self.server.append(session, flight.sequence, flight.batch)))

    @precondition(lambda self: self.replies)
    @rule()
    def a_reply_arrives(self) -> None:
        flight, answer, last = self.replies.popleft()
        if not flight.in_air:
            return
        if answer == "gap":
            self.stands_at = last
        if self.rules.answered(flight, answer):
            self.outcomes[flight.batch] = "stored"
        self.go_on()

    @rule()
    def all_is_well_for_a_while(self) -> None:
        for _ in range(20):
            if self.requests:
                self.a_request_arrives()
            if self.replies:
                self.a_reply_arrives()

    @rule(arrive=st.integers(0, 3))
    def the_connection_breaks(self, arrive: int) -> None:
        """Some of what was sent still arrives; no reply does."""
        for _ in range(min(arrive, len(self.requests))):
            self.a_request_arrives()
        self.was_cut = self.was_cut or self.rules.in_air
        self.requests.clear()
        self.replies.clear()
        self.rules.cut()
        self.go_on()

    # the server

    @rule(answer=st.sampled_from(["retry", "refused"]))
    def the_server_refuses(self, answer: Answer) -> None:
        self.server.down = answer

    @rule()
    def the_server_is_well(self) -> None:
        self.server.down = None

    @rule()
    def the_server_forgets_the_session(self) -> None:
        self.server.sessions.clear()

    @precondition(lambda self: self.server.log)
    @rule(count=st.integers(1, 3))
    def the_server_fails_over(self, count: int) -> None:
        """The last entries, and what the session knew of them, are gone."""
        self.the_connection_breaks(0)
        lost = self.server.log[-count:]
        del self.server.log[-count:]
        self.server_lost |= set(lost)
        last = self.server.sessions.get(self.session)
        if last is not None:
            self.server.sessions[self.session] = max(0, last - len(lost))

    # what the appender does

    def go_on(self) -> None:
        if not self.opened or self.rules.trouble:
            self.mend()
            return
        for flight in self.rules.take():
            self.requests.append((flight, self.session))

    def mend(self) -> None:
        if self.rules.in_air or self.rules.idle:
            return
        trouble = set(self.rules.trouble)
        if "refused" in trouble:
            self.account(*self.rules.refused())
            self.begin_session()
        if "missing" in trouble:
            self.account(*self.rules.missing())
            self.begin_session()
        if "gap" in trouble and self.rules.behind(self.stands_at):
            self.behind += 1
            self.begin_session()
        if not self.opened:
            self.server.sessions.setdefault(self.session, 0)
            self.opened = True
        for flight in self.rules.rewind():
            self.requests.append((flight, self.session))
        self.go_on()

    def begin_session(self) -> None:
        self.server.sessions.pop(self.session, None)
        self.session = next(self.names)
        self.opened = False
        self.rules.renew()

    def account(self, unknown: list[int], unsent: list[int]) -> None:
        for batch in unknown:
            assert self.was_cut, "unknown, though no connection ever broke"
            assert batch not in self.outcomes
            self.outcomes[batch] = "unknown"
        for batch in unsent:
            assert batch not in self.outcomes
            self.outcomes[batch] = "unsent"
            assert batch not in self.server.log, "said to be unsent, and is stored"

    # the promises

    @invariant()
    def nothing_is_doubled_and_the_order_is_kept(self) -> None:
        assert self.server.log == sorted(set(self.server.log))

    @invariant()
    def what_is_said_to_be_stored_is(self) -> None:
        told = {batch for batch, outcome in self.outcomes.items() if outcome == "stored"}
        assert told <= set(self.server.log) | self.server_lost

    def teardown(self) -> None:
        """The network heals: nothing is stuck, and every batch has its outcome."""
        self.server.down = None
        self.go_on()
        for _ in range(200):
            if not self.requests and not self.replies:
                break
            while self.requests:
                self.a_request_arrives()
            while self.replies:
                self.a_reply_arrives()
        assert self.rules.idle
        assert self.outcomes.keys() == set(range(self.sent))
        self.nothing_is_doubled_and_the_order_is_kept()
        self.what_is_said_to_be_stored_is()
        if not self.was_cut:
            assert "unknown" not in self.outcomes.values()
        event(f"outcomes {sorted(set(self.outcomes.values()))}")
        event(f"behind {min(self.behind, 1)}")


AppendMachine.TestCase.settings = settings(
    max_examples=300, stateful_step_count=40, deadline=None, print_blob=True
)
test_appends_are_stored_in_order_and_once_whatever_breaks = AppendMachine.TestCase
