"""Which partition a value belongs to: the same for ever, so numbers are fixed here."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import ConfigError
from penstock.rules.partition import partition_of, shard_of


class Place(msgspec.Struct):
    """A plain struct, as users have them."""

    city: str
    zone: int


KNOWN: list[tuple[Any, int]] = [
    ("", 0),
    ("customer-3", 679851),
    ("Grüße", 925425),
    ("\udcff", 177246),
    (b"", 0),
    (b"customer-3", 679851),
    (b"\x00\xff", 351116),
    (0, 397188),
    (1, 617131),
    (-1, 177246),
    (127, 81138),
    (128, 781741),
    (65536, 651689),
    (2**64 - 1, 271108),
    (-(2**63), 248322),
    (True, 956815),
    (False, 621865),
    (None, 429328),
    (0.0, 169628),
    (1.0, 780064),
    (1.5, 277602),
    (-2.25, 755045),
    ((), 307544),
    ([], 307544),
    ((1, "a"), 253949),
    ([1, "a"], 253949),
    ([1, ["b", None]], 610896),
    ({}, 178918),
    ({"a": 1, "b": 2}, 413126),
    ({"k": {"z": 1, "y": 2}}, 322600),
    ({1, 2, 3}, 9974),
    (frozenset({3, 2, 1}), 9974),
    (dt.datetime(2024, 1, 2, 3, 4, 5, tzinfo=dt.UTC), 352747),
    (dt.date(2024, 1, 2), 288359),
    (uuid.UUID(int=5), 548887),
]


@pytest.mark.parametrize(("value", "partition"), KNOWN, ids=repr)
def test_values_stay_in_their_partition_in_every_release(value: Any, partition: int) -> None:
    """A change here sends events of one key to another consumer: it must not happen."""
    assert partition_of(value, 1000003) == partition


def test_a_struct_stays_in_its_partition_in_every_release() -> None:
    """By its fields, in their order, whatever its class is called."""
    fields = {"city": "Bern", "zone": 1}
    assert partition_of(Place("Bern", 1), 1000003) == partition_of(fields, 1000003)
    assert partition_of(Place("Bern", 1), 1000003) == 820818


def test_values_are_the_same_in_every_process() -> None:
    """Sets and maps have another order in each; text has another hash."""
    code = (
        "from penstock.rules.partition import partition_of as p; "
        "print(p({'a', 'b', 'c', 'd'}, 1000003), p(('x', 1), 1000003), p('x', 1000003))"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(told) == 1


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text("aß€", max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner),
    max_leaves=8,
)


@given(plain, st.integers(1, 50))
def test_every_plain_value_has_a_partition(value: Any, count: int) -> None:
    """The same each time, and one that there is."""
    assert 0 <= partition_of(value, count) < count
    assert partition_of(value, count) == partition_of(value, count)


@given(st.dictionaries(st.text("abc", max_size=3), plain, min_size=2), st.randoms())
def test_the_order_of_a_map_does_not_matter(value: dict[str, Any], random: Any) -> None:
    """At any depth."""
    items = list(value.items())
    random.shuffle(items)
    assert partition_of({"in": dict(items)}, 1000003) == partition_of({"in": value}, 1000003)


@given(st.text() | st.binary(), st.integers(1, 50))
def test_text_and_bytes_go_where_their_shard_goes(value: str | bytes, count: int) -> None:
    """So that a stream's shards and a stage's partitions agree."""
    try:
        assert partition_of(value, count) == shard_of(value, count)
    except UnicodeEncodeError:  # half of a surrogate pair, which no stream holds
        assert isinstance(value, str)


@pytest.mark.parametrize("value", [object(), 1j, 2**64, len, [object()]])
def test_what_is_no_plain_value_is_refused(value: Any) -> None:
    """Its hash would differ between processes; the error says what helps."""
    with pytest.raises(ConfigError, match=r"must be a plain one.*key= or hash="):
        partition_of(value, 4)
