"""Lanes: one event of a key at a time, in order, and what is behind one that failed."""

from __future__ import annotations

import random

from penstock.pipeline.lanes import Lanes


def test_events_of_one_key_wait_for_each_other() -> None:
    """Other keys, and events without one, do not."""
    lanes: Lanes[int] = Lanes()
    assert lanes.admit("a", 1)
    assert not lanes.admit("a", 2)
    assert lanes.admit("b", 3)
    assert lanes.admit(None, 4)
    assert lanes.admit(None, 5)
    assert not lanes.admit("a", 6)
    assert lanes.waiting == 2
    assert lanes.leave(None, 4) is None
    assert (lanes.front("a"), lanes.front("c"), lanes.front(None)) == (1, None, None)
    assert [lane.front for lane in lanes.crowded()] == [1]
    assert [lanes.leave("a", one) for one in (1, 2, 6)] == [2, 6, None]
    assert lanes.waiting == 0
    assert lanes.admit("a", 7)


def test_what_waits_behind_a_failure_is_given_up() -> None:
    """It comes again behind it; the lane is free for it then."""
    lanes: Lanes[int] = Lanes()
    for event in (1, 2, 3):
        lanes.admit("a", event)
    assert lanes.give_up("a", 1) == [2, 3]
    assert lanes.give_up(None, 9) == []
    assert lanes.admit("a", 4)
    assert not lanes.admit("a", 5)
    assert (lanes.leave("a", 1), lanes.give_up("a", 1)) == (None, [])  # it ended after all
    assert lanes.clear() == [5]
    assert (lanes.waiting, lanes.leave("a", 4), lanes.front("a")) == (0, None, None)


def test_any_sequence_keeps_the_order_of_each_key() -> None:
    """At most one of a key is out, and they come out as they went in."""
    chance = random.Random(7)
    lanes: Lanes[int] = Lanes()
    out: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    busy: set[str] = set()
    for event in range(3000):
        key = chance.choice("abc")
        if lanes.admit(key, event):
            assert key not in busy
            busy.add(key)
            out[key].append(event)
        for done in [one for one in busy if chance.random() < 0.4]:
            following = lanes.leave(done, out[done][-1])
            if following is None:
                busy.discard(done)
            else:
                out[done].append(following)
    assert all(events == sorted(events) for events in out.values())
    assert lanes.waiting == 3000 - sum(map(len, out.values()))
