"""The memory backend passes the whole suite, and thereby says what it means."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from penstock.backends.memory import MemoryBackend
from penstock.testing.conformance import Check, checks, name_of


class MemoryHarness:
    """Clients of one name, on the machine's clock."""

    features = MemoryBackend.features
    lease = 0.4
    names = itertools.count()

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[MemoryBackend]:
        """A new client of the same log."""
        backend = MemoryBackend("conformance")
        yield backend
        await backend.aclose()

    def fresh_name(self) -> str:
        """A stream that nobody has used."""
        return f"stream-{next(self.names)}"


@pytest.mark.parametrize("check", checks(MemoryHarness.features), ids=name_of)
@pytest.mark.conformance("SS-071")
async def test_conformance(check: Check) -> None:
    """Each promise, as its docstring states it."""
    await check(MemoryHarness())
