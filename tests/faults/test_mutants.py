"""A test of the tests: each broken piece of machinery must be noticed by its scenario."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from faults.lab import mutants
from faults.machinery import stored
from faults.scenarios import (
    append_through_losses,
    claim_of_one_who_came_back,
    late_acks,
    take_up_a_name,
)
from penstock.backends.redis import (
    append_scripts,
    appender,
    claims,
    dialing,
    group_scripts,
    script_list,
)
from penstock.backends.redis.member import RedisMember
from penstock.backends.redis.scripts import Script
from penstock.backends.redis.takeovers import Takeovers

pytestmark = pytest.mark.one_loop


def mutate(script: Script, *changes: tuple[str, str]) -> Script:
    """The script with each text replaced; every change must find its text."""
    lua = script.text
    for old, new in changes:
        assert old in lua, f"the script has changed: {old!r} is not in it"
        lua = lua.replace(old, new)
    return Script(script.keys, lua)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a mutant of a script where it is used and loaded."""

    def install(module: Any, name: str, mutant: Script) -> None:
        original = getattr(module, name)
        monkeypatch.setattr(module, name, mutant)
        every = tuple(mutant if script is original else script for script in script_list.ALL)
        monkeypatch.setattr(dialing, "ALL", every)

    return install


async def test_appends_that_do_not_check_their_sequence_are_noticed(
    embedded_url: str, install: Any
) -> None:
    forgetful = mutate(
        append_scripts.APPEND,
        ("if sequence <= last then", "if false then"),
        ("if sequence ~= last + 1 then", "if false then"),
    )
    install(appender, "APPEND", forgetful)
    assert await append_through_losses(embedded_url, 20_000)
    assert stored(embedded_url) != list(range(20_000))


@pytest.mark.conformance("PU-041")
async def test_a_claim_without_its_fence_is_noticed(embedded_url: str, install: Any) -> None:
    thief = mutate(group_scripts.CLAIM, ("if beat ~= ARGV[5] then", "if false then"))
    install(claims, "CLAIM", thief)
    assert await claim_of_one_who_came_back(embedded_url) < 10


async def test_a_dead_member_that_acks_as_if_it_lived_is_noticed(
    embedded_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RedisMember, "_may_be_dead", lambda _: False)
    left, _ = await late_acks(embedded_url)
    assert left < 10


@pytest.mark.conformance("SS-051")
async def test_a_claim_that_ends_with_its_first_page_is_noticed(
    embedded_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Takeovers._take

    async def first_page_alone(self: Takeovers, claim: Any, limit: int) -> Any:
        page = await take(self, claim, limit)
        self._claims = deque(other for other in self._claims if other.owner != claim.owner)
        return page

    monkeypatch.setattr(Takeovers, "_take", first_page_alone)
    assert await take_up_a_name(embedded_url, 2000) < 2000


@pytest.mark.parametrize("name", sorted(mutants.MUTANTS))
def test_a_mutant_of_the_lab_finds_its_place(name: str) -> None:
    """Here, too, since the lab takes minutes: what was renamed must be renamed there."""
    become = f"from faults.lab import mutants; mutants.install({name!r})"
    tests = str(Path(__file__).parents[1])
    path = os.pathsep.join([tests, *filter(None, [os.environ.get("PYTHONPATH")])])
    words, environment = [sys.executable, "-c", become], {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
