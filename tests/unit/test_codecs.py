"""Codecs: what goes in comes out, and what would not is refused with its name."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any, Literal, TypedDict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import ConfigError, DecodeError, EncodeError
from penstock.codecs import FieldsCodec, JsonCodec, RawCodec, codec_named


def escaped(raw: bytes) -> str:
    """Text as it comes out of a stream."""
    return raw.decode("utf-8", "surrogateescape")


names = st.binary(max_size=12).map(escaped).filter(lambda name: not name.startswith("penstock."))
texts = st.binary(max_size=12).map(escaped)


class Colour(enum.StrEnum):
    """Text with a name."""

    RED = "red"


class OldColour(str, enum.Enum):  # noqa: UP042 - whose str() is not its text
    """Text with a name, in the old way."""

    RED = "red"


class Paid(msgspec.Struct, tag="paid"):
    """One of a tagged union."""

    number: int


class Sent(msgspec.Struct, tag="sent"):
    """The other one."""

    number: int


@dataclasses.dataclass
class Order:
    """A dataclass."""

    number: int
    state: str = "new"


class Row(TypedDict):
    """A mapping that is checked."""

    number: int


def as_stored(flat: list[Any]) -> list[bytes]:
    """What a server makes of flat fields."""
    return [p if isinstance(p, bytes) else str(p).encode("utf-8", "surrogateescape") for p in flat]


# --- fields ----------------------------------------------------------------------------------


@given(st.dictionaries(names, texts, min_size=1))
def test_fields_of_text_come_out_as_they_went_in(value: dict[str, str]) -> None:
    """Empty names and texts, and bytes that are no UTF-8, included."""
    codec = FieldsCodec()
    assert codec.decode(as_stored(codec.encode(value))) == value


@given(st.dictionaries(names, st.one_of(st.integers(), st.floats(), st.binary()), min_size=1))
def test_numbers_and_bytes_come_out_as_their_text(value: dict[str, Any]) -> None:
    """Plain fields have no types: that is what typed streams are for."""
    codec = FieldsCodec()
    want = {k: escaped(v) if isinstance(v, bytes) else str(v) for k, v in value.items()}

    assert codec.decode(as_stored(codec.encode(value))) == want


def test_subclasses_of_plain_types_are_stored_as_what_they_hold() -> None:
    """Not as what their `str` says."""
    flat = FieldsCodec().encode({Colour.RED: OldColour.RED, "b": enum.IntEnum("N", "ONE")(1)})

    assert flat == ["red", "red", "b", 1]
    assert [type(part) for part in flat] == [str, str, str, int]


@pytest.mark.parametrize("bad", [True, None, [1], {"a": 1}, (), object(), 1j])
def test_a_field_that_is_not_plain_is_refused_with_its_name(bad: Any) -> None:
    """And with the way out."""
    with pytest.raises(EncodeError, match=r"field 'state' must be str.*type=") as error:
        FieldsCodec().encode({"id": 7, "state": bad})
    assert type(bad).__name__ in str(error.value)


@pytest.mark.parametrize("name", ["penstock.", "penstock.key", "penstock.h.x"])
def test_a_reserved_name_is_refused(name: str) -> None:
    """It would be read back as metadata."""
    with pytest.raises(EncodeError, match=r"must not begin with 'penstock\.'.*by keyword") as error:
        FieldsCodec().encode({name: "x"})
    assert repr(name) in str(error.value)


def test_names_that_only_look_reserved_are_not() -> None:
    """The prefix is exact."""
    value = {"penstock": "a", "Penstock.key": "b", "xpenstock.key": "c"}

    assert FieldsCodec().encode(value) == [
        "penstock",
        "a",
        "Penstock.key",
        "b",
        "xpenstock.key",
        "c",
    ]


@pytest.mark.parametrize("bad", [[("a", 1)], "text", None, 7])
def test_what_is_no_mapping_is_refused(bad: Any) -> None:
    """With the way out."""
    with pytest.raises(EncodeError, match=f"must be a mapping.*{type(bad).__name__}.*type="):
        FieldsCodec().encode(bad)


def test_an_empty_mapping_and_a_name_that_is_no_text_are_refused() -> None:
    """An entry has at least one field."""
    with pytest.raises(EncodeError, match="at least one field"):
        FieldsCodec().encode({})
    with pytest.raises(EncodeError, match="name must be text, got 7"):
        FieldsCodec().encode({7: "x"})  # type: ignore[dict-item]


def test_of_repeated_fields_the_last_is_the_value() -> None:
    """All of them are in `event.fields`; half a pair is no value."""
    assert FieldsCodec().decode([b"a", b"1", b"a", b"2"]) == {"a": "2"}
    with pytest.raises(DecodeError, match="in pairs, got 3"):
        FieldsCodec().decode([b"a", b"1", b"b"])


# --- json ------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=12,
)


@given(json_values)
def test_json_without_a_type_says_whatever_json_can(value: Any) -> None:
    """And reads it back."""
    codec: JsonCodec[Any] = JsonCodec()
    assert codec.decode(codec.encode(value)) == value


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (Paid, Paid(7)),
        (Order, Order(7, "paid")),
        (Row, {"number": 7}),
        (Paid | Sent, Sent(7)),
        (Paid | None, None),
        (list[Order], [Order(1)]),
        (int, 7),
    ],
    ids=str,
)
def test_typed_values_come_out_as_what_they_are(type_: Any, value: Any) -> None:
    """Struct, dataclass, TypedDict, tagged union, and what is made of them."""
    codec: JsonCodec[Any] = JsonCodec(type_)
    again = codec.decode(codec.encode(value))

    assert again == value
    assert type(again) is type(value)


@pytest.mark.parametrize(
    ("type_", "value", "wanted"),
    [
        (Paid, Sent(1), "Paid"),
        (Paid, {"number": 1}, "Paid"),
        (Order, Paid(1), "Order"),
        (Row, Order(1), "dict"),
        (Row, [1], "dict"),
        (Paid | Sent, Order(1), "Paid or Sent"),
        (Paid | None, Sent(1), "Paid or NoneType"),
    ],
    ids=str,
)
def test_a_value_of_another_class_is_refused_on_the_way_in(
    type_: Any, value: Any, wanted: str
) -> None:
    """Else every reader would trip over it."""
    with pytest.raises(EncodeError, match=f"must be a {wanted}, got {type(value).__name__}"):
        JsonCodec(type_).encode(value)


def test_a_subclass_is_one_of_its_class() -> None:
    """As everywhere in Python."""

    class Gift(Order):
        pass

    assert JsonCodec(Order).encode(Gift(1)) == b'{"number":1,"state":"new"}'


@pytest.mark.parametrize("value", [object(), {"a": object()}, {1j: 2}, "\ud800"])
def test_what_json_cannot_say_is_refused(value: Any) -> None:
    """Ours to mend, so EncodeError."""
    with pytest.raises(EncodeError, match="JSON can say"):
        JsonCodec().encode(value)


def test_a_value_that_holds_itself_is_refused() -> None:
    """Not with a RecursionError."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(EncodeError):
        JsonCodec().encode(endless)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b'{"number":"x"}', b"{}", b"[]", b'"\\ud800"', b"[" * 100_000]
)
def test_what_the_type_does_not_say_is_undecodable(body: bytes) -> None:
    """Nothing but DecodeError comes out of what others wrote."""
    with pytest.raises(DecodeError, match=f"{len(body)} bytes"):
        JsonCodec(Order).decode(body)


def test_a_type_that_msgspec_cannot_read_is_refused_at_once() -> None:
    """Not at the first event."""

    class Odd:
        pass

    with pytest.raises(ConfigError, match="Struct, dataclass, TypedDict"):
        JsonCodec(Paid | Order)  # two records, and nothing that tells them apart
    with pytest.raises(ConfigError):
        JsonCodec(Literal[1.5])
    with pytest.raises(DecodeError):
        JsonCodec(Odd).decode(b"{}")


# --- raw, and by name ------------------------------------------------------------------------


@given(st.binary())
def test_raw_bytes_are_untouched(value: bytes) -> None:
    """In whatever they come."""
    codec = RawCodec()
    for given_ in (value, bytearray(value), memoryview(value), escaped(value)):
        stored = codec.encode(given_)
        assert type(stored) is bytes
        assert codec.decode(stored) == value


@pytest.mark.parametrize("bad", [7, None, ["x"], {}])
def test_raw_takes_nothing_but_bytes_and_text(bad: Any) -> None:
    """It does not guess."""
    with pytest.raises(EncodeError, match=f"must be bytes, got {type(bad).__name__}"):
        RawCodec().encode(bad)


def test_raw_text_that_utf8_cannot_say_is_refused() -> None:
    """As EncodeError, not as what the encoder raises."""
    with pytest.raises(EncodeError, match="UTF-8"):
        RawCodec().encode("\ud800")


@pytest.mark.parametrize("codec", [JsonCodec(), RawCodec()])
def test_an_entry_without_a_payload_is_undecodable(codec: Any) -> None:
    """Others may write anything."""
    with pytest.raises(DecodeError, match="no payload field 'p'"):
        codec.decode(None)


def test_codecs_are_found_by_the_name_that_is_stored() -> None:
    """An unknown one is the user's to bring."""
    assert [codec_named(name).name for name in ("fields", "json", "raw")] == [
        "fields",
        "json",
        "raw",
    ]
    assert codec_named("json", Order).decode(b'{"number":1}') == Order(1)
    with pytest.raises(ConfigError, match=r"fields, json, raw, got 'pickle'.*codec="):
        codec_named("pickle")
