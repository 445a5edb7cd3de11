"""Layouts: value and metadata lie in an entry, and come out of it, whoever wrote it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import ConfigError
from penstock.event import Meta
from penstock.layouts import FieldsLayout, Layout, ValueLayout, layout_named


def escaped(raw: bytes) -> str:
    """Text as it comes out of a stream."""
    return raw.decode("utf-8", "surrogateescape")


texts = st.binary(max_size=8).map(escaped)
metas = st.builds(
    Meta,
    id=st.none() | texts,
    name=texts,
    topic=texts,
    key=st.none() | texts,
    timestamp=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    headers=st.dictionaries(texts, texts, max_size=4).map(lambda d: tuple(d.items())),
)
pairs = st.lists(st.tuples(st.binary(max_size=4), st.binary(max_size=8)), min_size=1, max_size=6)
LAYOUTS: list[Layout] = [FieldsLayout(), ValueLayout()]


def as_stored(flat: Sequence[Any]) -> list[bytes]:
    """What a server makes of flat fields."""
    return [p if isinstance(p, bytes) else str(p).encode("utf-8", "surrogateescape") for p in flat]


@given(pairs, metas)
def test_fields_and_their_metadata_come_out_as_they_went_in(
    own: list[tuple[bytes, bytes]], meta: Meta
) -> None:
    """Repeated fields in their order, beside metadata of any text."""
    layout = FieldsLayout()
    body: list[Any] = [part for pair in own for part in pair]
    raw = as_stored(layout.pack(body, meta))

    assert list(layout.unpack(raw)) == body
    assert layout.meta(raw) == meta
    assert layout.payload(raw) is None


@given(st.binary(), metas)
def test_a_payload_and_its_metadata_come_out_as_they_went_in(payload: bytes, meta: Meta) -> None:
    """A header may be called as anything, also as one of our fields."""
    layout = ValueLayout()
    raw = as_stored(layout.pack(payload, meta))

    assert layout.unpack(raw) == layout.payload(raw) == payload
    assert layout.meta(raw) == meta


@pytest.mark.parametrize(
    ("layout", "body"), [(FieldsLayout(), ["a", 1]), (ValueLayout(), b"x")], ids=["fields", "value"]
)
def test_what_is_not_given_takes_no_room(layout: Layout, body: Any) -> None:
    """An event without metadata is as small as redis-cli would make it."""
    alone = layout.pack(body, None)

    assert (
        alone == layout.pack(body, Meta()) == (["a", 1] if layout.name == "fields" else ["p", b"x"])
    )
    assert layout.meta(as_stored(alone)) == Meta()


def test_metadata_lies_where_the_design_says() -> None:
    """What `redis-cli` shows, and what other programs may rely on."""
    meta = Meta("7", "order.paid", "eu", "c-3", 1.5, (("source", "web"),))

    assert FieldsLayout().pack(["a", 1], meta) == [
        *("a", 1, "penstock.id", "7", "penstock.name", "order.paid", "penstock.topic", "eu"),
        *("penstock.key", "c-3", "penstock.time", "1.5", "penstock.h.source", "web"),
    ]
    assert ValueLayout().pack(b"x", meta) == [
        *("p", b"x", "n", "order.paid", "t", "eu", "k", "c-3", "i", "7", "at", "1.5"),
        *("h:source", "web"),
    ]


def test_packing_leaves_the_body_as_it_was() -> None:
    """It may be packed again."""
    body: list[Any] = ["a", 1]
    FieldsLayout().pack(body, Meta(key="k"))

    assert body == ["a", 1]


@pytest.mark.parametrize("layout", LAYOUTS, ids=["fields", "value"])
@given(own=pairs)
def test_entries_that_others_wrote_never_fail_to_be_read(
    layout: Layout, own: list[tuple[bytes, bytes]]
) -> None:
    """Whatever their fields are called: there is always a Meta, a payload or none."""
    raw = [part for pair in own for part in pair]

    assert isinstance(layout.meta(raw), Meta)
    assert layout.payload(raw) is None or layout.payload(raw) in raw


def test_a_foreign_time_that_is_no_number_is_no_time() -> None:
    """Others may write anything under our names."""
    assert FieldsLayout().meta([b"penstock.time", b"noon"]).timestamp is None
    assert ValueLayout().meta([b"p", b"x", b"at", b"noon"]).timestamp is None


def test_a_payload_is_found_wherever_it_stands() -> None:
    """Others write fields in their own order; Pulse writes the name first."""
    layout = ValueLayout()
    raw = [b"n", b"paid", b"p", b"x", b"other", b"y"]

    assert layout.payload(raw) == b"x"
    assert layout.meta(raw) == Meta(name="paid")
    assert layout.payload([b"a", b"1", b"b", b"2"]) is None


def test_layouts_are_found_by_the_name_that_is_stored() -> None:
    """An unknown one may be of a newer version."""
    assert [layout_named(name).name for name in ("fields", "value")] == ["fields", "value"]
    with pytest.raises(ConfigError, match=r"fields, value, got 'pulse'.*newer Penstock"):
        layout_named("pulse")
