"""Names are others' words: whatever they hold, commands go on, and no terminal obeys them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis
from click.testing import CliRunner, Result

from cli.shell import Shell
from penstock import OLDEST, connect
from penstock.cli import survey
from penstock.cli.commands import penstock
from penstock.cli.doctor_streams import LAGGING, of_stream
from penstock.cli.render import visible
from penstock.cli.survey import Seen, Sharing
from streams.helping import fill

pytestmark = pytest.mark.one_loop

STREAM = b"bad\x1b[31m\xff\nname"
GROUP = b"g\x1b[2J\xfe\t"
CONSUMER = b"\x1b]0;owned\x07\r\xfd"


@pytest.fixture
def foreign(stored: Any, embedded_url: str) -> str:
    """The URL of a server on which somebody chose names that nobody should."""
    for n in range(3):
        stored.xadd(STREAM, {b"\x1b[32mn\xff": n})
    stored.xgroup_create(STREAM, GROUP, "0")
    stored.xreadgroup(GROUP, CONSUMER, {STREAM: ">"}, count=2)
    return embedded_url


def called(url: str, *words: str) -> Result:
    """One command, in this process."""
    return CliRunner().invoke(
        penstock, [*words, "--url", url], standalone_mode=False, catch_exceptions=False
    )


def _words(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


COMMANDS = [
    ["info"],
    ["info", _words(STREAM)],
    ["lag"],
    ["groups", _words(STREAM)],
    ["pending", _words(STREAM), _words(GROUP)],
    ["rescue", _words(STREAM), "--idle", "0.001"],
    ["doctor", "--idle", "0.001"],
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: f"{words[0]}-{len(words)}")
def test_names_that_are_no_text(words: list[str], foreign: str) -> None:
    done = called(foreign, *words)
    assert "\x1b" not in done.output
    assert "\r" not in done.output
    assert len({len(line.split("\t")) for line in done.stdout.split("\n\n")[-1].splitlines()}) == 1
    objects = called(foreign, *words, "--json").stdout.splitlines()
    assert all(isinstance(json.loads(one), dict) for one in objects)
    assert objects


def test_the_doctor_sees_what_is_wrong_with_them(foreign: str) -> None:
    found = [
        json.loads(one)
        for one in called(foreign, "doctor", "--idle", "0.001", "--json").stdout.splitlines()
    ]
    (dead,) = [one for one in found if one["check"] == "dead-consumer"]
    assert dead["about"] == r"bad\x1b[31m\xff\nname/g\x1b[2J\xfe\t/\x1b]0;owned\x07\r\xfd"


def test_a_stream_whose_name_is_no_text_is_read(foreign: str) -> None:
    done = Shell(foreign)("read", _words(STREAM))
    assert (done.code, len(done.out.splitlines())) == (0, 3)


def test_what_is_shown_is_what_it_is() -> None:
    assert visible("héllo ☃") == "héllo ☃"
    assert visible("a\x1b[1m\u202eb\udcff\n") == r"a\x1b[1m\u202eb\xff\n"
    assert visible("a\nb\r", keep="\n") == "a\nb\\r"


def test_one_stream_that_must_not_be_seen_hides_no_other(stored: Any, embedded_url: str) -> None:
    for key in ("hidden", "orders"):
        stored.xadd(key, {"n": 1})
        stored.xgroup_create(key, "g", "0")
    rules = ("on", ">pw", "+@all", "~orders", "~penstock:*")
    stored.execute_command("ACL", "SETUSER", "half", "reset", *rules)
    done = called(embedded_url.replace("://", "://half:pw@"), "doctor", "--json")
    found = {one["check"]: one for one in map(json.loads, done.stdout.splitlines())}
    assert found["no-consumers"]["about"] == "orders/g"
    assert "1 cannot be looked at, 'hidden'" in found["rights"]["text"]


def test_a_stream_that_goes_while_it_is_looked_at(
    stored: Any, embedded_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("going", "orders"):
        stored.xadd(key, {"n": 1})
        stored.xgroup_create(key, "g", "0")
    real = survey.look

    async def look(client: Any, key: str, idle: float) -> Seen:
        if key == "going" and stored.delete(key):
            raise redis.ResponseError("no such key")
        return await real(client, key, idle)

    monkeypatch.setattr(survey, "look", look)
    done = called(embedded_url, "doctor", "--json")
    about = {(one["check"], one["about"]) for one in map(json.loads, done.stdout.splitlines())}
    assert ("no-consumers", "orders/g") in about
    assert not [one for one in about if one[0] == "rights"]


async def test_the_doctor_counts_what_owners_of_shards_have_before_them(embedded_url: str) -> None:
    async with connect(embedded_url) as client:
        stream = client.stream("orders")
        await fill(stream, 40)
        async with stream.group("g", share="shards", start=OLDEST) as group:
            for _ in range(10):
                group.ack(await group.receive(10.0))  # type: ignore[arg-type]
            await group.flush()
        (sharing,) = (await survey.look(client.redis, "orders", 1.0)).sharing
    assert sharing.lag is not None
    assert 30 <= sharing.lag <= 40


def test_owners_of_shards_that_lag() -> None:
    def of(lag: int) -> list[str]:
        sharing = Sharing("g", (1, 0), lag, {"m": "token:30000:1@5000"})
        seen = Seen("s", "stream", last=(9, 0), sharing=[sharing])
        return [one.check for one in of_stream(seen, 5000, 300.0)]

    assert of(LAGGING) == ["lagging"]
    assert of(LAGGING - 1) == []


def test_without_the_right_to_info_the_rest_is_shown(stored: Any, embedded_url: str) -> None:
    """Of the server nothing is known then, and of its streams everything."""
    stored.xadd("orders", {"n": 1})
    stored.xgroup_create("orders", "g", "0")
    stored.execute_command("ACL", "SETUSER", "blind", "reset", "on", ">pw", "+@all", "~*", "-info")
    url = embedded_url.replace("://", "://blind:pw@")
    for words in (["info"], ["info", "orders"]):
        done = called(url, *words, "--json")
        (about,) = map(json.loads, done.stdout.splitlines())
        assert (about["server"], "must answer INFO" in done.stderr) == (None, True)
        assert about.get("length", about.get("streams", [{}])[0].get("length")) == 1
    found = {
        one["check"]: one
        for one in map(json.loads, called(url, "doctor", "--json").stdout.splitlines())
    }
    assert found["no-consumers"]["about"] == "orders/g"
    assert found["rights"]["verdict"] == "warn"
