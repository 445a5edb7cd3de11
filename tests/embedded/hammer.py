"""Many users that come and go at once: each counts its visits in the server.

Usage: hammer.py DIRECTORY USERS ROUNDS. Prints nothing and ends with 0 if no visit failed.
"""

import asyncio
import random
import sys
from pathlib import Path

from machinery import talk

from penstock.backends.embedded import EmbeddedServer


async def visit(directory: Path, rounds: int) -> None:
    for _ in range(rounds):
        async with await EmbeddedServer.open(directory, timeout=40.0) as server:
            reply = await asyncio.to_thread(talk, server.socket, "INCR visits")
            assert reply.startswith(":"), reply
        await asyncio.sleep(random.random() * 0.2)


async def main(directory: Path, users: int, rounds: int) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(users):
            group.create_task(visit(directory, rounds))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
