"""What the fault tests share: servers that may be killed, workers, bad networks, deadlines."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self

import redis

from faults.lab.calibration import slowness
from penstock import Client, Event, Group, Signal, connect
from penstock.testing import TcpProxy
from support.meter import lost
from support.servers import WATCHER

HERE = Path(__file__).parent
STREAM = "orders"
GROUP = "g"
PATIENCE = 25.0  # seconds for what should take a few tenths of one; less than a lease

_WATCH = '"$@" & server=$!; read -r _; kill -9 $server 2>/dev/null; wait $server 2>/dev/null'


# --- conditions ------------------------------------------------------------------------------


async def soon(condition: Callable[[], Any], what: str, within: float = PATIENCE) -> float:
    """Return as soon as *condition* holds, with the seconds that took; fail after *within*."""
    began = time.monotonic()
    while True:
        held = condition()
        if inspect.isawaitable(held):
            held = await held
        took = time.monotonic() - began
        if held:
            return took
        assert took < within, f"not within {within} s: {what}"
        await asyncio.sleep(0.01)


def in_time(took: float, bound: float, began: float, *, starts: float = 0.6) -> bool:
    """Whether what began then took no longer than it may, but for what the machine kept from us.

    Args:
        took: seconds.
        bound: seconds, on a machine that has nothing else to do.
        began: when it did, by `time.monotonic`.
        starts: seconds of that which are work for the processor: a slow one takes longer.
    """
    over = took - bound - lost(began)
    return over < 0 or over < starts * (slowness() - 1)


# --- what the server holds, asked around everything that is tested -----------------------------


def asked(url: str, *command: Any) -> Any:
    """The server's answer to one command, over a connection of its own."""
    with redis.Redis.from_url(url, decode_responses=True, socket_timeout=10) as client:
        return client.execute_command(*command)


def stored(url: str, key: str = STREAM, field: str = "n") -> list[int]:
    """The number in every entry of a stream, in the stream's order."""
    numbers: list[int] = []
    last = "-"
    with redis.Redis.from_url(url, decode_responses=True) as client:
        while page := client.xrange(key, last, "+", count=10_000):
            numbers += [int(fields[field]) for _, fields in page]
            last = "(" + page[-1][0]
    return numbers


def add(url: str, numbers: range, key: str = STREAM) -> None:
    """Append *numbers*, around everything that is tested."""
    with redis.Redis.from_url(url) as client:
        pipeline = client.pipeline(transaction=False)
        for number in numbers:
            pipeline.xadd(key, {"n": number})
        pipeline.execute()


def pending_of(url: str, member: str | None = None) -> int:
    """How many events are pending in the group, or with one member."""
    with redis.Redis.from_url(url) as client:
        try:
            if member is None:
                return client.xpending(STREAM, GROUP)["pending"]
            return len(client.xpending_range(STREAM, GROUP, "-", "+", 100_000, member))
        except redis.ResponseError:  # no group
            return 0


def lag_of(url: str) -> int | None:
    """How many events the group has not handed out."""
    groups = asked(url, "XINFO", "GROUPS", STREAM)
    return next(group["lag"] for group in groups if group["name"] == GROUP)


def mark_of(url: str, field: str = "position") -> str | None:
    """What the group's recovery mark says, by default up to where everything is acked."""
    return asked(url, "HGET", f"penstock:{{{STREAM}}}:{STREAM}:mark@{GROUP}", field)


async def marked(url: str) -> None:
    """Return when the mark stands at the end of the stream."""

    def at_the_end() -> bool:
        newest = asked(url, "XREVRANGE", STREAM, "+", "-", "COUNT", 1)
        return mark_of(url) == newest[0][0]

    await soon(at_the_end, "the mark is moved to the end")


async def settled(url: str) -> None:
    """Return when the group has handed out everything, and nothing is pending."""
    await soon(lambda: pending_of(url) == 0 and lag_of(url) == 0, "lag and pending end at 0")


async def take(
    groups: list[Group[Any]], count: int, *, within: float = PATIENCE, ack: bool = False
) -> list[Event[Any]]:
    """The next *count* events, of whichever member gets them."""
    taken: list[Event[Any]] = []
    deadline = time.monotonic() + within
    while len(taken) < count:
        for group in groups:
            event = await group.receive(timeout=0.02)
            if event is not None:
                taken.append(event)
                if ack:
                    group.ack(event)
        assert time.monotonic() < deadline, f"{count - len(taken)} of {count} events did not come"
    return taken


# --- servers that a test may kill ------------------------------------------------------------


class FaultyServer:
    """A server that is killed, paused and started again, always at the same place."""

    def __init__(self, binary: Path, folder: Path, *, aof: bool, **more: Any) -> None:
        self._binary = binary
        self._folder = folder
        self._aof = aof
        self._more = more
        self.env: dict[str, str] = {}
        self._watcher: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and return when it answers."""
        (self._folder / "pid").unlink(missing_ok=True)
        options = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": self._folder,
            "pidfile": self._folder / "pid",
            "logfile": self._folder / "log",
            "save": "",
            "appendonly": "yes" if self._aof else "no",
            "appendfsync": "always",
            **{name.replace("_", "-"): value for name, value in self._more.items()},
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self._watcher = subprocess.Popen(
            ["sh", "-c", _WATCH, WATCHER, str(self._binary), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, **self.env},
        )
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(redis.RedisError):
                if asked(self.url, "PING"):
                    return
            assert time.monotonic() < deadline, (self._folder / "log").read_text()
            time.sleep(0.01)

    def kill(self) -> None:
        """``kill -9``, and return when it is gone."""
        os.kill(self._pid, signal.SIGKILL)
        self.stop()

    def pause(self) -> None:
        """``SIGSTOP``: it keeps its connections, and answers nothing."""
        os.kill(self._pid, signal.SIGSTOP)

    def resume(self) -> None:
        """``SIGCONT``."""
        os.kill(self._pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it, whatever state it is in."""
        if self._watcher is not None:
            assert self._watcher.stdin is not None
            self._watcher.stdin.close()
            self._watcher.wait(PATIENCE)
            self._watcher = None

    @property
    def _pid(self) -> int:
        return int((self._folder / "pid").read_text())


@contextmanager
def faulty(binary: Path, folder: Path, *, aof: bool) -> Iterator[FaultyServer]:
    """A running server that may be killed."""
    server = FaultyServer(binary, folder, aof=aof)
    try:
        server.start()
        yield server
    finally:
        server.stop()


# --- bad networks ----------------------------------------------------------------------------


@asynccontextmanager
async def through_proxy(url: str) -> AsyncGenerator[tuple[TcpProxy, str]]:
    """A proxy before the server at *url*, and the URL through it."""
    port = int(url.rpartition(":")[2])
    async with TcpProxy(("127.0.0.1", port)) as proxy:
        yield proxy, f"redis://127.0.0.1:{proxy.port}"


@asynccontextmanager
async def watched(url: str, **options: Any) -> AsyncGenerator[tuple[Client, list[Signal]]]:
    """A client, and every signal that it gave."""
    signals: list[Signal] = []
    async with connect(url, observer=signals.append, **options) as client:
        yield client, signals


def answers(*begins: bytes) -> Callable[[bytes], bool]:
    """For `swallow_replies`: whether an answer that begins so is in a piece, wherever it stands.

    Where the proxy gets its turn late, several answers are in one.
    """
    return lambda piece: any(b"\r\n" + begin in b"\r\n" + piece for begin in begins)


class Cutter:
    """Cuts a proxy's connections after so many bytes, once."""

    def __init__(self, proxy: TcpProxy) -> None:
        self._proxy = proxy

    def requests(self, count: int) -> None:
        """Cut after so many more bytes to the server."""
        self._proxy.cut_after(count)

    def replies(self, count: int) -> None:
        """Cut after so many more bytes from the server."""
        left: int | None = count
        whole = self._proxy._passed

        def passed(way: Any, piece: bytes) -> bytes:
            nonlocal left
            if way == "up" or left is None:
                return whole(way, piece)
            if len(piece) <= left:
                left -= len(piece)
                return whole(way, piece)
            kept, left = piece[:left], None
            return kept

        self._proxy._passed = passed  # type: ignore[method-assign]


class HalfOpen:
    """A proxy whose clients can be reset without their servers hearing of it."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._up: list[asyncio.Task[None]] = []
        self._clients: list[asyncio.StreamWriter] = []
        self._servers: list[asyncio.StreamWriter] = []
        self._down: list[asyncio.Task[None]] = []
        self.url = ""

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        self.break_clients()
        for server in self._servers:
            server.transport.abort()
        await asyncio.gather(*self._down, return_exceptions=True)

    def break_clients(self) -> None:
        """Reset every client; each server's side stays open, and what it sends is lost."""
        for task in self._up:
            task.cancel()
        for client in self._clients:
            client.transport.abort()
        self._up.clear()
        self._clients.clear()

    async def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        answers, server = await asyncio.open_connection("127.0.0.1", self._server_port)
        self._clients.append(client)
        self._servers.append(server)
        self._up.append(asyncio.create_task(_copy(reader, server)))
        self._down.append(asyncio.create_task(_copy(answers, client)))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the reader ends; what the writer does not take is lost."""
    with contextlib.suppress(OSError):
        while piece := await reader.read(1 << 16):
            if not writer.is_closing():
                writer.write(piece)
    writer.close()


# --- members in processes of their own -------------------------------------------------------


class Worker:
    """A member in a process of its own: see `worker.py`."""

    def __init__(self, name: str, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.process = process

    def kill(self) -> float:
        """``kill -9``; when that was."""
        self.process.kill()
        self.process.wait()
        return time.monotonic()

    def pause(self) -> None:
        """``SIGSTOP``."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """``SIGCONT``."""
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it, whatever state it is in."""
        self.kill()
        assert self.process.stdin is not None
        self.process.stdin.close()


class Team:
    """Workers of one group, and the log that all of them write."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "log"
        self._log.touch()
        self._workers: list[Worker] = []

    def start(self, name: str, url: str, **options: float | str) -> Worker:
        """Start a worker; it has joined some tenths of a second later (see `joined`)."""
        words = [word for key, value in options.items() for word in (_flag(key), str(value))]
        process = subprocess.Popen(
            [sys.executable, str(HERE / "worker.py"), url, name, str(self._log), *words],
            stdin=subprocess.PIPE,
        )
        worker = Worker(name, process)
        self._workers.append(worker)
        return worker

    async def joined(self, *names: str) -> None:
        """Return when these have joined."""
        await soon(lambda: set(names) <= {about["who"] for about in self.log("joined")}, "joined")

    def log(self, *kinds: str) -> list[dict[str, Any]]:
        """What was written down, of these kinds; a line that was cut by a kill is none."""
        found: list[dict[str, Any]] = []
        for line in self._log.read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                about = json.loads(line)
                if about["what"] in kinds:
                    found.append(about)
        return found

    def done(self, who: str | None = None) -> Counter[int]:
        """How often each event was handled to its end."""
        return Counter(a["n"] for a in self.log("done") if who in (None, a["who"]))

    def started(self, who: str | None = None) -> Counter[int]:
        """How often each event was begun."""
        return Counter(a["n"] for a in self.log("start") if who in (None, a["who"]))

    def signals(self, who: str, kind: str) -> list[dict[str, Any]]:
        """The signals of one kind that one worker gave."""
        return [a for a in self.log("signal") if a["who"] == who and a["kind"] == kind]

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers:
            worker.close()


def _flag(key: str) -> str:
    return "--" + key.replace("_", "-")


def excess(handled: Counter[int]) -> int:
    """How many handlings were not the first of their event."""
    return sum(handled.values()) - len(handled)
