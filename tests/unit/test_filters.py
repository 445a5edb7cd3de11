"""`where`: a topic, a glob, a regular expression or a predicate."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, cast

import pytest

from penstock import ConfigError, DecodeError, Event
from penstock.event import Origin
from penstock.layouts import ValueLayout
from penstock.rules.filters import Where, predicate


class Readable:
    """An origin whose values are numbers."""

    stream = "orders"
    shard = 0
    layout = ValueLayout()

    def decode(self, raw: Any) -> int:
        if not raw[1].isdigit():
            raise DecodeError("not a number")
        return int(raw[1])


def on(topic: str, payload: bytes = b"7") -> Event[Any]:
    return Event(cast("Origin", Readable()), b"1-0", [b"p", payload, b"t", topic.encode()])


@pytest.mark.parametrize(
    ("where", "wanted", "unwanted"),
    [
        ("eu", ["eu"], ["", "eu.west", "EU", "xeu"]),
        ("", [""], ["eu"]),
        ("eu.*", ["eu.", "eu.west", "eu.a.b"], ["eu", "xeu.west", "euxwest"]),
        ("eu.?", ["eu.a"], ["eu.", "eu.ab"]),
        ("[ab]c", ["ac", "bc"], ["cc", "[ab]c", "ACC"]),
        ("*", ["", "eu", "a\nb"], []),
        (re.compile("eu|us"), ["eu", "us"], ["eux", "xeu", ""]),
        (re.compile("EU", re.IGNORECASE), ["eu", "Eu"], ["e"]),
        pytest.param(
            lambda event: event.value == 7 and event.topic != "no", ["eu"], ["no"], id="predicate"
        ),
    ],
    ids=str,
)
@pytest.mark.conformance("PU-023")
def test_where_wants_what_it_says(where: Where, wanted: list[str], unwanted: list[str]) -> None:
    """A topic and a regular expression are of the whole topic; a glob's dots are dots."""
    want = predicate(where)
    assert want is not None

    assert [topic for topic in wanted + unwanted if want(on(topic))] == wanted


def test_without_where_everything_is_wanted_at_no_cost() -> None:
    """There is no predicate to call."""
    assert predicate(None) is None


def test_an_event_that_a_predicate_cannot_decode_is_wanted() -> None:
    """Nobody can know; whoever handles it shall see, and the reading goes on."""
    want = cast("Callable[[Event[Any]], bool]", predicate(lambda event: event.value == 1))

    assert want(on("", b"bad"))
    assert not want(on("", b"7"))


def test_other_errors_of_a_predicate_are_the_programs() -> None:
    """They are not swallowed."""
    want = cast("Callable[[Event[Any]], bool]", predicate(lambda event: event.value["x"]))
    with pytest.raises(TypeError):
        want(on(""))


@pytest.mark.parametrize("where", [7, ["eu"], b"eu"])
@pytest.mark.conformance("PU-026")
def test_anything_else_is_refused(where: Any) -> None:
    """With what it may be, and what was given."""
    with pytest.raises(ConfigError, match=f"topic, a glob, .*got {type(where).__name__}"):
        predicate(where)
