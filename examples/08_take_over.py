"""Two members share a stream; one is killed with -9, and the other takes over what it held."""

import asyncio
import sys
import tempfile

import penstock

LEASE = 2.0  # seconds without a heartbeat after which a member is dead to the others


async def bob(url: str) -> None:
    """A process of its own: it takes events, and finishes none."""
    async with (
        penstock.connect(url) as client,
        client.stream("orders").group("billing", member="bob", lease=LEASE) as group,
    ):
        async for event in group:
            print("bob has", event.value["id"], flush=True)


async def main(url: str) -> None:
    async with penstock.connect(url) as client:
        orders = client.stream("orders")
        await orders.append_many([{"id": number} for number in range(3)])

        process = await asyncio.create_subprocess_exec(
            sys.executable, __file__, url, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        for _ in range(3):
            print((await process.stdout.readline()).decode().strip())

        async with orders.group("billing", member="alfred", lease=LEASE) as group:
            # Leases are the members', not the events': the living keep what they hold.
            print("alfred gets", await group.receive(timeout=1.5 * LEASE))

            process.kill()  # SIGKILL: nothing is handed back, nobody says good-bye
            await process.wait()
            for _ in range(3):
                event = await group.receive(timeout=10.0)
                assert event is not None
                async with group.handling(event):
                    print(f"alfred has {event.value['id']}, again: {event.deliveries > 1}")


if __name__ == "__main__" and sys.argv[1:]:
    asyncio.run(bob(sys.argv[1]))
elif __name__ == "__main__":  # a server of its own, which both processes share
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        asyncio.run(main(f"embedded://{directory}"))

# Prints:
#  | bob has 0
#  | bob has 1
#  | bob has 2
#  | alfred gets None
#  | alfred has 0, again: True
#  | alfred has 1, again: True
#  | alfred has 2, again: True
