"""A reply that is lost doubles nothing: an append is stored once, in order, whatever is cut."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from faults.machinery import HERE, STREAM, asked, stored, through_proxy
from faults.scenarios import EVERY, append_through_losses

pytestmark = pytest.mark.one_loop

APPENDS = 100_000


@pytest.mark.conformance("CR-046", "SS-020")
async def test_a_lost_reply_stores_nothing_twice_and_keeps_the_order(
    servers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = await append_through_losses(servers, APPENDS)
    entries = stored(servers)
    with capsys.disabled():
        print(f"\n  ours: {APPENDS} appends, {len(entries)} entries, {lost} replies lost")
    assert lost >= 10, "the fault did not bite"
    assert entries == list(range(APPENDS))


@pytest.mark.parametrize("library", ["redis-py", "coredis"])
@pytest.mark.parametrize(("how", "appends"), [("pipeline", APPENDS), ("single", APPENDS // 10)])
async def test_other_clients_double_theirs(
    embedded_url: str,
    compare_python: Path,
    library: str,
    how: str,
    appends: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with through_proxy(embedded_url) as (proxy, bad_url):
        proxy.swallow_replies(EVERY, when=lambda piece: b"-" in piece)
        words = [compare_python, HERE / "others.py", library, how, bad_url, STREAM, str(appends)]
        process = await asyncio.create_subprocess_exec(
            *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        said, complaints = await process.communicate()
        proxy.swallow_replies(0)
    assert process.returncode == 0, complaints.decode()
    reported = json.loads(said)["reported"]
    length = asked(embedded_url, "XLEN", STREAM)
    with capsys.disabled():
        print(
            f"\n  {library}, {how}: {reported} appends reported as stored, {length} entries, "
            f"{proxy.resets} replies lost, {len(complaints.splitlines())} errors raised"
        )
    assert length > reported
