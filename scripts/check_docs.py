"""Check that every link of the papers that stays within the repository leads somewhere.

Reads each Markdown file; follows relative links to files and to headings (GitHub's anchors).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *#*$", re.MULTILINE)
FENCE = re.compile(r"^ *(```|~~~).*?^ *\1 *$", re.MULTILINE | re.DOTALL)


def main() -> int:
    """Print each dead link as ``file: link``; 1 if there is one."""
    files = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")])
    dead = [f"{file.relative_to(ROOT)}: {link}" for file in files for link in dead_links(file)]
    print("\n".join([*dead, f"{len(files)} papers, {len(dead)} dead links"]))
    return 1 if dead else 0


def dead_links(file: Path) -> Iterator[str]:
    """The links of *file* that lead nowhere."""
    for link in LINK.findall(prose(file)):
        path, _, anchor = link.partition("#")
        target = file.parent / path if path else file
        if re.match(r"[a-z]+:", link):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield link


def prose(file: Path) -> str:
    """The text without code blocks, in which brackets mean other things."""
    return FENCE.sub("", file.read_text(encoding="utf-8"))


def anchors(file: Path) -> set[str]:
    """The anchors of the headings, as GitHub makes them."""
    if file.suffix != ".md":
        return set()
    titles = (title.lower() for title in HEADING.findall(prose(file)))
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


if __name__ == "__main__":
    sys.exit(main())
