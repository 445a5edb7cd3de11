"""Apps on memory and on both servers: the fixtures of the streams' tests, and handlers' own."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator

import pytest

from penstock import Signal
from penstock.backends.memory import forget
from support.servers import Server

_numbers = itertools.count()


@pytest.fixture(
    params=["memory", "embedded_server", "redis7_server"], ids=["memory", "valkey", "redis7"]
)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the streams are: a memory of the test's own, and each server in turn, emptied."""
    if request.param == "memory":
        name = f"app-{next(_numbers)}"
        yield f"memory://{name}"
        forget(name)
        return
    server: Server = request.getfixturevalue(request.param)
    server.flush()
    yield server.url


@pytest.fixture
def memory() -> Iterator[str]:
    """A memory of the test's own."""
    name = f"app-{next(_numbers)}"
    yield f"memory://{name}"
    forget(name)


@pytest.fixture
def signals() -> list[Signal]:
    """What an App has signalled."""
    return []


@pytest.fixture(autouse=True)
def no_exception_is_left_behind(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test after which asyncio complains of an exception that nobody looked at."""
    yield
    gc.collect()
    said = [record.getMessage() for record in caplog.records if record.name == "asyncio"]
    assert not said, said
