"""``read --events | append --events``: only positions differ."""

from __future__ import annotations

import json
from typing import Any

import pytest

import penstock
from cli.shell import Shell
from penstock.cli.formats import OpaqueCodec


def fields_of(stored: Any, stream: str) -> list[list[bytes]]:
    """Every entry's fields, flat, repeated ones too."""
    reply = stored.execute_command(
        "EVAL", "return redis.call('XRANGE', KEYS[1], '-', '+')", 1, stream
    )
    return [fields for _, fields in reply]


def marks_of(stored: Any, stream: str) -> dict[bytes, bytes]:
    """What is kept with the stream."""
    return {
        name: value
        for key in stored.keys(f"penstock:*{stream}*")
        if stored.type(key) == b"hash"
        for name, value in stored.hgetall(key).items()
        if name in (b"layout", b"codec", b"shards")
    }


def copied(shell: Shell, stored: Any, stream: str) -> list[dict[str, Any]]:
    """Copy *stream* to ``copy``; check that they are the same; the lines."""
    read = shell("read", stream, "--start", "oldest", "--events")
    assert (read.code, read.err) == (0, "")
    assert shell("append", "copy", "--events", stdin=read.out).code == 0
    assert fields_of(stored, "copy") == fields_of(stored, stream)
    return [json.loads(line) for line in read.out.splitlines()]


async def append_with_metadata(url: str, *values: Any, **options: Any) -> None:
    """Values with metadata of every kind, and without any."""
    async with penstock.connect(url) as client:
        stream = client.stream("orders", dedupe_window=0, **options)  # an id may come again
        for value in values:
            await stream.append(value)
            await stream.append(
                value,
                name="paid",
                topic="eu",
                key="customer-3",
                headers={"source": "web", "é": "\n"},
                id="order-7",
                timestamp=1700000000.125,
            )
            await stream.append(value, key="", timestamp=0.1)


@pytest.mark.one_loop
async def test_fields_are_copied(shell: Shell, stored: Any, embedded_url: str) -> None:
    """Text, bytes, and all metadata."""
    await append_with_metadata(embedded_url, {"id": 7, "é": ""}, {"raw": b"\xff\0"})
    lines = copied(shell, stored, "orders")
    assert lines[0].keys() == {"position", "fields"}
    assert lines[1]["headers"] == {"source": "web", "é": "\n"}
    assert (lines[1]["id"], lines[1]["name"], lines[1]["topic"]) == ("order-7", "paid", "eu")
    assert (lines[1]["key"], lines[1]["time"]) == ("customer-3", 1700000000.125)
    assert lines[3]["fields"] == [["raw", {"base64": "/wA="}]]
    assert marks_of(stored, "copy") == marks_of(stored, "orders") != {}


@pytest.mark.one_loop
async def test_json_is_copied(shell: Shell, stored: Any, embedded_url: str) -> None:
    """The very bytes: nothing is encoded anew."""
    await append_with_metadata(embedded_url, {"a": [1, None]}, "text", 1.5, layout="value")
    lines = copied(shell, stored, "orders")
    assert lines[0] == {"position": lines[0]["position"], "value": {"a": [1, None]}}
    assert marks_of(stored, "copy") == marks_of(stored, "orders") != {}


@pytest.mark.one_loop
async def test_raw_bytes_are_copied(shell: Shell, stored: Any, embedded_url: str) -> None:
    """Text as text, the rest as base64."""
    await append_with_metadata(embedded_url, b"text \r", b"\xff\0", b"", type=bytes)
    lines = copied(shell, stored, "orders")
    assert (lines[0]["value"], lines[0]["codec"]) == ("text \r", "raw")
    assert lines[3]["value"] == {"base64": "/wA="}
    assert marks_of(stored, "copy") == marks_of(stored, "orders") != {}


@pytest.mark.one_loop
async def test_a_codec_that_is_not_ours_is_copied(
    shell: Shell, stored: Any, embedded_url: str
) -> None:
    """By its name, without decoding; values cannot be printed, and that is said."""
    await append_with_metadata(
        embedded_url, b"\x81\xa1a\x01", codec=OpaqueCodec("msgpack", "value")
    )
    assert copied(shell, stored, "orders")[0]["codec"] == "msgpack"
    assert marks_of(stored, "copy") == marks_of(stored, "orders") != {}
    refused = shell("read", "orders")
    assert refused.code == 2
    assert "codec 'msgpack'" in refused.err
    assert "--events" in refused.err


STRANGE = [
    (b"a", b"1", b"a", b"2"),
    (b"a", b"\xff", b"\xff", b"a"),
    (b"penstock.key", b"k", b"a", b"1"),
    (b"a", b"1", b"penstock.other", b"x"),
    (b"a", b"1", b"penstock.time", b"soon"),
    (b"a", b"1", b"penstock.time", b"nan"),
    (b"a", b"1", b"penstock.time", b"17"),
    (b"a", b"1", b"penstock.name", b""),
    (b"a", b"1", b"penstock.key", b"\xff"),
    (b"a", b"1", b"penstock.h.x", b"1", b"penstock.h.x", b"2"),
    (b"penstock.key", b"k"),
    (b"", b""),
]


@pytest.mark.parametrize("foreign", [True, False])
def test_whatever_others_wrote_is_copied(shell: Shell, stored: Any, foreign: bool) -> None:
    """Repeated fields, names of ours in strange places, bytes anywhere."""
    if not foreign:
        shell("append", "orders", stdin=b'{"a":1}\n')
    for entry in STRANGE:
        stored.execute_command("XADD", "orders", "*", *entry)
    lines = copied(shell, stored, "orders")
    assert [["a", "1"], ["a", "2"]] in [line.get("fields") for line in lines]


def test_strange_entries_of_a_json_stream_are_copied(shell: Shell, stored: Any) -> None:
    """No payload, a payload that is no JSON, JSON over two lines, fields that are not ours."""
    shell("append", "orders", "--layout", "value", stdin=b"1\n")
    for entry in [
        (b"x", b"1"),
        (b"p", b"{"),
        (b"p", b"\xff"),
        (b"p", b'"\xff"'),
        (b"p", b""),
        (b"p", b' {"a":\n1}'),
        (b"p", b"1\r"),
        (b"n", b"first", b"p", b"1"),
        (b"p", b"1", b"other", b"\xff"),
        (b"p", b"1", b"p", b"2"),
    ]:
        stored.execute_command("XADD", "orders", "*", *entry)
    copied(shell, stored, "orders")
    assert marks_of(stored, "copy") == marks_of(stored, "orders") != {}


def test_a_copy_into_another_kind_of_stream_is_refused(shell: Shell) -> None:
    """Before anything is stored."""
    shell("append", "a", stdin=b'{"x":1}\n')
    shell("append", "b", "--text", stdin=b"x\n")
    done = shell("append", "b", "--events", stdin=shell("read", "a", "--events").out)
    assert done.code == 2
    assert "stream 'b' has layout 'value' and codec 'raw'" in done.err


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"value":1,"fields":{}}', "one of 'value', 'fields'"),
        (b'{"value":1,"colour":"red"}', "unknown field `colour`"),
        (b'{"position":"1-0"}', "one of 'value', 'fields'"),
        (b'{"value":[1,"\xff"]}', "utf-8"),
        (b'{"value":1,"time":"soon"}', "expected `float | null`"),
        (b'{"value":"a","codec":"raw"}', "all events must be of one kind"),
        (b'{"value":', "truncated"),
        (b"17", "expected `object`"),
    ],
)
def test_a_line_that_is_no_event_is_refused(
    shell: Shell, stored: Any, line: bytes, reason: str
) -> None:
    """With its number; the one before it is stored."""
    done = shell("append", "orders", "--events", stdin=b'{"value":{"a":1}}\n' + line + b"\n")
    assert done.code == 1
    assert "line 2 of standard input: " in done.err
    assert reason in done.err
    assert done.err.endswith("; 1 event before it is stored in 'orders'\n")
    assert stored.xlen("orders") == 1
