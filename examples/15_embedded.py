"""A server of one's own: no installation, no port, shared by programs, gone with the last."""

import asyncio
import tempfile

import penstock
from penstock import END, OLDEST


async def append(url: str, who: str) -> None:
    async with penstock.connect(url) as client:
        await client.stream("diary").append({"who": who})


async def main(directory: str) -> None:
    # In a directory: whoever opens it first starts the server, the last to leave ends it.
    url = f"embedded://{directory}"
    await asyncio.gather(append(url, "one"), append(url, "two"))  # at once, and one server

    # Its data is on disk (AOF): it is there again when the server is started anew.
    async with penstock.connect(url) as client:
        async with client.stream("diary").reader(start=OLDEST, until=END) as reader:
            print("read again:", sorted([event.value["who"] async for event in reader]))
        info = await client.redis.info("server")
        print("no port:", info["tcp_port"])

    # Without a directory, embedded:// is the user's own server; ?temporary is a fresh one.
    async with penstock.connect("embedded://?temporary") as client:
        print("temporary:", await client.stream("diary").length())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        asyncio.run(main(directory))

# Prints:
#  | read again: ['one', 'two']
#  | no port: 0
#  | temporary: 0
