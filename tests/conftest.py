"""How all tests run: on both event loops, with real servers, without leaks or silent skips.

``PENSTOCK_REQUIRE_ALL=1``   every skip is a failure (continuous integration)
``--loops=asyncio``          only that event loop; the default is each that is installed
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from support import leaks
from support.servers import (
    MissingServerError,
    Server,
    embedded_binary,
    redis_binary,
    running,
)

REQUIRE_ALL = os.environ.get("PENSTOCK_REQUIRE_ALL", "") not in {"", "0"}

# A slow machine is no failure; how long a test may take is pytest-timeout's business.
settings.register_profile("penstock", deadline=None)
settings.load_profile("penstock")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--loops",
        default="asyncio,uvloop",
        help="event loops that async tests run on, by comma (default: %(default)s)",
    )
    parser.addoption("--walks", type=int, default=1, help="random walks of the fault tests")
    parser.addoption("--first-walk", type=int, default=5, help="the seed of the first of them")


# --- event loops -----------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    loops = _wanted_loops(config)
    if unknown := loops - {"asyncio", "uvloop"}:
        raise pytest.UsageError(f"--loops takes asyncio and uvloop, got {sorted(unknown)}")
    if REQUIRE_ALL and "uvloop" in loops and not _has_uvloop():
        raise pytest.UsageError("PENSTOCK_REQUIRE_ALL is set, and uvloop is not installed")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {}
    wanted = _wanted_loops(config)
    if "uvloop" in wanted and _has_uvloop() and not item.get_closest_marker("one_loop"):
        import uvloop

        factories["uvloop"] = uvloop.new_event_loop
    if "asyncio" in wanted or not factories:
        factories["asyncio"] = asyncio.new_event_loop
    return factories


def _wanted_loops(config: pytest.Config) -> set[str]:
    return set(str(config.getoption("--loops")).split(","))


def _has_uvloop() -> bool:
    return importlib.util.find_spec("uvloop") is not None


# --- skips -----------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Iterator[None]:
    report: pytest.TestReport = yield  # type: ignore[assignment]
    return _refuse_skip(report)  # type: ignore[return-value]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Iterator[None]:
    report: pytest.CollectReport = yield  # type: ignore[assignment]
    return _refuse_skip(report)  # type: ignore[return-value]


def _refuse_skip(report: Any) -> Any:
    """Turn a skip into a failure where all must run; an expected failure is none."""
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"PENSTOCK_REQUIRE_ALL is set, and this was skipped: {_reason(report)}"
    return report


def _reason(report: Any) -> str:
    longrepr = report.longrepr
    text = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    return str(text).removeprefix("Skipped: ")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what did not run, and why: a skip is never silent."""
    skipped = Counter(map(_reason, terminalreporter.stats.get("skipped", [])))
    if skipped:
        terminalreporter.section("skipped, because a part is missing")
        for reason, count in skipped.most_common():
            terminalreporter.line(f"{count:5} {'test' if count == 1 else 'tests'}: {reason}")
    if "uvloop" in _wanted_loops(terminalreporter.config) and not _has_uvloop():
        terminalreporter.line("uvloop is not installed: async tests ran on asyncio alone")


# --- leaks -----------------------------------------------------------------------------------


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("asyncio") and isinstance(item, pytest.Function):
            # First in, last out: it looks when every other fixture has tidied up.
            item.fixturenames.insert(0, "no_leaked_tasks")


def pytest_collection_finish() -> None:
    """Tests collect garbage to see leaks: thousands of collected tests must not slow each down."""
    gc.collect()
    gc.freeze()


@pytest.fixture
async def no_leaked_tasks() -> AsyncIterator[None]:
    """Fail an async test that leaves a task behind; every async test has it."""
    yield
    left = await leaks.leaked_tasks()
    assert not left, "tasks still run after the test:\n" + "\n".join(left)


@pytest.fixture(autouse=True)
def no_leaked_children() -> Iterator[None]:
    """Fail a test that leaves a child process behind."""
    before = leaks.children()
    yield
    left = leaks.leaked_children(before)
    assert not left, "processes still run after the test:\n" + "\n".join(left)


# --- servers ---------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def embedded_server() -> Iterator[Server]:
    """A Valkey of this test run; emptied before each test that uses it."""
    yield from _serve(embedded_binary)


@pytest.fixture(scope="session")
def redis7_server() -> Iterator[Server]:
    """The system's redis-server, one of this test run; emptied before each test that uses it."""
    yield from _serve(redis_binary)


@pytest.fixture(scope="session")
def embedded_url(embedded_server: Server) -> str:
    """``redis://127.0.0.1:<port>`` of the Valkey."""
    return embedded_server.url


@pytest.fixture(scope="session")
def redis7_url(redis7_server: Server) -> str:
    """``redis://127.0.0.1:<port>`` of the system's redis-server."""
    return redis7_server.url


@pytest.fixture(params=["embedded_server", "redis7_server"], ids=["valkey", "redis7"])
def servers(request: pytest.FixtureRequest) -> str:
    """The URL of each server in turn, emptied."""
    server: Server = request.getfixturevalue(request.param)
    server.flush()
    return server.url


@pytest.fixture(autouse=True)
def empty_servers(request: pytest.FixtureRequest) -> None:
    """No test sees what another one stored."""
    for name in ("embedded_server", "redis7_server"):
        if name in request.fixturenames:
            request.getfixturevalue(name).flush()


def _serve(find: Callable[[], Path]) -> Iterator[Server]:
    try:
        binary = find()
    except MissingServerError as missing:
        pytest.skip(str(missing))
    with running(binary) as server:
        yield server


# --- the comparison with other clients -------------------------------------------------------


@pytest.fixture(scope="session")
def compare_python() -> Path:
    """A Python that has coredis and redis-py, and not us: `make compare` makes it."""
    python = Path(__file__).parent.parent / ".venv-compare" / "bin" / "python"
    if not python.exists():
        pytest.skip("no environment with coredis: run `make compare`")
    return python
