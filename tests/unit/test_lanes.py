"""Lanes: what was let out stays out, and waits again only behind what failed before it."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.event import Position
from penstock.rules.lanes import Lanes

pytestmark = pytest.mark.one_loop


class Entry:
    """What lanes ask of an event."""

    def __init__(self, number: int, key: str | None = "k") -> None:
        self.entry_id = f"{number}-0".encode()
        self.position = Position.of(self.entry_id)
        self.key = key
        self.size = 1

    def __repr__(self) -> str:
        return self.entry_id.decode()


def entries(*numbers: int) -> list[Any]:
    return [Entry(number) for number in numbers]


def out(lanes: Lanes, now: float) -> list[Any]:
    return [one.event for one in lanes.due(now)]


def test_what_is_let_out_and_sorted_again_before_it_is_taken_is_still_out() -> None:
    """Else its lane waits for ever for an event that stands in its own queue."""
    lanes = Lanes()
    (one,) = entries(1)
    lanes.park(one, due=5.0)
    assert out(lanes, 5.0) == [one]
    assert lanes.admit([one]) == [one]
    lanes.done(one.entry_id)
    assert out(lanes, 5.0) == []
    assert not lanes


def test_what_is_let_out_waits_again_behind_what_failed_before_it() -> None:
    lanes = Lanes()
    one, two, three = entries(1, 2, 3)
    lanes.park(one, due=5.0)
    assert lanes.admit([two, three]) == []
    assert out(lanes, 5.0) == [one]
    lanes.done(one.entry_id)
    assert out(lanes, 5.0) == [two, three]
    lanes.park(two, due=9.0)  # it was taken, and failed; the third has not been taken yet
    assert lanes.admit([three]) == []
    assert out(lanes, 9.0) == [two]
    lanes.done(two.entry_id)
    assert out(lanes, 9.0) == [three]
