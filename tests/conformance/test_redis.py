"""The Redis backend passes the suite, on Valkey and on the oldest Redis that is supported."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from secrets import token_hex
from urllib.parse import urlsplit

import pytest

from penstock.backends.redis.link import Address
from penstock.backends.redis.log import RedisBackend
from penstock.testing.conformance import Check, Harness, checks, name_of


class RedisHarness:
    lease = 0.6
    features = RedisBackend.features

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = Address(host=parts.hostname or "", port=parts.port or 0)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[RedisBackend]:
        backend = RedisBackend(self._address)
        await backend.open()
        try:
            yield backend
        finally:
            await backend.aclose()

    def fresh_name(self) -> str:
        return f"conformance-{token_hex(6)}"


@pytest.mark.parametrize("check", checks(RedisBackend.features), ids=name_of)
@pytest.mark.conformance("SS-071")
async def test_redis(check: Check, servers: str) -> None:
    harness: Harness = RedisHarness(servers)
    await check(harness)
