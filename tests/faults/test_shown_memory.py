"""Shown in small: a member that is ten times too slow does not grow (10 million by command)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_a_slow_member_does_not_grow() -> None:
    """Groups of both kinds, a reader and an App, before a hundred thousand events that wait."""
    command = [sys.executable, "slow_member.py", "--events", "100000", "--seconds", "4"]
    done = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" ok") == 4
