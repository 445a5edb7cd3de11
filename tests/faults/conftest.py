"""Fixtures of the fault tests."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.machinery import Team


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    """Workers, all of them gone when the test ends."""
    team = Team(tmp_path)
    try:
        yield team
    finally:
        team.close()


@pytest.fixture(autouse=True)
def no_exception_is_left_behind(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test after which asyncio complains of an exception that nobody looked at."""
    yield
    gc.collect()
    said = [record.getMessage() for record in caplog.records if record.name == "asyncio"]
    assert not said, said
