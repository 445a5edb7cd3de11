"""Calibration: how slow this machine is at the moment, against a desk's.

Does        time what the lab is made of (a little Python, a new process that imports us), and give
            the factor by which bounds of time grow.
Does not    make a bound tighter: a fast machine counts as 1.
"""

from __future__ import annotations

import subprocess
import sys
import time

_START = 0.45  # seconds from nothing to `import penstock`, on a desk's machine that is idle
_WORK = 0.03  # seconds of the little Python there
MOST = 12.0
"""A factor above this says that something else is wrong."""


def slowness() -> float:
    """The factor, from 1 to `MOST`."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import penstock, redis"], check=True)
    start = (time.monotonic() - began) / _START
    began = time.monotonic()
    sum(i * i for i in range(400_000))
    work = (time.monotonic() - began) / _WORK
    return min(MOST, max(1.0, start, work))
