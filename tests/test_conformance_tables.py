"""Every line of every checklist has its test or its reason, and the pages say so.

The first test is the check itself; the others show that it would find what is wrong.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent

LIST = """
TITLE = "What is shown"
PAGE = "docs/page.md"
PREFIX = "X"
SECTIONS = {"First": {"X-001": "one | holds", "X-002": "two holds"}, "Last": {"X-003": "three"}}
FIX = frozenset({"X-002"})
REASONS = {"X-003": "cannot be here"}
"""

TESTS = """
import pytest

@pytest.mark.conformance("X-001")
@pytest.mark.parametrize("n", [1, 2])
def test_one(n): ...

@pytest.mark.conformance("X-001", "X-002")
async def test_both(): ...

class TestThings:
    @pytest.mark.conformance("X-002")
    def test_inside(self): ...
"""


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("conformance", ROOT / "scripts/conformance.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


conformance = load()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose page is up to date."""
    (tmp_path / "tests" / "things").mkdir(parents=True)
    (tmp_path / "tests" / "things" / "checklist.py").write_text(LIST)
    (tmp_path / "tests" / "things" / "test_things.py").write_text(TESTS)
    assert conformance.main([f"--root={tmp_path}"]) == 0
    return tmp_path


def check(root: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The faults that ``--check`` finds, after the page was written anew."""
    conformance.main([f"--root={root}"])
    return found(root, capsys)


def found(root: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The faults that ``--check`` finds."""
    capsys.readouterr()
    code = conformance.main(["--check", f"--root={root}"])
    *faults, summary = capsys.readouterr().out.splitlines()
    assert f", {len(faults)} faults" in summary
    assert code == (1 if faults else 0)
    return faults


def change(root: Path, name: str, old: str, new: str) -> None:
    file = root / "tests" / "things" / name
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_every_line_has_its_test_or_its_reason_and_the_pages_say_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """``python scripts/conformance.py`` writes the pages; this fails until they are right."""
    faults = found(ROOT, capsys)
    assert not faults, "\n".join(faults)


def test_a_page_shows_each_line_with_its_tests_or_its_reason(checkout: Path) -> None:
    """Sections as headings; several tests under each other; a bar does not end a cell."""
    page = (checkout / "docs/page.md").read_text()
    assert page.startswith("# What is shown\n")
    assert page.index("## First") < page.index("X-001") < page.index("## Last")
    rows = [row for row in page.splitlines() if row.startswith("| X-")]
    place = "tests/things/test_things.py"
    assert rows == [
        f"| X-001 | one \\| holds | `{place}::test_one`<br>`{place}::test_both` |",
        f"| X-002 FIX | two holds | `{place}::test_both`<br>`{place}::TestThings::test_inside` |",
        "| X-003 | three | *cannot be here* |",
    ]


def test_a_checklist_that_is_complete_has_no_fault(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is complete passes, so that the faults below are found for what they are."""
    assert found(checkout, capsys) == []


def test_checking_writes_nothing(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A page that is missing is a fault, and stays missing."""
    (checkout / "docs/page.md").unlink()
    assert found(checkout, capsys) == ["docs/page.md: not up to date; run scripts/conformance.py"]
    assert not (checkout / "docs/page.md").exists()


def test_a_page_that_was_edited_is_a_fault(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So is one that was written before a test was renamed."""
    change(checkout, "test_things.py", "test_both", "test_two")
    assert found(checkout, capsys) == ["docs/page.md: not up to date; run scripts/conformance.py"]
    assert check(checkout, capsys) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "fault"),
    [
        (
            "checklist.py",
            'REASONS = {"X-003": "cannot be here"}',
            "REASONS = {}",
            "X-003: neither a test nor a reason",
        ),
        (
            "test_things.py",
            '"X-002")\nasync',
            '"X-003")\nasync',
            "X-003: a test, and a reason why there is none",
        ),
        (
            "test_things.py",
            '"X-001", "X-002"',
            '"X-001", "Y-009"',
            "tests/things/test_things.py::test_both: no line Y-009",
        ),
        (
            "test_things.py",
            "async def test_both",
            "async def shows_both",
            "tests/things/test_things.py::shows_both: pytest does not collect this",
        ),
        (
            "test_things.py",
            '"X-001", "X-002"',
            '"X-001", LINE',
            (
                "tests/things/test_things.py::test_both: "
                "the mark must name lines, each as plain text"
            ),
        ),
        (
            "test_things.py",
            "import pytest\n",
            "import pytest\npytestmark = [pytest.mark.smoke, pytest.mark.conformance()]\n",
            "tests/things/test_things.py: the mark must name lines, each as plain text",
        ),
        (
            "checklist.py",
            '"X-002": "two holds"',
            '"X-004": "two holds"',
            ("tests/things/checklist.py: the lines must be X-001, … in their order, without a gap"),
        ),
        (
            "checklist.py",
            'FIX = frozenset({"X-002"})',
            'FIX = frozenset({"X-020"})',
            "tests/things/checklist.py: FIX or REASONS name X-020, which is no line",
        ),
    ],
)
def test_what_is_wrong_is_named(
    checkout: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    old: str,
    new: str,
    fault: str,
) -> None:
    """Each fault in a line of its own."""
    change(checkout, name, old, new)
    assert fault in check(checkout, capsys)


def test_a_mark_that_does_not_count_shows_nothing(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line is not shown by a function that pytest never runs."""
    change(checkout, "test_things.py", '"X-001", "X-002"', '"X-001"')
    change(checkout, "test_things.py", "def test_inside", "def inside")
    assert "X-002: neither a test nor a reason" in check(checkout, capsys)
    assert "inside" not in (checkout / "docs/page.md").read_text()


def test_a_mark_outside_a_test_module_shows_nothing(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only what pytest reads counts: files test_*.py."""
    things = checkout / "tests" / "things"
    (things / "test_things.py").rename(things / "things.py")
    faults = check(checkout, capsys)
    assert "tests/things/things.py::test_one: pytest does not read this file" in faults
    assert "X-001: neither a test nor a reason" in faults


def test_several_checklists_have_a_page_each(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another module of data, with another prefix and page, is found by its name."""
    other = LIST.replace("X-", "Y-").replace('"X"', '"Y"').replace("page.md", "other.md")
    (checkout / "tests" / "things" / "checklist_more.py").write_text(other)
    assert check(checkout, capsys) == [
        "Y-001: neither a test nor a reason",
        "Y-002: neither a test nor a reason",
    ]
    assert "X-001" in (checkout / "docs/page.md").read_text()
    assert "**nothing**" in (checkout / "docs/other.md").read_text()
