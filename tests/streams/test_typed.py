"""Typed streams, and the marks that tell every later handle how a stream is stored."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, TypedDict

import msgspec
import pytest

from penstock import Client, ConfigError, DecodeError, EncodeError, connect
from penstock.event import Meta
from penstock.ports import Marks
from streams.helping import everything, fill, numbers, put


class Order(msgspec.Struct):
    """A record."""

    number: int
    state: str = "new"


@dataclasses.dataclass
class Payment:
    """Another one."""

    amount: float


class Row(TypedDict):
    """A mapping."""

    number: int


class Paid(msgspec.Struct, tag="paid"):
    """One of a union."""

    number: int


class Sent(msgspec.Struct, tag="sent"):
    """The other one."""

    number: int


class Own:
    """A codec that a user brings."""

    name = "own"
    body: Literal["fields", "payload"] = "payload"

    def encode(self, value: int) -> bytes:
        return b"n" * value

    def decode(self, body: Any) -> int:
        return len(body)


@pytest.mark.parametrize(
    ("type_", "value", "wrong"),
    [
        (Order, Order(7, "paid"), {"number": 7}),
        (Payment, Payment(1.5), Order(7)),
        (Row, {"number": 7}, Order(7)),
        (Paid | Sent, Sent(7), Order(7)),
        (bytes, b"\x00\xff", 7),
    ],
    ids=["struct", "dataclass", "typeddict", "union", "bytes"],
)
async def test_typed_values_come_out_as_what_they_were(
    client: Client, type_: Any, value: Any, wrong: Any
) -> None:
    """And one of another class is refused before it is stored."""
    stream = client.stream("typed", type=type_)
    await stream.append(value, key="k")
    with pytest.raises(EncodeError, match="must be"):
        await stream.append(wrong)

    [event] = await everything(stream)
    assert event.value == value
    assert type(event.value) is type(value)
    assert event.key == "k"


@pytest.mark.conformance("PU-057")
async def test_what_is_not_of_the_type_is_undecodable_and_the_iteration_goes_on(
    client: Client,
) -> None:
    """The event says where it stands, and its bytes are there."""
    orders = client.stream("orders", type=Order)
    await orders.append(Order(1))
    await put(client, "orders", "p", b'{"number":"two"}', "t", "eu")
    await put(client, "orders", "p", b"\xff not json")
    await put(client, "orders", "other", b"no payload")
    await orders.append(Order(5))
    first, *bad, last = await everything(orders)

    assert (first.value, last.value) == (Order(1), Order(5))
    for event in bad:
        for _ in range(2):
            with pytest.raises(DecodeError) as error:
                _ = event.value
            assert (error.value.stream, error.value.position) == ("orders", str(event.position))
    assert bad[0].topic == "eu"
    assert bad[0].payload == b'{"number":"two"}'
    assert bad[2].fields == ((b"other", b"no payload"),)


async def test_a_group_hands_out_what_cannot_be_decoded(client: Client) -> None:
    """It can be acked, or handed back, like any event."""
    orders = client.stream("orders", type=Order)
    await orders.append(Order(1))
    await put(client, "orders", "p", b"bad")
    await orders.append(Order(3))

    seen: list[int] = []
    async with orders.group("billing", where=lambda event: event.value.number < 9) as group:
        for _ in range(3):
            event = await group.receive(10)
            assert event is not None
            try:
                seen.append(event.value.number)
            except DecodeError:
                seen.append(-1)
            group.ack(event)
        await group.flush()
        assert await group.pending() == []
    assert seen == [1, -1, 3]


async def test_other_handles_adopt_how_a_stream_is_stored(client: Client, url: str) -> None:
    """Also those of other programs, and whatever handle was there first."""
    await client.stream("orders", type=Order).append(Order(7))
    async with connect(url) as other:
        adopted = other.stream("orders")
        await adopted.append({"number": 8})
        assert [event.value for event in await everything(adopted)] == [
            {"number": 7, "state": "new"},
            {"number": 8},
        ]
        again = other.stream("orders", type=Order)
        assert [event.value for event in await everything(again)] == [Order(7), Order(8)]
        assert (await again.info()).marks == Marks("value", "json", 1)


@pytest.mark.parametrize("verb", ["append", "append_many", "writer", "reader", "group", "groups"])
async def test_a_handle_that_asks_for_another_format_is_refused_by_each_verb(
    client: Client, verb: str
) -> None:
    """Nothing is stored, and no group is made."""
    await fill(client.stream("orders"), 1)
    wrong: Any = client.stream("orders", type=Order)

    async def use() -> None:
        match verb:
            case "append":
                await wrong.append(Order(1))
            case "append_many":
                await wrong.append_many([Order(1)])
            case "groups":
                await wrong.groups()
            case "group":
                await wrong.group("billing").__aenter__()
            case _:
                await getattr(wrong, verb)().__aenter__()

    with pytest.raises(ConfigError, match=r"layout 'fields'.*type=Order.*adopt"):
        await use()
    assert await wrong.length() == 1
    assert await client.stream("orders").groups() == []


async def test_of_two_new_handles_with_other_formats_the_first_to_append_wins(
    client: Client,
) -> None:
    """The other is refused, though the stream was new when it looked."""
    async with connect(str(client.url)) as other:
        first = other.stream("fresh")
        second = client.stream("fresh", type=Order)
        await second.format()
        await first.append({"a": 1})
        with pytest.raises(ConfigError, match="fresh"):
            await second.append(Order(1))
        assert await first.length() == 1


async def test_ones_own_codec_is_stored_by_its_name(client: Client) -> None:
    """Who does not bring it is told to."""
    await client.stream("own", codec=Own()).append(3)
    [event] = await everything(client.stream("own", codec=Own()))
    assert (event.value, event.payload) == (3, b"nnn")

    with pytest.raises(ConfigError, match=r"'own'.*codec="):
        await everything(client.stream("own"))


async def test_what_others_wrote_is_read_as_plain_fields(client: Client) -> None:
    """Whatever their fields are called, repeated or not."""
    await put(client, "foreign", "a", "1", "a", "2", "p", b"\xff")
    stream = client.stream("foreign")
    [event] = await everything(stream)

    assert event.value == {"a": "2", "p": "\udcff"}
    assert event.fields == ((b"a", b"1"), (b"a", b"2"), (b"p", b"\xff"))
    assert event.meta == Meta()
    await stream.append({"a": 3}, topic="eu")
    assert [event.topic for event in await everything(stream)] == ["", "eu"]
    assert (await stream.info()).marks is None
    with pytest.raises(ConfigError, match="made by others"):
        await everything(client.stream("foreign", type=Order))


@pytest.mark.parametrize(
    "name", ["with space", "glob*[x]?", "orders:7", "ümlaut", "x" * 300, "a\nb"]
)
async def test_a_key_that_others_named_opens_as_foreign_alone(client: Client, name: str) -> None:
    """Appends, readers and groups work on it as on any other."""
    with pytest.raises(ConfigError, match="stream's name"):
        client.stream(name)
    await put(client, name, "n", "0")
    stream = client.stream(name, foreign=True)
    await stream.append({"n": 1})

    assert numbers(await everything(stream)) == [0, 1]
    async with stream.group("billing") as group:
        assert numbers([await group.receive(10), await group.receive(10)]) == [0, 1]
