"""What a user sees when the disk is full. To be run in a mount namespace of its own.

Usage: full_disk.py MOUNTPOINT. Prints a line of JSON: what a write was told on a full disk, what
it was told once there was room again, and which error `open` raises on a full disk.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

from machinery import talk

from penstock.backends.embedded import EmbeddedServer
from penstock.errors import PenstockError


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (1 << 16, 1 << 10, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)


def write_until(socket: str, wanted: str) -> str:
    deadline = time.monotonic() + 15.0
    while not (reply := talk(socket, f"SET key {'x' * 5000}")).startswith(wanted):
        assert time.monotonic() < deadline, reply
        time.sleep(0.01)
    return reply


async def main(disk: Path) -> None:
    filler = disk / "filler"
    async with await EmbeddedServer.open(disk / "data") as server:
        fill(filler)
        full = write_until(server.socket, "-MISCONF")
        filler.unlink()
        again = write_until(server.socket, "+OK")
    fill(filler)
    try:
        server = await EmbeddedServer.open(disk / "other")
    except PenstockError as error:
        start = f"{type(error).__name__}: {error}"
    else:
        await server.aclose()
        start = "it started"
    print(json.dumps({"full": full, "again": again, "start": start}))


if __name__ == "__main__":
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", sys.argv[1]], check=True)
    asyncio.run(main(Path(sys.argv[1])))
