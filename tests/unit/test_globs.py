"""Globs mean what the server's mean, and every text is one."""

from __future__ import annotations

import random

import pytest

from penstock import connect
from penstock.rules.globs import glob, literal_prefix

pytestmark = pytest.mark.one_loop

_CHARS = r"ab-^![]*?\:é" + "\n\0"


async def test_globs_mean_what_the_servers_mean(redis7_url: str) -> None:
    """Names and patterns of all that is special, against the server's own matcher."""
    chance = random.Random(7)
    names = {"".join(chance.choices("ab-^:", k=chance.randint(1, 4))) for _ in range(60)}
    patterns = ["a*", "*b", "?", "a?b", "[ab]", "[^a]*", "[a-b]?", r"\a", "a-[b]", "**:*", "a"]
    patterns += ["".join(chance.choices("ab-*?:", k=chance.randint(1, 5))) for _ in range(60)]
    async with connect(redis7_url) as client:
        for name in names:
            await client.redis.xadd(name, {"n": 1})
        for pattern in patterns:
            keys = {key.decode() for key in await client.redis.keys(pattern)}
            assert {name for name in names if glob(pattern).fullmatch(name)} == keys, pattern
            assert set(await client.streams(pattern)) == keys, pattern


def test_every_text_is_a_pattern() -> None:
    """Unfinished classes, lone backslashes, NULs and newlines: they match themselves or nothing."""
    chance = random.Random(8)
    for _ in range(3000):
        pattern = "".join(chance.choices(_CHARS, k=chance.randint(0, 8)))
        prefix = literal_prefix(pattern)
        for name in ("", pattern, "a", "ab\n"):
            if glob(pattern).fullmatch(name):
                assert name.startswith(prefix)
    assert glob("a\nb").fullmatch("a\nb")
    assert not glob("a").fullmatch("a\n")
    assert glob("[").fullmatch("[")
    assert glob("\\").fullmatch("\\")
