"""Format: which codec and layout a stream has, and how large an event may be."""

from __future__ import annotations

import enum
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import ConfigError, EncodeError, PayloadTooLarge
from penstock.event import Event, Meta
from penstock.ports import Marks
from penstock.streams.format import MOST_FIELDS, Format, ShardOrigin, choose, make_meta


class Order(msgspec.Struct):
    """A type."""

    number: int


class Own:
    """A codec that a user brings."""

    name = "own"
    body: Literal["fields", "payload"] = "payload"

    def encode(self, value: Any) -> bytes:
        return str(value).encode()

    def decode(self, body: Any) -> Any:
        return int(body)


class Eu(enum.StrEnum):
    """A topic with a name."""

    WEST = "eu.west"


def chosen(marks: Marks | None = None, **asked: Any) -> Format:
    """What a handle that asks for *asked* gets."""
    options: dict[str, Any] = {
        "type": None,
        "codec": None,
        "layout": None,
        "limit": 1 << 20,
        "exists": marks is not None,
        **asked,
    }
    return choose(marks, stream="orders", **options)


# --- which -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "marks"),
    [
        ({}, ("fields", "fields")),
        ({"layout": "fields"}, ("fields", "fields")),
        ({"type": Order}, ("value", "json")),
        ({"type": bytes}, ("value", "raw")),
        ({"layout": "value"}, ("value", "json")),
        ({"codec": "raw"}, ("value", "raw")),
        ({"codec": Own()}, ("value", "own")),
        ({"codec": Own(), "layout": "value"}, ("value", "own")),
    ],
)
def test_a_new_stream_gets_what_the_handle_asks_for(
    asked: dict[str, Any], marks: tuple[str, str]
) -> None:
    """Plain fields where it asks for nothing."""
    assert chosen(**asked).marks(3) == Marks(*marks, 3)


@pytest.mark.parametrize(
    "marks", [Marks("fields", "fields"), Marks("value", "json"), Marks("value", "raw")]
)
def test_a_handle_that_asks_for_nothing_adopts_what_is_stored(marks: Marks) -> None:
    """Entries are never sniffed: the marks decide."""
    assert chosen(marks).marks(1) == marks


@pytest.mark.parametrize(
    ("marks", "asked", "said"),
    [
        (Marks("fields", "fields"), {"type": Order}, "type=Order"),
        (Marks("fields", "fields"), {"layout": "value"}, "layout='value'"),
        (Marks("value", "json"), {"type": bytes}, "type=bytes"),
        (Marks("value", "json"), {"layout": "fields"}, "layout='fields'"),
        (Marks("value", "raw"), {"codec": Own()}, "codec='own'"),
    ],
)
def test_a_handle_that_asks_for_another_format_is_refused(
    marks: Marks, asked: dict[str, Any], said: str
) -> None:
    """With what is stored, what was asked for, and what to do."""
    with pytest.raises(ConfigError) as error:
        chosen(marks, **asked)
    text = str(error.value)
    assert all(part in text for part in ("'orders'", marks.layout, marks.codec, said, "adopt"))


def test_a_stream_that_others_made_is_plain_fields() -> None:
    """It has no marks; any other wish is refused."""
    assert chosen(exists=True).marks(1) == Marks("fields", "fields")
    assert chosen(exists=True, layout="fields").marks(1) == Marks("fields", "fields")
    with pytest.raises(ConfigError, match=r"made by others.*type=Order; leave it out, and take"):
        chosen(exists=True, type=Order)


def test_a_codec_and_a_layout_that_do_not_fit_are_refused() -> None:
    """Fields have no payload, a payload has no fields."""
    with pytest.raises(ConfigError, match="stores fields, but codec 'json' makes payload"):
        chosen(codec="json", layout="fields")
    with pytest.raises(ConfigError, match="stores payload, but codec 'fields' makes fields"):
        chosen(codec="fields", layout="value")


def test_a_stored_codec_that_is_not_ours_must_be_brought() -> None:
    """It cannot be guessed."""
    with pytest.raises(ConfigError, match=r"'own'.*codec="):
        chosen(Marks("value", "own"))

    form = chosen(Marks("value", "own"), codec=Own())
    fields, _ = form.pack(7, None)
    origin = ShardOrigin("orders", 0, form)
    assert Event(origin, b"1-1", [b"p", fields[1]]).value == 7


# --- how large -------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["x", "é", "€", "😀", "\udcff"])
def test_the_limit_is_in_bytes_and_exact(text: str) -> None:
    """Text counts as UTF-8, names and metadata count too."""
    width = len(text.encode("utf-8", "surrogateescape"))
    form = chosen(limit=1000)
    exact = {"a": text * (900 // width) + "." * (900 % width), "b": "." * 98}
    assert form.pack(exact, None)[0][:2] == ["a", exact["a"]]
    with pytest.raises(PayloadTooLarge, match="at most 1000 bytes, got 1001; nothing") as e:
        form.pack({**exact, "b": "." * 99}, None)
    assert (e.value.size, e.value.limit) == (1001, 1000)


def test_metadata_counts_towards_the_limit() -> None:
    """A header can be as heavy as a value."""
    form = chosen(limit=100)
    form.pack({"a": "x"}, None)
    with pytest.raises(PayloadTooLarge):
        form.pack({"a": "x"}, Meta(headers=(("big", "y" * 100),)))


def test_numbers_count_towards_the_limit() -> None:
    """A long number is long, a short one is never counted as longer than it is."""
    form = chosen(limit=1000)
    with pytest.raises(PayloadTooLarge, match="got 1002"):
        form.pack({"a": 10**1000}, None)
    assert form.pack({"a": 10**900}, None)[1] >= 901
    form.pack({f"{n:03}": n for n in range(150)}, None)


_NAMES = st.text().filter(lambda name: not name.startswith("penstock."))


@given(st.dictionaries(_NAMES, st.text() | st.integers() | st.floats(), min_size=1))
def test_the_estimate_of_a_size_is_never_too_small_by_more_than_text_can_be(
    value: dict[str, Any],
) -> None:
    """What is in flight is bounded by it: characters for text, at least a number's digits."""
    fields, size = chosen().pack(value, None)

    assert size >= sum(len(str(part)) if not isinstance(part, float) else 1 for part in fields)


def test_an_event_has_a_bounded_number_of_fields() -> None:
    """What a script can unpack."""
    form = chosen()
    assert len(form.pack({str(n): n for n in range(MOST_FIELDS)}, None)[0]) == 2 * MOST_FIELDS
    with pytest.raises(EncodeError, match=f"at most {MOST_FIELDS} fields, got {MOST_FIELDS + 1}"):
        form.pack({str(n): n for n in range(MOST_FIELDS + 1)}, None)


@pytest.mark.parametrize(
    ("value", "meta"),
    [
        ({"a": "\ud800"}, None),
        ({"\udfff": "a"}, None),
        ({"a": "b"}, Meta(topic="\ud800")),
        ({"a": "b"}, Meta(headers=(("\ud800", "x"),))),
    ],
)
def test_text_that_utf8_cannot_say_is_refused(value: dict[str, str], meta: Meta | None) -> None:
    """Here, where it concerns one event; on the wire it would take a whole batch with it."""
    with pytest.raises(EncodeError, match="UTF-8 can say"):
        chosen().pack(value, meta)


def test_a_number_that_cannot_be_written_out_is_refused() -> None:
    """Python refuses to write so many digits, and hiredis crashes the process on it."""
    with pytest.raises(EncodeError, match="written out"):
        chosen().pack({"a": 10**5000}, None)


# --- metadata --------------------------------------------------------------------------------


def test_no_metadata_is_none_at_all() -> None:
    """The common case costs nothing."""
    assert make_meta("", "", None, None, None, None) is None
    assert make_meta("", "", None, {}, None, None) is None


@pytest.mark.parametrize(
    "meta",
    [
        Meta(id="1"),
        Meta(id=""),
        Meta(name="n"),
        Meta(topic="t"),
        Meta(key=""),
        Meta(timestamp=0.0),
        Meta(headers=(("a", ""),)),
    ],
)
def test_each_part_of_metadata_counts_alone(meta: Meta) -> None:
    """Also an empty key and the time zero."""
    made = make_meta(meta.name, meta.topic, meta.key, dict(meta.headers), meta.id, meta.timestamp)
    assert made == meta


def test_text_with_a_name_becomes_text() -> None:
    """The wire takes exact types."""
    made = make_meta(Eu.WEST, Eu.WEST, Eu.WEST, {Eu.WEST: Eu.WEST}, Eu.WEST, None)

    assert made == Meta("eu.west", "eu.west", "eu.west", "eu.west", None, (("eu.west", "eu.west"),))
    assert {type(p) for p in (made.id, made.name, made.key, *made.headers[0])} == {str}
    chosen().pack({"a": 1}, made)


@pytest.mark.parametrize(
    "given_",
    [{"name": 7}, {"topic": b"eu"}, {"key": 7}, {"id": 7}, {"headers": {"a": 1}}],
    ids=str,
)
def test_metadata_that_is_no_text_is_refused(given_: dict[str, Any]) -> None:
    """Before anything is sent."""
    options: dict[str, Any] = {"name": "", "topic": "", "key": None, "headers": None, "id": None}
    with pytest.raises(EncodeError, match="must be text, got"):
        make_meta(**{**options, **given_}, timestamp=None)


def test_a_datetime_becomes_seconds() -> None:
    """Which one is: it must know its zone."""
    made = make_meta("", "", None, None, None, datetime(1970, 1, 1, 0, 0, 2, tzinfo=UTC))
    assert made == Meta(timestamp=2.0)
    with pytest.raises(ConfigError, match="naive"):
        make_meta("", "", None, None, None, datetime(2026, 1, 1))  # noqa: DTZ001
