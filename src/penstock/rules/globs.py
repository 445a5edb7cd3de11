"""Globs: which names a pattern means, the same on every backend.

Does        make a regular expression of a glob as Redis knows it: ``*``, ``?``, ``[a-z]``,
            ``[^a]``, and a backslash before what is meant as it stands.
Does not    match topics: `rules/filters.py` does.
Invariants  1. every text is a pattern: what is no class is taken as it stands.
Source      Redis KEYS; POSIX' ``[!a]`` is taken too.
"""

from __future__ import annotations

import re
from typing import Final

_PART: Final = re.compile(
    r"(?P<any>\*+)|(?P<one>\?)|\[(?P<not>[\^!]?)(?P<of>(?:\\.|[^\]\\])+)\]|\\?(?P<text>.)",
    re.DOTALL,
)


def glob(pattern: str) -> re.Pattern[str]:
    """What *pattern* matches, as a whole."""
    return re.compile("".join(map(_translated, _PART.finditer(pattern))), re.DOTALL)


def literal_prefix(pattern: str) -> str:
    """What every name begins with that *pattern* matches."""
    return re.split(r"[*?\[\\]", pattern, maxsplit=1)[0]


def _translated(part: re.Match[str]) -> str:
    if part["any"]:
        return ".*"
    if part["one"]:
        return "."
    if part["of"]:
        return f"[{'^' if part['not'] else ''}{_inside(part['of'])}]"
    return re.escape(part["text"])


def _inside(chars: str) -> str:
    """The characters of a class, with its ranges; one that ends before it begins is turned."""
    found: list[str] = []
    for single in re.finditer(r"(?P<a>\\.|.)-(?P<b>\\.|.)|(?P<c>\\.|.)", chars, re.DOTALL):
        if single["c"]:
            found.append(re.escape(single["c"][-1]))
        else:
            low, high = sorted((single["a"][-1], single["b"][-1]))
            found.append(f"{re.escape(low)}-{re.escape(high)}")
    return "".join(found)
