"""What the tests of the command line share: a shell, and the server behind its back."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from cli.shell import Shell


@pytest.fixture(autouse=True)
def needs_cli() -> None:
    """The extra that all of this is about."""
    if importlib.util.find_spec("click") is None or importlib.util.find_spec("rich") is None:
        pytest.skip("no command line: install the extra penstock[cli]")


@pytest.fixture
def shell(embedded_url: str) -> Shell:
    """A shell with a server."""
    return Shell(embedded_url)


@pytest.fixture
def stored(embedded_url: str) -> Iterator[Any]:
    """The server, through a client that is not ours."""
    with redis.Redis.from_url(embedded_url) as client:
        yield client


@pytest.fixture
def free_port() -> int:
    """A TCP port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
