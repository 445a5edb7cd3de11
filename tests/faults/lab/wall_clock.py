"""WallClock: a server's wall clock that steps at command.

Does        compile the shim with the system's C compiler, and set the offset that it adds.
Does not    touch this machine's clock, or any other process.
Invariants  without a compiler there is none, and the lab says that it stepped no clock.
Source      reliability notes E8: libfaketime ends servers that use jemalloc; this does not.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from pathlib import Path

_SOURCE = Path(__file__).with_name("clock_shim.c")


class WallClock:
    """The offset of one server's wall clock. `env` is what the server is started with."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None or sys.platform != "linux":
            raise FileNotFoundError("no C compiler, or not Linux: no clock is stepped")
        library = folder / "clock_shim.so"
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, _SOURCE], check=True)
        self._file = folder / "clock"
        self._file.write_bytes(struct.pack("d", 0.0))
        self.env = {"LD_PRELOAD": str(library), "PENSTOCK_CLOCK": str(self._file)}

    def step(self, seconds: float) -> None:
        """The server's wall clock is *seconds* ahead of this machine's from now on."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("d", seconds))
