"""The blocking client: the same streams without an event loop, from any thread."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import penstock
from penstock import (
    END,
    OLDEST,
    BackendUnavailable,
    Client,
    ClosedError,
    ConfigError,
    EncodeError,
    connect,
)
from penstock.streams.blocking import Loop
from streams.helping import PATIENCE


def test_appends_and_reads_without_a_loop(url: str) -> None:
    """In order, with metadata, to the end."""
    with penstock.blocking(url) as client:
        stream = client.stream("orders")
        first = stream.append({"n": 0}, topic="eu")
        positions = stream.append_many({"n": n} for n in range(1, 4))
        assert stream.name == "orders"
        with stream.reader(start=OLDEST, until=END) as reader:
            events = list(reader)

    assert [event.position for event in events] == [first, *positions]
    assert [event.value["n"] for event in events] == ["0", "1", "2", "3"]
    assert events[0].topic == "eu"


def test_a_writer_is_used_with_with(url: str) -> None:
    """Leaving the block flushes."""
    with penstock.blocking(url) as client:
        stream = client.stream("orders")
        with stream.writer(max_pending=10) as writer:
            for n in range(100):
                writer.send({"n": n}, key=str(n))
            writer.flush()
            writer.send({"n": 100})
            with pytest.raises(EncodeError):
                writer.send({"n": None})
        with stream.reader(start=OLDEST, until=END) as reader:
            assert [int(event.value["n"]) for event in reader] == list(range(101))


def test_a_group_is_used_with_with(url: str) -> None:
    """Acks, nacks, and waits that end."""
    with penstock.blocking(url) as client:
        stream = client.stream("orders")
        stream.append_many({"n": n} for n in range(3))
        with stream.group("billing") as group:
            for expected in range(3):
                event = group.receive(PATIENCE)
                assert event is not None
                assert int(event.value["n"]) == expected
                if expected == 1:
                    group.nack(event, delay=0.0, reason="again")
                else:
                    group.ack(event)
            again = group.receive(PATIENCE)
            assert again is not None
            assert again.attempts == 1
            group.ack([again])
            group.flush()
            assert group.receive(0.01) is None
        with stream.group("all", until=END) as group:
            for event in group:
                group.ack(event)


def test_an_exception_out_of_the_block_counts_a_failure(url: str) -> None:
    """As with the other API."""
    with penstock.blocking(url) as client:
        stream = client.stream("orders")
        stream.append({"n": 0})

        def fail() -> None:
            with stream.group("billing", retry=penstock.Retry(first=0.0, jitter=0.0)) as group:
                group.receive(PATIENCE)
                raise KeyError("work failed")

        with pytest.raises(KeyError):
            fail()
        with stream.group("billing") as group:
            event = group.receive(PATIENCE)
            assert event is not None
            assert event.attempts == 1


def test_threads_share_a_client(url: str) -> None:
    """Each gets its own outcomes."""
    with penstock.blocking(url) as client, ThreadPoolExecutor(8) as pool:
        stream = client.stream("orders")
        positions = list(pool.map(lambda n: stream.append({"n": n}), range(200)))
        assert len(set(positions)) == 200
        with stream.reader(start=OLDEST, until=END) as reader:
            got = list(pool.map(lambda _: reader.receive(PATIENCE), range(200)))
    stored = {event.position: int(event.value["n"]) for event in got if event is not None}
    assert [stored[position] for position in positions] == list(range(200))


async def test_it_works_in_a_thread_beside_a_running_loop(client: Client, url: str) -> None:
    """What one appends, the other reads."""

    def work() -> None:
        with penstock.blocking(url) as blocking:
            blocking.stream("orders").append({"n": 7})

    async with client.stream("orders").reader() as reader:
        await asyncio.to_thread(work)
        event = await reader.receive(PATIENCE)
    assert event is not None
    assert event.value == {"n": "7"}


def test_a_blocking_client_is_used_within_its_block() -> None:
    """Before and after it says so; its thread is gone."""
    client = penstock.blocking("memory://")
    stream = client.stream("orders")
    with pytest.raises(ClosedError, match="with penstock"):
        stream.append({"n": 1})
    with client:
        stream.append({"n": 1})
        assert "penstock-blocking" in {thread.name for thread in threading.enumerate()}
        client.close()
        client.close()
    with pytest.raises(ClosedError):
        stream.append({"n": 2})
    assert "penstock-blocking" not in {thread.name for thread in threading.enumerate()}


def test_what_is_under_way_when_its_loop_ends_is_told() -> None:
    """Also in threads that had just begun with it; none of them waits for ever."""
    loop = Loop()
    loop.start()
    with ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(lambda: loop.run(asyncio.sleep(600)))
        while not waiting.running():
            time.sleep(0.001)
        loop.run(asyncio.sleep(0.05))
        loop.stop()
        with pytest.raises(ClosedError, match="closed"):
            waiting.result(PATIENCE)
    with pytest.raises(ClosedError):
        loop.run(asyncio.sleep(0))


def test_errors_come_as_they_are(unused_tcp_port: int) -> None:
    """And an opening that fails leaves no thread behind."""
    with pytest.raises(ConfigError, match="known"):
        penstock.blocking("http://h")
    client = penstock.blocking(f"redis://127.0.0.1:{unused_tcp_port}", timeout=0.2)
    with pytest.raises(BackendUnavailable):
        client.__enter__()
    assert "penstock-blocking" not in {thread.name for thread in threading.enumerate()}


def test_a_wait_that_is_interrupted_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends the waiting here and there; the next event is not lost to it."""
    with penstock.blocking("memory://") as client:
        stream = client.stream("orders")
        with stream.reader() as reader:
            original = asyncio.run_coroutine_threadsafe

            def interrupted(work: Any, loop: Any) -> Any:
                future = original(work, loop)

                def result(_: float | None = None) -> None:
                    raise KeyboardInterrupt

                monkeypatch.setattr(future, "result", result)
                return future

            monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", interrupted)
            with pytest.raises(KeyboardInterrupt):
                reader.receive()
            monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", original)
            stream.append({"n": 7})
            event = reader.receive(PATIENCE)
    assert event is not None
    assert event.value == {"n": "7"}


# --- after a fork ----------------------------------------------------------------------------


def in_a_child(work: Callable[[], None]) -> str:
    """What *work* raises in a forked child: class and text; "" if nothing."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - it is told to the parent
            theirs.send(f"{type(error).__name__}: {error}")
        else:
            theirs.send("")
        os._exit(0)

    child = context.Process(target=run)
    child.start()
    try:
        assert ours.poll(PATIENCE), "the child must answer, and hangs"
        return str(ours.recv())
    finally:
        child.kill()
        child.join()
        child.close()


def test_a_blocking_client_used_after_a_fork_says_so(url: str) -> None:
    """It would wait for ever for a thread that stayed in the parent."""
    with penstock.blocking(url) as client:
        stream = client.stream("orders")
        stream.append({"n": 1})
        assert "ClosedError" in in_a_child(lambda: stream.append({"n": 2}) and None)
        assert "call blocking() in the child" in in_a_child(client.close)
        stream.append({"n": 3})


@pytest.mark.parametrize("verb", ["append", "append_many", "length", "writer", "reader", "group"])
def test_a_client_used_after_a_fork_says_so(url: str, verb: str) -> None:
    """Also where it has all it needs already: the connection is the parent's."""

    async def use(stream: penstock.Stream[Any]) -> None:
        match verb:
            case "append":
                await stream.append({"n": 2})
            case "append_many":
                await stream.append_many([{"n": 2}])
            case "length":
                await stream.length()
            case _:
                await getattr(stream, verb)(*(["g"] if verb == "group" else [])).__aenter__()

    async def main() -> None:
        async with connect(url) as client:
            stream = client.stream("orders")
            for _ in range(2):  # by the second it knows the format, and has a session
                await stream.append({"n": 1})

            def child() -> None:
                asyncio.events._set_running_loop(None)
                asyncio.run(asyncio.wait_for(use(stream), 5))

            said = in_a_child(child)
            assert said.startswith("ClosedError: a client must be made in the process"), said
            assert "call connect() in the child" in said
            await stream.append({"n": 3})
            assert await stream.length() == 3

    asyncio.run(main())
