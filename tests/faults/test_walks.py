"""Random walks of members and of a lone App: what went in comes out, and nothing is left lying.

``--walks=200`` walks more seeds; ``--first-walk=17 --walks=1`` one again. Time decides some of it:
a seed is a kind of walk, not a recording, and one that has failed may need several tries.
"""

from __future__ import annotations

import pytest

from faults import memory_walks, shard_walks, walks
from penstock.backends.redis import takeovers
from penstock.streams import membership

pytestmark = pytest.mark.one_loop


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    first = metafunc.config.getoption("--first-walk")
    count = metafunc.config.getoption("--walks")
    metafunc.parametrize("seed", range(first, first + count))


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds that the server, or a leaving member, is believed in."""
    monkeypatch.setattr(takeovers, "BLOCK", 0.5)
    monkeypatch.setattr(takeovers, "GRACE", 0.3)
    monkeypatch.setattr(membership, "LEAVING", 0.5)


async def test_members_lose_and_leave_nothing(servers: str, seed: int) -> None:
    await walks.members(servers, seed)


async def test_a_lone_app_loses_and_leaves_nothing(servers: str, seed: int) -> None:
    await walks.lone_app(servers, seed)


async def test_members_that_share_shards_lose_nothing_and_keep_the_order_of_keys(
    servers: str, seed: int
) -> None:
    await shard_walks.members(servers, seed)


async def test_members_that_share_shards_in_memory_are_their_twins(seed: int) -> None:
    await memory_walks.members(seed)
