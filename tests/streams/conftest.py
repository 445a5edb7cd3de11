"""Every test of streams runs on memory and on both servers."""

from __future__ import annotations

import gc
import itertools
from collections.abc import AsyncGenerator, Iterator

import pytest

from penstock import Client, Signal, connect
from penstock.backends.memory import forget
from support.servers import Server

_numbers = itertools.count()


@pytest.fixture(
    params=["memory", "embedded_server", "redis7_server"], ids=["memory", "valkey", "redis7"]
)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the streams are: a memory of the test's own, and each server in turn, emptied."""
    if request.param == "memory":
        name = f"test-{next(_numbers)}"
        yield f"memory://{name}"
        forget(name)
        return
    server: Server = request.getfixturevalue(request.param)
    server.flush()
    yield server.url


@pytest.fixture
def signals() -> list[Signal]:
    """What the client has signalled."""
    return []


@pytest.fixture
async def client(url: str, signals: list[Signal]) -> AsyncGenerator[Client]:
    """A client that is open."""
    async with connect(url, observer=signals.append) as opened:
        yield opened


@pytest.fixture(autouse=True)
def no_exception_is_left_behind(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test after which asyncio complains of an exception that nobody looked at."""
    yield
    gc.collect()
    said = [record.getMessage() for record in caplog.records if record.name == "asyncio"]
    assert not said, said
