"""Bad input, and what it gets: the class of error, what must hold, what was given, what to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import redis

import penstock
from penstock import (
    OLDEST,
    BackendError,
    BackendRejected,
    BackendUnavailable,
    Client,
    ClosedError,
    ConfigError,
    PenstockError,
    Position,
    connect,
)
from penstock.streams.names import check_label, check_stream
from penstock.testing import TcpProxy
from streams.helping import PATIENCE, everything, fill, numbers
from support.meter import lost

SECRET = "s3cret"


async def failing_to_open(url: str, **options: Any) -> PenstockError:
    """The error of opening a client; none of its causes may hold the secret."""
    with pytest.raises(PenstockError) as error:
        async with asyncio.timeout(PATIENCE):
            await connect(url, **options).__aenter__()
    told: BaseException | None = error.value
    while told is not None:
        assert SECRET not in str(told)
        assert SECRET not in repr(told)
        told = told.__cause__ or told.__context__
    return error.value


# --- servers ---------------------------------------------------------------------------------


@pytest.mark.conformance("SS-069")
async def test_a_server_that_refuses_connections_is_unavailable_within_the_timeout(
    unused_tcp_port: int,
) -> None:
    """Host and port are named, the password is not."""
    begun = time.monotonic()
    url = f"redis://me:{SECRET}@127.0.0.1:{unused_tcp_port}?timeout=0.4"
    error = await failing_to_open(url)

    assert time.monotonic() - begun < 2 + lost(begun)
    assert isinstance(error, BackendUnavailable)
    assert (error.retryable, error.backend, error.verb) == (True, "redis", "connect")
    assert f"127.0.0.1:{unused_tcp_port}" in str(error)
    assert "check that the server runs" in str(error)
    assert error.__cause__ is not None


async def test_a_server_that_does_not_answer_is_unavailable_within_the_timeout(
    embedded_url: str,
) -> None:
    """It takes the connection, and says nothing."""
    async with TcpProxy(("127.0.0.1", int(embedded_url.rpartition(":")[2]))) as proxy:
        proxy.pause()
        begun = time.monotonic()
        error = await failing_to_open(f"redis://:{SECRET}@127.0.0.1:{proxy.port}", timeout=0.4)
        assert time.monotonic() - begun < 3 + lost(begun)
        assert f"127.0.0.1:{proxy.port}" in str(error)
    assert isinstance(error, BackendUnavailable)
    assert "no answer in time" in str(error)


async def test_a_host_that_has_no_address_is_unavailable() -> None:
    """By its name."""
    error = await failing_to_open(f"redis://:{SECRET}@no-such-host.invalid:1?timeout=0.4")
    assert isinstance(error, BackendUnavailable)
    assert "no-such-host.invalid:1" in str(error)


async def test_a_socket_that_is_not_there_is_unavailable(tmp_path: Any) -> None:
    """By its path."""
    error = await failing_to_open(f"redis+unix://{tmp_path}/no.sock?timeout=0.4&password={SECRET}")
    assert isinstance(error, BackendUnavailable)
    assert f"{tmp_path}/no.sock" in str(error)


@pytest.mark.parametrize("user", ["me", "nobody"])
@pytest.mark.conformance("SS-065")
async def test_a_wrong_password_is_rejected(servers: str, user: str) -> None:
    """At once, and not retryable: it does not go away by waiting."""
    with redis.Redis.from_url(servers) as admin:
        admin.acl_setuser("me", enabled=True, passwords=["+right"], keys="*", commands=["+@all"])
        try:
            begun = time.monotonic()
            error = await failing_to_open(servers, user=user, password=SECRET, timeout=5)
            assert time.monotonic() - begun < 2 + lost(begun)
            assert isinstance(error, BackendRejected)
            assert not error.retryable
            assert "check the user and the password of the URL" in str(error)

            async with connect(servers, user="me", password="right") as client:
                await fill(client.stream("orders"), 1)
        finally:
            admin.acl_deluser("me")


async def test_a_password_for_a_server_that_has_none_is_rejected(servers: str) -> None:
    """The server says what it misses."""
    error = await failing_to_open(servers.replace("redis://", f"redis://:{SECRET}@"))
    assert isinstance(error, BackendError)


@asynccontextmanager
async def a_server_of(version: bytes) -> AsyncGenerator[int]:
    """A server that knows INFO, and says OK to everything else; its port."""
    info = b"# Server\r\nredis_version:" + version + b"\r\nredis_mode:standalone\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readline():
            parts = []
            for _ in range(int(head[1:])):
                size = int((await reader.readline())[1:])
                parts.append((await reader.readexactly(size + 2))[:-2])
            answer = b"$%d\r\n%s\r\n" % (len(info), info) if parts[0] == b"INFO" else b"+OK\r\n"
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.sleep(0)


@pytest.mark.parametrize("version", [b"6.2.6", b"5.0.14", b"6.9.9"])
async def test_a_server_that_is_too_old_is_rejected(version: bytes) -> None:
    """With its version, the oldest that will do, and the way out."""
    async with a_server_of(version) as port:
        error = await failing_to_open(f"redis://127.0.0.1:{port}")
    assert isinstance(error, BackendRejected)
    assert not error.retryable
    for part in (f"127.0.0.1:{port}", "7.0 or newer", version.decode(), "embedded://"):
        assert part in str(error)


@pytest.mark.parametrize("version", [b"7.0.0", b"7.2.4\r\nserver_name:valkey", b"10.0.1"])
async def test_a_server_that_is_new_enough_is_taken(version: bytes) -> None:
    """Compared as numbers: ten is newer than seven."""
    async with (
        a_server_of(version) as port,
        connect(f"redis://127.0.0.1:{port}", observer=lambda _: None) as client,
    ):
        assert client.backend is not None


# --- keys ------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["append", "writer", "reader", "group", "length", "info", "trim"])
@pytest.mark.conformance("CR-039")
async def test_a_key_that_is_no_stream_is_rejected(servers: str, verb: str) -> None:
    """By every verb, naming the key; what it holds is untouched."""
    async with connect(servers, observer=lambda _: None) as client:
        await client.redis.set("orders", "text")
        stream = client.stream("orders")

        async def use() -> None:
            match verb:
                case "append":
                    await stream.append({"n": 1})
                case "writer":
                    await stream.writer().__aenter__()
                case "reader":
                    await stream.reader().__aenter__()
                case "group":
                    await stream.group("billing").__aenter__()
                case "trim":
                    await stream.trim(max_events=1)
                case _:
                    await getattr(stream, verb)()

        with pytest.raises(BackendRejected, match=r"'orders'.*WRONGTYPE.*another name") as error:
            await asyncio.wait_for(use(), PATIENCE)
        assert (error.value.backend, error.value.key) == ("redis", "orders")
        assert not error.value.retryable
        assert await client.redis.get("orders") == b"text"


@pytest.mark.conformance("SS-070")
async def test_a_key_that_becomes_another_type_is_told_to_who_reads(servers: str) -> None:
    """The iteration raises, at every step."""
    async with connect(servers, observer=lambda _: None) as client:
        stream = client.stream("orders")
        await fill(stream, 1)
        async with stream.reader() as reader:
            await client.redis.delete("orders")
            await client.redis.set("orders", "text")
            for _ in range(2):
                with pytest.raises(BackendRejected, match="WRONGTYPE"):
                    await reader.receive(PATIENCE)


# --- names -----------------------------------------------------------------------------------

GOOD = ["a", "orders", "Orders.v2_x-1", "a:b", "7", "7:a", "{tag}x", "{tag}", "{a.b}:c", "x" * 249]
BAD = {
    "": "not empty",
    "x" * 250: "at most 249 characters, got 250",
    "with space": "letters, digits",
    "glob*": "letters, digits",
    "what?": "letters, digits",
    "[ab]": "letters, digits",
    "ümlaut": "letters, digits",
    "a\n": "letters, digits",
    "a{tag}": "letters, digits",
    "{a}{b}": "letters, digits",
    "{}a": "letters, digits",
    "{a": "letters, digits",
    "orders:7": "must not end in ':' and digits",
    "{a}b:07": "must not end in ':' and digits",
}


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.conformance("SS-001")
def test_good_names_are_taken(name: str) -> None:
    """As they are."""
    assert check_stream(name) == name


@pytest.mark.parametrize("name", BAD, ids=lambda name: name[:12] or "empty")
@pytest.mark.conformance("PU-001", "SS-001")
def test_bad_names_are_refused(name: str) -> None:
    """What must hold, what was given, and the way to take what others made."""
    with pytest.raises(ConfigError, match=BAD[name]) as error:
        check_stream(name)
    assert repr(name)[1:10] in str(error.value)
    if name and len(name) < 250:
        assert "foreign=True" in str(error.value)
        assert check_stream(name, foreign=True) == name


@pytest.mark.parametrize("name", [None, 7, b"orders"])
def test_a_name_that_is_no_text_is_refused(name: Any) -> None:
    """Also as a foreign one; an empty name is none either."""
    for foreign in (False, True):
        with pytest.raises(ConfigError, match="text and not empty"):
            check_stream(name, foreign=foreign)
    with pytest.raises(ConfigError):
        check_stream("", foreign=True)
    with pytest.raises(ConfigError):
        check_label("group", name)


@pytest.mark.one_loop
@pytest.mark.conformance("PU-001")
async def test_a_bad_name_is_refused_by_the_client_before_anything_is_asked(client: Client) -> None:
    """As are shards that cannot be."""
    for name in BAD:
        with pytest.raises(ConfigError):
            client.stream(name)
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        client.stream("orders", shards=0)
    with pytest.raises(ConfigError, match="one key without marks, got shards=4"):
        client.stream("orders", shards=4, foreign=True)
    with pytest.raises(ConfigError, match="'pickle'"):
        await client.stream("orders", codec="pickle").append({"n": 1})


async def test_another_number_of_shards_than_is_stored_is_refused() -> None:
    """Left out, what is stored is adopted; each shard keeps the order of its keys."""
    async with connect("memory://") as client:
        stream = client.stream("orders", shards=4)
        for n in range(40):
            await stream.append({"n": n}, key=f"k{n % 5}")
        adopted = client.stream("orders")
        events = await everything(adopted)
        assert adopted.shards == 4
        for key in range(5):
            mine = [event for event in events if event.key == f"k{key}"]
            assert numbers(mine) == list(range(key, 40, 5))
            assert len({event.shard for event in mine}) == 1
        with pytest.raises(ConfigError, match="has 4 shards, this handle asks for 2"):
            await client.stream("orders", shards=2).append({"n": 1})


@pytest.mark.one_loop
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (Position((1, 0)), r"after\(position\) begins behind that one"),
        (5, r"start must be OLDEST, NEWEST, after\(position\) or at\(datetime\), got 5"),
        (None, "start must be"),
    ],
)
async def test_a_start_that_is_none_is_said_at_once(client: Client, wrong: Any, said: str) -> None:
    """Of a reader, of a seek, and of a group."""
    stream = client.stream("orders")
    with pytest.raises(ConfigError, match=said):
        stream.reader(start=wrong)
    with pytest.raises(ConfigError, match=said):
        stream.group("billing", start=wrong)
    async with stream.reader() as reader:
        with pytest.raises(ConfigError, match=said):
            await reader.seek(wrong)


@pytest.mark.one_loop
@pytest.mark.parametrize("wrong", ["END", 5.0, OLDEST])
async def test_an_end_that_is_none_is_said_at_once(client: Client, wrong: Any) -> None:
    """Before anything is opened."""
    stream = client.stream("orders")
    with pytest.raises(ConfigError, match=r"until must be END, idle\(seconds\), a position"):
        stream.reader(until=wrong)
    with pytest.raises(ConfigError, match="until must be END"):
        stream.group("billing", until=wrong)


@pytest.mark.one_loop
async def test_only_events_are_settled(client: Client) -> None:
    """Not their positions, nor nothing; the group goes on."""
    stream = client.stream("orders")
    await fill(stream, 1)
    async with stream.group("billing") as group:
        event = await group.receive(PATIENCE)
        assert event is not None
        for wrong in (event.position, "1-0", None):
            with pytest.raises(ConfigError, match="only events that were handed out"):
                group.ack(cast("Any", wrong))
        group.ack(event)
        await group.flush()
        assert group.statistics().acked == 1


# --- clients ---------------------------------------------------------------------------------


@pytest.mark.conformance("SS-069")
async def test_a_client_is_used_within_its_block(url: str) -> None:
    """Before and after it says so; it is not opened again."""
    client = connect(url)
    stream = client.stream("orders")
    with pytest.raises(ClosedError, match="async with connect"):
        await stream.append({"n": 1})
    async with client:
        await stream.append({"n": 1})
        with pytest.raises(ClosedError, match="is open"):
            await client.__aenter__()
        await stream.append({"n": 2})
    verbs = (lambda: stream.append({"n": 2}), stream.length, client.__aenter__)
    for verb in verbs:
        with pytest.raises(ClosedError):
            await verb()
    writer = stream.writer()
    with pytest.raises(ClosedError):
        await writer.__aenter__()


async def test_the_redis_client_underneath_is_there_where_there_is_a_redis(client: Client) -> None:
    """Without retries of its own: they would double what is not idempotent."""
    if client.url.scheme == "memory":
        with pytest.raises(ConfigError, match="needs a Redis or Valkey, got memory://"):
            _ = client.redis
        return
    assert await client.redis.ping()
    assert client.redis.get_retry().get_retries() == 0


@pytest.mark.parametrize("timeout", ["0", "-1", "soon", "nan", "1e9"])
async def test_a_timeout_must_be_seconds(timeout: str) -> None:
    """Above zero."""
    with pytest.raises(ConfigError, match="timeout must be a number of seconds"):
        await connect(f"redis://127.0.0.1:1?timeout={timeout}").__aenter__()


@pytest.mark.conformance("SS-069")
def test_every_error_of_ours_is_one_of_the_tree() -> None:
    """And says what a program can do about it."""
    names = [name for name in penstock.__all__ if isinstance(getattr(penstock, name), type)]
    errors = [cls for cls in (getattr(penstock, n) for n in names) if issubclass(cls, Exception)]
    assert len(errors) >= 15
    assert all(issubclass(cls, PenstockError) for cls in errors)
    assert issubclass(ConfigError, ValueError)
    assert [e.retryable for e in (BackendUnavailable, BackendRejected)] == [True, False]
