"""Event, Position and the values beside them: lazy, immutable, comparable, exact."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import ConfigError, DecodeError, Event, Position, after, at, idle
from penstock.event import END, NEWEST, OLDEST, PositionRun, Start, Until, seconds_of
from penstock.layouts import FieldsLayout, ValueLayout

numbers = st.integers(0, (1 << 64) - 1)
positions = st.one_of(
    st.builds(lambda a: Position((a,)), numbers),
    st.builds(lambda a, b: Position((a, b)), numbers, numbers),
)


class Origin:
    """What events of a shard share; counts how often it was asked to decode."""

    def __init__(self, stream: str = "orders", shard: int = 0, layout: Any = None) -> None:
        self.stream = stream
        self.shard = shard
        self.layout: Any = layout or ValueLayout()
        self.decoded = 0

    def decode(self, raw: Sequence[bytes]) -> Any:
        self.decoded += 1
        payload = self.layout.payload(raw)
        if payload is None or payload == b"bad":
            raise DecodeError("no value")
        return [payload]

    def time_of(self, entry_id: bytes) -> float:
        return int(entry_id.split(b"-")[0]) / 1000


def event(*fields: bytes, origin: Origin | None = None, entry_id: bytes = b"1500-1") -> Event[Any]:
    return Event(origin or Origin(), entry_id, list(fields), size=len(b"".join(fields)))


# --- event -----------------------------------------------------------------------------------


def test_a_value_is_decoded_once_and_not_before_it_is_asked_for() -> None:
    """Everything else about an event costs no decoding."""
    origin = Origin()
    one = event(b"p", b"x", b"t", b"eu", origin=origin)
    assert (one.topic, one.payload, one.stream, one.shard) == ("eu", b"x", "orders", 0)
    assert one == event(b"p", b"x", b"t", b"eu", origin=origin)
    assert "orders" in repr(one)
    assert origin.decoded == 0

    assert one.value is one.value
    assert origin.decoded == 1


def test_a_value_of_none_is_decoded_once_too() -> None:
    """None is a value, not the absence of one."""
    origin = Origin()
    calls: list[Any] = []
    origin.decode = calls.append  # type: ignore[method-assign]
    one = event(b"p", b"null", origin=origin)

    assert (one.value, one.value, len(calls)) == (None, None, 1)


def test_an_undecodable_value_raises_from_value_alone_and_again_and_again() -> None:
    """With the stream and the position; the bytes stay where they were."""
    one = event(b"p", b"bad", b"k", b"c-3")
    assert one.key == "c-3"

    for _ in range(2):
        with pytest.raises(DecodeError, match=r"event 1500-1 .*'orders'.*event\.fields") as error:
            _ = one.value
        assert (error.value.stream, error.value.position) == ("orders", "1500-1")
    assert one.payload == b"bad"
    assert one.fields == ((b"p", b"bad"), (b"k", b"c-3"))


@pytest.mark.conformance("SS-007")
def test_repeated_fields_survive_in_order() -> None:
    """A stream may repeat a field, which a mapping would lose."""
    one = event(b"a", b"1", b"b", b"2", b"a", b"3", origin=Origin(layout=FieldsLayout()))

    assert one.fields == ((b"a", b"1"), (b"b", b"2"), (b"a", b"3"))
    assert one.payload == b""


@pytest.mark.conformance("SS-003")
def test_events_are_equal_by_place_and_bytes_whatever_is_decoded() -> None:
    """Whose handle read them, and how often they were handed out, makes no difference."""
    read, got = event(b"p", b"x"), event(b"p", b"x")
    assert read.value
    assert read == got
    assert hash(read) == hash(got)
    assert Event(Origin(), b"1500-1", (b"p", b"x"), deliveries=3, attempts=2) == got

    others = [
        event(b"p", b"y"),
        event(b"p", b"x", entry_id=b"1500-2"),
        event(b"p", b"x", origin=Origin("other")),
        event(b"p", b"x", origin=Origin(shard=1)),
    ]
    assert all(other != got for other in others)
    assert got != "1500-1"


@pytest.mark.parametrize("name", ["value", "topic", "deliveries", "entry_id", "raw", "new"])
def test_an_event_cannot_be_changed(name: str) -> None:
    """Neither what is stored nor what is computed, and nothing is added."""
    with pytest.raises(AttributeError):
        setattr(event(b"p", b"x"), name, 1)


def test_headers_are_a_copy() -> None:
    """Changing what one was given changes no event."""
    one = event(b"p", b"x", b"h:a", b"1")
    one.headers["a"] = "2"

    assert one.headers == {"a": "1"}


def test_events_are_not_tracked_by_the_garbage_collector() -> None:
    """It would cost a third of a group's speed."""
    assert not gc.is_tracked(event(b"p", b"x"))


@pytest.mark.conformance("SS-006")
def test_a_timestamp_is_the_given_one_else_the_time_of_the_id() -> None:
    """An explicit time is metadata; the id is when it was appended."""
    assert event(b"p", b"x").timestamp == 1.5
    assert event(b"p", b"x", b"at", b"0.0").timestamp == 0.0
    assert event(b"p", b"x", b"at", b"12.25").timestamp == 12.25
    assert event(b"p", b"x", b"at", b"noon").timestamp == 1.5


def test_a_repr_shows_no_content() -> None:
    """Logs must not hold what events hold."""
    one = event(b"p", b"secret", origin=Origin(shard=3))

    assert repr(one) == "<Event orders[3] 1500-1 7 bytes>"


# --- position --------------------------------------------------------------------------------


@given(positions)
@pytest.mark.conformance("SS-005")
def test_a_position_survives_its_string_and_its_bytes(position: Position) -> None:
    """Exactly, for one number and for two."""
    assert Position.parse(str(position)) == position == Position.of(position.raw)
    assert eval(repr(position), {"Position": Position.parse}) == position  # noqa: S307


@given(positions, positions)
def test_positions_are_ordered_as_their_numbers_are(one: Position, other: Position) -> None:
    """Not as their strings are: 9-0 stands before 10-0."""
    assert (one < other) == (tuple(one) < tuple(other))
    assert len({one, other}) == (1 if one == other else 2)


@pytest.mark.parametrize(
    "text", ["", "-", "1-", "-1", "1-2-3", "1.5", "a-b", "0x1-0", "1_0-0", " 1-0", "²-0", "1-1\n"]
)
def test_what_is_no_position_is_refused(text: str) -> None:
    """With what must hold, and what was given."""
    with pytest.raises(ConfigError, match="one or two whole numbers joined by '-'") as error:
        Position.parse(text)
    assert repr(text) in str(error.value)


def test_a_position_beyond_64_bits_is_refused() -> None:
    """No server could have given it."""
    assert Position.parse(f"{(1 << 64) - 1}-0")
    with pytest.raises(ConfigError, match=r"below 2\*\*64"):
        Position.parse(f"{1 << 64}-0")


def test_a_run_of_positions_is_a_sequence() -> None:
    """It costs the same for one as for a thousand, and behaves as a list of them."""
    run = PositionRun(Position((7, 5)), 4)
    want = [Position((7, n)) for n in range(5, 9)]

    assert list(run) == want
    assert (run[0], run[-1], run[1:3], run[::-1]) == (want[0], want[-1], want[1:3], want[::-1])
    assert len(run) == 4
    for beyond in (4, -5):
        with pytest.raises(IndexError):
            run[beyond]


# --- start and until -------------------------------------------------------------------------


def test_starts_and_ends_say_what_they_are() -> None:
    """In words, as signals show them."""
    assert [str(s) for s in (OLDEST, NEWEST, after("5-1"))] == ["oldest", "newest", "after(5-1)"]
    assert after(Position((5, 1))) == after("5-1") == Start("after", Position((5, 1)))
    assert str(at(datetime.fromtimestamp(2.5, UTC))) == "at(2.5)"
    assert Until("end") == END
    assert idle(2) == Until("idle", seconds=2)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_an_idle_time_must_be_above_zero(seconds: float) -> None:
    """Zero would end before anything could come."""
    with pytest.raises(ConfigError, match="above 0 seconds"):
        idle(seconds)


def test_a_naive_datetime_is_refused_and_one_with_a_zone_is_exact() -> None:
    """Naive ones mean another moment on another machine."""
    moment = datetime(2026, 1, 2, 3, 4, 5, 250_000, tzinfo=timezone(timedelta(hours=5)))
    assert at(moment).time == seconds_of(moment) == moment.timestamp()

    naive = moment.replace(tzinfo=None)
    for call in (at, seconds_of):
        with pytest.raises(ConfigError, match=r"naive.*tzinfo"):
            call(naive)


@pytest.mark.parametrize("time", ["noon", "12.5", None, float("nan"), float("inf")])
def test_a_time_must_be_a_finite_number_or_a_datetime(time: Any) -> None:
    """What could not be read back, or compared, is refused."""
    with pytest.raises(ConfigError, match="seconds since 1970") as error:
        seconds_of(time)
    assert repr(time) in str(error.value)
