"""The rule of shares: even, complete, and moving as little as can be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.rules.shares import fair_shares

owners = st.dictionaries(st.text(min_size=1), st.integers(0, 50), min_size=1)


def test_a_newcomer_gets_its_share_and_no_more() -> None:
    """Four shards of one owner become two and two; five leave the larger share where it was."""
    assert fair_shares({"a": 4, "b": 0}, 4) == {"a": 2, "b": 2}
    assert fair_shares({"a": 0, "b": 5}, 5) == {"a": 2, "b": 3}


def test_even_shares_stay_as_they_are() -> None:
    """Nothing moves without need."""
    assert fair_shares({"a": 1, "b": 2}, 3) == {"a": 1, "b": 2}


def test_more_members_than_shards_leaves_some_standing_by() -> None:
    """One shard has one owner: who has it keeps it."""
    assert fair_shares({"a": 0, "b": 1, "c": 0}, 1) == {"a": 0, "b": 1, "c": 0}


def test_without_members_there_are_no_shares() -> None:
    """An abandoned group asks for nothing."""
    assert fair_shares({}, 3) == {}


def test_who_rests_is_due_nothing_unless_all_rest() -> None:
    """Then nothing moves: nobody would handle it."""
    assert fair_shares({"a": 4, "b": 0, "c": 0}, 4, ["a"]) == {"a": 0, "b": 2, "c": 2}
    assert fair_shares({"a": 3, "b": 0}, 4, ["a", "b"]) == {"a": 3, "b": 0}


@given(owners, st.integers(0, 200))
def test_shares_are_complete_and_even(owned: dict[str, int], shards: int) -> None:
    """They add up to all shards, and differ by one at the most."""
    shares = fair_shares(owned, shards)

    assert shares.keys() == owned.keys()
    assert sum(shares.values()) == shards
    assert max(shares.values()) - min(shares.values()) <= 1


@given(owners)
def test_shares_are_settled_once_they_are_owned(owned: dict[str, int]) -> None:
    """What the rule asks for, it asks for no change of."""
    shares = fair_shares(owned, sum(owned.values()))

    assert fair_shares(shares, sum(owned.values())) == shares
