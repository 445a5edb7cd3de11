"""The proxy: a bad network at command."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from penstock.testing.proxy import TcpProxy

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Echo:
    """A server that sends back every piece, and remembers what it got."""

    def __init__(self) -> None:
        self.got = b""
        self._more = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(1000):
                self.got += piece
                self._more.set()
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            pass  # as the tests want it
        finally:
            writer.close()

    async def got_bytes(self, count: int) -> bytes:
        """What it got, as soon as it is so many."""
        async with asyncio.timeout(5):
            while len(self.got) < count:
                self._more.clear()
                await self._more.wait()
        return self.got


@asynccontextmanager
async def echoing() -> AsyncGenerator[tuple[Echo, TcpProxy]]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    async with server, TcpProxy(server.sockets[0].getsockname()[:2]) as proxy:
        yield echo, proxy


@asynccontextmanager
async def connected(proxy: TcpProxy) -> AsyncGenerator[Streams]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def ask(client: Streams, line: bytes) -> bytes:
    client[1].write(line)
    return await asyncio.wait_for(client[0].readexactly(len(line)), 5)


async def seen_reset(client: Streams) -> bool:
    """Whether the connection ends by a reset."""
    try:
        await asyncio.wait_for(client[0].read(1), 5)
    except ConnectionResetError:
        return True
    return False


async def test_bytes_pass_untouched_both_ways() -> None:
    """Also many of them, and the counters agree."""
    async with echoing() as (echo, proxy), connected(proxy) as client:
        assert await ask(client, b"one\r\n") == b"one\r\n"
        big = bytes(range(256)) * 4000
        assert await ask(client, big) == big
        assert echo.got == b"one\r\n" + big
        assert (proxy.accepted, proxy.connections) == (1, 1)
        assert proxy.bytes_up == proxy.bytes_down == len(echo.got)


async def test_an_end_passes_as_an_end() -> None:
    """Closing is not cutting."""
    async with echoing() as (_, proxy), connected(proxy) as client:
        await ask(client, b"x")
        client[1].write_eof()

        assert await asyncio.wait_for(client[0].read(), 5) == b""
        assert proxy.resets == 0


async def test_bytes_for_a_side_that_is_gone_end_the_connection() -> None:
    """Whatever the event loop's word for it is, the task that serves it ends well."""
    async with echoing() as (_, proxy), connected(proxy) as client:
        await ask(client, b"x")
        proxy.pause("up")
        client[1].write(b"y")
        await client[1].drain()
        await asyncio.sleep(0.05)
        (link,), (serving,) = proxy._links, proxy._serving
        assert link.server is not None
        link.server.transport.abort()
        await asyncio.sleep(0.05)
        proxy.resume("up")

        await asyncio.wait([serving], timeout=5)
        assert serving.done()
        assert serving.cancelled() or serving.exception() is None
        assert proxy.resets == 1


async def test_a_cut_resets_all_and_new_ones_are_served() -> None:
    """Both sides see it."""
    async with echoing() as (_, proxy), connected(proxy) as one, connected(proxy) as two:
        await ask(one, b"1")
        await ask(two, b"2")
        proxy.cut()

        assert await seen_reset(one)
        assert await seen_reset(two)
        assert proxy.resets == 2
        async with connected(proxy) as three:
            assert await ask(three, b"3") == b"3"


async def test_new_connections_are_refused() -> None:
    """Those that stand, stand."""
    async with echoing() as (_, proxy), connected(proxy) as old:
        await ask(old, b"1")
        proxy.refuse = True
        async with connected(proxy) as new:
            assert await seen_reset(new)
        assert await ask(old, b"2") == b"2"
        assert proxy.refused == 1


async def test_a_server_that_is_not_there_resets() -> None:
    """As a refused connection would, a little later."""
    async with echoing() as (_, proxy):
        port = proxy.port
    async with TcpProxy(("127.0.0.1", port)) as proxy, connected(proxy) as client:
        assert await seen_reset(client)


async def test_an_address_that_moves_leads_elsewhere() -> None:
    """Old connections stay where they are."""
    async with echoing() as (first, proxy), echoing() as (second, other), connected(proxy) as old:
        await ask(old, b"1")
        proxy.lead_to(("127.0.0.1", other.port))
        async with connected(proxy) as new:
            await ask(new, b"2")
        await ask(old, b"3")
        assert (first.got, second.got) == (b"13", b"2")


async def test_a_black_hole_withholds_and_then_passes_on() -> None:
    """Nothing is lost, the connection stays."""
    async with echoing() as (echo, proxy), connected(proxy) as client:
        await ask(client, b"1")
        proxy.pause("down")
        client[1].write(b"2")
        assert await echo.got_bytes(2) == b"12"
        answer = asyncio.create_task(client[0].readexactly(1))
        await asyncio.sleep(0.02)
        assert not answer.done()
        proxy.resume()
        assert await asyncio.wait_for(answer, 5) == b"2"


async def test_a_paused_connection_can_be_cut() -> None:
    """What was withheld is lost then."""
    async with echoing() as (echo, proxy), connected(proxy) as client:
        await ask(client, b"1")
        proxy.pause()
        client[1].write(b"2")
        await asyncio.sleep(0.01)
        proxy.cut()

        assert await seen_reset(client)
        assert echo.got == b"1"


async def test_delay_holds_every_piece() -> None:
    """Each way, so an answer takes twice as long."""
    async with echoing() as (_, proxy), connected(proxy) as client:
        proxy.delay = 0.05
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await ask(client, b"1")
        assert loop.time() - begun >= 0.095  # uvloop's timers know milliseconds


async def test_the_lost_reply() -> None:
    """The server did it, the client never hears of it."""
    async with echoing() as (echo, proxy), connected(proxy) as client:
        proxy.swallow_replies(every=2)
        assert await ask(client, b"1") == b"1"
        client[1].write(b"2")

        assert await seen_reset(client)
        assert echo.got == b"12"
        proxy.swallow_replies(every=0)
        async with connected(proxy) as again:
            assert await ask(again, b"3") == b"3"


async def test_a_lost_reply_can_be_chosen() -> None:
    """By what it says."""
    async with echoing() as (_, proxy), connected(proxy) as client:
        proxy.swallow_replies(when=lambda piece: b"bad" in piece)
        assert await ask(client, b"good") == b"good"
        client[1].write(b"bad")
        assert await seen_reset(client)


async def test_cut_in_the_middle_of_a_command() -> None:
    """The server gets so many bytes exactly."""
    async with echoing() as (echo, proxy), connected(proxy) as client:
        await ask(client, b"1")
        proxy.cut_after(3)
        client[1].write(b"abcdef")

        assert await echo.got_bytes(4) == b"1abc"
        while not await seen_reset(client):
            pass  # the echo of what had passed
        assert (proxy.resets, echo.got) == (1, b"1abc")


@pytest.mark.parametrize("way", ["up", "down"])
async def test_leaving_ends_everything(way: str) -> None:
    """Also what is withheld."""
    async with echoing() as (_, proxy), connected(proxy) as client:
        await ask(client, b"1")
        proxy.pause("up" if way == "up" else "down")
        client[1].write(b"2")
    assert proxy.connections == 0


async def test_a_unix_socket(tmp_path: Path) -> None:
    """The server may listen on a path."""
    echo = Echo()
    server = await asyncio.start_unix_server(echo.serve, str(tmp_path / "s"))
    async with server, TcpProxy(str(tmp_path / "s")) as proxy, connected(proxy) as client:
        assert await ask(client, b"1") == b"1"
        proxy.cut()
        assert await seen_reset(client)


async def test_a_cut_in_the_middle_of_a_reply() -> None:
    """The server heard all, the client a part."""
    async with echoing() as (echo, proxy), connected(proxy) as client:
        proxy.cut_after(3, "down")
        client[1].write(b"12345")

        assert await asyncio.wait_for(client[0].readexactly(3), 5) == b"123"
        assert await seen_reset(client)
        assert echo.got == b"12345"
        async with connected(proxy) as again:
            assert await ask(again, b"6") == b"6"


async def test_a_throttle_lets_so_many_bytes_pass() -> None:
    """Each way, each connection."""
    async with echoing() as (_, proxy), connected(proxy) as client:
        proxy.throttle = 10_000
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await ask(client, bytes(1000))
        assert loop.time() - begun >= 0.19
        proxy.throttle = 0
        assert await ask(client, b"x") == b"x"


@pytest.mark.parametrize("turns", range(6))
async def test_whoever_comes_as_it_closes_is_turned_away(turns: int) -> None:
    """However far the event loop is with it: nothing is served after the block, or left open."""
    server = await asyncio.start_server(Echo().serve, "127.0.0.1", 0)
    async with server:
        async with TcpProxy(server.sockets[0].getsockname()[:2]) as proxy:
            client = socket.create_connection(("127.0.0.1", proxy.port), timeout=5)
            for _ in range(turns):
                await asyncio.sleep(0)
        with client:
            assert await asyncio.to_thread(answer, client) == "reset"


def answer(client: socket.socket) -> str:
    """What comes of a byte that is sent."""
    try:
        client.sendall(b"x")
        return "served" if client.recv(1) else "ended"
    except ConnectionError:
        return "reset"
