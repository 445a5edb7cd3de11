"""A user of an embedded server, to be killed.

Usage: holder.py DIRECTORY [forks]; DIRECTORY ``-`` means a temporary server. Prints a line of JSON
and holds the server until its standard input ends. `forks`: a child outlives it by a minute.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path

from penstock.backends.embedded import EmbeddedServer


async def main(directory: str) -> None:
    temporary = directory == "-"
    where = None if temporary else Path(directory)
    async with await EmbeddedServer.open(where, temporary=temporary, timeout=20.0) as server:
        child = fork() if sys.argv[2:] == ["forks"] else 0
        facts = {"server": server.pid, "keeper": server.keeper_pid, "socket": server.socket}
        print(json.dumps({**facts, "child": child}), flush=True)
        await asyncio.to_thread(sys.stdin.read)


def fork() -> int:
    child = os.fork()
    if child == 0:
        time.sleep(60.0)
        os._exit(0)
    return child


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
