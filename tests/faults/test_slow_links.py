"""A connection that is slow is not dead: large events get through, and it is not made again."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from faults.machinery import STREAM
from penstock import OLDEST, Client, Signal, connect
from penstock.backends.redis import appender, cursor, reads, shard_reading
from penstock.backends.redis.dialing import Address
from penstock.backends.redis.link import connect as dial
from penstock.testing import TcpProxy

pytestmark = pytest.mark.one_loop

LARGE = 1_000_000
PACE = 1_000_000  # bytes a second: the large event takes much longer than the patience below
PATIENCE = 0.4


@pytest.fixture
async def proxy(embedded_url: str) -> AsyncIterator[TcpProxy]:
    async with TcpProxy(("127.0.0.1", int(embedded_url.rpartition(":")[2]))) as proxy:
        yield proxy


def through(proxy: TcpProxy, signals: list[Signal]) -> Client:
    url = f"redis://127.0.0.1:{proxy.port}"
    return connect(url, max_event_bytes=2 * LARGE, observer=signals.append)


async def test_a_large_event_is_sent_once_over_a_slow_connection(
    proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appender, "_SILENCE", PATIENCE)
    signals: list[Signal] = []
    async with through(proxy, signals) as client:
        stream = client.stream(STREAM)
        await stream.append({"n": 0})
        before, proxy.throttle = proxy.bytes_up, PACE
        async with stream.writer() as writer:
            await writer.send({"n": 1, "x": "x" * LARGE})
        proxy.throttle = 0
        assert await stream.length() == 2
    assert not signals
    assert proxy.bytes_up - before < 2 * LARGE, "it was sent again and again"


async def test_a_call_waits_behind_what_is_under_way(proxy: TcpProxy) -> None:
    wire, _ = await dial(Address(host="127.0.0.1", port=proxy.port))
    proxy.throttle = PACE
    large = wire.send("SET", "k", b"x" * LARGE)
    assert await wire.call("PING", timeout=PATIENCE) == b"PONG"
    assert await large == b"OK"
    wire.end()


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_silence_is_still_noticed(proxy: TcpProxy, direction: str) -> None:
    wire, _ = await dial(Address(host="127.0.0.1", port=proxy.port))
    proxy.pause("up" if direction == "up" else "down")
    with pytest.raises(TimeoutError):
        await wire.call("PING", timeout=PATIENCE)
    assert not wire.alive


@pytest.mark.parametrize("way", ["reader", "events", "shards"])
async def test_a_large_event_is_read_over_a_slow_connection(
    proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    for module in (cursor, reads, shard_reading):
        monkeypatch.setattr(module, "BLOCK", PATIENCE)
        monkeypatch.setattr(module, "GRACE", PATIENCE)
    signals: list[Signal] = []
    async with through(proxy, signals) as client:
        stream = client.stream(STREAM)
        await stream.append_many([{"x": "first"}, {"x": "x" * LARGE}, {"x": "last"}])
        proxy.throttle = PACE
        opened = (
            stream.reader(start=OLDEST)
            if way == "reader"
            else stream.group("g", share="events" if way == "events" else "shards")
        )
        async with opened as source:
            for _ in range(3):
                assert await source.receive(timeout=20) is not None
            proxy.throttle = 0
    assert not [signal for signal in signals if signal.kind == "disconnected"]
