"""Conformance: the suite that every backend must pass. The same meaning on every backend.

Does        collect the checks, by what a backend says that it offers.
Does not    run them: any test runner can, a check is an async function that takes a `Harness`.
Invariants  1. checks know the ports and nothing of any backend; they may run in parallel.
            2. a docstring states the promise; AssertionError means that it is not kept.
Used by     tests/conformance, one short file for each backend; backends of others.

    @pytest.mark.parametrize("check", checks(FEATURES), ids=name_of)
    async def test_conformance(check: Check) -> None:
        await check(MyHarness())
"""

from __future__ import annotations

from penstock.ports import Features
from penstock.testing.conformance_appends import APPEND_CHECKS
from penstock.testing.conformance_cursors import CURSOR_CHECKS
from penstock.testing.conformance_groups import EVENT_GROUP_CHECKS
from penstock.testing.conformance_log import LOG_CHECKS
from penstock.testing.conformance_retention import RETENTION_CHECKS
from penstock.testing.conformance_sharding import SHARDING_CHECKS
from penstock.testing.conformance_shards import SHARD_GROUP_CHECKS
from penstock.testing.conformance_tools import Backend, Check, Harness

__all__ = [
    "APPEND_CHECKS",
    "CURSOR_CHECKS",
    "EVENT_GROUP_CHECKS",
    "LOG_CHECKS",
    "RETENTION_CHECKS",
    "SHARDING_CHECKS",
    "SHARD_GROUP_CHECKS",
    "Backend",
    "Check",
    "Harness",
    "checks",
    "name_of",
]


def checks(features: Features) -> list[Check]:
    """The checks that a backend with *features* must pass."""
    return [
        *LOG_CHECKS,
        *APPEND_CHECKS,
        *CURSOR_CHECKS,
        *RETENTION_CHECKS,
        *(SHARDING_CHECKS if features.shards else ()),
        *(EVENT_GROUP_CHECKS if features.event_groups else ()),
        *(SHARD_GROUP_CHECKS if features.shard_groups else ()),
    ]


def name_of(check: Check) -> str:
    """What a test report calls *check*."""
    return getattr(check, "__name__", repr(check)).removeprefix("check_")
