"""The buffer: order, bounds and pinned infos, beside a list that does the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from penstock.errors import ConfigError
from penstock.rules.buffer import Buffer, Keep, Overflow, Piece
from penstock.rules.trace import Fresh


def filled(*emissions: str, size: int | None = None, keep: Keep = "last") -> Buffer:
    """A buffer with these emissions, each letter an event."""
    buffer = Buffer(size, keep)
    for emission in emissions:
        buffer.store(list(emission))
    return buffer


def taken(buffer: Buffer, limit: int = 100) -> tuple[str, list[Any]] | None:
    """The next piece, as letters, with the infos behind it."""
    found = buffer.take(limit)
    return ("".join(found[0].events), found[1]) if found else None


def letters(pieces: Sequence[Piece]) -> str:
    return "".join(event for piece in pieces for event in piece.events)


def lost(overflow: Overflow | None) -> str:
    return letters(overflow.dropped) if overflow else ""


# --- order -------------------------------------------------------------------------------------


@pytest.mark.conformance("GS-038")
def test_what_was_stored_comes_out_in_its_order_in_any_portions() -> None:
    """Emissions are joined and cut as demand has it."""
    buffer = filled("abcde", "f", "gh")
    assert taken(buffer, 4) == ("abcd", [])
    assert taken(buffer, 3) == ("efg", [])
    assert buffer.count == 1
    assert taken(buffer) == ("h", [])


def test_joining_leaves_the_emitted_list_alone() -> None:
    """It is not ours alone: a piece that goes on is a list of its own."""
    first, second = ["a"], ["b"]
    buffer = Buffer()
    buffer.store(first)
    buffer.store(second)
    assert taken(buffer) == ("ab", [])
    assert (first, second) == (["a"], ["b"])


@pytest.mark.conformance("GS-032")
def test_an_emission_that_is_apart_is_never_joined_with_what_comes_behind() -> None:
    """Not whole, and not in parts."""
    buffer = Buffer()
    for emission in ("abc", "de", "f"):
        buffer.store(list(emission), apart=True)
    buffer.store(["g"])
    assert taken(buffer, 2) == ("ab", [])
    assert taken(buffer) == ("c", [])
    assert taken(buffer) == ("de", [])
    assert taken(buffer) == ("f", [])
    assert taken(buffer) == ("g", [])


def test_events_with_an_outcome_are_not_joined_with_others() -> None:
    """A piece has one carrier, so that what becomes of it can be told."""
    settled: list[Any] = []
    one = Fresh(lambda *told: settled.append(told))
    other = Fresh(lambda *told: settled.append(told))
    buffer = Buffer()
    for event, carrier in (("a", None), ("b", one), ("c", other), ("d", None), ("e", None)):
        buffer.store([event], carrier)
    pieces = []
    while found := buffer.take(9):
        pieces.append(found[0])
    assert pieces == [(["a"], None), (["b"], one), (["c"], other), (["d", "e"], None)]
    assert settled == []


@pytest.mark.conformance("GS-046")
def test_an_empty_buffer_gives_nothing_and_pins_nothing() -> None:
    """The info is due now, and leaves no trace."""
    buffer = Buffer()
    assert buffer.take(5) is None
    assert not buffer.pin("info")
    buffer.store(["a"])
    assert taken(buffer) == ("a", [])
    assert not buffer.pin("info")


def test_nothing_is_taken_without_demand() -> None:
    """A limit of 0 takes nothing, and moves nothing."""
    buffer = filled("ab")
    assert buffer.take(0) is None
    assert buffer.count == 2


def test_what_is_put_back_comes_first_with_its_infos() -> None:
    """A dispatcher took less than it had room for."""
    buffer = filled("abc")
    buffer.pin("info")
    buffer.store(["d"])
    found = buffer.take(10)
    assert found == ((["a", "b", "c"], None), ["info"])
    buffer.put_back(["b", "c"], None, ["info"])
    assert buffer.count == 3
    assert taken(buffer) == ("bc", ["info"])
    assert taken(buffer) == ("d", [])


def test_pieces_that_are_restored_come_first_in_their_order() -> None:
    """Whatever the bound: they had been accepted."""
    buffer = filled("e", size=2)
    buffer.restore([Piece(["a", "b"], None), Piece([], None), Piece(["c", "d"], None)])
    assert buffer.count == 5
    assert taken(buffer) == ("abcde", [])


@pytest.mark.parametrize("keep", ["first", "last"])
def test_a_buffer_that_was_restored_beyond_its_bound_takes_nothing_more(keep: Keep) -> None:
    """What is over is dropped, to the bound and no further than what is new."""
    buffer = filled(size=2, keep=keep)
    buffer.restore([Piece(list("abcd"), None)])
    overflow = buffer.store(list("efg"))
    assert buffer.count + len(lost(overflow)) == 7
    assert lost(overflow) == ("efg" if keep == "first" else "abcde")


def test_clearing_gives_everything_that_was_left() -> None:
    """Infos go with it."""
    buffer = filled("abc", "d")
    buffer.pin("info")
    buffer.take(2)
    assert letters(buffer.clear()) == "cd"
    assert buffer.count == 0
    assert buffer.take(1) is None


# --- bounds ------------------------------------------------------------------------------------


@pytest.mark.conformance("GS-039")
def test_keeping_the_first_drops_the_newest() -> None:
    """Five fit of eight."""
    buffer = Buffer(5, "first")
    assert lost(buffer.store(list("abcdefgh"))) == "fgh"
    assert lost(buffer.store(list("ij"))) == "ij"
    assert taken(buffer) == ("abcde", [])


@pytest.mark.conformance("GS-040")
def test_keeping_the_last_drops_the_oldest() -> None:
    """Five fit of eight, in one emission or in several."""
    buffer = Buffer(5, "last")
    assert lost(buffer.store(list("abcdefgh"))) == "abc"
    assert lost(buffer.store(list("ij"))) == "de"
    assert taken(buffer) == ("fghij", [])
    other = filled("abc", "de", size=5)
    assert lost(other.store(list("fghijklm"))) == "abcdefgh"
    assert taken(other) == ("ijklm", [])


@pytest.mark.conformance("GS-041")
def test_without_a_bound_everything_is_kept() -> None:
    """None is no bound."""
    buffer = Buffer(None)
    assert all(buffer.store([number]) is None for number in range(2000))
    assert buffer.count == 2000


@pytest.mark.conformance("GS-042")
def test_what_fits_is_no_overflow() -> None:
    """To the last place; so nobody is told of anything."""
    buffer = Buffer(3)
    assert buffer.store(["a", "b"]) is None
    assert buffer.store(["c"]) is None
    assert buffer.store([]) is None


@pytest.mark.conformance("GS-050")
@pytest.mark.parametrize("keep", ["first", "last"])
def test_a_buffer_of_no_events_keeps_none(keep: Keep) -> None:
    """Size 0 is allowed; all are dropped, and infos are due at once."""
    buffer = Buffer(0, keep)
    assert lost(buffer.store(list("ab"))) == "ab"
    assert buffer.count == 0
    assert buffer.take(1) is None
    assert not buffer.pin("info")


@pytest.mark.conformance("GS-100")
@pytest.mark.parametrize("size", [-1, 1.5, True, "all"])
def test_a_size_that_makes_no_sense_is_refused(size: Any) -> None:
    """The error says what was given."""
    with pytest.raises(ConfigError, match=f"buffer_size must be .*{size!r}"):
        Buffer(size)


@pytest.mark.parametrize("keep", ["newest", None, "LAST"])
def test_an_unknown_end_to_keep_is_refused(keep: Any) -> None:
    """The error says what there is."""
    with pytest.raises(ConfigError, match="'first' or 'last'"):
        Buffer(1, keep)


# --- infos -------------------------------------------------------------------------------------


@pytest.mark.conformance("GS-045")
def test_infos_are_not_counted() -> None:
    """The count, and the bound, are of events."""
    buffer = filled("ab", size=3)
    for number in range(5):
        assert buffer.pin(number)
    assert buffer.count == 2
    assert buffer.store(["c"]) is None


@pytest.mark.conformance("GS-047", "GS-059")
def test_a_piece_ends_at_an_info() -> None:
    """Whatever more was asked for: it comes next."""
    buffer = filled("abc")
    buffer.pin("info")
    buffer.store(list("de"))
    assert taken(buffer, 2) == ("ab", [])
    assert taken(buffer, 100) == ("c", ["info"])
    assert taken(buffer, 100) == ("de", [])


@pytest.mark.conformance("GS-047")
def test_an_info_comes_out_with_the_last_event_before_it() -> None:
    """Also where demand ends just there, and no later."""
    buffer = filled("abc")
    buffer.pin("info")
    assert taken(buffer, 3) == ("abc", ["info"])


@pytest.mark.conformance("GS-048", "GS-059")
def test_infos_come_out_in_their_places_and_in_their_order() -> None:
    """Three in one place, one in another."""
    buffer = filled("a", "bc")
    for info in "def":
        buffer.pin(info)
    buffer.store(list("gh"))
    buffer.pin("i")
    assert taken(buffer) == ("abc", ["d", "e", "f"])
    assert taken(buffer) == ("gh", ["i"])


@pytest.mark.conformance("GS-057")
def test_pins_between_takes_and_emissions_keep_their_places() -> None:
    """A buffer in use: taken from, pinned, filled, pinned again."""
    buffer = filled("abc")
    assert taken(buffer, 2) == ("ab", [])
    buffer.pin(1)
    buffer.store(["d"])
    buffer.store(["e"])
    buffer.pin(2)
    assert taken(buffer) == ("c", [1])
    assert taken(buffer) == ("de", [2])


@pytest.mark.conformance("GS-049", "GS-058")
def test_infos_behind_events_that_are_dropped_come_out_at_once() -> None:
    """Those whose last event went; the others stay."""
    buffer = filled("ab", size=4)
    buffer.pin("behind b")
    buffer.store(["c", "d"])
    buffer.pin("behind d")
    overflow = buffer.store(["e"])
    assert (lost(overflow), overflow and overflow.infos) == ("a", [])
    overflow = buffer.store(["f", "g"])
    assert (lost(overflow), overflow and overflow.infos) == ("bc", ["behind b"])
    assert taken(buffer) == ("d", ["behind d"])
    assert taken(buffer) == ("efg", [])


@pytest.mark.conformance("GS-049")
def test_an_emission_that_displaces_everything_lets_all_infos_out() -> None:
    """In their order, also where it is larger than the buffer itself."""
    buffer = filled("a", size=2)
    buffer.pin(1)
    buffer.store(["b"])
    buffer.pin(2)
    overflow = buffer.store(list("cdef"))
    assert (lost(overflow), overflow and overflow.infos) == ("abcd", [1, 2])
    assert taken(buffer) == ("ef", [])
