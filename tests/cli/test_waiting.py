"""Commands that take their time: they look together, go on after an outage, and say why."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import redis

from penstock import BackendUnavailable
from penstock.backends.redis import rescue as rescuer
from penstock.backends.redis.rescue import Holder
from penstock.cli import rescuing
from penstock.cli.commands import penstock
from penstock.cli.render import Table
from penstock.cli.showing import Shown, watch
from streams.helping import soon

pytestmark = pytest.mark.one_loop


async def test_watching_outlasts_a_server_that_is_away(capsys: pytest.CaptureFixture[str]) -> None:
    said: list[int] = []

    async def look() -> Shown:
        said.append(1)
        if len(said) in (2, 3):
            raise BackendUnavailable("redis must answer")
        return Shown([Table(("n",), [(len(said),)])])

    watching = asyncio.create_task(watch(look, 0.01, as_json=True))
    await soon(lambda: len(said) >= 6, "it goes on")
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    shown = capsys.readouterr()
    assert shown.out.splitlines()[:3] == ['{"n":1}', '{"n":4}', '{"n":5}']
    assert shown.err.count("redis must answer; looking again") == 1


def test_all_groups_are_watched_for_the_same_lease(
    stored: redis.Redis,
    embedded_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One behind the other, ten groups would take five minutes without a word."""
    stored.xadd("orders", {"n": 1})
    for name in ("a", "b", "c"):
        stored.xgroup_create("orders", name, "0")
    together, real = asyncio.Barrier(3), rescuer.holders

    async def holders(link: Any, key: str, group: str, idle: float) -> Sequence[Holder]:
        await together.wait()
        await asyncio.sleep(0.05)
        return await real(link, key, group, idle)

    monkeypatch.setattr(rescuer, "holders", holders)
    monkeypatch.setattr(rescuing, "PATIENCE", 0.01)
    code = penstock.main(["rescue", "orders", "--url", embedded_url], standalone_mode=False)
    assert code == 0
    assert "watching members of Penstock" in capsys.readouterr().err
